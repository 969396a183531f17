"""From intervals to steps: what all hosts answered in the same stretch of time.

Usually a step is one bin of every host. Where hosts are read at different paces (2 s from a log, 15 s from Prometheus),
a step is as long as the slowest of them needs, because canary and baseline can only be compared over the same time. Where
the bins of the slowest end at different moments, a step takes of each host the one that ends nearest to its grid, and
waits for the host that lags most.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import ceil

from rollout.domain.verdict import Interval, Policy

CANARY, BASELINE = "canary", "baseline"
_ALMOST = 1e-6  # seconds
APART = frozenset(
    {"401", "404", "429", "499"}
)  # no part of the class 4xx, where a source counts them by themselves


@dataclass(slots=True)
class HostBin:
    """What one host answered in one step. `kinds` counts the answers of each watched kind, `Kinds.of` says which."""

    host: str
    canary: bool
    requests: int = 0
    bad: int = 0
    kinds: list[int] = field(default_factory=list)
    probed: int = 0  # of the requests, those that were our own


@dataclass(slots=True)
class Step:
    """All hosts that were observed in (t - dt, t], seconds since readiness. `watched` are all canaries, seen or not."""

    t: float
    dt: float
    bins: list[HostBin]
    watched: frozenset[str]


@dataclass(frozen=True, slots=True)
class Kinds:
    """Which kinds of answers are counted beside "bad": name and weight, the weights sum to 1."""

    weights: tuple[tuple[str, float], ...]

    def of(self, name: str) -> int | None:
        """The place of the kind that a class or status belongs to; None for one that nobody watches."""
        wanted = "499" if name == "499" else "" if name in APART else f"{name[0]}xx"
        return next((place for place, (kind, _) in enumerate(self.weights) if kind == wanted), None)


def is_good(name: str, policy: Policy) -> bool:
    """A status that is counted by itself belongs to its class: with "4xx" good, 499 is."""
    return name in policy.good or f"{name[0]}xx" in policy.good


class Steps:
    """Gathers intervals into steps. Feed them in the order of t."""

    def __init__(self, policy: Policy, kinds: Kinds) -> None:
        self._policy = policy
        self._kinds = kinds
        self._sorts: dict[str, tuple[bool, int | None]] = {}
        self._paces: dict[str, float] = {}  # host -> length of its newest bin
        self._slowest = 0.0  # the longest of them, which is the grid's
        self._end = 0.0  # of the open step, on the grid
        self._lags: dict[str, float] = {}  # host -> how long after the grid its bins end, at most
        self._newest: float | None = None  # t of the newest interval
        self._stepped: float | None = None  # t of the newest step
        self._begun: float | None = None
        self._open: dict[str, HostBin] = {}
        self._broken: set[str] = set()
        self._watched: set[str] = set()
        self._switched = False

    def of(self, intervals: Iterable[Interval]) -> Iterator[Step]:
        """The steps that these intervals complete."""
        for t, group in groupby(intervals, key=lambda one: round(one.t, 3)):
            yield from self._take(t, [one for one in group if one.role in {CANARY, BASELINE}])

    def _take(self, t: float, group: Sequence[Interval]) -> Iterator[Step]:
        if not group:
            return
        if t > 0 and not self._switched:
            yield from self._end_history()
        self._align(t, group)
        if t > self._due() + _ALMOST:  # who lags most is late, or gone
            if self._newest is not None and (self._open or self._broken):
                yield self._step(self._newest)
            self._end += self._slowest * ceil((t - self._due()) / self._slowest - _ALMOST)
        self._newest = t
        for one in group:
            self._add(one)
            if one.observed and one.dt >= self._slowest > 0:
                lag = (t - self._end) - self._slowest * round((t - self._end) / self._slowest)
                self._lags[one.host] = max(lag, self._lags.get(one.host, lag))
        if t >= self._due() - _ALMOST:
            yield self._step(t)
            self._end += self._slowest

    def _align(self, t: float, group: Sequence[Interval]) -> None:
        """The grid is that of the longest bins, and begins anew when their length changes."""
        self._paces |= {one.host: one.dt for one in group if one.observed}
        slowest = max(self._paces.values(), default=0.0)
        if slowest != self._slowest or not slowest:
            self._slowest, self._end, self._lags = slowest, t, {}

    def _due(self) -> float:
        """When the open step is complete."""
        return self._end + max(self._lags.values(), default=0.0)

    def _end_history(self) -> Iterator[Step]:
        """A step is either history or not; and history may have been read at a pace of its own."""
        self._switched = True
        self._paces.clear()
        if self._open or self._broken:
            yield self._step(0.0)

    def _add(self, one: Interval) -> None:
        begin = one.t - one.dt
        self._begun = begin if self._begun is None else min(begin, self._begun)
        if one.role == CANARY:
            self._watched.add(one.host)
        if not one.observed:
            self._broken.add(one.host)
            return
        mine = self._open.get(one.host)
        if mine is None:
            mine = self._open[one.host] = HostBin(
                one.host, one.role == CANARY, kinds=[0] * len(self._kinds.weights)
            )
        for name, count in one.counts.items():
            if not count:
                continue
            good, kind = self._sorts.get(name) or self._sort(name)
            mine.requests += count
            mine.bad += 0 if good else count
            if kind is not None:
                mine.kinds[kind] += count
            if one.source == "probe":
                mine.probed += count

    def _sort(self, name: str) -> tuple[bool, int | None]:
        self._sorts[name] = is_good(name, self._policy), self._kinds.of(name)
        return self._sorts[name]

    def _step(self, t: float) -> Step:
        """A host of which a part was not read is not there in this step: missing is not zero."""
        bins = [one for one in self._open.values() if one.host not in self._broken]
        begun = self._begun if self._begun is not None else t
        if self._stepped is not None:
            begun = max(begun, self._stepped)  # no second belongs to two steps
        step = Step(t, max(0.0, t - begun), bins, frozenset(self._watched))
        self._open, self._broken, self._begun, self._stepped = {}, set(), None, t
        return step
