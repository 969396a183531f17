"""Starved: the canary is there and gets no requests, while the others do. The balancer has taken it out, or it hangs."""

from collections import deque
from collections.abc import Mapping

from rollout.domain.judge.constants import STARVED_LEAST, STARVED_S, STARVED_SHARE
from rollout.domain.judge.steps import HostBin


class Traffic:
    """Compares the canary's requests with what the baseline's let expect, by the hosts' shares before the switch."""

    def __init__(self) -> None:
        self._before: dict[str, list[float]] = {}  # host -> requests, seconds
        self._recent: deque[tuple[float, float, float, float]] = deque()  # t, dt, got, expected

    def add_past(self, dt: float, bins: list[HostBin]) -> None:
        """A step before the switch."""
        for one in bins:
            mine = self._before.setdefault(one.host, [0.0, 0.0])
            mine[0] += one.requests
            mine[1] += dt

    def add(self, t: float, dt: float, bins: list[HostBin]) -> None:
        """A step in which a canary was observed."""
        got = sum(one.requests for one in bins if one.canary)
        self._recent.append((t, dt, got, self._expected(bins)))
        while len(self._recent) > 1 and self._recent[1][0] - self._recent[1][1] <= t - STARVED_S + 1e-6:
            self._recent.popleft()

    @property
    def got(self) -> float:
        """Requests of the canary in the last 30 s."""
        return sum(one[2] for one in self._recent)

    @property
    def expected(self) -> float:
        """As many were to be expected."""
        return sum(one[3] for one in self._recent)

    def starved(self, t: float) -> bool:
        """After 30 s that were seen whole: at most a tenth of what was to be expected, and that was a number."""
        if t < STARVED_S - 1e-6 or sum(one[1] for one in self._recent) < STARVED_S - 1e-6:
            return False
        return self.expected >= STARVED_LEAST and self.got <= STARVED_SHARE * self.expected

    def _expected(self, bins: list[HostBin]) -> float:
        """Without history of the canary every host is taken to get the same."""
        canaries = [one for one in bins if one.canary]
        others = [one for one in bins if not one.canary]
        if all(one.host in self._before for one in canaries):
            others = [one for one in others if one.host in self._before] or others
            if all(one.host in self._before for one in others):
                return _share(self._before, canaries, others) * sum(one.requests for one in others)
        return len(canaries) / len(others) * sum(one.requests for one in others) if others else 0.0


def _share(before: Mapping[str, list[float]], canaries: list[HostBin], others: list[HostBin]) -> float:
    """The canaries' requests to the others', before the switch."""

    def rate(hosts: list[HostBin]) -> float:
        return sum(before[one.host][0] / before[one.host][1] for one in hosts if before[one.host][1])

    of_others = rate(others)
    return rate(canaries) / of_others if of_others else 0.0
