"""Watching the fan-out: the failing side goes on after PASS, on the hosts that have been switched.

A bake of a minute cannot see a fault that begins later. The hosts that are switched are compared with those that are not
yet; the evidence begins anew at each doubling of the switched hosts, so that early calm does not hide later harm. What a
deployment may spend on false alarms is shared out: the n-th beginning gets alpha / (n (n + 1)), which sums to alpha.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf

from rollout.domain.judge.constants import ALPHA
from rollout.domain.judge.judging import Judge
from rollout.domain.judge.steps import BASELINE, CANARY
from rollout.domain.verdict import Interval, Policy, Status, Verdict


def watch(
    intervals: Iterable[Interval],
    switched: Mapping[str, float],
    policy: Policy,
    *,
    left: Mapping[str, float] | None = None,
    since: float = 0.0,
) -> Verdict:
    """FAIL when the hosts switched so far harm people, else RUNNING; never PASS.

    `intervals` of all hosts, sorted by t, in seconds since the canary was ready (t <= 0 is history); their roles do not
    matter. `switched`: host -> t at which its new release was ready. `left`: host -> t at which its switch began, where
    that is known apart; between the two, and in the bins around them, it counts for neither side, and a host that was
    never ready never counts again. `since`: a person has accepted what was seen before; history stays history.
    The same intervals always give the same verdict, and a FAIL is final.
    """
    listed = list(intervals)
    left = {**switched, **(left or {})}
    # When the last of many is switched, its past says nothing of what befalls them all; the limit still does.
    own_past = all(left.get(one.host, inf) <= 0 for one in listed)
    incident = -inf  # when a shared one was seen last: evidence begins anew, what befalls all does not
    verdict = Verdict(Status.RUNNING, "not enough evidence", 0.0)
    for number, (begin, end) in enumerate(_periods(switched, since), start=1):
        if begin < since:
            continue
        watcher = Judge(policy, alpha=ALPHA / (number * (number + 1)), passes=False, own_past=own_past)
        watcher.failing.incidents.last = incident - begin
        verdict = watcher.add(_period(listed, switched, left, begin, end))
        if verdict.status is Status.FAIL:
            return _at(verdict, begin)
        incident = watcher.failing.incidents.last + begin
    return _at(verdict, begin) if switched else verdict


def _at(verdict: Verdict, begin: float) -> Verdict:
    return replace(verdict, t=verdict.t + begin)


def _periods(switched: Mapping[str, float], since: float = 0.0) -> list[tuple[float, float]]:
    """From each doubling of the switched hosts to the next; `since` begins one too."""
    begins: list[float] = [since] if since > 0 else []
    wanted = 1
    for count, t in enumerate(sorted(switched.values()), start=1):
        if count >= wanted:
            begins.append(t)
            wanted = 2 * count
    return list(pairwise([*sorted(begins), inf]))


def _period(
    intervals: Sequence[Interval],
    switched: Mapping[str, float],
    left: Mapping[str, float],
    begin: float,
    end: float,
) -> Iterator[Interval]:
    """History as it is, and what came in the period; t counts from its beginning, roles are those of each bin."""
    for one in intervals:
        at = switched.get(one.host, inf)
        if one.t <= 0:
            # What the hosts of this period's canary were like, seen from its beginning.
            yield replace(one, role=CANARY if at <= begin else BASELINE)
        elif not begin < one.t <= end:
            continue
        elif one.t <= left.get(one.host, inf):
            yield replace(one, t=one.t - begin, role=BASELINE)
        elif one.t - one.dt >= at:
            yield replace(one, t=one.t - begin, role=CANARY)
