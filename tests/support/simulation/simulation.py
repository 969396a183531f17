"""A run: the real services and the real store, workers, people and a fleet, under everything that its seed has in store.

First the storm, then everything heals. It must come to rest by itself, and the checker must have nothing to say.
"""

import atexit
import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from sqlalchemy import event

from rollout.config.settings import Settings
from rollout.domain import pipeline
from rollout.domain.model import UNREAD, BranchCommit, Push
from rollout.domain.pipeline import Ring, deploy_host, prepare_host, roll_back_host
from rollout.domain.states import FINISHED, RolloutState
from rollout.errors import RolloutError
from rollout.services import (
    bars,
    canaries,
    catching_up,
    comparison,
    halts,
    hosts,
    intake,
    reconcile,
    stopping,
)
from rollout.services.leases import LeaseKeeper
from rollout.services.ports import Deps
from rollout.services.steps import Again, GoOn
from rollout.services.together import Part, Together
from rollout.store import apps as store_apps
from rollout.store import clock as store_clock
from rollout.store.store import Store, Transaction
from tests.support.checker import read
from tests.support.checker.check import check
from tests.support.checker.history import Deed
from tests.support.simulation.neighbours import (
    FAIR,
    LONGEST_RESTART_S,
    Broker,
    SimulatedFleet,
    SimulatedMetrics,
    SimulatedWorkshop,
    SteppedStore,
    Weather,
    fair_or,
)
from tests.support.simulation.timeline import BEGIN, Process, TaskPool, Timeline, wait
from tests.support.world import World, perform

LONGEST_SILENCE_S = 90.0  # I8: from healing on, something happens at least so often until all is at rest
PATIENCE_WITH_GIT_S = 330.0  # tests that found no git server wait for it up to 300 s: that is their due time
REST_S = 1500.0
SLOTS = 6  # of a worker

LAST_READING_S = 330.0  # a host that did not answer is read again after 300 s at the latest
_ENDED = ", ".join(f"'{state}'" for state in sorted(FINISHED))
SOMETHING_TO_WATCH = "SELECT 1 FROM rollouts WHERE state = 'stopping' UNION SELECT 1 FROM rollout_hosts WHERE state = 'unknown'"

UNFINISHED = (
    f"SELECT 'rollout', id, state FROM rollouts WHERE state NOT IN ({_ENDED}, 'halted')"
    " UNION ALL SELECT 'commit', sha, state FROM commits WHERE state IN ('received', 'testing')"
    " UNION ALL SELECT 'host', h.name, h.state FROM rollout_hosts h JOIN rollouts r ON r.id = h.rollout"
    f" WHERE r.state NOT IN ({_ENDED}) AND"
    " (h.state IN ('preparing', 'activating', 'rolling_back') OR (h.state = 'unknown' AND NOT h.unreadable))"
)
UNREAD_HOSTS = (
    f"SELECT name FROM fleet_hosts WHERE release = '{UNREAD}' AND NOT EXISTS"
    f" (SELECT 1 FROM rollouts WHERE state NOT IN ({_ENDED}))"
)


class Finding(AssertionError):
    """What a seed found."""


class Worker(Process):
    """A worker process: its slots, its rounds, its name as owner of leases."""

    deps: Deps
    busy: int = 0


class TakesTurns(Together):
    """One of a worker whose threads are tasks."""

    def __init__(self, timeline: Timeline) -> None:
        super().__init__()
        self._timeline = timeline

    def wait(self, part: Part) -> None:
        """Let others come before, until somebody has written it."""
        while not part.has_come(wait=False):
            self._timeline.sleep(0.001)

    def now(self) -> float:
        """The timeline's."""
        return self._timeline.seconds

    def rest(self, part: Part, seconds: float) -> None:
        """Let others come, until they are enough."""
        until = self._timeline.seconds + seconds
        while self._timeline.seconds < until and not part.has_come(wait=False):
            self._timeline.sleep(0.01)


class Simulation:
    """One seed's run. `story` is what happened, step by step; `digest` is what it came to."""

    def __init__(self, seed: int) -> None:
        self.seed, self.chance = seed, Random(seed)
        self.timeline = Timeline(self.chance)
        self.story: list[tuple[float, tuple[Any, ...]]] = []
        self.storm = True
        self.workers: list[Worker] = []
        self.slots = SLOTS
        self.deeds: list[Deed] = []
        self.started = 0
        self.pace = 1.0  # how slow the fleet is
        self.patience_s = 3  # with a service that comes up

    def run(self) -> "Simulation":
        """From the first push to rest; Finding."""
        with patched(self.timeline, self.tell) as patch:
            self._set_up(patch)
            try:
                self._go()
                self.digest = self._digest()
            finally:
                self.timeline.end()
        return self

    # -- what there is -----------------------------------------------------------------------------------------------------

    def _set_up(self, patch: pytest.MonkeyPatch) -> None:
        choice = self.chance.choice
        hosts = choice([2, 3, 4, 4, 5, 6, 8, 12])
        if self.chance.random() < 0.2:  # a fan-out that lasts, so that something can begin in it
            hosts, self.pace = 12, 5.0
        fan_out = {
            "max_failed": choice([0, 1, 1, 2, 4]),
            "mode": choice(['"strict"', '"ramp"']),
            "concurrency": choice([1, 2, 4, 10]),
            "host_timeout": '"30s"',
            "retries": choice([0, 1, 2]),
            "on_halt": choice(['"wait"', '"wait"', '"roll-back"']),
        }
        canary = {"hosts": choice([1, 1, 2]), "baseline": choice([0, 1]), "deadline": '"60s"'}
        self.patience_s = choice([3, 3, 40])
        before = None if self.chance.random() < 0.3 else a_fleet_that_runs(hosts)
        self.begun = before is not None
        self._build(patch, hosts, fan_out, canary, before)
        self.fleet.slow = dict.fromkeys(self.fleet.slow, self.pace)
        self._weather(self._a_weather())
        self.metrics.rate = choice([100] * 9 + [0])
        for _ in range(choice([1, 2, 2, 3])):
            self._start_worker()

    def _build(
        self,
        patch: pytest.MonkeyPatch,
        size: int,
        fan_out: dict[str, Any],
        canary: dict[str, Any],
        before: "Before | None" = None,
    ) -> None:
        release = {"health_timeout": f'"{self.patience_s}s"'}
        texts = {"fan_out": _toml(fan_out), "canary": _toml(canary), "release": _toml(release)}
        self.tell("plan", f"{size} hosts", fan_out, canary)
        self.world = World(folder(), patch, hosts=size, store=a_store(before and before.database), **texts)
        patch.setattr(store_clock, "store_seconds", lambda _connection: self.timeline.seconds)
        self.app = self.world.config.app("shop")
        self.fleet = SimulatedFleet(list(self.world.fleet.hosts), self.timeline, self.tell)
        self.world.fleet = self.fleet
        self.workshop = SimulatedWorkshop(self.timeline)
        if size > 3 and self.chance.random() < 0.3:  # the last one joins later
            self.fleet.to_come = {list(self.fleet.hosts)[-1]}
        self.metrics = SimulatedMetrics(self.timeline, self.fleet)
        self.broker = Broker(self.timeline, self._deliver, self.tell)
        self.settings = Settings(gate_s=1.0, reconcile_s=self.chance.choice([5.0, 10.0, 20.0, 20.0]))
        self.store = SteppedStore(self.world.store, self.timeline)
        self.office = self._deps("office")
        if before is not None:
            self.timeline.seconds = before.seconds
            self.workshop.commits = list(before.commits)
            for name, values in before.hosts.items():
                self.fleet.hosts[name].remember(values)

    def _deps(self, name: str) -> Deps:
        leases = LeaseKeeper(self.store, name, self.settings.lease_s)
        leases._thread = SimpleNamespace()  # type: ignore[assignment]  # its rounds are a task here
        return Deps(
            config=self.world.config,
            settings=self.settings,
            store=self.store,
            fleet=self.fleet,
            workshop=self.workshop,
            metrics={"access-log": self.metrics},
            bell=self.broker,
            notifier=self.world.notifier,
            leases=leases,
            worker=name,
            together=TakesTurns(self.timeline),
        )

    def _a_weather(self) -> Weather:
        chance = self.chance
        return Weather(
            messages_lost=fair_or(chance, 0.1, 0.4),
            messages_doubled=fair_or(chance, 0.2, 1.0),
            messages_late_s=chance.choice([0.1, 0.1, 5.0, 20.0]),
            orders_lost=fair_or(chance, 0.05, 0.3),
            orders_late=fair_or(chance, 0.05, 0.3),
            hosts_die=fair_or(chance, 0.02, 0.1),
            workers_killed=fair_or(chance, 0.002, 0.01),
            workers_stand=fair_or(chance, 0.002, 0.01),
            bytes_spoilt=fair_or(chance, 0.05),
            callers_cut=fair_or(chance, 0.2, 0.5),
            readings_odd=fair_or(chance, 0.1, 0.5),
            threads_late=fair_or(chance, 0.02, 0.1),
        )

    def _weather(self, weather: Weather) -> None:
        self.tell("weather", weather)
        self.broker.weather = self.fleet.weather = self.store.weather = self.weather = weather
        self.timeline.disturb = self._disturb

    def tell(self, *what: Any) -> None:
        """One line of the story."""
        self.story.append((self.timeline.seconds, what))

    # -- workers -----------------------------------------------------------------------------------------------------------

    def _start_worker(self) -> None:
        self.started += 1
        worker = Worker(f"worker-{self.started}")
        worker.deps = self._deps(worker.name)
        self.workers.append(worker)
        self.tell("starts", worker.name)
        here = SimpleNamespace(do=lambda rings: [self._work(worker, ring) for ring in rings])
        rounds: list[tuple[float, Callable[[], Any]]] = [
            (self.settings.reconcile_s, lambda: reconcile.sweep(worker.deps, here)),
            (self.settings.gate_s, lambda: self._watch(worker, here)),
            (self.settings.lease_s / 3, worker.deps.leases.renew),
            (30.0, lambda: reconcile.poll_all(worker.deps)),
            (30.0, lambda: reconcile.tell(worker.deps)),
        ]
        for every_s, work in rounds:
            self.timeline.spawn(partial(self._round, every_s, work), worker, self.chance.random() * every_s)

    def _round(self, every_s: float, work: Callable[[], Any]) -> None:
        while True:
            try:
                work()
            except RolloutError as error:
                self.tell("round failed", str(error))
            self.timeline.sleep(every_s)

    def _watch(self, worker: Worker, here: Any) -> None:
        """A watch finds nothing to do in most seconds; whether it would is asked more cheaply than by SQLAlchemy."""
        raw = quick_look()
        if raw.execute(SOMETHING_TO_WATCH).fetchone():
            reconcile.watch(worker.deps, here)

    def _deliver(self, ring: Ring) -> bool:
        """A worker with a free slot takes it; False when there is none."""
        free = [
            one for one in self.workers if one.busy < self.slots and one.stands_until <= self.timeline.seconds
        ]
        if not free:
            return False
        self._work(self.chance.choice(free), ring)
        return True

    def _work(self, worker: Worker, ring: Ring) -> None:
        worker.busy += 1

        def work() -> None:
            try:
                self._perform(worker, ring)
            finally:
                worker.busy -= 1
                if not worker.alive and self.chance.random() < 0.5:
                    self.broker.send(ring, 5.0)  # it was never acknowledged

        self.timeline.spawn(work, worker)

    def _perform(self, worker: Worker, ring: Ring) -> None:
        self.tell(worker.name, ring.task, ring.arguments)
        try:
            outcome = perform(ring.task, ring.arguments, worker.deps)
        except RolloutError as error:
            self.tell(worker.name, "failed", ring.task, repr(error))
            return
        if isinstance(outcome, Again):
            self.broker.send(ring, outcome.seconds)
        elif isinstance(outcome, GoOn) and ring.then:
            following, *rest = ring.then
            self.broker.send(Ring(following, ring.arguments, ring.rollout, then=tuple(rest)))

    def _disturb(self) -> None:
        task = self.timeline.current()
        process = task.process if task is not None else None
        if not self.storm or process is None:
            return
        luck = self.chance.random()
        if luck < self.weather.workers_killed:
            self._kill(process)
        elif luck < self.weather.workers_killed + self.weather.workers_stand:
            seconds = self.chance.choice([1, 5, 14, 16, 20, 60])
            self.tell(process.name, f"stands still for {seconds} s")
            process.stands_until = self.timeline.seconds + seconds
            self.timeline.sleep(0)

    def _kill(self, process: Process) -> None:
        self.tell(process.name, "is killed")
        if isinstance(process, Worker):
            self.workers.remove(process)
            self.timeline.spawn(self._start_worker, after_s=self.chance.choice([0.5, 5, 20]))
        self.timeline.kill(process)

    # -- the course of things ----------------------------------------------------------------------------------------------

    def _go(self) -> None:
        self.timeline.spawn(self._pushes)
        self.timeline.spawn(self._bad_luck)
        self.timeline.spawn(self._comes)
        for _ in range(self.chance.choice([0, 1, 2])):
            self.timeline.spawn(self._person)
        if self.weather.callers_cut and self.chance.random() < 0.7:
            self._say(partial(self._gives_up, keep=self.chance.random() < 0.3))
        if self.chance.random() < 0.4:
            self.timeline.spawn(self.chance.choice([self._owes, self._owes, self._accepted]))
        if self.pace > 1 and self.chance.random() < 0.6:
            self.timeline.spawn(self._follows)
        for _ in range(self.chance.choice([1, 2, 3, 5, 8])):
            self.timeline.run(lambda: False, 20)
            self._look_back(at_rest=False)
        self._heal()
        self._rest()
        if self.chance.random() < 0.3:
            self.timeline.spawn(self._clear_up)
            self.timeline.run(lambda: False, 1.0)
            self._rest()

    def _comes(self) -> None:
        self.timeline.sleep(self.chance.uniform(5, 60))
        self.fleet.to_come = set()

    def _heal(self) -> None:
        self.tell("everything heals")
        self.fleet.to_come = set()
        self.storm = False
        self._weather(FAIR)
        self.broker.down_until = 0.0
        self.workshop.down_until = min(self.workshop.down_until, self.timeline.seconds)
        self.metrics.unreadable, self.metrics.rate = False, 100
        for process in self.workers:
            process.stands_until = min(process.stands_until, self.timeline.seconds)
        for host in self.fleet.hosts.values():
            host.unreachable = host.refuses_login = host.no_room = False
            self.fleet.slow[host.name] = self.pace
        if not self.workers:
            self._start_worker()

    def _rest(self) -> None:
        began = self.timeline.today()
        self.timeline.run(self._at_rest, REST_S)
        if not self._at_rest():
            self._find(f"no rest {REST_S:g} s after everything was well again: {self._unfinished()}")
        self.tell("rest")
        moments = [began, *(one for one in self._moments() if one > began), self.timeline.today()]
        gap = max((b - a).total_seconds() for a, b in pairwise(moments))
        at_work = (
            LONGEST_RESTART_S + self.patience_s + 10.0
        )  # a host that restarts, and is waited for, says nothing
        longest = max(LONGEST_SILENCE_S, at_work if self.pace > 1 else 0.0)
        if gap > (PATIENCE_WITH_GIT_S if self.workshop.down_until else longest):
            self._find(f"I8: nothing happened for {gap:.0f} s, although not all was at rest")
        self._look_back(at_rest=True)
        self.timeline.run(lambda: not self._unread(), LAST_READING_S)
        if self._unread():
            self._find(f"I5: nobody has read {self._unread()}, although they answer")
        self.timeline.run(lambda: not self._late(), REST_S)
        if self._late():
            self._find(f"behind, although nothing keeps them from what the fleet runs: {self._late()}")
        self._look_back(at_rest=False)

    def _look_back(self, *, at_rest: bool) -> None:
        found = check(replace(read.world(self.world, at_rest=at_rest), deeds=self.deeds))
        if found:
            self._find("; ".join(map(str, found)))

    def _find(self, what: str) -> None:
        self.tell("FINDING", what)
        raise Finding(
            f"seed {self.seed}: {what}; replay with: python -m tests.support.simulation {self.seed}"
        )

    def _at_rest(self) -> bool:
        return not self._unfinished()

    def _unfinished(self) -> list[Any]:
        return quick_look().execute(UNFINISHED).fetchall()

    def _unread(self) -> list[Any]:
        """Hosts of which nobody knows what they run, when no rollout is under way that would read them."""
        return quick_look().execute(UNREAD_HOSTS).fetchall()

    def _late(self) -> list[str]:
        """Hosts that are behind, and neither left nor kept waiting by what a person must decide."""
        if quick_look().execute(UNFINISHED).fetchone():
            return []  # a person's last word
        with self.world.store.reading() as tx:
            behind = catching_up.late(tx, self.app)
        return [one.name for one in behind if not one.because.startswith(("left after", "waits: "))]

    def _moments(self) -> list[Any]:
        with self.world.store.reading() as tx:
            return [one.at for one in tx.events._list()]

    def _digest(self) -> str:
        raw, what = quick_look(), hashlib.sha256()
        for row in raw.execute("SELECT * FROM events ORDER BY id"):
            what.update(repr(row).encode())
        for name, host in self.fleet.hosts.items():
            what.update(repr((name, host.current, host.journal, sorted(host.marks))).encode())
        return what.hexdigest()

    # -- what people do ----------------------------------------------------------------------------------------------------

    def _pushes(self) -> None:
        for number in range(self.chance.choice([1, 1, 2, 3])):
            fails = self.chance.random() < 0.1
            fixes = self.chance.random() < 0.5
            sha = self._push_fix() if fixes else self.workshop.push(fails=fails)
            if self.pace > 1 and self.chance.random() < 0.7:
                self.metrics.late.add(sha)
                self.tell("push", sha, "answers badly from the third host on")
            elif (number or self.begun) and self.chance.random() < 0.5:
                some = self.chance.sample(
                    list(self.fleet.hosts.values()), self.chance.choice([1, 1, len(self.fleet.hosts)])
                )
                for host in some:
                    host.unhealthy.add(sha)
                self.tell("push", sha, "unhealthy on", [host.name for host in some])
            elif self.chance.random() < 0.1:
                self.metrics.bad.add(sha)
                self.tell("push", sha, "answers badly")
            if self.chance.random() < 0.3:
                self.tell("push", sha, "comes up slowly")
                for host in self.fleet.hosts.values():
                    host.comes_up_s[sha] = self.chance.choice([0.0, 2.0, 0.5 * self.patience_s])
            for _ in range(self.chance.choice([0, 1, 1, 2])):
                self._say(partial(self._webhook, sha))
            self.timeline.sleep(self.chance.choice([5, 30, 60]))

    def _push_fix(self) -> str:
        """It goes out also when the newest commit was barred."""
        newest = self.world.newest()
        return self.workshop.push(
            f"Fix\n\nRollout-Fixes: {newest.commit}" if newest is not None else "a change"
        )

    def _webhook(self, sha: str) -> None:
        push = Push(
            "github", f"guid-{self.timeline.count}", "push", full_name="shop", branch="main", head=sha
        )
        stored = intake.receive_all([(push, self.app)], self.office)[0]
        self._told("webhook", {}, {"status": 202, "delivery": stored.delivery})

    def _person(self) -> None:
        for _ in range(self.chance.randrange(1, 6)):
            self.timeline.sleep(self.chance.choice([1, 5, 10, 30]))
            what = self._an_order()
            for _ in range(self.chance.choice([1, 1, 2])):
                self._say(what)

    def _an_order(self) -> Callable[[], Any]:
        newest, deps = self.world.newest(), self.office
        with self.world.store.reading() as tx:
            newest = self.chance.choice([newest, *tx.rollouts.unfinished("shop")])
        if newest is None:
            return lambda: intake.enqueue(self.app, None, deps, who="me")
        number, sha = newest.id, newest.commit
        names = [self.chance.choice(list(self.fleet.hosts))]
        me: dict[str, Any] = {"who": "me"}
        why: dict[str, Any] = {"who": "me", "why": "because"}
        keep = self.chance.random() < 0.3
        wish = intake.Wish("now", "me")
        earlier = self.chance.choice(self.workshop.commits).sha
        orders: dict[str, Callable[[], Any]] = {
            "stop": lambda: self._stop(number, keep=keep),
            "stop when a host is being switched": lambda: self._stop(number, keep=keep, when=self._switching),
            "stop when a host has its permit": lambda: self._stop(number, keep=keep, when=self._permitted),
            "rollback": lambda: stopping.roll_back_done(self.app, deps, to=None, **why),
            "rollback to": lambda: stopping.roll_back_done(self.app, deps, to=earlier, **why),
            "resume": lambda: halts.resume(number, deps, **me),
            "accept failed": lambda: halts.resume(number, deps, **why, accept_failed=True),
            "accept canary": lambda: halts.resume(number, deps, **why, accept_canary=True),
            "retry": lambda: halts.retry(number, deps, **me),
            "exclude": lambda: halts.exclude("shop", names, deps, **why),
            "include": lambda: halts.include("shop", names, deps, **me),
            "bar": lambda: bars.bar("shop", sha, deps, **why),
            "unbar": lambda: bars.unbar("shop", sha, deps, **why),
            "deploy now": lambda: intake.enqueue(self.app, sha, deps, who="me", now=wish),
            "forge": self._forge,
        }
        what = self.chance.choice(list(orders))
        self.tell("me", what, number, names)
        return orders[what]

    def _say(self, order: Callable[[], Any]) -> None:
        """In a process of its own, which may be killed like any other."""

        def say() -> None:
            try:
                order()
            except RolloutError as error:
                self.tell("refused", str(error))

        self.timeline.spawn(say, Process("a command"))

    def _stop(self, number: int, *, keep: bool, when: Callable[[], bool] = lambda: True) -> None:
        """As the command does: said, then driven along with whoever else does, until it is acknowledged."""
        for _ in range(200):
            if when():
                break
            self.timeline.sleep(0.2)
        stopping.stop(number, self.office, who="me", why="because", keep=keep)
        for _ in range(100):
            self.timeline.sleep(0.5)
            stopping.drive(number, self.office)
            with self.store.reading() as tx:
                told = tx.rollouts.get(number).acknowledged_at is not None
            if told:
                self._told("stop", {"rollout": number}, {"acknowledged": True})
                break

    def _gives_up(self, *, keep: bool) -> None:
        """A person looks for the worst moment: a host's order was left behind, and its row says nothing of it, or soon will."""
        for _ in range(500):
            newest = self.world.newest()
            if newest is not None and newest.state not in FINISHED:
                if self._left_behind():
                    break
                if (names := self._unknown(newest.id)) and self.chance.random() < 0.5:
                    self.tell("me", "exclude", names)
                    halts.exclude("shop", names, self.office, who="me", why="because")
                    break
            self.timeline.sleep(0.2)
        if newest is not None:
            self._stop(newest.id, keep=keep)

    # A host that is away for a while, at the worst moments.

    def _await(self, what: Callable[[], bool], every_s: float = 0.2) -> bool:
        while self.storm and not what():
            self.timeline.sleep(every_s)
        return self.storm

    def _state_of(self, name: str) -> str | None:
        query = "SELECT state FROM rollout_hosts WHERE name = ? ORDER BY rollout DESC LIMIT 1"
        row = quick_look().execute(query, (name,)).fetchone()
        return row and str(row[0])

    def _is(self, *states: RolloutState) -> bool:
        begun = "SELECT state FROM rollouts WHERE state NOT IN ('pending', 'error') ORDER BY id DESC LIMIT 1"
        row = quick_look().execute(begun).fetchone()
        return row is not None and row[0] in states

    def _owes(self) -> None:
        """It does not hear of the rollback of what it was given, and is there again when the next rollout has begun."""
        host = self.fleet.hosts[self.chance.choice(list(self.fleet.hosts))]
        if not self._await(lambda: self._state_of(host.name) == "done"):
            return
        bad = self.world.newest()
        assert bad is not None
        self.tell(host.name, "is away, and owes a rollback")
        host.unreachable = True
        self._say(partial(self._stop, bad.id, keep=False))
        self._say(partial(stopping.roll_back_done, self.app, self.office, to=None, who="me", why="because"))
        if not self._await(lambda: self._is(RolloutState.ROLLED_BACK)):
            return
        sha = self._push_fix()
        if self.chance.random() < 0.3:
            host.unhealthy.add(sha)
        self._say(partial(self._webhook, sha))
        begun = self.chance.choice([RolloutState.DEPLOYING_CANARY, RolloutState.FANNING_OUT])
        if not self._await(lambda: self._is(begun)):
            return
        host.unreachable = False
        newest = self.world.newest()
        if newest is None or not self._await(lambda: self._state_of(host.name) in {"done", "failed"}):
            return
        if self.chance.random() < 0.6:
            self.tell("me", "take the fix back too", newest.id)
            self._say(partial(self._stop, newest.id, keep=False))
            self._say(
                partial(stopping.roll_back_done, self.app, self.office, to=None, who="me", why="because")
            )

    def _follows(self) -> None:
        """A commit comes while another one fans out, so that a rollout is planned behind it; and a person says something then."""
        if not self._await(lambda: self._is(RolloutState.FANNING_OUT), 0.05):
            return
        self._say(partial(self._webhook, self.workshop.push()))
        two = "SELECT 1 FROM rollouts WHERE state = 'pending' AND (SELECT COUNT(*) FROM rollouts WHERE state = 'fanning_out')"
        if self._await(lambda: quick_look().execute(two).fetchone() is not None):
            self.timeline.sleep(self.chance.choice([0.0, 1.0, 5.0, 20.0]))
            if self.chance.random() < 0.6:
                self._say(self._an_order())

    def _accepted(self) -> None:
        """Some do not get their order, a person accepts that, and they come back and cannot run the release."""
        some = self.chance.sample(list(self.fleet.hosts.values()), max(1, len(self.fleet.hosts) // 2))
        if not self._await(lambda: self._is(RolloutState.FANNING_OUT)):
            return

        def halted() -> bool:
            for call in self.fleet.on_their_way:
                if call.host in some and call.verb == "activate":
                    call.host.unreachable = True
            return not self._is(RolloutState.FANNING_OUT)

        if self._await(halted, 0.05) and self._is(RolloutState.HALTED):
            newest = self.world.newest()
            assert newest is not None
            self.tell("me", "accept what is away", newest.id)
            self._say(
                partial(halts.resume, newest.id, self.office, who="me", why="because", accept_failed=True)
            )
            for host in some:
                host.unhealthy.add(newest.commit)
        for host in some:
            host.unreachable = False

    def _unknown(self, number: int) -> list[str]:
        query = "SELECT name FROM rollout_hosts WHERE rollout = ? AND state = 'unknown'"
        return [name for (name,) in quick_look().execute(query, (number,))]

    def _switching(self) -> bool:
        return any(call.acted for calls in self.fleet.running.values() for call in calls)

    def _left_behind(self) -> bool:
        """A host has an order from which nobody expects anything any more: the worst moment for whoever trusts its row."""
        names = {call.host.name for call in self.fleet.alone if not call.acted}
        query = (
            "SELECT name FROM rollout_hosts WHERE rollout = (SELECT MAX(id) FROM rollouts)"
            " AND state IN ('failed', 'excluded', 'prepared')"
        )
        return bool(names) and any(name in names for (name,) in quick_look().execute(query))

    def _permitted(self) -> bool:
        return bool(self.fleet.on_their_way)

    def _told(self, action: str, arguments: dict[str, Any], answer: dict[str, Any]) -> None:
        self.deeds.append(Deed(self.timeline.today(), action, arguments, answer))

    def _forge(self) -> None:
        """Whoever can write to the broker sends whatever there is, for every host of any rollout (I15)."""
        with self.world.store.reading() as tx:
            rows = [host for one in tx.rollouts.unfinished("shop") for host in tx.hosts.of(one.id)]
        for host in rows:
            self.broker.send(
                self.chance.choice([deploy_host, deploy_host, prepare_host, roll_back_host])(host)
            )
        if rows:
            self.broker.send(Ring(pipeline.FAN_OUT, (rows[0].rollout,)))

    def _clear_up(self) -> None:
        """A person looks at what waits for one."""
        newest = self.world.newest()
        if newest is not None and newest.state is RolloutState.HALTED:
            me: dict[str, Any] = {"who": "me"}
            orders = {
                "stop": partial(stopping.stop, newest.id, self.office, why="because", **me),
                "retry": partial(halts.retry, newest.id, self.office, **me),
                "accept canary": partial(
                    halts.resume, newest.id, self.office, why="because", accept_canary=True, **me
                ),
                "accept": partial(
                    halts.resume, newest.id, self.office, why="because", accept_failed=True, **me
                ),
            }
            what = self.chance.choice(list(orders))
            self.tell("me", what, newest.id)
            self._say(orders[what])
        else:
            self.tell("me", "rollback")
            self._say(
                partial(stopping.roll_back_done, self.app, self.office, to=None, who="me", why="because")
            )

    # -- what befalls everybody --------------------------------------------------------------------------------------------

    def _bad_luck(self) -> None:
        chance = self.chance
        strikes: list[Callable[[], None]] = chance.sample(
            [
                self._deaf,
                self._reboot,
                self._disk,
                self._key,
                self._full,
                self._slow,
                self._broker,
                self._git,
                self._log,
                self._all_workers,
            ],
            chance.choice([0, 1, 2, 4, 10]),
        )
        while strikes and self.storm:
            self.timeline.sleep(chance.choice([2, 5, 15]))
            if self.storm:
                strike = chance.choice(strikes)
                self.tell("strikes", strike.__name__)
                strike()

    def _victim(self) -> str:
        """A host; rather one on which something runs."""
        busy = [name for name, calls in self.fleet.running.items() if calls]
        return self.chance.choice(busy if busy and self.chance.random() < 0.7 else list(self.fleet.hosts))

    def _for_a_while(self, name: str, attribute: str) -> None:
        host = self.fleet.hosts[name]
        setattr(host, attribute, True)
        self.timeline.spawn(
            partial(setattr, host, attribute, False), after_s=self.chance.choice([1, 5, 20, 45])
        )

    def _deaf(self) -> None:
        for _ in range(self.chance.choice([1, 1, len(self.fleet.hosts)])):
            self._for_a_while(self._victim(), "unreachable")

    def _reboot(self) -> None:
        name = self._victim()
        self.tell("reboots", name)
        self.fleet.reboot(name)
        self._for_a_while(name, "unreachable")

    def _disk(self) -> None:
        name = self._victim()
        self.tell("loses its disk", name)
        self.fleet.lose_disk(name)

    def _key(self) -> None:
        self._for_a_while(self._victim(), "refuses_login")

    def _full(self) -> None:
        self._for_a_while(self._victim(), "no_room")

    def _slow(self) -> None:
        self.fleet.slow[self._victim()] = self.chance.choice([5.0, 30.0])

    def _broker(self) -> None:
        self.broker.replace()
        self.broker.down_until = self.timeline.seconds + self.chance.choice([0, 1, 10, 30])

    def _git(self) -> None:
        self.workshop.down_until = self.timeline.seconds + self.chance.choice([5, 20])

    def _log(self) -> None:
        self.metrics.unreadable = not self.metrics.unreadable
        self.metrics.rate = self.chance.choice([100, 0])

    def _all_workers(self) -> None:
        for worker in list(self.workers):
            self._kill(worker)


# -- what all runs of a process share --------------------------------------------------------------------------------------


@cache
def folder() -> Path:
    """Where the database is."""
    made = Path(tempfile.mkdtemp(prefix="simulation-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def _the_store() -> tuple[Store, bytes]:
    """A store, and its database as it was when it had just been migrated. One engine: statements are compiled once."""
    store = Store(f"sqlite:///{folder()}/rollout.db")
    event.listen(store._engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    store.prepare()
    store.close()
    return store, _database().read_bytes()


def _database() -> Path:
    return folder() / "rollout.db"


def a_store(content: bytes | None = None) -> Store:
    """The store, empty or with what it held then."""
    store, empty = _the_store()
    _let_go(store)
    for end in ("-wal", "-shm"):
        _database().with_name(f"rollout.db{end}").unlink(missing_ok=True)
    _database().write_bytes(content or empty)
    return store


@dataclass(frozen=True)
class Before:
    """A fleet that runs a first release, with all that is known of it."""

    database: bytes
    seconds: float
    commits: list[BranchCommit]
    hosts: dict[str, dict[str, Any]]


@cache
def a_fleet_that_runs(size: int) -> Before:
    """It has got there in calm weather: a rollout need not begin with nothing."""
    calm = Calm(size).run()
    _let_go(calm.world.store)
    return Before(
        _database().read_bytes(),
        calm.timeline.seconds,
        list(calm.workshop.commits),
        {name: host.memory() for name, host in calm.fleet.hosts.items()},
    )


class Calm(Simulation):
    """One release to a fleet of this size, and nothing goes wrong."""

    def _set_up(self, patch: pytest.MonkeyPatch) -> None:
        self._build(patch, self.seed, {}, {})
        self._start_worker()

    def _go(self) -> None:
        self.workshop.push()
        self._rest()


def _let_go(store: Store) -> None:
    """Close every connection, the store's last: then all is in the one file."""
    quick_look().close()
    quick_look.cache_clear()
    store.close()


@cache
def quick_look() -> Any:
    """A connection that only looks."""
    return sqlite3.connect(_database(), isolation_level=None)


@contextmanager
def patched(timeline: Timeline, tell: Callable[..., None]) -> Iterator[pytest.MonkeyPatch]:
    """Every clock is the timeline's, every thread a task, every line of the log one of the story."""

    def log(_logger: Any, _name: str, line: dict[str, Any]) -> Any:
        tell("log", line.pop("event"), line)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[log])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transaction, "today", staticmethod(timeline.today))
        patch.setattr(store_apps, "time", SimpleNamespace(time=lambda: BEGIN.timestamp() + timeline.seconds))
        for module in (hosts, stopping):
            patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: timeline.seconds))
        for module in (stopping, canaries, comparison):
            patch.setattr(module, "ThreadPoolExecutor", partial(TaskPool, timeline))
        patch.setattr(comparison, "wait", partial(wait, timeline))
        patch.setattr(catching_up, "WAITS_S", (2.0, 5.0, 10.0))  # while there is a storm yet
        try:
            yield patch
        finally:
            structlog.configure(**before)


def _toml(values: dict[str, Any]) -> str:
    return "\n".join(f"{key} = {value}" for key, value in values.items())
