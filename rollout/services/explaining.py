"""Where a commit is, what it waits for, and when it should be out: one sentence and a time for every state."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median

from rollout.config.deploy_file import AppConfig
from rollout.domain import selection
from rollout.domain.model import AppName, Commit, Rollout
from rollout.domain.selection import Candidate
from rollout.domain.states import STAGES, CommitState, RolloutState
from rollout.services import bars, freezes, planning, telling, views
from rollout.store.store import Transaction

R = RolloutState
_UNTESTED = {CommitState.RECEIVED, CommitState.TESTING}
TYPICAL_S = 600.0  # a rollout's duration until one is measured
TESTS_S = 60.0  # a test run's


@dataclass(frozen=True, slots=True)
class Why:
    """The answer. `expected_at` is None when it is over, or nobody can tell: a person decides, or has to repair something."""

    because: str
    expected_at: datetime | None = None


def why(tx: Transaction, app: AppConfig, commit: Commit) -> Why:
    """What becomes of the commit."""
    rollout = views.carrying(tx, commit.app, commit.sha)
    told = None if rollout is None else _in_rollout(tx, commit, rollout)
    if told is None:
        told = _will_not(tx, app, commit)
    if told is None:
        told = (
            _in_queue(tx, app, commit)
            if commit.state is CommitState.PASSED
            else _before_tests(tx, app, commit)
        )
    return told


def _will_not(tx: Transaction, app: AppConfig, commit: Commit) -> Why | None:
    """Why nothing becomes of it by itself."""
    short = commit.sha[:12]
    if commit.state is CommitState.BARRED:
        return Why(
            f"barred: {commit.reason}; a later commit that says so may mend it, or: rollout unbar {short}"
        )
    if commit.state is CommitState.FAILED:
        return Why(f"not good: {commit.reason}; what it printed: rollout log {short}")
    if commit.position is not None and not commit.on_branch:
        return Why(f"no longer on branch {app.branch}")
    running = planning.released(tx, commit.app)
    if running is not None and commit.position is not None and commit.position <= (running.position or 0):
        return Why(f"older than {running.sha[:12]}, which runs: what it changed is in there")
    return None


def _in_rollout(tx: Transaction, commit: Commit, rollout: Rollout) -> Why | None:
    """None when the rollout is over and decides nothing any more."""
    number = rollout.id
    if rollout.state is R.PENDING:
        return Why(
            f"planned as rollout {number}, which begins at once", _after(tx, _typical_s(tx, commit.app))
        )
    if rollout.state in STAGES:
        return Why(f"in rollout {number}: {_stage(rollout)}", _after(tx, _left_s(tx, rollout)))
    if rollout.state is R.HALTED:
        return Why(
            f"in rollout {number}, which is halted: {rollout.reason}; a person decides: rollout show {number}"
        )
    if rollout.state in {R.STOPPING, R.ROLLING_BACK}:
        return Why(f"in rollout {number}, which is being taken back: {rollout.reason or 'a person said so'}")
    if rollout.state is R.DONE:
        newest = tx.rollouts.released(commit.app)
        now = "and runs" if newest == rollout.commit else f"and {(newest or 'nothing')[:12]} runs since"
        return Why(f"went out with rollout {number}, {now}")
    return None


def _stage(rollout: Rollout) -> str:
    if rollout.state is R.DEPLOYING_CANARY:
        return "its canary is being switched"
    if rollout.state is R.EVALUATING_CANARY:
        return "its canary is watched"
    return f"{rollout.done} of {rollout.total} hosts have it"


def _before_tests(tx: Transaction, app: AppConfig, commit: Commit) -> Why:
    waiting = [one for one in tx.commits.unfinished(commit.app) if one.id != commit.id]
    its = telling.where(commit)
    others = (
        f", {len(waiting)} other{'s' * (len(waiting) > 1)} before or beside it"
        if waiting and commit.state is CommitState.RECEIVED
        else ""
    )
    took = tx.commits.last_took(commit) or TESTS_S
    turns = 1 if commit.state is CommitState.TESTING else 1 + len(waiting) / app.tests.parallel
    then, left = _then(tx, app, commit)
    known = None if left is None or app.tests.source == "external" else _after(tx, turns * took + left)
    return Why(f"{its}{others}{then}", known)


def _then(tx: Transaction, app: AppConfig, commit: Commit) -> tuple[str, float | None]:
    """What follows when its tests are good, and in how many seconds it is out then; None when nobody can tell."""
    held = freezes.frozen(tx, app)
    if held is not None and commit.now_reason is None:
        return f"; then {held}", None
    active = tx.rollouts.active(commit.app)
    if active is not None and active.state is R.HALTED:
        return f"; then it waits for rollout {active.id}, which is halted", None
    queue = _behind(planning.waiting(tx, commit.app), active)
    place = next((at for at, one in enumerate(queue) if one.id == commit.id), len(queue))
    good = [
        replace(bars.candidate(one, tx), state=CommitState.PASSED)
        if one.state in _UNTESTED
        else bars.candidate(one, tx)
        for one in queue[: place + 1]
    ]
    if place == len(queue):  # nobody has placed it on the branch yet
        good.append(replace(bars.candidate(commit, tx), state=CommitState.PASSED))
    rounds, _, stuck = _rounds(good, place, app, tx.rollouts.durations(commit.app))
    if stuck is not None:
        return f"; then {stuck}", None
    between = f"; {rounds} rollout{'s' * (rounds > 1)} before it" if rounds else ""
    return f"{between}, then it is next for a rollout", _active_s(tx, commit.app) + (rounds + 1) * _typical_s(
        tx, commit.app
    )


def _behind(queue: list[Commit], active: Rollout | None) -> list[Commit]:
    """What the active rollout leaves."""
    if active is None:
        return queue
    at = next((at for at, one in enumerate(queue, start=1) if one.sha == active.commit), 0)
    return queue[at:]


def _in_queue(tx: Transaction, app: AppConfig, commit: Commit) -> Why:
    held = freezes.frozen(tx, app)
    if held is not None and commit.now_reason is None:
        return Why(f"tested, and {held}")
    active = tx.rollouts.active(commit.app) or tx.rollouts.pending(commit.app)
    queue = _behind(planning.waiting(tx, commit.app), active)
    before = _waits_for(active)
    if active is not None and active.state is R.HALTED:
        return Why(f"tested{before}")
    place = next((at for at, one in enumerate(queue) if one.id == commit.id), None)
    if place is None:
        return Why(f"tested{before}; {planning.waits_for(app, tx)}")
    rounds, others, stuck = _rounds(
        [bars.candidate(one, tx) for one in queue], place, app, tx.rollouts.durations(commit.app)
    )
    if stuck is not None:
        return Why(f"tested{before}; {stuck}")
    company = f"with {others} other{'s' * (others > 1)}" if others else "by itself"
    between = f" {rounds} rollout{'s' * (rounds > 1)} before it," if rounds else ""
    left = _active_s(tx, commit.app) + (rounds + 1) * _typical_s(tx, commit.app)
    return Why(f"tested{before},{between} then goes out {company}", _after(tx, left))


def _waits_for(active: Rollout | None) -> str:
    if active is None:
        return ""
    if active.state is R.HALTED:
        return f", waits for rollout {active.id}, which is halted; a person decides: rollout show {active.id}"
    return f", waits for rollout {active.id} ({active.done} of {active.total} hosts)"


def _rounds(
    queue: Sequence[Candidate], place: int, app: AppConfig, durations_s: Sequence[float]
) -> tuple[int, int, str | None]:
    """How many rollouts go before the one that takes the commit at `place`, how many others that one takes, or why it waits.

    As selection would choose by what is known now.
    """
    rounds = 0
    while True:
        choice = selection.choose(queue, durations_s, app.queue.goal, app.queue.most)
        if choice.position is None:
            return rounds, 0, choice.reason
        if place < choice.position:
            return rounds, choice.position - 1, None
        queue, place, rounds = queue[choice.position :], place - choice.position, rounds + 1


def _active_s(tx: Transaction, app: AppName) -> float:
    active = tx.rollouts.active(app)
    return 0.0 if active is None else _left_s(tx, active)


def _left_s(tx: Transaction, rollout: Rollout) -> float:
    passed = (tx.today() - rollout.started_at).total_seconds()
    return max(0.0, _typical_s(tx, rollout.app) - passed)


def _typical_s(tx: Transaction, app: AppName) -> float:
    return median(tx.rollouts.durations(app) or [TYPICAL_S])


def _after(tx: Transaction, seconds: float) -> datetime:
    return tx.today() + timedelta(seconds=seconds)
