"""A simulated day: 200 commits in ten hours, with and without the next rollout being prepared ahead, and as a plain loop would do it.

Modelled time (tests/support/simulation): the real services and store; hosts, tests and people that take as long as is written here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from random import Random
from statistics import median

import pytest

from rollout.domain.model import Rollout
from rollout.domain.pipeline import WATCH_FAN_OUT, Ring
from rollout.domain.states import CommitState, RolloutState
from rollout.errors import Conflict
from rollout.services import intake, planning
from tests.bench.ask import Ask, say
from tests.bench.report import Figure, Found
from tests.support.checker import read
from tests.support.simulation import simulation
from tests.support.simulation.neighbours import SimulatedFleet, SimulatedWorkshop
from tests.support.simulation.simulation import Simulation
from tests.support.simulation.timeline import BEGIN

R = RolloutState

COMMITS, HOURS, RED, BAD = 200, 10.0, 0.03, 0.02
GOAL_S = 1800.0
HOSTS, AT_ONCE = 12, 2
TESTS_S, BAKE_S, PREPARE_S, RESTART_S = 150.0, 60.0, 20.0, 20.0
REVERT_S = 300.0  # from the bar to the push of the revert
TICK_S = 10.0
LONGEST_S = 3 * HOURS * 3600


@dataclass(frozen=True)
class Way:
    """How a day went: seconds that each good commit waited, and when the last one was out."""

    waits_s: tuple[float, ...]
    whole_s: float

    @property
    def an_hour(self) -> float:
        """Commits out, from the first push to the last one out."""
        return len(self.waits_s) / self.whole_s * 3600

    @property
    def in_time(self) -> float:
        """The share that was out within the goal, in percent."""
        return 100.0 * sum(wait <= GOAL_S for wait in self.waits_s) / len(self.waits_s)

    @property
    def longest_min(self) -> float:
        """Of all good commits."""
        return max(self.waits_s) / 60


@dataclass(frozen=True)
class Pushed:
    """A commit of the day."""

    at: float  # seconds since the day began
    red: bool = False
    bad: bool = False


GOOD = Pushed(0.0)


def commits() -> list[Pushed]:
    """The same for every way."""
    chance = Random(6)
    kinds = ["red"] * round(COMMITS * RED) + ["bad"] * round(COMMITS * BAD)
    kinds += ["good"] * (COMMITS - len(kinds))
    chance.shuffle(kinds)
    moments = sorted(chance.uniform(0.0, HOURS * 3600) for _ in kinds)
    return [Pushed(at, kind == "red", kind == "bad") for at, kind in zip(moments, kinds, strict=True)]


class DayFleet(SimulatedFleet):
    """Every host takes the same time."""

    def prepare(self, target, order, *, timeout_s, go_on):
        self.timeline.sleep(PREPARE_S)
        return super().prepare(target, order, timeout_s=timeout_s, go_on=go_on)

    def _takes(self, host, moment):
        return RESTART_S if moment == "restart" else super()._takes(host, moment)


class DayWorkshop(SimulatedWorkshop):
    """Every suite takes the same time."""

    def run_tests(self, app, config, commit, *, go_on):
        self.timeline.sleep(TESTS_S - 2.0)
        return super().run_tests(app, config, commit, go_on=go_on)


class Day(Simulation):
    """Nothing goes wrong but what is pushed; who pushed something bad takes it back, by hand past all that waits."""

    def __init__(self) -> None:
        super().__init__(6)
        self.slots, self.storm = 40, False
        self.pushed_at: dict[str, float] = {}
        self.good: set[str] = set()
        self.culprits: list[str] = []
        self.reverted: set[str] = set()
        self.looks_at = 0.0

    def _set_up(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(simulation, "SimulatedFleet", DayFleet)
        patch.setattr(simulation, "SimulatedWorkshop", DayWorkshop)
        self._build(patch, HOSTS, {"concurrency": AT_ONCE}, {"baseline": 4})
        self.settings = self.settings.model_copy(update={"reconcile_s": 20.0})
        tests = self.app.tests.model_copy(update={"parallel": 3})
        canary = self.app.canary.model_copy(update={"bake": BAKE_S})
        self.app = self.app.model_copy(update={"tests": tests, "canary": canary})
        self.world.config.apps["shop"] = self.app
        self._start_worker()
        self.workshop.push("what runs when the day begins")
        self.timeline.spawn(self._read)

    def _go(self) -> None:
        self.timeline.run(partial(self._now_and_then, self._out), LONGEST_S)
        self.began = self.timeline.seconds
        for one in commits():
            self.timeline.spawn(partial(self._push, one), after_s=one.at)
        self.timeline.spawn(self._people)
        self.timeline.run(partial(self._now_and_then, self._all_out), LONGEST_S)
        assert self._all_out(), "the day has no end"
        self._look_back(at_rest=False)
        self.way = self._way()  # now: the next day has the same store
        self.lasts_s = {state: self._lasts_s(state) for state in (R.DONE, R.ROLLED_BACK)}
        self.fan_out_s = self._fan_out_s()

    def _deliver(self, ring: Ring) -> bool:
        """No harm begins late here, so nobody looks for it: that would be two thirds of what a day costs."""
        return ring.task == WATCH_FAN_OUT or super()._deliver(ring)

    def _now_and_then(self, what: Callable[[], object]) -> bool:
        if self.timeline.seconds < self.looks_at:
            return False
        self.looks_at = self.timeline.seconds + TICK_S
        return bool(what())

    def _read(self) -> None:
        intake.read_branch(self.app, self.office, who="a push", why="pushed")

    def _push(self, one: Pushed, message: str = "a change") -> str:
        sha = self.workshop.push(message, fails=one.red)
        self.pushed_at[sha] = self.timeline.seconds
        if one.bad:
            self.culprits.append(sha)
        elif not one.red:
            self.good.add(sha)
        if set(self.culprits) - self.reverted:
            self.metrics.bad.add(sha)  # it contains what answers badly
        self._read()
        return sha

    def _people(self) -> None:
        seen: set[str] = set()
        while True:
            self.timeline.sleep(TICK_S)
            for sha in self.culprits:
                if sha not in seen and self._state(sha) is CommitState.BARRED:
                    seen.add(sha)
                    self.timeline.spawn(partial(self._revert, sha), after_s=REVERT_S)

    def _revert(self, bad: str) -> None:
        self.reverted.add(bad)
        fix = self._push(GOOD, f"Take it back\n\nThis reverts commit {bad}.")
        self.good.discard(fix)  # it is none of the day's commits
        while fix not in self._out():
            self.timeline.sleep(TICK_S)
            if self._state(fix) is not CommitState.PASSED:
                continue
            try:
                intake.enqueue(self.app, fix, self.office, who="ann", now=intake.Wish("reverts", "ann"))
            except Conflict as conflict:
                self.tell("ann", str(conflict))

    def _state(self, sha: str) -> CommitState:
        with self.world.store.reading() as tx:
            return tx.commits.get("shop", sha).state

    def _rollouts(self, state: RolloutState) -> list[Rollout]:
        with self.world.store.reading() as tx:
            return [one for one in reversed(tx.rollouts.finished("shop", 1000)) if one.state is state]

    def _out(self) -> dict[str, datetime]:
        return {sha: one.ended_at for one in self._rollouts(R.DONE) for sha in one.commits}

    def _all_out(self) -> bool:
        return self.timeline.seconds > self.began + HOURS * 3600 and self.good <= set(self._out())

    def _way(self) -> Way:
        """How it went."""
        out = {sha: (at - BEGIN).total_seconds() for sha, at in self._out().items()}
        waits = [out[sha] - self.pushed_at[sha] for sha in self.good]
        whole_s = max(out[sha] for sha in self.good) - min(self.pushed_at.values())
        return Way(tuple(waits), whole_s)

    def _fan_out_s(self) -> float:
        """Half of the fan-outs, from the PASS to the last host, took no longer."""
        passed: dict[int, datetime] = {}
        took = []
        for event in read.world(self.world, at_rest=False).events:
            if event["what"] == "canary passed":
                passed[event["rollout"]] = event["at"]
            if event["what"] == "finish":
                took.append((event["at"] - passed[event["rollout"]]).total_seconds())
        return median(took)

    def heard(self, event: str, **values: object) -> int:
        """How many lines of the log say so."""
        lines = [what[2] for _, what in self.story if what[:2] == ("log", event)]
        return sum(values.items() <= line.items() for line in lines)

    def _lasts_s(self, state: RolloutState) -> float:
        """Half of the rollouts that ended so took no longer."""
        return median(
            (one.ended_at - one.started_at).total_seconds() for one in self._rollouts(state) if one.previous
        )


def a_loop(rollout_s: float, failing_s: float) -> Way:
    """Test, ship, and then the next one. A bad commit is gone when it was rolled back: nobody waits for its revert."""
    now, waits = 0.0, []
    day = commits()
    for one in day:
        now = max(now, one.at) + TESTS_S
        if one.bad:
            now += failing_s
        elif not one.red:
            now += rollout_s
            waits.append(now - one.at)
    return Way(tuple(waits), now - day[0].at)


def measure(_ask: Ask) -> Found:
    """The same day, three times."""
    say(f"day: {COMMITS} commits in {HOURS:g} h, the next rollout prepared ahead")
    ahead = Day()
    ahead.run()
    say("day: the same, each rollout planned when the one before is done")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "BEFORE_THE_NEXT", frozenset[RolloutState]())
        after = Day()
        after.run()
    rollout_s, failing_s = after.lasts_s[R.DONE], after.lasts_s[R.ROLLED_BACK]
    ways = {
        "prepared ahead": ahead.way,
        "one when the other is done": after.way,
        "a plain loop": a_loop(rollout_s, failing_s),
    }
    loop = ways["a plain loop"]
    figures = []
    for name, way in ways.items():
        figures += [
            Figure(f"{name}: commits an hour", "", way.an_hour, loop.an_hour, way.an_hour / loop.an_hour),
            Figure(f"{name}: out within 30 min", "%", way.in_time, loop.in_time),
            Figure(f"{name}: longest wait", "min", way.longest_min, loop.longest_min),
        ]
    for name, ours, floor, most in (
        ("a rollout, prepared ahead", ahead.lasts_s[R.DONE], rollout_s, None),
        ("a fan-out, the next one prepared beside it", ahead.fan_out_s, after.fan_out_s, 1.05),
    ):
        figures.append(Figure(name, "s", ours, floor, ours / floor, at_most=most))
    modelled = (
        f"modelled: {HOSTS} hosts, {AT_ONCE} at once; tests {TESTS_S:g} s, prepare {PREPARE_S:g} s, switch {RESTART_S:g} s,"
        f" bake {BAKE_S:g} s; the floor is a plain loop: test, ship ({rollout_s:.0f} s), the next"
    )
    set_aside = (
        f"{ahead.heard('rollout_planned', ahead=True)} of {ahead.heard('rollout_planned')} rollouts were planned ahead,"
        f" {ahead.heard('rollout_set_aside')} of them set aside"
    )
    notes = [modelled, set_aside]
    return Found(figures, notes, {name: {"waits_s": sorted(way.waits_s)} for name, way in ways.items()})
