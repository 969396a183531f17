"""Whether a commit is good by what CI servers reported: each required check must say so, within a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from rollout.domain.model import Check, CheckState

PIPELINE = "pipeline"  # the name of a GitLab pipeline's check
ELSEWHERE = "pipeline of another branch"  # the same, where it ran for a branch or a merge request
# How the stamp of a run begins that goes by its number: then come its suite and that, and last its time
NUMBERED = "run"


class Word(StrEnum):
    """What follows from the reports so far."""

    WAIT = "wait"
    PASS = "pass"  # noqa: S105  # a verdict, not a password
    FAIL = "fail"


_RESULTS = frozenset({CheckState.SUCCESS, CheckState.FAILURE})
# Of one second the last of these counts: a run begins before it ends, and a failure is believed.
_AT_ONCE = [CheckState.PENDING, CheckState.CANCELLED, CheckState.SUCCESS, CheckState.FAILURE]


@dataclass(frozen=True, slots=True)
class Decision:
    """The word, and why, for people."""

    word: Word
    why: str
    late: bool = False  # it fails because nobody reported in time, not because somebody said so
    silent: bool = False  # a run was cancelled: it does not pass before somebody has it run again


def decide(required: Sequence[str], reported: Sequence[Check], age_s: float, limit_s: float) -> Decision:
    """Pass when every required check is a success; fail when one is a failure, or when some are not in after `limit_s`.

    `age_s`: since the commit was received. Checks that are not required decide nothing, and a run that was cancelled
    is as good as none: somebody may start it again.
    """
    said = {check.name: check for check in reported}
    checks = [said.get(name, Check(name, CheckState.PENDING)) for name in required]
    failed = [check for check in checks if check.state is CheckState.FAILURE]
    if failed:
        where = " ".join(check.url for check in failed if check.url)
        return Decision(Word.FAIL, f"check {_names(failed)} failed" + (f": {where}" if where else ""))
    missing = [check for check in checks if check.state is not CheckState.SUCCESS]
    if not missing:
        return Decision(Word.PASS, f"checks passed: {', '.join(required)}")
    cancelled = [check for check in missing if check.state is CheckState.CANCELLED]
    told = "".join(f"; {_cancelled(check)}" for check in cancelled)
    if age_s >= limit_s:
        told = told or ": is the CI server's report on its way?"
        return Decision(
            Word.FAIL, f"no result of check {_names(missing)} after {limit_s:.0f} s{told}", late=True
        )
    return Decision(Word.WAIT, f"waits for check {_names(missing)}{told}", silent=bool(cancelled))


def is_unheard(required: Sequence[str], reported: Sequence[Check]) -> bool:
    """Whether nobody has said anything yet of what is required."""
    return not any(check.name in required for check in reported)


def of_its_branch(check: Check, ran_for: str, branch: str) -> Check:
    """As it counts for a commit of `branch`: a pipeline that ran for another one (usually with fewer jobs) is not the branch's."""
    return check if ran_for == branch else replace(check, name=ELSEWHERE)


def of_a_request(reported: Sequence[Check]) -> list[Check]:
    """As they count for the head of a pull request, which is on no branch of ours: a pipeline is its pipeline."""
    return [replace(check, name=PIPELINE) if check.name == ELSEWHERE else check for check in reported]


def came_late(check: Check, known: Sequence[Check]) -> bool:
    """Whether it is no news: it comes again, or was overtaken by what its server said later.

    Where the server does not say when: a run is under way of which the result is known. A run is known by its address.
    """
    before = next((one for one in known if one.name == check.name), None)
    if before is None or check.stamp:
        return before is not None and not _is_later(check, before)
    return check.state is CheckState.PENDING and before.url == check.url != "" and before.state in _RESULTS


def _is_later(check: Check, before: Check) -> bool:
    """By their stamps where one thing said both; else by their times, and of one second by what they say: no number tells there.

    One thing is a suite, whose runs have rising numbers, or all that goes by the time.
    """
    if not before.stamp or _suite(check) == _suite(before):
        return check.stamp > before.stamp
    its, others = ((_time(one), _AT_ONCE.index(one.state)) for one in (check, before))
    return its > others


def _suite(check: Check) -> list[str]:
    words = check.stamp.split()
    return words[:2] if words[0] == NUMBERED else []


def _time(check: Check) -> str:
    return check.stamp.split()[-1 if _suite(check) else 0]


def timed(check: Check, known: Sequence[Check], now: datetime, came_at: datetime | None) -> Check:
    """With how long its run took, by our clock: from the first word that it is under way to its result.

    Of one that only says its result, from when the commit came (`came_at`; None: it is not known yet), as it has waited for
    that so long. One that says a result after a result was run again, and nobody knows since when; the same one was sent again.
    """
    before = next((one for one in known if one.name == check.name), None)
    goes_on = before is not None and before.state is CheckState.PENDING
    began_at = before.began_at if goes_on and before is not None else None
    if check.state is CheckState.PENDING:
        return replace(check, began_at=began_at or now)
    if check.state not in _RESULTS:
        return check
    if before is None:
        began_at = came_at
    elif before.state is check.state:
        return replace(check, began_at=before.began_at, took_s=before.took_s)
    took_s = None if began_at is None else max(0.0, (now - began_at).total_seconds())
    return replace(check, began_at=began_at, took_s=took_s)


def took_s(required: Sequence[str], reported: Sequence[Check]) -> float | None:
    """How long the slowest of the required ones took; None where nobody knows."""
    return max(
        (one.took_s for one in reported if one.name in required and one.took_s is not None), default=None
    )


def _names(checks: Sequence[Check]) -> str:
    return ", ".join(check.name for check in checks)


def _cancelled(check: Check) -> str:
    where = f": {check.url}" if check.url else ""
    return f"{check.name} {check.details or 'was cancelled, run it again'}{where}"
