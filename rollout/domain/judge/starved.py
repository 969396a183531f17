"""Starved: a canary is there and gets no requests, while the others do. The balancer has taken it out, or it hangs."""

from collections import deque
from collections.abc import Mapping

from rollout.domain.judge.constants import STARVED_LEAST, STARVED_S, STARVED_SHARE
from rollout.domain.judge.steps import HostBin


class Traffic:
    """Compares each canary's requests with what the baseline's let expect, by the hosts' shares before the switch."""

    def __init__(self) -> None:
        self._before: dict[str, list[float]] = {}  # host -> requests, seconds
        self._recent: dict[str, deque[tuple[float, float, float, float]]] = {}  # t, dt, got, expected

    def add_past(self, dt: float, bins: list[HostBin]) -> None:
        """A step before the switch."""
        for one in bins:
            mine = self._before.setdefault(one.host, [0.0, 0.0])
            mine[0] += one.requests
            mine[1] += dt

    def add(self, t: float, dt: float, bins: list[HostBin]) -> None:
        """A step in which a canary was observed."""
        others = [one for one in bins if not one.canary]
        for one in bins:
            if not one.canary:
                continue
            mine = self._recent.setdefault(one.host, deque())
            mine.append((t, dt, one.requests, self._expected(one, others)))
            while len(mine) > 1 and mine[1][0] - mine[1][1] <= t - STARVED_S + 1e-6:
                mine.popleft()

    def starved(self, t: float) -> dict[str, tuple[float, float]]:
        """Whoever, in 30 s that were seen whole, got at most a tenth of what was to be expected: host -> both numbers.

        Where little is to be expected of each, all of them together may be.
        """
        if t < STARVED_S - 1e-6:
            return {}
        whole = {}
        for host, recent in self._recent.items():
            if recent[-1][0] == t and sum([one[1] for one in recent]) >= STARVED_S - 1e-6:
                whole[host] = sum([one[2] for one in recent]), sum([one[3] for one in recent])
        if found := {host: both for host, both in whole.items() if too_few(*both)}:
            return found
        together = sum([got for got, _ in whole.values()]), sum([expected for _, expected in whole.values()])
        return whole if too_few(*together) else {}

    def _expected(self, canary: HostBin, others: list[HostBin]) -> float:
        """Without history of the canary every host is taken to get the same."""
        if canary.host in self._before:
            others = [one for one in others if one.host in self._before] or others
            if all(one.host in self._before for one in others):
                return _share(self._before, canary, others) * sum(one.requests for one in others)
        return sum(one.requests for one in others) / len(others) if others else 0.0


def too_few(got: float, expected: float) -> bool:
    """At most a tenth of what was to be expected, and that was a number."""
    return expected >= STARVED_LEAST and got <= STARVED_SHARE * expected


def _share(before: Mapping[str, list[float]], canary: HostBin, others: list[HostBin]) -> float:
    """The canary's requests to the others', before the switch."""

    def rate(hosts: list[HostBin]) -> float:
        return sum(before[one.host][0] / before[one.host][1] for one in hosts if before[one.host][1])

    of_others = rate(others)
    return rate([canary]) / of_others if of_others else 0.0
