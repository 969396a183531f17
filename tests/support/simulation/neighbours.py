"""What the services talk to in a simulation: a broker, hosts, a git server, a log of requests. Each as faulty as its seed says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from rollout.domain.pipeline import Ring
from rollout.errors import (
    AuthRefused,
    HostError,
    HostKeyRefused,
    LeaseLost,
    MetricUnavailable,
    OutcomeUnknown,
    ServiceUnavailable,
    StepFailed,
    Unreachable,
)
from rollout.store.store import Store, Transaction
from tests.support.model_host import (
    GREETED,
    HEALTH,
    SENDING,
    WAITING,
    Call,
    ModelHost,
    Steps,
    prepare_call,
    status_call,
    switch_call,
)
from tests.support.simulation.timeline import Task, Timeline
from tests.support.world import ModelFleet, ModelMetrics, ModelWorkshop

CONNECT_S = 5.0  # how long a host that is not there is waited for
LONGEST_RESTART_S = 60


@dataclass(frozen=True)
class Weather:
    """How often what goes wrong, of all the times it could: 0 is never."""

    messages_lost: float = 0.0
    messages_doubled: float = 0.0
    messages_late_s: float = 0.1  # at most
    orders_lost: float = 0.0  # or their answers, and the connection with them
    orders_late: float = 0.0  # by some of a lease's seconds
    hosts_die: float = 0.0  # at a moment of a call
    workers_killed: float = 0.0  # at a step
    workers_stand: float = 0.0  # at a step
    bytes_spoilt: float = 0.0
    callers_cut: float = (
        0.0  # a permitted order goes on without its worker, which knows at once that it is cut off
    )
    threads_late: float = (
        0.0  # before a transaction, by some seconds or a minute, while its process keeps its leases
    )
    readings_odd: float = 0.0  # neither an answer nor silence: no process, another key, no login


FAIR = Weather()


class SteppedStore(Store):
    """A process's store: others come between its transactions, and it may die there."""

    def __init__(self, store: Store, timeline: Timeline) -> None:
        self.__dict__ = store.__dict__ | {"timeline": timeline, "inner": store}
        self.weather = FAIR

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """As ever."""
        self.timeline.step()
        if self.weather.threads_late and self.timeline.chance.random() < self.weather.threads_late:
            self.timeline.sleep(self.timeline.chance.choice([3.0, 10.0, 30.0, 60.0]))
        with self._open(self.inner.transaction) as tx:
            yield tx
        self.timeline.step()

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """As ever."""
        with self._open(self.inner.reading) as tx:
            yield tx

    @contextmanager
    def _open(self, begin: Callable[[], Any]) -> Iterator[Transaction]:
        self.timeline.open_transactions += 1
        try:
            with begin() as tx:
                yield tx
        finally:
            self.timeline.open_transactions -= 1


class Broker:
    """Messages under way. It loses, doubles and delays them; `replace` is an empty one in its place."""

    def __init__(
        self, timeline: Timeline, deliver: Callable[[Ring], bool], tell: Callable[..., None]
    ) -> None:
        self.timeline, self.deliver, self.tell = timeline, deliver, tell
        self.weather, self.down_until, self.generation = FAIR, 0.0, 0
        self.revoked: set[int] = set()
        self.waiting = 0

    @property
    def down(self) -> bool:
        """It does not answer."""
        return self.timeline.seconds < self.down_until

    def send(self, ring: Ring, after_s: float = 0.0) -> None:
        """One message on its way, or two, or none."""
        chance, weather = self.timeline.chance, self.weather
        if chance.random() < weather.messages_lost:
            self.tell("lost", ring)
            return
        for _ in range(3 if chance.random() < weather.messages_doubled else 1):
            late = chance.random() * weather.messages_late_s
            self.waiting += 1
            self.timeline.spawn(partial(self._arrive, ring, self.generation), after_s=after_s + late)

    def _arrive(self, ring: Ring, generation: int) -> None:
        while generation == self.generation:
            if self.down:
                self.timeline.sleep(1.0)
            elif ring.rollout in self.revoked and ring.revocable:
                self.tell("revoked", ring)
                break
            elif self.deliver(ring):
                break
            else:
                self.timeline.sleep(0.5)
        self.waiting -= 1

    def replace(self) -> None:
        """Everything that was in it is gone, what was revoked too."""
        self.generation += 1
        self.revoked.clear()

    # -- services.ports.Bell -----------------------------------------------------------------------------------------------

    def ring(self, rings: list[Ring]) -> bool:
        """As a Bell does."""
        if rings:
            self.timeline.step()
        if self.down:
            return False
        for ring in rings:
            self.send(ring)
        return True

    def revoke(self, rollout: int) -> bool:
        """Workers remember it, if they hear it."""
        if not self.down and self.timeline.chance.random() >= self.weather.messages_lost:
            self.revoked.add(rollout)
        return not self.down

    def alive(self) -> bool:
        """It answers."""
        return not self.down

    def crowded(self) -> bool:
        """Somebody waits."""
        return self.down or self.waiting > 0

    def count(self) -> int:
        """What waits."""
        return self.waiting


class SimulatedFleet(ModelFleet):
    """ModelHosts on which calls go on by themselves: they take time, outlive their callers, and die with the host."""

    def __init__(self, names: list[str], timeline: Timeline, tell: Callable[..., None]) -> None:
        super().__init__(names)
        self.timeline, self.tell = timeline, tell
        self.weather = FAIR
        self.running = {name: dict[Call, Task]() for name in names}
        self.on_their_way = set[Call]()  # permitted, and not yet there
        self.alone = set[Call]()  # permitted, and nobody waits for what becomes of them
        self.slow = dict.fromkeys(names, 1.0)
        self.to_come = set[str]()  # not in the fleet yet
        for host in self.hosts.values():
            host.clock, host.today = (lambda: timeline.seconds), timeline.today

    def members(self, config: Any) -> list[Any]:
        """Without those that are to come."""
        return [member for member in super().members(config) if member.name not in self.to_come]

    # -- what befalls hosts ------------------------------------------------------------------------------------------------

    def reboot(self, name: str) -> None:
        """Everything on it dies; what was not synced may be lost."""
        host, chance = self.hosts[name], self.timeline.chance
        self._cut(name)
        host.reboot(keeps_current=chance.random() < 0.7, keeps_journal=chance.random() < 0.7)

    def lose_disk(self, name: str) -> None:
        """It comes back empty."""
        self._cut(name)
        self.hosts[name].lose_disk()

    def _cut(self, name: str) -> None:
        tasks, self.running[name] = self.running[name], {}
        for task in tasks.values():
            task.kill()

    # -- services.ports.Fleet ----------------------------------------------------------------------------------------------

    def prepare(self, target, order, *, timeout_s, go_on):
        host = self._reach(target)
        call = prepare_call(host, order)
        steps = call.run()
        if next(steps, None) == SENDING:
            for _ in range(self.timeline.chance.choice([1, 1, 2, 6])):
                self._travel(target)
                if not go_on():
                    steps.close()
                    raise OutcomeUnknown(f"{host.name}: cut")
                if self._lost() or not self._there(host):
                    steps.close()
                    raise Unreachable(f"{host.name}: the connection broke")
            spoilt = self.timeline.chance.random() < self.weather.bytes_spoilt
            self._finish(host, call, steps, "spoilt" if spoilt else order.release.digest, timeout_s)
        return call.reply.outcome(call.reply.answer)

    def _switch(self, verb, target, order, permit, on_switch=None):
        host = self._reach(target)
        call = switch_call(host, verb, order)
        steps = call.run()
        assert next(steps) == GREETED
        self._travel(target)
        try:
            within = permit(call.reply.greeting())
        except BaseException:
            steps.close()
            raise
        if self._chance(self.weather.callers_cut):
            self.running[host.name][call] = self.timeline.spawn(
                lambda: self._without_its_worker(host, call, steps, within)
            )
            self.timeline.step()
            raise OutcomeUnknown(f"{host.name}: the connection broke, and the order had been sent")
        self._on_its_way(call, target)
        if self._lost() or not self._there(host):
            steps.close()
            raise OutcomeUnknown(f"{host.name}: the connection broke, and the order with it")
        self._finish(host, call, steps, within, 200.0, on_switch)
        return call.reply.outcome(call.reply.answer)

    def status(self, target, *, asked=0, seal=None, timeout_s):
        host = self._reach(target)
        call = status_call(host, asked, seal)
        odd = self._oddly(host)
        if odd is not None and self._chance(0.5):
            raise odd  # before anything of ours ran there
        self._finish(host, call, call.run(), None, timeout_s)
        if odd is not None:
            raise odd
        return call.reply.status()

    def read(self, target, program, lines, *, timeout_s):
        self._reach(target)
        return ""

    # -- inside ------------------------------------------------------------------------------------------------------------

    def _reach(self, target) -> ModelHost:
        host = self.hosts[target.name]
        self._travel(target)
        if host.unreachable:
            self.timeline.sleep(CONNECT_S)
        host.reach()
        return host

    def _travel(self, target) -> None:
        self.timeline.step()
        self.timeline.sleep(self.timeline.chance.random() * 0.1 * self.slow[target.name])

    def _on_its_way(self, call: Call, target: Any) -> None:
        """From the permission to host.sh, which may have to wait before it can read it: the machine is busy."""
        self.on_their_way.add(call)
        try:
            self._travel(target)
            if self._chance(self.weather.orders_late):
                self.timeline.sleep(self.timeline.chance.choice([1.0, 5.0, 13.0, 20.0]))
        finally:
            self.on_their_way.remove(call)

    def _without_its_worker(self, host: ModelHost, call: Call, steps: Steps, within: object) -> None:
        """The order lies on the host, and nobody hears of what becomes of it."""
        self.alone.add(call)
        try:
            self._on_its_way(call, host)
            self.timeline.sleep(self.timeline.chance.choice([0.0, 1.0, 3.0, 6.0, 12.0]))
            self.tell(host.name, "goes on alone", call.op)
            self._live(host, call, steps, within)
        finally:
            self.alone.remove(call)
            steps.close()
            self.running[host.name].pop(call, None)

    def _oddly(self, host: ModelHost) -> HostError | None:
        """What a reading raises that is no answer and no silence; of all that says nothing of what was sent before."""
        if not self._chance(self.weather.readings_odd):
            return None
        odd = self.timeline.chance.choice(
            [
                StepFailed(f"{host.name}: the command ended with 255; it said: cannot fork"),
                HostKeyRefused(f"{host.name}: its host key is not the known one"),
                AuthRefused(f"{host.name}: it refused our key"),
            ]
        )
        self.tell(host.name, "answers oddly", str(odd))
        return odd

    def _lost(self) -> bool:
        return self._chance(self.weather.orders_lost)

    def _chance(self, rate: float) -> bool:
        return self.timeline.chance.random() < rate

    @staticmethod
    def _there(host: ModelHost) -> bool:
        return not host.unreachable

    def _finish(
        self,
        host: ModelHost,
        call: Call,
        steps: Steps,
        value: object,
        timeout_s: float,
        on_switch: Callable[[], None] | None = None,
    ) -> None:
        """The host does it, whether or not anybody waits; OutcomeUnknown when no answer comes."""
        task = self.timeline.spawn(lambda: self._live(host, call, steps, value, on_switch))
        self.running[host.name][call] = task
        answered = self.timeline.wait_for(task, timeout_s)
        self.timeline.step()
        if not answered or call.reply.answer is None or self._lost() or not self._there(host):
            raise OutcomeUnknown(f"{host.name}: no answer came back")

    def _live(
        self,
        host: ModelHost,
        call: Call,
        steps: Steps,
        value: object,
        on_switch: Callable[[], None] | None = None,
    ) -> None:
        try:
            moment = steps.send(value)
            while True:
                self.tell(host.name, call.verb, call.op, moment)
                self.timeline.sleep(self._takes(host, moment))
                if moment != WAITING and self.timeline.chance.random() < self.weather.hosts_die:
                    self.tell("dies", host.name, moment)
                    self.timeline.spawn(lambda: self.reboot(host.name))
                    self.timeline.sleep(1.0)
                moment = steps.send(None)
                if on_switch is not None and "switched=yes" in call.lines:
                    on_switch()
        except StopIteration:
            pass
        finally:
            steps.close()
            self.running[host.name].pop(call, None)

    def _takes(self, host: ModelHost, moment: str) -> float:
        chance, slow = self.timeline.chance, self.slow[host.name]
        if moment == "restart":
            # The longest outlast every permission to wait for them.
            return min(chance.choice([0.1, 0.1, 1.0, 1.0, 3.0, 3.0, 20.0]) * slow, LONGEST_RESTART_S)
        return 0.5 if moment == HEALTH else 0.05 if moment == WAITING else chance.random() * 0.01 * slow


class SimulatedWorkshop(ModelWorkshop):
    """Tests take time, and the git server may be away."""

    def __init__(self, timeline: Timeline) -> None:
        super().__init__()
        self.timeline, self.down_until = timeline, 0.0

    def fetch(self, app, config, *, limit_s=None):
        self.timeline.step()
        if self.timeline.seconds < self.down_until:
            raise ServiceUnavailable("the git server does not answer")
        return super().fetch(app, config)

    def remote_head(self, app, config):
        return self.fetch(app, config)

    def run_tests(self, app, config, commit, *, go_on):
        for _ in range(self.timeline.chance.choice([1, 2, 8])):
            self.timeline.step()
            self.timeline.sleep(2.0)
            if not go_on():
                raise LeaseLost("cut off")
        return super().run_tests(app, config, commit, go_on=go_on)


class SimulatedMetrics(ModelMetrics):
    """Requests of hosts: a commit in `bad` answers badly; a log that cannot be read says so.

    What is wrong with a commit in `late` begins on all its hosts when the third one has it: no canary shows that.
    """

    def __init__(self, timeline: Timeline, fleet: SimulatedFleet) -> None:
        super().__init__()
        self.timeline, self.fleet, self.unreadable = timeline, fleet, False
        self.bad, self.late = set[str | None](), set[str | None]()
        self.clock = lambda: timeline.seconds
        self._begun: dict[str | None, float] = {}

    def share_of(self, name, role, at):
        host = self.fleet.hosts[name]
        wrong = host.current in self.bad or at >= self._begun.get(host.current, float("inf"))
        return 0.5 if wrong and at >= host.used_since else 1.0

    def read(self, target, role, config, cursor, *, elapsed=0.0):
        self.fleet._reach(target)
        if self.unreadable:
            raise MetricUnavailable("the log cannot be read")
        for commit in self.late:
            if sum(host.current == commit for host in self.fleet.hosts.values()) >= 3:
                self._begun.setdefault(commit, self.timeline.seconds)
        return super().read(target, role, config, cursor, elapsed=elapsed)


def fair_or(chance: Random, *rates: float) -> float:
    """Half of all seeds are spared of a fault, so that the others are seen for themselves."""
    return chance.choice([*[0.0] * len(rates), *rates])
