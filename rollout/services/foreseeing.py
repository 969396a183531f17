"""Which rollouts are to come, by the rules that will decide: selection is asked round by round.

As if the tests that are still to come passed and what is under way went well; a rollout is taken to last as long as half
of the recent ones did, and tests as long as the last ones: a rollout waits for none that take longer than what it
waits for anyway, if it can go without.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import inf
from statistics import median
from typing import Any

from rollout.config.deploy_file import AppConfig
from rollout.domain import selection
from rollout.domain.model import AppName, Commit, Rollout
from rollout.domain.selection import Candidate
from rollout.domain.states import STAGES, CommitState, RolloutState
from rollout.services import bars, freezes, planning
from rollout.store.store import Transaction

TYPICAL_S = 600.0  # a rollout's duration until one is measured
TESTS_S = 60.0  # a test run's
MOST_ROUNDS = 100  # rollouts that are foreseen
UNTESTED = frozenset({CommitState.RECEIVED, CommitState.TESTING})


@dataclass(frozen=True, slots=True)
class Forecast:
    """The rollout that should bring a commit."""

    commits: tuple[Commit, ...] = ()  # oldest first, the shipped one last; none when no rollout is foreseen
    previous: str | None = None  # what the fleet runs when it begins
    rounds: int = 0  # rollouts before it, the one under way not counted
    untested: int = 0  # commits to be tested before it; of what a person wants out only that one
    seen: tuple[Candidate, ...] = ()  # `commits` as selection sees them now; none of what is planned already
    # When those before it are out, who is silent was waited for, and a freeze of now is over if it binds it.
    free_at: datetime | None = None
    stuck: str = ""  # why none is foreseen
    is_far: bool = False  # as more rollouts go before it than are foreseen

    @property
    def is_wish(self) -> bool:
        """Whether it goes out on a person's word: past freezes, and without waiting for the tests of others."""
        return bool(self.commits) and self.commits[-1].now_reason is not None


def forecast(tx: Transaction, app: AppConfig, wanted: Commit | None = None) -> Forecast:
    """The rollout that should bring `wanted`; without one, the next rollout after the one under way."""
    name = AppName(app.name)
    following = planning.planned_ahead(tx, app)
    if following is not None and (wanted is None or wanted.sha in following.commits):
        found = tuple(filter(None, (tx.commits.get(name, sha) for sha in following.commits)))
        return Forecast(found, following.previous)
    if planning.unread(tx, name):
        return Forecast(stuck=planning.UNREAD)
    queue = planning.ahead(tx, app)
    wanted = None if wanted is None else tx.commits.on_line(wanted)
    if wanted is not None and wanted.position is None:  # the mirror does not have it yet: it is the newest
        queue.append(wanted)
    place = 0 if wanted is None else next((at for at, one in enumerate(queue) if one.id == wanted.id), None)
    if place is None and wanted is not None and _goes_alone(wanted, queue):
        untested = int(wanted.state in UNTESTED)
        return Forecast((wanted,), planning.runs_then(tx, app), untested=untested, free_at=_free_at(tx, app))
    if place is None:
        # A freeze is told beside it, by who asks: a person decides when that is over, too.
        return Forecast(stuck=planning.gone_then(tx, app) or planning.waits_for(app, tx))
    rounds = _Rounds(tx, app, queue, wanted)
    foreseen = rounds.until(place)
    if foreseen.commits or foreseen.is_far or wanted is None or not rounds.is_unheard(place):
        return foreseen
    return _Rounds(tx, app, queue, wanted, again=True).until(place)


class _Rounds:
    """The rollouts that bring a queue, one after the other. `again`: as if what is wanted had its checks run again."""

    def __init__(
        self,
        tx: Transaction,
        app: AppConfig,
        queue: Sequence[Commit],
        wanted: Commit | None,
        *,
        again: bool = False,
    ) -> None:
        self._tx, self._app, self._queue, self._wanted = tx, app, queue, wanted
        self._again = wanted if again else None
        name = AppName(app.name)
        self._known = bars.candidates(tx, app, list(queue))
        planned = tx.rollouts.pending(name)
        if self._known and planned is not None and planning.runs_then(tx, app) == planned.commit:
            self._known[0] = replace(self._known[0], below=())  # that one mends it, or is set aside
        self._soon: dict[str, str] = {}  # the names of those that are to be barred: when
        self._together: list[set[str]] = []  # those that are to be suspect of the same
        self._hoped = [self._as_hoped(one) for one in self._known]
        self._durations_s = tx.rollouts.durations(name)
        self._each = timedelta(seconds=typical_s(tx, name))
        self._free_at, self._thawed_at = _free_at(tx, app), freezes.over_at(tx, app)
        self._took_s = took_of_tests_s(tx, app)
        self._left_s = self._all_left_s()
        # Then nobody knows when that is, nor which tests are over by then.
        self._is_endless = self._thawed_at is None and freezes.frozen(tx, app) is not None

    def until(self, place: int) -> Forecast:
        """The one that brings the commit at this place, from 0."""
        start, name = 0, AppName(self._app.name)
        active = planning.under_way(self._tx, name)
        if active is not None and is_healthy(active):
            self._bar_the_last(self._tx.commits.get(name, active.commit))
        before = int(planning.planned_ahead(self._tx, self._app) is not None)
        for rounds in range(before, before + MOST_ROUNDS):
            choice, seen = self._choose(start)
            while choice.position is not None and self._is_bad(start, seen[: choice.position]):
                # There is one less that may go out with others.
                choice, seen = self._choose(start)
            if choice.position is None:
                return Forecast(stuck=self._before_that(start, self._in_time(choice.reason)))
            end = start + choice.position
            is_wish = self._queue[end - 1].now_reason is not None
            seen = self._known[start:end]
            free_at = self._free_at if is_wish else max(self._thawed(), self._heard_at(seen))
            to_be_tested = self._known[end - 1 : end] if is_wish else self._known[:end]
            untested = sum(is_tested(one, self._again) for one in to_be_tested)
            if place < end:
                previous = self._queue[start - 1].sha if start else planning.runs_then(self._tx, self._app)
                commits = tuple(self._queue[start:end])
                return Forecast(commits, previous, rounds, untested, tuple(seen), free_at)
            self._bar_the_last(self._queue[end - 1])
            begins_at = max(free_at, self._tested_at(untested))
            self._free_at = (begins_at if is_wish else freezes.free_at(self._app, begins_at)) + self._each
            start = end
        not_before = freezes.text(self._app, freezes.free_at(self._app, self._thawed()))
        stuck = f"more than {MOST_ROUNDS} rollouts go before it, so not before {not_before}"
        return Forecast(stuck=stuck, is_far=True)

    def is_unheard(self, place: int) -> bool:
        """Whether nobody is expected to speak of that one, but when its checks are run again."""
        return is_silent(self._known[place])

    def _as_hoped(self, seen: Candidate) -> Candidate:
        """When its tests are over, and went well; or nobody is waited for any more who could speak of it."""
        if is_tested(seen, self._again):
            return replace(seen, built=False, state=CommitState.PASSED, silent_from_s=inf)
        return replace(seen, built=False, silent_from_s=0.0 if is_silent(seen) else seen.silent_from_s)

    def _heard_at(self, batch: Sequence[Candidate]) -> datetime:
        """When nobody is waited for any more who could speak of the silent ones."""
        left_s = max((one.silent_from_s - one.age_s for one in batch if is_silent(one)), default=0.0)
        return self._tx.today() + timedelta(seconds=max(0.0, left_s))

    def _is_bad(self, start: int, chosen: Sequence[Candidate]) -> bool:
        """Planned, these would bring what was taken back already: as planning then does, one is barred, or more of them are suspect."""
        batch = self._queue[start : start + len(chosen)]
        found = None if batch[-1].now_reason else bars.brought_before(self._tx, batch)
        if found is None:
            return False
        before, same_files = found
        same = f"rollout {before.id} brought the same files and was taken back"
        guilty = selection.culprits(chosen[: len(same_files)])
        for sha in guilty:
            self._bar(sha, f"when its turn comes, as {same}")
        if not guilty:
            suspects = selection.suspects(chosen[: len(same_files)])
            self._together.append(set(suspects))
            self._mark(suspects, suspect=True)
        return True

    def _bar_the_last(self, shipped: Commit | None) -> None:
        """That one is out and well then: of suspects the only one that is left is barred, without a canary of its own."""
        if shipped is None:
            return
        left = bars.last_left(self._tx, shipped)
        lasts = {left.sha} if left is not None else set()
        for others in self._together:
            if shipped.sha in others:
                others.remove(shipped.sha)
                lasts |= others if len(others) == 1 else set()
        for sha in lasts:
            self._bar(sha, "once the others of its batch are out and well")

    def _bar(self, sha: str, when: str) -> None:
        self._soon[sha[:12]] = when
        self._mark([sha], barred=True)

    def _mark(self, hashes: Sequence[str], **values: Any) -> None:
        def marked(seen: Sequence[Candidate]) -> list[Candidate]:
            return [replace(one, **values) if one.sha in hashes else one for one in seen]

        self._known, self._hoped = marked(self._known), marked(self._hoped)

    def _choose(self, start: int) -> tuple[selection.Choice, Sequence[Candidate]]:
        """As planning would when the rollouts before it are out, as soon as it can, and of what it knows then: what waits has grown older."""
        free_s = max(0.0, (freezes.free_at(self._app, self._thawed()) - self._tx.today()).total_seconds())
        queue = self._queue[start:]
        for later_s in () if self._is_endless else self._moments_s(start, free_s):
            seen = self._as_then(start, later_s)
            choice = _choose(self._app, queue, seen, self._durations_s, later_s)
            if choice.position is not None:
                return choice, seen
        hoped = self._hoped[start:]
        return _choose(self._app, queue, hoped, self._durations_s, free_s), hoped

    def _moments_s(self, start: int, free_s: float) -> list[float]:
        """From when those before it are out on: whenever one more of those has passed that may go next."""
        end = start + self._app.queue.most
        those = zip(self._hoped[start:end], self._left_s[start:end], strict=True)
        return sorted(
            {max(free_s, left_s) for one, left_s in those if one.state is CommitState.PASSED and left_s < inf}
        )

    def _as_then(self, start: int, later_s: float) -> list[Candidate]:
        """As they are when that long has passed, if tests take as long as the last ones did."""
        each = zip(self._known[start:], self._hoped[start:], self._left_s[start:], strict=True)
        return [hoped if left_s <= later_s else known for known, hoped, left_s in each]

    def _all_left_s(self) -> list[float]:
        """Of each how long nothing more is known of it than now. What a person wants out waits for no other tests than its own."""
        found, runs = [], 0
        for commit, one in zip(self._queue, self._known, strict=True):
            is_run = is_tested(one, self._again)
            runs += is_run
            silent_s = one.silent_from_s - one.age_s if is_silent(one) else 0.0
            tests_s = turns_s(self._app, 1 if commit.now_reason else runs, self._took_s)
            found.append(tests_s if is_run else silent_s)
        return found

    def _tested_at(self, runs: int) -> datetime:
        """When so many tests are over; at once if nobody can tell."""
        left_s = turns_s(self._app, runs, self._took_s)
        return self._tx.today() + timedelta(seconds=left_s if left_s < inf else 0.0)

    def _thawed(self) -> datetime:
        return max(self._free_at, self._thawed_at or self._free_at)

    def _in_time(self, reason: str) -> str:
        """Of what is not barred yet: when it is."""
        return next(
            (f"{when}, {reason}" for name, when in self._soon.items() if reason.startswith(name)), reason
        )

    def _before_that(self, start: int, reason: str) -> str:
        """Of one that lies before what keeps the queue: why it does not go out before that."""
        its = "" if self._wanted is None else self._wanted.sha
        fix = selection.ships_only_with(self._hoped[start:], its)
        words = f"{its[:12]} ships only together with {(fix or '')[:12]}, which undoes it"
        return reason if fix is None or reason.startswith(words) else f"{words}; {reason}"


def is_tested(one: Candidate, again: Commit | None = None) -> bool:
    """Whether its tests are still to come. Of who is silent, or will be, nothing comes; but for one whose checks are run `again`."""
    return one.state in UNTESTED and (not is_silent(one) or (again is not None and again.sha == one.sha))


def took_of_tests_s(tx: Transaction, app: AppConfig) -> float:
    """How long those of one commit should take; infinite of somebody else's: nobody can tell when they end."""
    return inf if app.tests.external else tx.commits.last_took(AppName(app.name)) or TESTS_S


def turns_s(app: AppConfig, runs: int, took_s: float) -> float:
    """Until so many test runs are over that take so long each."""
    return max(1.0, runs / app.tests.parallel) * took_s if runs else 0.0


def is_silent(one: Candidate) -> bool:
    """Whether nobody says how its tests went, nor is expected to: in a moment, or from now on."""
    return one.state in UNTESTED and one.silent_from_s < inf


def _goes_alone(wanted: Commit, queue: Sequence[Commit]) -> bool:
    """What runs has left the branch (a force-push), so that nothing follows it but what a person wants out."""
    return not queue and wanted.now_reason is not None and wanted.on_branch


def _choose(
    app: AppConfig,
    queue: Sequence[Commit],
    candidates: Sequence[Candidate],
    durations_s: Sequence[float],
    later_s: float,
) -> selection.Choice:
    """As planning would: what a person wants out before the queue, the newest wish first; else by selection.

    `later_s`: from now. All are older by that then, which is as if the goal were that much shorter: a long queue is not written
    anew for each rollout that is foreseen.
    """
    wishes = [
        (commit.id, position)
        for position, (commit, seen) in enumerate(zip(queue, candidates, strict=True), start=1)
        if commit.now_reason and seen.state is CommitState.PASSED and not seen.is_barred
    ]
    if wishes:
        return selection.Choice(max(wishes)[1], "a person wants it")
    return selection.choose(candidates, durations_s, app.queue.goal - later_s, app.queue.most)


def is_healthy(rollout: Rollout) -> bool:
    """Whether it goes on by itself, or is about to."""
    return rollout.state in {RolloutState.PENDING, *STAGES}


def _free_at(tx: Transaction, app: AppConfig) -> datetime:
    """When all that is under way or planned is out."""
    name = AppName(app.name)
    rollout = planning.planned_ahead(tx, app) or planning.under_way(tx, name)
    return ends_at(tx, app, rollout) if rollout is not None and is_healthy(rollout) else tx.today()


def ends_at(tx: Transaction, app: AppConfig, rollout: Rollout) -> datetime:
    """Never in the past: of one that is late, what is left goes by those that took longer, or by the hosts that are to come."""
    active = tx.rollouts.active(rollout.app)
    if active is not None and rollout.is_ahead:
        begins_at = freezes.free_at(app, ends_at(tx, app, active))
        return begins_at + timedelta(seconds=typical_s(tx, rollout.app))
    age_s = tx.rollouts.age_s(rollout)
    longer = [one for one in tx.rollouts.durations(rollout.app) or [TYPICAL_S] if one > age_s]
    to_come = 1.0 - rollout.done / max(1, rollout.total)
    left_s = median(longer) - age_s if longer else typical_s(tx, rollout.app) * to_come
    return tx.today() + timedelta(seconds=left_s)


def typical_s(tx: Transaction, app: AppName) -> float:
    """How long a rollout takes: half of the recent ones took no longer."""
    return median(tx.rollouts.durations(app) or [TYPICAL_S])
