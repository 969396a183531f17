"""The real services and a real SQLite store over modelled hosts, from 100 hosts to 100,000: does a host's share stay flat?"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from sqlalchemy import event

from rollout.domain.states import RolloutState
from rollout.services import stopping
from rollout.store import straight
from tests.bench.ask import Ask, say
from tests.bench.report import Figure, Found
from tests.support.world import World

SIZES = (100, 1_000, 10_000, 100_000)
ONCE = 100_000  # it takes as long as all others together
CONCURRENCY = 100
FLAT = 1.5
QUEUED = 200  # messages: of a way back as many as four workers have slots, and those of whoever drives it


@dataclass(frozen=True, order=True)
class Leg:
    """What one way over the fleet took, for each host; `queued` is the most messages at once."""

    hosts: int
    ms: float
    cpu_ms: float
    statements: float
    queued: int


class Counted:
    """A world whose statements and waiting messages are counted."""

    def __init__(self, hosts: int, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.hosts = hosts
        self.world = World(folder, patch, hosts=hosts, fan_out=f"concurrency = {CONCURRENCY}")
        self.statements = self.queued = 0
        event.listen(self.world.store._engine, "before_cursor_execute", self._count)
        patch.setattr(straight, "_sent", self._counted(straight._sent))
        send = self.world.bell.send

        def sent(entry):
            send(entry)
            self.queued = max(self.queued, len(self.world.bell.queue))

        self.world.bell.send = sent

    def leg(self, work) -> Leg:
        """Do it, and count."""
        self.statements = self.queued = 0
        began, spent = time.monotonic(), time.process_time()
        work()
        seconds, cpu_s = time.monotonic() - began, time.process_time() - spent
        return Leg(
            hosts=self.hosts,
            ms=seconds * 1000 / self.hosts,
            cpu_ms=cpu_s * 1000 / self.hosts,
            statements=self.statements / self.hosts,
            queued=self.queued,
        )

    def ship(self) -> None:
        """A commit to every host."""
        self.world.push()
        done = self.world.settle()
        assert done.state is RolloutState.DONE, done

    def back(self) -> None:
        """The same way back."""
        app = self.world.config.app(None)
        stopping.roll_back_done(app, self.world.deps, to=None, who="bench", why="measured")
        self.world.run(until=lambda: self.world.newest().state is RolloutState.ROLLED_BACK)
        assert self.world.newest().state is RolloutState.ROLLED_BACK

    def _count(self, *_: object) -> None:
        self.statements += 1

    def _counted(self, send):
        def sent(*words, **options):
            self._count()
            return send(*words, **options)

        return sent


def _there_and_back(size: int, which: str) -> tuple[Leg, Leg]:
    say(f"scale: {size} modelled hosts, {which}")
    with (
        tempfile.TemporaryDirectory(prefix="rollout-bench-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        counted = Counted(size, Path(folder), patch)
        try:
            counted.ship()  # a first release, which rollbacks go back to
            return counted.leg(counted.ship), counted.leg(counted.back)
        finally:
            counted.world.store.close()


def _middle(legs: Sequence[Leg]) -> Leg:
    """The median of each of its figures; of the queue the longest."""
    middle = {name: median(getattr(one, name) for one in legs) for name in asdict(legs[0])}
    return Leg(**middle | {"hosts": legs[0].hosts, "queued": max(one.queued for one in legs)})


def measure(ask: Ask) -> Found:
    """Size after size, up to a hundred times the hosts that were asked for; each against the one before, of which the worst pair is told."""
    legs: dict[str, list[Leg]] = {"rollout": [], "rollback": []}
    for size in SIZES:
        if size > ask.hosts * 100:
            break
        times = ask.rounds if size < ONCE else 1
        found = [_there_and_back(size, f"{number} of {times}") for number in range(1, times + 1)]
        for name, of_way in zip(legs, zip(*found, strict=True), strict=True):
            legs[name].append(_middle(of_way))
    figures, notes = [], []
    for name, found in legs.items():
        for what, unit in (("ms", "ms"), ("cpu_ms", "ms"), ("statements", "")):
            title = {"ms": "wall", "cpu_ms": "CPU", "statements": "statements"}[what]
            ratio, fewer, more = max(
                (getattr(more, what) / getattr(fewer, what), fewer, more) for fewer, more in pairwise(found)
            )
            figures.append(
                Figure(
                    f"{name}: {title} for a host, {more.hosts} hosts, and {fewer.hosts}",
                    unit,
                    getattr(more, what),
                    getattr(fewer, what),
                    ratio,
                    at_most=FLAT,
                )
            )
        figures.append(
            Figure(
                f"{name}: most messages waiting at once",
                "",
                max(one.queued for one in found),
                at_most=QUEUED,
            )
        )
        notes.append(
            f"{name}: "
            + "; ".join(
                f"{one.hosts}: {one.ms:.2f} ms, {one.cpu_ms:.2f} ms CPU, {one.statements:.1f} statements, {one.queued} queued"
                for one in found
            )
        )
    return Found(figures, notes, {"legs": legs})
