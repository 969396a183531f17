"""Which hosts of a fan-out are looked at, and how finely their past is kept."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from rollout.domain.verdict import Interval

_ALMOST = 1e-6  # seconds


def evenly(number: int, total: int) -> list[int]:
    """So many of the positions 0 … total - 1, spread evenly; all of them when there are no more."""
    if total <= number:
        return list(range(total))
    return [int((place + 0.5) * total / number) for place in range(number)]


def coarse(intervals: Sequence[Interval], dt: float) -> list[Interval]:
    """History (t <= 0) in bins of `dt`, those of which a part is missing left out; the rest as it is."""
    kept, bins = [], dict[int, list[Interval]]()
    for one in intervals:
        if one.t > 0 or one.dt >= dt:
            kept.append(one)
        else:
            bins.setdefault(ceil(one.t / dt - _ALMOST), []).append(one)
    whole = [
        _sum(parts, number * dt, dt)
        for number, parts in bins.items()
        if sum(part.dt for part in parts if part.observed) >= dt - _ALMOST
    ]
    return sorted([*whole, *kept], key=lambda one: one.t)


def _sum(parts: Sequence[Interval], t: float, dt: float) -> Interval:
    counts: dict[str, int] = {}
    for part in parts:
        for name, count in part.counts.items():
            counts[name] = counts.get(name, 0) + count
    return replace(parts[0], t=t, dt=dt, counts=counts)
