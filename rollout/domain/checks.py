"""Whether a commit is good by what CI servers reported: each required check must say so, within a time."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from math import inf
from operator import attrgetter, itemgetter

from rollout.domain.model import Check, CheckState

LONGEST_NAME = 200
NAME = re.compile(
    rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{LONGEST_NAME}}}"
)  # of a check: with what is not seen, too
PIPELINE = "pipeline"  # the name of a GitLab pipeline's check
ELSEWHERE = "pipeline of another branch"  # the same, where it ran for a branch or a merge request
PIPELINES = frozenset({PIPELINE, ELSEWHERE})  # on the head of a request both are one check


class Word(StrEnum):
    """What follows from the reports so far."""

    WAIT = "wait"
    PASS = "pass"  # noqa: S105  # a verdict, not a password
    FAIL = "fail"


UNHEARD_S = 60.0  # a commit's own word may come a little later than a newer one's
_RESULTS = frozenset({CheckState.SUCCESS, CheckState.FAILURE})
# The last of these that somebody says of a check counts.
_WORST_LAST = [CheckState.SUCCESS, CheckState.CANCELLED, CheckState.PENDING, CheckState.FAILURE]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a check comes to by all that is said of it: it is as good as the worst of that."""

    name: str
    state: CheckState
    url: str = ""
    source: str = ""  # who says so; where several say something, which of them say this
    details: str = ""
    took_s: float | None = None
    reported_at: datetime | None = None
    of_several: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The word, and why, for people."""

    word: Word
    why: str
    late: bool = False  # it fails because nobody reported in time, not because somebody said so


def decide(required: Sequence[str], reported: Sequence[Check], age_s: float, limit_s: float) -> Decision:
    """Pass when every required check is a success; fail when one is a failure, or when some are not in after `limit_s`.

    `age_s`: since the commit was received. Checks that are not required decide nothing, and a run that was cancelled
    is as good as none: somebody may start it again.
    """
    said = {check.name: check for check in by_name(reported)}
    checks = [said.get(name, Summary(name, CheckState.PENDING)) for name in required]
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
    return Decision(Word.WAIT, f"waits for check {_names(missing)}{told}")


def answered(required: Sequence[str], reported: Sequence[Check]) -> dict[str, datetime]:
    """The required checks that have a result, and when it was reported."""
    said = _of_these(required, reported)
    return {
        one.name: one.reported_at for one in said if one.state in _RESULTS and one.reported_at is not None
    }


def silent_from_s(
    required: Sequence[str], reported: Sequence[Check], came_at: datetime, newer: Mapping[str, datetime]
) -> float:
    """From which age on nobody is waited for who could say more of a commit that has no result yet; inf while somebody is.

    Once a run of what is required was cancelled; and a minute after a check has a result on a newer commit (`newer`: since when)
    and still no word here, unless another one goes on: CI runs once for a push, and for its head.
    """
    said = _of_these(required, reported)
    states = {one.state for one in said}
    if CheckState.FAILURE in states:
        return inf
    if CheckState.CANCELLED in states:
        return 0.0
    heard = {one.name for one in said}
    unheard = [newer[name] for name in required if name in newer and name not in heard]
    if CheckState.PENDING in states or not unheard:
        return inf
    return max(_age_s(at, came_at) for at in (min(unheard), *(one.reported_at for one in said))) + UNHEARD_S


def _of_these(required: Sequence[str], reported: Sequence[Check]) -> list[Summary]:
    return [one for one in by_name(reported) if one.name in required]


def _age_s(at: datetime | None, came_at: datetime) -> float:
    """How old a commit was when something was reported, by our clock."""
    return 0.0 if at is None else max(0.0, (at - came_at).total_seconds())


def of_its_branch(check: Check, ran_for: str, branch: str) -> Check:
    """As it counts for a commit of `branch`: a pipeline that ran for another one (usually with fewer jobs) is not the branch's."""
    return check if ran_for == branch else replace(check, name=ELSEWHERE)


def of_a_request(reported: Sequence[Check]) -> list[Check]:
    """As they count for the head of a pull request, which is on no branch of ours: a pipeline is its pipeline."""
    return [replace(check, name=PIPELINE) if check.name == ELSEWHERE else check for check in reported]


def by_name(words: Iterable[Check]) -> list[Summary]:
    """What each check comes to, by name, in the newest word of whatever says something of it."""
    return [_together(its) for its in _of_each_name(words)]


def _of_each_name(words: Iterable[Check]) -> list[list[Check]]:
    """The words that stand, by name."""
    name = attrgetter("name")
    return [_standing(list(its)) for _, its in groupby(sorted(words, key=name), name)]


def _together(words: Sequence[Check]) -> Summary:
    worst = max(words, key=_badness)
    says = dict.fromkeys(_who(one, words) for one in words if one.state is worst.state)
    return Summary(
        worst.name,
        worst.state,
        worst.url,
        source=", ".join(says) if len(words) > 1 else worst.source,
        details=worst.details,
        took_s=max((one.took_s for one in words if one.took_s is not None), default=None),
        reported_at=max((one.reported_at for one in words if one.reported_at is not None), default=None),
        of_several=len(words) > 1,
    )


def _badness(check: Check) -> int:
    return _WORST_LAST.index(check.state)


def _who(check: Check, words: Sequence[Check]) -> str:
    """With its kind, and with which one of it (a suite, a branch) where several of these words are of one kind."""
    alike = {one.thing for one in words if (one.source, _kind(one)) == (check.source, _kind(check))}
    return f"{check.source} {_kind(check) if len(alike) == 1 else check.thing}".rstrip()


def _kind(check: Check) -> str:
    return check.thing.partition(" ")[0]


def _standing(words: Sequence[Check]) -> list[Check]:
    """Without those that were run again.

    Jobs of one suite may have one name, and nothing tells which of them a run repeats: it takes the place of one, a red one first.
    """
    left: list[Check] = []
    for run in sorted(words, key=_place):
        if before := [one for one in left if _is_again(run, one)]:
            left.remove(max(before, key=_badness))
        left.append(run)
    now = {one.source for one in left if not _is_of_before(one)}
    return [one for one in left if not (_is_of_before(one) and one.source in now)]


def _is_of_before(check: Check) -> bool:
    """Whether an older version kept it, which did not say what said it."""
    return check.source != "api" and not check.thing


def _is_again(run: Check, before: Check) -> bool:
    """Of a later attempt; where the server counts none, it is known to have begun when the other one was over."""
    if run.thing != before.thing:
        return False
    if run.attempt or before.attempt:
        return run.attempt > before.attempt
    return before.until is not None and run.since is not None and before.until <= run.since


def _place(run: Check) -> tuple[int, float, int]:
    """Before whatever repeats it."""
    at = next((time for time in (run.since, run.until) if time is not None), inf)
    return run.attempt, at, run.run


def came_late(check: Check, known: Sequence[Check]) -> bool:
    """Whether it is no news: it comes again, or was overtaken by what its server said of its run later. Of one moment the worse word counts.

    Where the server does not say when: a run is under way of which the result is known. A run is known by its address.
    """
    before = _of_its_run(check, known)
    if before is None:
        return any(_has_overtaken(check, one) for one in known)
    if check.stamp:
        return (check.stamp, _badness(check)) <= (before.stamp, _badness(before))
    return check.state is CheckState.PENDING and before.url == check.url != "" and before.state in _RESULTS


def _has_overtaken(check: Check, before: Check) -> bool:
    """Whether an older version kept a later word of that server in its place, or this one."""
    if not _is_of_before(before) or (before.name, before.source) != (check.name, check.source):
        return False
    at, later = _time(check), _time(before)
    return "" not in {at, later} and (at, _badness(check)) <= (later, _badness(before))


def _time(check: Check) -> str:
    """The one word of each kind of stamp that is a time."""
    return next((word for word in check.stamp.split() if "." in word), "")


def begun_by(late: Check, known: Sequence[Check]) -> Check:
    """The word on its run that overtook it, with when that began: where its server counts no attempts, that tells what it repeats."""
    newest = _of_its_run(late, known) or late
    since = [one.since for one in (newest, late) if one.since is not None]
    return newest if newest.attempt else replace(newest, since=min(since, default=None))


def says_nothing(check: Check, known: Sequence[Check]) -> bool:
    """Whether what stands is what stood before it: another run has its place. It is kept all the same, as the word of a namesake may come."""
    its = [one for one in known if one.name == check.name]
    before, now = (
        [replace(one, since=None) for one in _standing(words)] for words in (its, _with(check, its))
    )
    return before == now


def makes_room(required: Sequence[str], known: Sequence[Check]) -> Check | None:
    """The oldest word that decides nothing: its check is not required; if all are, another run has its place."""
    names = {*required, *([ELSEWHERE] if PIPELINE in required else [])}
    decide = [one for its in _of_each_name(one for one in known if one.name in names) for one in its]
    others = [
        (one.name in names, one.reported_at, one) for one in known if one.reported_at and one not in decide
    ]
    return min(others, key=itemgetter(0, 1), default=(True, None, None))[2]


def turns_red(check: Check, known: Sequence[Check]) -> bool:
    """Whether its check is red by this word: by itself, or since one that stood in for a red one stands in for it now."""
    before, now = ({one.name: one.state for one in by_name(words)} for words in (known, _with(check, known)))
    red = CheckState.FAILURE
    return now[check.name] is red and (check.state is red or before.get(check.name) is not red)


def _with(check: Check, known: Sequence[Check]) -> list[Check]:
    before = _of_its_run(check, known)
    return [*(one for one in known if one is not before), check]


def _of_its_run(check: Check, known: Sequence[Check]) -> Check | None:
    key = check.name, check.thing, check.run
    return next((one for one in known if (one.name, one.thing, one.run) == key), None)


def timed(check: Check, known: Sequence[Check], now: datetime, came_at: datetime | None) -> Check:
    """With when its run began, and how long it took, by our clock: from the first word that it is under way to its result.

    Of one that only says its result, from when the commit came (`came_at`; None: it is not known yet), as it has waited for
    that so long. One that says a result after a result was run again, and nobody knows since when; the same one was sent again.
    """
    before = _of_its_run(check, known)
    since = [one.since for one in (before, check) if one is not None and one.since is not None]
    check = replace(check, since=min(since, default=None))
    goes_on = before is not None and before.state is CheckState.PENDING
    began_at = before.began_at if goes_on and before is not None else None
    if check.state is CheckState.PENDING:
        return replace(check, began_at=began_at or now)
    if check.state not in _RESULTS:
        return check
    if before is None:
        began_at = None if any(one.name == check.name for one in known) else came_at
    elif before.state is check.state:
        return replace(check, began_at=before.began_at, took_s=before.took_s)
    took_s = None if began_at is None else max(0.0, (now - began_at).total_seconds())
    return replace(check, began_at=began_at, took_s=took_s)


def took_s(required: Sequence[str], reported: Sequence[Check]) -> float | None:
    """How long the slowest of the required ones took; None where nobody knows."""
    return max(
        (one.took_s for one in by_name(reported) if one.name in required and one.took_s is not None),
        default=None,
    )


def _names(checks: Sequence[Summary]) -> str:
    return ", ".join(map(_name, checks))


def _name(check: Summary) -> str:
    """With who says so, where several say something of it."""
    return f"{check.name} ({check.source})" if check.of_several else check.name


def _cancelled(check: Summary) -> str:
    where = f": {check.url}" if check.url else ""
    return f"{_name(check)} {check.details or 'was cancelled, run it again'}{where}"
