"""What canary and baseline answered over time, summed up in bins of one length: for a chart."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from rollout.domain.judge.steps import BASELINE, CANARY, is_good
from rollout.domain.verdict import Interval, Policy

SHORTEST_S = 2.0
_ALMOST = 1e-6  # seconds


@dataclass(slots=True)
class Side:
    """What the hosts of one side answered in a bin."""

    requests: int = 0
    bad: int = 0
    host_s: float = 0.0  # seconds that were read, of all its hosts together

    @property
    def observed(self) -> bool:
        """Whether any of it could be read; if not, no requests means nothing."""
        return self.host_s > 0


@dataclass(slots=True)
class Bin:
    """(t - dt, t], seconds since the switch: a bin is either history (t <= 0) or not."""

    t: float
    dt: float
    canary: Side = field(default_factory=Side)
    baseline: Side = field(default_factory=Side)


def bins(intervals: Sequence[Interval], policy: Policy, most: int) -> list[Bin]:
    """At most `most` bins without a gap between the first interval and the last; none without intervals."""
    told = [one for one in intervals if one.role in {CANARY, BASELINE}]
    if not told:
        return []
    width = _width(told, most)
    found: dict[int, Bin] = {}
    for one in told:
        place = _place(one, width)
        at = found.setdefault(place, Bin(place * width, width))
        if one.observed:
            _add(at.canary if one.role == CANARY else at.baseline, one, policy)
    return [found.get(place) or Bin(place * width, width) for place in range(min(found), max(found) + 1)]


def _add(side: Side, one: Interval, policy: Policy) -> None:
    side.host_s += one.dt
    for name, count in one.counts.items():
        side.requests += count
        side.bad += 0 if is_good(name, policy) else count


def _place(one: Interval, width: float) -> int:
    """The number of the bin that its middle lies in; 0 is the last one of history."""
    place = ceil(_middle(one) / width - _ALMOST)
    return max(1, place) if one.t > 0 else min(0, place)


def _width(intervals: Sequence[Interval], most: int) -> float:
    """A multiple of the longest interval. Where intervals end at odd moments, two fit into a bin: else some would be empty."""
    seen = [one for one in intervals if one.observed]
    longest = max((one.dt for one in seen), default=SHORTEST_S)
    even = all(abs(one.t / longest - round(one.t / longest)) < _ALMOST for one in seen)
    least = longest if even else 2 * longest
    first, last = min(intervals, key=_order), max(intervals, key=_order)
    times = 1
    while _place(last, least * times) - _place(first, least * times) >= most:
        times += 1
    return least * times


def _order(one: Interval) -> tuple[bool, float]:
    return one.t > 0, _middle(one)


def _middle(one: Interval) -> float:
    return one.t - one.dt / 2
