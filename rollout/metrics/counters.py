"""From the raw counters of one host to what was added between two scrapes. Pure.

Raw, because `rate()` and `increase()` extrapolate, and miss the first increment of a new series. A counter that went down
was reset: what it shows has been counted since, a lower bound. A series that appears while its instance was scraped
already starts from 0; one whose instance was not is unknown, and only the next scrape tells.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median


@dataclass(frozen=True, slots=True)
class Series:
    """One counter as it was scraped."""

    instance: str  # whose it is: its target's labels
    key: str  # all of its labels
    code: str  # the status: "200", or "2xx"
    samples: tuple[tuple[float, float], ...]  # (seconds since 1970 on the server's clock, value), by time


@dataclass(frozen=True, slots=True)
class Increment:
    """What one instance answered between two scrapes of it."""

    instance: str
    begin: float
    end: float
    counts: Mapping[str, int]  # by code
    reset: bool  # a counter went down
    restarted: bool  # or was gone: the process is another one


def increments(series: Iterable[Series], seen: Mapping[str, float]) -> list[Increment]:
    """Of each instance, since the scrape in `seen` (an instance that is not there: since its first one), by time."""
    by_instance: dict[str, list[Series]] = {}
    for one in series:
        by_instance.setdefault(one.instance, []).append(one)
    found = [
        one
        for instance, its in by_instance.items()
        for one in _of_instance(instance, its)
        if one.begin >= seen.get(instance, -math.inf)
    ]
    return sorted(found, key=lambda one: (one.end, one.instance))


def scrape_interval(series: Iterable[Series]) -> float | None:
    """Seconds between two scrapes, as a rule: whole ones, at least 1; None when no instance was scraped twice."""
    scrapes: dict[str, set[float]] = {}
    for one in series:
        scrapes.setdefault(one.instance, set()).update(at for at, _ in one.samples)
    steps = [after - before for times in scrapes.values() for before, after in pairwise(sorted(times))]
    return max(1.0, float(round(median(steps)))) if steps else None


def _of_instance(instance: str, series: Sequence[Series]) -> list[Increment]:
    scrapes: dict[float, dict[str, float]] = {}
    for one in series:
        for at, value in one.samples:
            scrapes.setdefault(at, {})[one.key] = value
    whole = {at: values for at, values in scrapes.items() if all(map(math.isfinite, values.values()))}
    codes = {one.key: one.code for one in series}
    return [
        _increment(instance, (begin, end), (whole[begin], whole[end]), codes)
        for begin, end in pairwise(sorted(whole))
    ]


def _increment(
    instance: str,
    times: tuple[float, float],
    values: tuple[Mapping[str, float], Mapping[str, float]],
    codes: Mapping[str, str],
) -> Increment:
    before, after = values
    reset = any(value < before[key] for key, value in after.items() if key in before)
    counts: dict[str, int] = {}
    for key, value in after.items():
        was = before.get(key, 0.0)
        counts[codes[key]] = counts.get(codes[key], 0) + round(value - was if value >= was else value)
    return Increment(instance, *times, counts, reset, restarted=reset or not before.keys() <= after.keys())
