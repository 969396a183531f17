"""Starved: a canary is there and gets no requests, while the others do. The balancer has taken it out, or it hangs."""

from collections import deque
from collections.abc import Iterable
from statistics import median

from rollout.domain.judge.constants import STARVED_LEAST, STARVED_S, STARVED_SHARE
from rollout.domain.judge.steps import HostBin


class Traffic:
    """Compares each canary's requests with what the baseline's let expect, by the hosts' shares before the switch."""

    def __init__(self) -> None:
        self._before: dict[str, list[float]] = {}  # host -> requests, seconds
        self._recent: dict[str, deque[tuple[float, float, dict[str, int]]]] = {}  # t, dt, requests of all

    def add_past(self, dt: float, bins: list[HostBin]) -> None:
        """A step before the switch."""
        for one in bins:
            mine = self._before.setdefault(one.host, [0.0, 0.0])
            mine[0] += one.requests
            mine[1] += dt

    def add(self, t: float, dt: float, bins: list[HostBin]) -> None:
        """A step in which a canary was observed."""
        others = {one.host: one.requests for one in bins if not one.canary}
        for one in bins:
            if not one.canary:
                continue
            mine = self._recent.setdefault(one.host, deque())
            mine.append((t, dt, {**others, one.host: one.requests}))
            while len(mine) > 1 and mine[1][0] - mine[1][1] <= t - STARVED_S + 1e-6:
                mine.popleft()

    def starved(self, t: float) -> dict[str, tuple[float, float]]:
        """Whoever, in 30 s that were seen whole, got at most a tenth of what was to be expected: host -> both numbers.

        Where little is to be expected of each, all of them together may be.
        """
        if t < STARVED_S - 1e-6:
            return {}
        whole: dict[str, tuple[float, float]] = {}
        for host, recent in self._recent.items():
            if recent[-1][0] == t and sum([one[1] for one in recent]) >= STARVED_S - 1e-6:
                whole[host] = sum([one[2][host] for one in recent]), self._expected(host, recent)
        if found := {host: both for host, both in whole.items() if too_few(*both)}:
            return found
        together = sum([got for got, _ in whole.values()]), sum([expected for _, expected in whole.values()])
        return whole if too_few(*together) else {}

    def _expected(self, canary: str, recent: Iterable[tuple[float, float, dict[str, int]]]) -> float:
        """By the median of the others: one host that everybody turns to says nothing of the rest.

        By what both got before the switch, but not more than the others get: a favourite may lose its place. Without
        history of the canary every host is taken to get the same.
        """
        seen: dict[str, list[float]] = {}  # host -> requests, seconds
        window = 0.0
        for _, dt, requests in recent:
            window += dt
            for host, got in requests.items():
                mine = seen.setdefault(host, [0.0, 0.0])
                mine[0] += got
                mine[1] += dt
        del seen[canary]
        before = self._before.get(canary)
        known = {host: _rate(self._before[host]) for host in seen if host in self._before} if before else {}
        others = _typical([_rate(one) for one in seen.values()])
        if not before or not known:
            return window * others
        by_past = _typical(
            [_rate(before) / usual * _rate(seen[host]) for host, usual in known.items() if usual]
        )
        return window * min(by_past, others)


def too_few(got: float, expected: float) -> bool:
    """At most a tenth of what was to be expected, and that was a number."""
    return expected >= STARVED_LEAST and got <= STARVED_SHARE * expected


def _typical(rates: list[float]) -> float:
    return median(rates) if len(rates) > 2 else min(rates, default=0.0)


def _rate(of: list[float]) -> float:
    requests, seconds = of
    return requests / seconds if seconds else 0.0
