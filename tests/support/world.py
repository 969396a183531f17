"""The real services on a real SQLite store, with a virtual clock, a queue in place of the broker, and modelled hosts.

Whatever order messages come in, however often, and whichever are lost: the rows decide. Tests drive the queue.
"""

import random
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from rollout.config import deploy_file
from rollout.config.settings import Settings
from rollout.domain import pipeline
from rollout.domain.model import (
    Answer,
    BranchCommit,
    Greeting,
    HostStatus,
    Outcome,
    Release,
    TestResult,
)
from rollout.domain.states import FINISHED, RolloutState
from rollout.domain.verdict import Interval
from rollout.errors import AuthRefused, OutcomeUnknown, Unreachable
from rollout.fleet import inventory
from rollout.services import canaries, hosts, intake, reconcile, rollouts, testing
from rollout.services.leases import LeaseKeeper
from rollout.services.ports import Deps
from rollout.services.steps import Again, GoOn
from rollout.store import clock as store_clock
from rollout.store.store import Store


class Entry(NamedTuple):
    """A record of a modelled journal; `at` is the time of day, which events have too."""

    what: str
    verb: str
    epoch: int
    operation: int
    commit: str | None
    at: datetime


@dataclass
class ModelHost:
    """host.sh's rules, as a Python object: greeting, epoch, operation number, journal, seal."""

    name: str
    current: str | None = None
    prepared: set[str] = field(default_factory=set)
    epoch: int = 0
    operation: int = 0
    journal: list[Entry] = field(default_factory=list)
    unhealthy: set[str] = field(default_factory=set)  # commits that do not become healthy here
    unreachable: bool = False
    refuses_login: bool = False
    loses_answer: int = 0  # so many switches happen without an answer
    no_room: bool = False
    activations: list[str] = field(default_factory=list)
    clock: Callable[[], float] = lambda: 0.0
    # Where time may pass, or the order or its answer be lost: permitted and on its way here; done and on its way back.
    before_act: Callable[[], None] = lambda: None
    after_act: Callable[[], None] = lambda: None

    def reach(self):
        if self.unreachable:
            raise Unreachable(f"{self.name}: no answer")
        if self.refuses_login:
            raise AuthRefused(f"{self.name}: refused our key")

    def result(self, operation):
        for entry in reversed(self.journal):
            if entry.operation == operation and entry.what in {"intent", "done", "failed"}:
                return entry.what
        return "none"

    def switch(self, order, permit, verb):  # noqa: PLR0911  # one line a refusal
        self.reach()
        greeted = self.clock()
        deadline = greeted + permit(Greeting(clock=0, boot="b", current=self.current)) / 1000
        self.before_act()
        known = self.result(order.operation)
        if known != "none":
            return Outcome(
                Answer.DONE if known == "done" else Answer.FAILED, intent=True, current=self.current
            )
        if order.epoch < self.epoch:
            return Outcome(Answer.REFUSED, "epoch", current=self.current)
        if order.operation <= self.operation:
            return Outcome(Answer.REFUSED, "op", current=self.current)
        if self.clock() > deadline:
            return Outcome(Answer.REFUSED, "late", current=self.current)
        if verb == "activate" and order.commit not in self.prepared:
            return Outcome(Answer.REFUSED, "not prepared", current=self.current)
        self.epoch, self.operation = max(self.epoch, order.epoch), order.operation
        before = self.current
        self.note("intent", verb, order.epoch, order.operation, order.commit)
        self.current = order.commit
        if verb == "activate":
            self.activations.append(order.commit)
        healthy = order.commit not in self.unhealthy
        if not healthy:
            self.current = before
        self.note("done" if healthy else "failed", verb, order.epoch, order.operation, order.commit)
        self.after_act()
        if self.loses_answer:
            self.loses_answer -= 1
            raise OutcomeUnknown(f"{self.name}: the connection broke")
        if healthy:
            return Outcome(Answer.DONE, intent=True, current=self.current)
        return Outcome(Answer.FAILED, "unhealthy", intent=True, put_back=True, current=before, output="boom")

    def note(self, what, verb, epoch, operation, commit):
        self.journal.append(Entry(what, verb, epoch, operation, commit, datetime.now(UTC)))


class ModelFleet:
    """`services.ports.Fleet` over ModelHosts."""

    def __init__(self, names):
        self.hosts = {name: ModelHost(name) for name in names}
        self.before_permit = lambda _host: None

    def members(self, config):
        return inventory.members(config)

    def prepare(self, target, order, *, timeout_s, go_on):
        host = self.hosts[target.name]
        host.reach()
        if not go_on():
            raise OutcomeUnknown(f"{host.name}: cut")
        if host.no_room:
            return Outcome(Answer.BROKEN, "no room", current=host.current)
        if order.epoch < host.epoch:
            return Outcome(Answer.REFUSED, "epoch", current=host.current)
        host.prepared.add(order.release.commit)
        return Outcome(Answer.DONE, current=host.current)

    def activate(self, target, order, permit, *, timeout_s):
        self.before_permit(target.name)
        return self.hosts[target.name].switch(order, permit, "activate")

    def roll_back(self, target, order, permit, *, timeout_s):
        return self.hosts[target.name].switch(order, permit, "rollback")

    def status(self, target, *, asked=0, seal=None, timeout_s):
        host = self.hosts[target.name]
        host.reach()
        if seal:
            host.epoch, host.operation = max(host.epoch, seal[0]), max(host.operation, seal[1])
            host.note("seal", "status", *seal, None)
        return HostStatus(
            current=host.current,
            epoch=host.epoch,
            running=False,
            operation=host.operation,
            verb="",
            result="none",
            asked=host.result(asked),
            sealed=seal is not None,
        )

    def check(self, target, *, timeout_s):
        self.hosts[target.name].reach()
        return {"rollout": "1", "writable": "yes", "missing": "", "free_kb": "1000000", "sh_ms": "2"}

    def read(self, target, program, lines, *, timeout_s):
        self.hosts[target.name].reach()
        return ""

    def close(self):
        pass


class ModelWorkshop:
    """`services.ports.Workshop` over a list of commits."""

    def __init__(self):
        self.commits: list[BranchCommit] = []
        self.failing: set[str] = set()
        self.failing_build: set[str] = set()

    def push(self, message="a change", *, fails=False):
        sha = f"{len(self.commits) + 1:040x}"
        self.commits.append(
            BranchCommit(
                sha, len(self.commits) + 1, message.splitlines()[0], "Ann <ann@example.com>", message
            )
        )
        if fails:
            self.failing.add(sha)
        return sha

    def fetch(self, app, config):
        return self.commits[-1].sha

    remote_head = fetch

    def resolve(self, app, name):
        return next(commit.sha for commit in self.commits if commit.sha.startswith(name))

    def branch(self, app, config, limit):
        return self.commits[-limit:]

    def run_tests(self, app, config, commit, *, go_on):
        return TestResult(
            commit not in self.failing, "exit status 1" if commit in self.failing else "ok", "out"
        )

    def build(self, app, config, commit):
        if commit in self.failing_build:
            return None, TestResult(passed=False, reason="exit status 2", output="build")
        return Release(commit, commit + "0" * 24, f"/nowhere/{commit}.tar.gz", 1000), TestResult(
            True, "built", ""
        )


class ModelMetrics:
    """A canary that answers `share` of `rate` requests a second well."""

    def __init__(self):
        self.share, self.rate = 1.0, 100

    def read(self, target, role, config, cursor):
        t = float(cursor or 0.0) + 2.0
        requests = self.rate * 2
        good = round(requests * self.share)
        counts = {"2xx": good, "3xx": 0, "4xx": 0, "499": 0, "5xx": requests - good}
        return [Interval(t=t, dt=2.0, host=target.name, role=role, observed=True, counts=counts)], str(t)


class QueueBell:
    """Messages in a list. They may be dropped, doubled or shuffled by whoever drives the queue."""

    def __init__(self):
        self.queue = []
        self.revoked = []
        self.deaf = False

    def ring(self, rings):
        if self.deaf:
            return False
        self.queue += [(0.0, (ring.task, *ring.then), ring.arguments) for ring in rings]
        return True

    def revoke(self, rollout):
        self.revoked.append(rollout)
        return True


class RecordingNotifier:
    def __init__(self):
        self.sent = []

    def send(self, urls, title, body):
        self.sent.append((title, body))


TOML = """
[server]
state_dir = "{state}"
[apps.shop]
repository = "{state}/shop.git"
[apps.shop.tests]
command = "true"
[apps.shop.release]
path = "/srv/shop"
restart = "true"
health = "true"
[apps.shop.canary]
log = "/srv/shop/shared/access.log"
bake = "10s"
{canary}
[apps.shop.fan_out]
{fan_out}
[apps.shop.fleet]
hosts = ["web[01:{hosts:02d}]"]
known_hosts = "{state}/known_hosts"
[notify]
urls = ["json://localhost/"]
"""


class World:
    """One app, a fleet, a queue, a clock that moves only when told."""

    def __init__(self, folder, monkeypatch, *, hosts=10, fan_out="", canary="", url=None):
        self.seconds = 1000.0
        monkeypatch.setattr(store_clock, "store_seconds", lambda _connection: self.seconds)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "rollout.toml"
        file.write_text(
            textwrap.dedent(TOML).format(state=folder, hosts=hosts, fan_out=fan_out, canary=canary)
        )
        self.config = deploy_file.load(file, {})
        self.store = Store(url or f"sqlite:///{folder}/rollout.db")
        self.store.prepare()
        self.bell, self.workshop, self.metrics = QueueBell(), ModelWorkshop(), ModelMetrics()
        self.notifier = RecordingNotifier()
        self.fleet = ModelFleet([member.name for member in inventory.members(self.config.app(None))])
        for host in self.fleet.hosts.values():
            host.clock = lambda: self.seconds
        settings = Settings()
        self.deps = Deps(
            config=self.config,
            settings=settings,
            store=self.store,
            fleet=self.fleet,
            workshop=self.workshop,
            metrics={"access-log": self.metrics},
            bell=self.bell,
            notifier=self.notifier,
            leases=LeaseKeeper(self.store, "worker", settings.lease_s),
            worker="worker",
        )

    def push(self, message="a change", *, fails=False):
        """A commit on the branch, found by the poller."""
        sha = self.workshop.push(message, fails=fails)
        intake.read_branch(self.config.app(None), self.deps, who="test", why="pushed")
        return sha

    def step(self, entry):
        """Perform one message, as the task shells do."""
        _, (task, *rest), arguments = entry
        outcome = self._perform(task, arguments)
        if isinstance(outcome, Again):
            self.bell.queue.append((self.seconds + outcome.seconds, (task, *rest), arguments))
        elif isinstance(outcome, GoOn) and rest:
            self.bell.queue.append((0.0, tuple(rest), arguments))

    def _perform(self, task, arguments):  # noqa: PLR0911  # one line a task
        deps = self.deps
        match task:
            case pipeline.RUN_TESTS:
                return testing.run_tests(arguments[0], deps)
            case pipeline.DEPLOY_CANARY:
                return rollouts.deploy_canary(arguments[0], deps)
            case pipeline.EVALUATE_CANARY:
                return canaries.evaluate(arguments[0], deps)
            case pipeline.FAN_OUT:
                return rollouts.fan_out(arguments[0], deps)
            case pipeline.PREPARE_HOST:
                return hosts.prepare(arguments[1], deps)
            case pipeline.DEPLOY_HOST:
                return hosts.deploy(arguments[1], deps)
            case pipeline.ROLL_BACK_HOST:
                return hosts.roll_back(arguments[1], deps)
            case pipeline.COUNT_OUTCOME:
                return rollouts.count(arguments[0], deps)
        raise AssertionError(task)

    def run(
        self,
        *,
        until=lambda: False,
        seconds=600.0,
        chooser: random.Random | None = None,
        loss=0.0,
        doubling=0.0,
    ):
        """Work the queue, moving the clock where nothing is due; the reconciler sweeps every 5 s of it."""
        end, swept = self.seconds + seconds, self.seconds
        while self.seconds < end and not until():
            due = [entry for entry in self.bell.queue if entry[0] <= self.seconds]
            if not due:
                self.seconds += 0.5
                reconcile.watch(self.deps)
                if self.seconds - swept >= self.deps.settings.reconcile_s:
                    swept = self.seconds
                    reconcile.sweep(self.deps)
                    reconcile.tell(self.deps)
                continue
            entry = chooser.choice(due) if chooser else due[0]
            self.bell.queue.remove(entry)
            if chooser and chooser.random() < loss:
                continue
            if chooser and chooser.random() < doubling:
                self.bell.queue.append(entry)
            self.step(entry)

    def newest(self):
        with self.store.reading() as tx:
            return tx.rollouts.newest("shop")

    def rollout_hosts(self):
        with self.store.reading() as tx:
            return tx.hosts.of(self.newest().id)

    def settle(self, **chaos):
        """Run until nothing moves: the newest rollout is over or waits for a person."""
        waiting = {*FINISHED, RolloutState.HALTED}

        def over():
            newest = self.newest()
            with self.store.reading() as tx:
                testing_now = tx.commits.unfinished("shop")
            return newest is not None and newest.state in waiting and not testing_now

        self.run(until=over, **chaos)
        return self.newest()

    def runs(self):
        """What every host has on its disk."""
        return {name: host.current for name, host in self.fleet.hosts.items()}
