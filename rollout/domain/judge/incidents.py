"""Shared incidents: the baseline goes wrong too, so whatever the canary answers now says nothing about its release."""

from collections import deque
from math import inf, sqrt

from rollout.domain.judge.constants import CLEAR_S, INCIDENT_LEAST, INCIDENT_S, INCIDENT_SIGMAS


class Incidents:
    """Looks at the baseline's last ten seconds, those before the switch included."""

    def __init__(self, theta: float) -> None:
        self._theta = theta
        self._recent: deque[tuple[float, float, int, int]] = deque()  # t, dt, bad, requests
        self.last = -inf  # end of the newest step with one

    def add(self, t: float, dt: float, bad: int, requests: int) -> None:
        """What the baseline answered in a step that ended at `t`."""
        self._recent.append((t, dt, bad, requests))
        while self._recent[0][0] - self._recent[0][1] < t - INCIDENT_S - 1e-6 and len(self._recent) > 1:
            self._recent.popleft()

    def looked(self, t: float, rate: float, phi: float) -> bool:
        """Whether there is one at `t`, where the baseline's usual rate and dispersion are these."""
        bad = sum(one[2] for one in self._recent)
        requests = sum(one[3] for one in self._recent)
        mean = requests * rate
        above_usual = bad > mean + INCIDENT_SIGMAS * sqrt(phi * max(mean, 1.0)) + INCIDENT_SIGMAS
        found = above_usual or (bad > self._theta * requests and bad >= INCIDENT_LEAST)
        if found:
            self.last = t
        return found

    def lately(self, t: float) -> bool:
        """Whether it is less than 30 s since one was seen."""
        return t - self.last < CLEAR_S
