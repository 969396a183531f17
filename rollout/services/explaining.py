"""Where a commit is, what it waits for, and when it should be out: one sentence and a time for every state."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import inf

from rollout.config.deploy_file import AppConfig
from rollout.domain import selection
from rollout.domain.judge.constants import UNSEEN_S
from rollout.domain.model import NOT_ON_BRANCH, AppName, Commit, Rollout
from rollout.domain.states import CommitState, RolloutState
from rollout.errors import NotFound
from rollout.services import bars, checks, foreseeing, freezes, outages, planning, telling, views
from rollout.services.foreseeing import UNTESTED, Forecast, forecast, is_silent, is_tested, typical_s
from rollout.services.policies import asks
from rollout.services.rollouts import CANARY_CONFIRM, FAN_OUT_CONFIRM
from rollout.store.store import Transaction

R = RolloutState
UNHEARD = ", on which CI reports nothing, though it did on a newer commit: have it run"
_HASH = re.compile(r"[0-9a-fA-F]{1,40}")


@dataclass(frozen=True, slots=True)
class Why:
    """The answer. `expected_at` is None when it is over, or nobody can tell: a person decides, or has to repair something."""

    because: str
    expected_at: datetime | None = None
    beside: str = ""  # why there may be more to know

    @property
    def in_full(self) -> str:
        """Without the time."""
        return f"{self.because}; {self.beside}" if self.beside else self.because


@dataclass(frozen=True, slots=True)
class Lasts:
    """How long a rollout of the app takes, from those that are done."""

    measured: int  # how many of them; none: the times are assumed
    half_s: float  # half of them took no longer
    most_s: float | None  # nine of ten took no longer; None until there are enough to say so


def lasts(tx: Transaction, app: AppName) -> Lasts:
    """As measured."""
    durations_s = tx.rollouts.durations(app)
    enough = len(durations_s) >= selection.ENOUGH_ROLLOUTS
    most_s = selection.duration_s(durations_s) if enough else None
    return Lasts(len(durations_s), typical_s(tx, app), most_s)


def sentence(app: AppConfig, told: Why, now: datetime) -> str:
    """The answer with its time, if it has one: on the clock of the app's time zone, with the day when it is far."""
    if told.expected_at is None:
        return told.in_full
    at_about = f"{told.because}, at about {_clock(app, told.expected_at, now)}"
    return replace(told, because=at_about).in_full


def _clock(app: AppConfig, moment: datetime, now: datetime) -> str:
    away = moment - now
    if away > timedelta(days=6):  # the name of the day may be that of today
        return freezes.text(app, moment)
    wall = moment.astimezone(app.queue.zone)
    day = "%a %H:%M" if away > timedelta(hours=12) else "%H:%M"
    return f"{wall:{day}} {wall:%Z}"


def asked_for(tx: Transaction, app: AppConfig, name: str | None) -> Commit:
    """The commit that a person names by its hash or the first digits of it; by the branch's name or none, the branch's head."""
    if name is not None and name != app.branch:
        if not _HASH.fullmatch(name):
            raise NotFound(
                f"{name!r} is neither a commit's hash nor {app.branch}, the branch that {app.name} ships",
                remedy=f"git rev-parse {name} tells its hash",
            )
        return _named(tx, app, name)
    head = tx.commits.newest(AppName(app.name))
    if head is None:
        unread = outages.unread(tx, app)
        raise NotFound(
            planning.no_commit(app) + (f"; {unread}" if unread else ""), remedy=planning.FIRST_COMMIT
        )
    return head


def _named(tx: Transaction, app: AppConfig, name: str) -> Commit:
    try:
        return bars.named(tx, app.name, name)
    except NotFound as error:
        unread = outages.unread(tx, app)
        if not unread:
            raise
        raise NotFound(f"{error}; {unread}", remedy=error.remedy) from error


def may_go(commit: Commit) -> bool:
    """Whether automation may make it the commit of a rollout, should its tests pass."""
    return commit.state is not CommitState.FAILED and not commit.is_barred and not commit.is_pull


def why(tx: Transaction, app: AppConfig, commit: Commit) -> Why:
    """What becomes of the commit; of the branch's head as it is known, also why a newer one may not be."""
    told, unread = _becomes(tx, app, commit), outages.unread(tx, app)
    head = tx.commits.newest(commit.app) if unread else None
    return replace(told, beside=unread) if unread and head is not None and head.id == commit.id else told


def _becomes(tx: Transaction, app: AppConfig, commit: Commit) -> Why:
    if commit.is_pull and commit.merged_into is None:
        return Why(_as_pull(tx, app, commit))
    rollout = views.carrying(tx, commit.app, commit.sha)
    told = None if rollout is None else _in_rollout(tx, app, rollout)
    if rollout is not None and told is not None and _rides(commit, rollout.commit):
        return _along(_result(tx, commit), rollout.commit, told)
    return (
        told
        or _in_merge(tx, app, commit)
        or _will_not(tx, app, commit)
        or _not_found(commit)
        or _inside_another(tx, app, commit)
        or _in_queue(tx, app, commit)
    )


def coming(tx: Transaction, app: AppConfig) -> Why:
    """What goes out next, also while something is under way; or why nothing does; and why there may be newer commits than are known."""
    return replace(_coming(tx, app), beside=outages.unread(tx, app) or "")


def _coming(tx: Transaction, app: AppConfig) -> Why:
    name, frozen = AppName(app.name), freezes.frozen(tx, app)
    rollout = planning.under_way(tx, name)
    following = planning.planned_ahead(tx, app) or _unbegun(tx, rollout)
    if rollout is not None and rollout.state is R.HALTED:
        return _told(f"a person decides about rollout {rollout.id} first: rollout show {rollout.id}", frozen)
    if following is not None:
        told = _planned(tx, app, following)
        return Why(f"commit {following.commit[:12]}: {told.because}", told.expected_at)
    waits = planning.ahead(tx, app)
    if rollout is not None and not waits:
        return _told(frozen, planning.gone_then(tx, app) or (None if frozen else "no commit waits behind it"))
    foreseen = forecast(tx, app)
    if not foreseen.commits:
        if rollout is None and not (frozen and waits):
            return Why(planning.waits_for(app, tx))
        return _told(frozen, foreseen.stuck)
    shipped = foreseen.commits[-1]
    told = why(tx, app, shipped)
    return Why(f"commit {shipped.sha[:12]}: {told.because}", told.expected_at)


def _unbegun(tx: Transaction, rollout: Rollout | None) -> Rollout | None:
    """One that nothing but a reading of the branch keeps from beginning is what comes next itself."""
    if rollout is None or rollout.state is not R.PENDING:
        return None
    return rollout if planning.waits_for_the_branch(tx, rollout) else None


def _told(*words: str | None) -> Why:
    """All that keeps it: who waits for one of them, as for a freeze's end, learns at once of the others."""
    return Why("; ".join(filter(None, words)))


def _in_rollout(tx: Transaction, app: AppConfig, rollout: Rollout) -> Why | None:
    """None when the rollout is over and decides nothing any more, or does not while it waits."""
    number, reason = rollout.id, rollout.reason
    match rollout.state:
        case R.PENDING:
            waits = tx.rollouts.active(rollout.app) is not None
            return None if waits and planning.is_of_before(rollout, app) else _planned(tx, app, rollout)
        case R.DEPLOYING_CANARY | R.EVALUATING_CANARY | R.FANNING_OUT:
            words = f"in rollout {number}{_although(bars.barred_on_its_way(tx, rollout))}: {stage(rollout)}"
        case R.HALTED:
            return _halted(tx, app, rollout)
        case R.STOPPING | R.ROLLING_BACK:
            return Why(f"in rollout {number}, which is being taken back: {reason or 'a person said so'}")
        case R.DONE if not _is_past(tx, rollout):
            newest = tx.rollouts.released(rollout.app)
            now = (
                _runs(tx, rollout)
                if newest == rollout.commit
                else f"and {(newest or 'nothing')[:12]} runs since"
            )
            on = f" on {freezes.text(app, rollout.ended_at)}" if rollout.ended_at else ""
            barred = _although(bars.barred_though_out(tx, rollout))
            return Why(f"went out with rollout {number}{on}, {now}{barred}")
        case _:
            return None
    return _unless_asked(tx, rollout, words, foreseeing.ends_at(tx, app, rollout))


def _halted(tx: Transaction, app: AppConfig, rollout: Rollout) -> Why:
    """What a person has to know who decides, with a freeze that automation's rollout would go on in."""
    number, reason = rollout.id, planning.why_it_waits(tx, app, rollout)
    undone = planning.undone_before_yes(tx, app, rollout)
    barred = None if undone else bars.barred_on_its_way(tx, rollout)  # else it is told already
    told = f"in rollout {number}, which is halted: {(reason or '').rstrip('.')}{_although(barred)}"
    frozen = freezes.frozen(tx, app) if rollout.requested_by == planning.AUTOMATION else None
    if frozen is not None and frozen in told:
        frozen = None
    return _told(f"{told}; a person decides: rollout show {number}", frozen)


def _runs(tx: Transaction, rollout: Rollout) -> str:
    """Of what the fleet runs, or went back to: that may be gone, and not to be built again."""
    if tx.fleet.any_runs(rollout.app, rollout.commit):
        return "and runs"
    active = tx.rollouts.active(rollout.app)
    if (
        active is not None
        and active.previous == rollout.commit
        and active.state not in {R.STOPPING, R.ROLLING_BACK}
    ):
        return f"and rollout {active.id} replaces it"
    commit = tx.commits.get(rollout.app, rollout.commit)
    why = f"{rollout.commit[:12]} is on its way back"
    if commit is not None and commit.state is not CommitState.PASSED:
        why = planning.not_to_be_had(commit.sha, commit)
    return f"and is to run again, but no host has it yet: {why}"


def _although(barred: str | None) -> str:
    return f", although {barred}" if barred else ""


def _is_past(tx: Transaction, rollout: Rollout) -> bool:
    """The fleet has gone back past it: by `rollback --to`, or with its first release, since when nothing runs."""
    runs, shipped = planning.released(tx, rollout.app), tx.commits.get(rollout.app, rollout.commit)
    if tx.rollouts.released(rollout.app) is None:
        return True
    if runs is None or shipped is None or not (runs.on_branch and shipped.on_branch):
        return False
    return not bars.is_in(shipped, runs)


def _planned(tx: Transaction, app: AppConfig, rollout: Rollout) -> Why:
    """It has not begun. Somebody sets it aside in a moment if nothing is to come of it."""
    words = f"planned as rollout {rollout.id}"
    why_not = planning.outdated(tx, app, rollout)
    if why_not is not None:
        return Why(f"{words}, of which nothing comes: {why_not}")
    active = tx.rollouts.active(rollout.app)
    if active is None and planning.waits_for_the_branch(tx, rollout):
        return Why(
            f"{words}, which begins when the branch has been read again: a webhook told of a newer head"
        )
    if active is None:
        return _unless_asked(
            tx, rollout, f"{words}, which begins at once", foreseeing.ends_at(tx, app, rollout)
        )
    held = _held_then(app, foreseeing.ends_at(tx, app, active))
    return _unless_asked(
        tx, rollout, f"{words}, begins when {_is_done(active)}{held}", foreseeing.ends_at(tx, app, rollout)
    )


def _unless_asked(tx: Transaction, rollout: Rollout, words: str, ends_at: datetime) -> Why:
    if unread := _unread(tx, rollout):
        return Why(f"{words}, {unread}")
    if _asks(rollout):
        return Why(f"{words}; then a person is asked whether it goes on")
    return Why(words, ends_at)


def _held_then(app: AppConfig, moment: datetime) -> str:
    """That it does not begin at this moment: a window of rollout.toml will have begun by then."""
    over = freezes.free_at(app, moment)
    return f", but not before {freezes.text(app, over)}, by a window of rollout.toml" if over > moment else ""


def _asks(rollout: Rollout) -> bool:
    """Whether a stage that is still to come waits for a person's yes (`confirm`)."""
    asked = asks(rollout) - set(rollout.confirmed)
    ahead = {R.PENDING: {CANARY_CONFIRM, FAN_OUT_CONFIRM}, R.FANNING_OUT: set()}
    return bool(asked & ahead.get(rollout.state, {FAN_OUT_CONFIRM}))


def _unread(tx: Transaction, rollout: Rollout) -> str:
    """Of a canary that cannot be read: then it does not pass, and nobody can tell when that heals; "" of any other."""
    unread_s = tx.samples.unread_s(rollout.id) if rollout.state is R.EVALUATING_CANARY else 0.0
    if unread_s < UNSEEN_S:
        return ""
    return f"and could not be read for {unread_s:.0f} s; what cannot be read does not pass: rollout check says why it cannot"


def stage(rollout: Rollout) -> str:
    """How far one that is on its way has come."""
    if rollout.state is R.HALTED:
        return "it is halted"
    if rollout.state is R.DEPLOYING_CANARY:
        return "its canary is being switched"
    if rollout.state is R.EVALUATING_CANARY:
        return "its canary is watched"
    return f"{rollout.done} of {rollout.total} hosts have it"


def _as_pull(tx: Transaction, app: AppConfig, commit: Commit) -> str:
    """It is never shipped, whatever its tests say."""
    pull = f"head of pull request {commit.pull}"
    barred = f", and is barred then: {commit.barred_for}" if commit.is_barred else ""
    if commit.state is CommitState.FAILED:
        return f"{pull}, {telling.verdict(commit)}{_look(tx, commit)}{barred}"
    words = "tested" if commit.state is CommitState.PASSED else telling.where(commit)
    return f"{pull}: {words}; it ships only when it is merged into {app.branch}{barred}"


def _in_merge(tx: Transaction, app: AppConfig, commit: Commit) -> Why | None:
    """It ships with the commit of the branch's line that it came in with."""
    merge = tx.commits.on_line(commit)
    if merge.id == commit.id:
        return None
    told = why(tx, app, merge)
    return Why(f"came in with {merge.sha[:12]}: {told.because}", told.expected_at)


def _will_not(tx: Transaction, app: AppConfig, commit: Commit) -> Why | None:
    """Why nothing becomes of it by itself."""
    running = planning.released(tx, commit.app)
    if running is not None and planning.is_out(commit, running):
        return Why(f"older than {running.sha[:12]}, which runs: what it changed is in there")
    gone = commit.position is not None and not commit.on_branch
    if commit.is_barred and not (gone and commit.state in UNTESTED):
        return _barred(tx, app, commit)
    if commit.state is CommitState.FAILED:
        return _failed(tx, app, commit)
    if (red := checks.red(tx, app, commit)) is not None:
        return Why(f"its tests failed: {red}{_look(tx, commit)}")
    if gone:
        return Why(f"no longer on branch {app.branch}")
    return None


def _not_found(commit: Commit) -> Why | None:
    """A webhook told of it, and git did not: nothing is foreseen."""
    if commit.position is not None or not (commit.reason or "").startswith(NOT_ON_BRANCH):
        return None
    return Why(f"{commit.reason}: a webhook told of it, and it is looked for again")


def _failed(tx: Transaction, app: AppConfig, commit: Commit) -> Why:
    """It never goes out by itself, but inside of a later one that passes: that is what a branch is."""
    foreseen = forecast(tx, app, commit) if commit.position is not None and commit.on_branch else Forecast()
    brings = foreseen.commits[-1] if foreseen.commits else commit
    if _rides(commit, brings.sha) and brings.state is CommitState.PASSED:
        return _along(_result(tx, commit), brings.sha, why(tx, app, brings))
    return Why(telling.verdict(commit) + _look(tx, commit))


def _barred(tx: Transaction, app: AppConfig, commit: Commit) -> Why:
    """It never goes out by itself, but together with what undoes it."""
    foreseen = forecast(tx, app, commit) if commit.position is not None and commit.on_branch else Forecast()
    brings = foreseen.commits[-1] if foreseen.commits else commit
    barred = f"{_beside_its_bar(tx, commit)}barred: {commit.barred_for}"
    if brings.id != commit.id:
        return _along(barred, brings.sha, why(tx, app, brings), passed=False)
    lifts = " (for all of that)" if len(bars.reasons(commit.barred_for)) > 1 else ""
    return Why(
        f"{barred}; a later commit that says so may mend it, or: rollout unbar {commit.sha[:12]}{lifts}"
    )


def _beside_its_bar(tx: Transaction, commit: Commit) -> str:
    """Of one that has not passed: what its tests say."""
    if commit.state in UNTESTED:
        return f"{telling.where(commit)}, and is "
    return (
        f"{telling.verdict(commit)}{_look(tx, commit)}; it is " if commit.state is CommitState.FAILED else ""
    )


def _rides(commit: Commit, brings: str) -> bool:
    return commit.state is CommitState.FAILED and commit.sha != brings


def _along(stands: str, brings: str, told: Why, *, passed: bool = True) -> Why:
    later = "which came later and passed" if passed else "which came later"
    return Why(f"{stands}; it is taken along by {brings[:12]}, {later}: {told.because}", told.expected_at)


def _result(tx: Transaction, commit: Commit) -> str:
    return f"{telling.verdict(commit)}{_look(tx, commit)}"


def _look(tx: Transaction, commit: Commit) -> str:
    look = telling.look(tx, commit)
    return f"; what they printed: {look}" if look else ""


def _inside_another(tx: Transaction, app: AppConfig, commit: Commit) -> Why | None:
    """Before the first release the branch's head goes out alone, and everything older is in it."""
    rollout = planning.under_way(tx, commit.app)
    if rollout is not None:
        brought = tx.commits.get(commit.app, rollout.commit)
        told = _in_rollout(tx, app, rollout)
    else:
        brought, told = tx.commits.newest(commit.app), None
        if planning.released(tx, commit.app) is not None:
            return None
    if brought is None or brought.id == commit.id or not brought.on_branch or not _is_below(commit, brought):
        return None
    told = told or why(tx, app, brought)
    return Why(f"older than {brought.sha[:12]}, and inside of it: {told.because}", told.expected_at)


def _is_below(commit: Commit, other: Commit) -> bool:
    return commit.position is not None and commit.position <= (other.position or 0)


def _in_queue(tx: Transaction, app: AppConfig, commit: Commit) -> Why:
    """Of a commit that may go out, or may when its tests pass."""
    words = [_stands(tx, app, commit)]
    rollout = planning.under_way(tx, commit.app)
    if rollout is not None and rollout.state is R.HALTED:
        number, held = rollout.id, None if commit.now_reason is not None else freezes.frozen(tx, app)
        words.append(f"waits for rollout {number}, which is halted; a person decides: rollout show {number}")
        return _told(", ".join(words), held)
    foreseen = forecast(tx, app, commit)
    if (silent := _silent_in(commit, foreseen)) is not None:
        brings = foreseen.commits[-1]
        if brings.id != commit.id:
            passed = brings.state is CommitState.PASSED
            return _along(words[0], brings.sha, why(tx, app, brings), passed=passed)
        words[0] += UNHEARD if silent.silent_from_s else ""  # of a cancelled run that is said already
    words += _tests_of_others(commit, foreseen)
    if rollout is not None:
        words.append(_waits_for(rollout))
    wish = commit.now_reason is not None or foreseen.is_wish
    held = None if wish else freezes.frozen(tx, app)
    if held is not None:
        words.append(held)
    stuck = planning.hindered(tx, commit.app) if foreseen.commits else foreseen.stuck
    if stuck is not None or (held is not None and freezes.over_at(tx, app) is None):
        return _told(", ".join(words), stuck)
    if foreseen.rounds:
        words.append(f"{_count(foreseen.rounds, 'rollout')} before it")
    words.append(f"then goes out {_company(len(foreseen.commits) - 1)}")
    if commit.now_reason is not None:
        words.append(f"before the queue: {commit.now_by}: {commit.now_reason}")
    begins_at = _begins_at(tx, app, commit, foreseen)
    if begins_at is None:
        return Why(", ".join(words))
    words[-1] += "" if wish else _held_then(app, begins_at)
    begins_at = begins_at if wish else freezes.free_at(app, begins_at)
    return Why(", ".join(words), begins_at + timedelta(seconds=typical_s(tx, commit.app)))


def _silent_in(commit: Commit, foreseen: Forecast) -> selection.Candidate | None:
    return next((one for one in foreseen.seen if one.sha == commit.sha and is_silent(one)), None)


def _tests_of_others(commit: Commit, foreseen: Forecast) -> list[str]:
    """Which ones a tested commit waits for. A person's word waits for no other's."""
    if commit.state is not CommitState.PASSED or commit.now_reason is not None or not foreseen.commits:
        return []
    if foreseen.is_wish:
        brings = foreseen.commits[-1]
        waits = brings.id != commit.id and brings.state in UNTESTED
        return [f"waits for the tests of {brings.sha[:12]}, which {brings.now_by} wants out"] if waits else []
    untested = _where(commit, foreseen, is_tested)
    unheard = _where(commit, foreseen, lambda one: is_silent(one) and not one.silent)
    words = [f"waits for the tests of {untested}"] if untested else []
    if unheard:
        words.append(f"waits a minute for a report on {unheard}")
    return words


def _where(commit: Commit, foreseen: Forecast, waits: Callable[[selection.Candidate], bool]) -> str:
    """How many of those it waits for, below it and above. Above: up to what undoes what would go out with it; it goes without the others."""
    place = next((at for at, one in enumerate(foreseen.seen, start=1) if one.sha == commit.sha), 0)
    least = next((at for at in selection.reaches(foreseen.seen) if at >= place), place)
    below = sum(map(waits, foreseen.seen[:place]))
    above = sum(map(waits, foreseen.seen[place:least]))
    words = [f"{_count(below, 'commit')} below it"] if below else []
    return " and ".join(words + ([f"{_count(above, 'commit')} above it"] if above else []))


def _stands(tx: Transaction, app: AppConfig, commit: Commit) -> str:
    """How far it is by itself. Without a position it is known by a webhook's word only."""
    words = "tested" if commit.state is CommitState.PASSED else telling.where(commit)
    if commit.suspect:
        batch = f"rollout {commit.suspect_of}" if commit.suspect_of is not None else "its batch"
        words += f", one of those that may be what went wrong with {batch}"
    if (request := bars.undoes_nobody(tx, commit)) is not None:
        words += (
            f", no revert here (no commit of branch {app.branch} is known that was {request}; one that says"
            " `Rollout-Fixes: <sha>` counts)"
        )
    if commit.position is None and not words.startswith(NOT_ON_BRANCH):
        return f"not found on branch {app.branch} yet, {words}"
    return words


def _waits_for(rollout: Rollout) -> str:
    if rollout.state in {R.STOPPING, R.ROLLING_BACK}:
        return f"waits until rollout {rollout.id} is taken back"
    return f"waits for rollout {rollout.id} ({rollout.done} of {rollout.total} hosts)"


def _is_done(rollout: Rollout) -> str:
    return f"rollout {rollout.id} is done ({rollout.done} of {rollout.total} hosts)"


def _company(others: int) -> str:
    return f"with {_count(others, 'other')}" if others else "by itself"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _begins_at(tx: Transaction, app: AppConfig, commit: Commit, foreseen: Forecast) -> datetime | None:
    """When its rollout could begin, but for a window that has begun by then. Tests run beside rollouts, so the later of the two counts.

    Nobody can tell when a person says yes to a stage (`confirm`), when a canary can be read again, or when somebody else's tests end.
    """
    rollout = planning.under_way(tx, commit.app)
    asks = rollout is not None and foreseeing.is_healthy(rollout) and _asks(rollout)
    if app.fan_out.confirm or asks or (rollout is not None and _unread(tx, rollout)):
        return None
    tests_s = foreseeing.turns_s(app, foreseen.untested, foreseeing.took_of_tests_s(tx, app))
    if tests_s == inf:
        return None
    tested_at = tx.today() + timedelta(seconds=tests_s)
    return max(tested_at, foreseen.free_at or tested_at)
