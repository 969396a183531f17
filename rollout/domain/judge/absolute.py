"""The absolute e-processes: is the share of bad answers above the limit theta = 1 - `minimum_good`, and is it below?

Mixtures of Bernoulli likelihood ratios against theta (Wald, "Sequential Analysis", 1947; Robbins and Siegmund's mixtures).
The first is valid for any rate that changes with time and stays at or below theta, the second for one that stays above.
"""

from math import inf, log, log1p

from rollout.domain.judge.constants import LEAST_LIMIT
from rollout.domain.judge.sums import geometric, linear, log_sum_exp

_POINTS = 16
CAP_SHARE, CAP_FLOOR = 4.0, 3.0  # bad answers that count in one step: 4 theta n + 3


class Limit:
    """theta and the alternatives on both sides. A limit of 100 % bad answers can be neither exceeded nor missed."""

    def __init__(self, minimum_good: float) -> None:
        self.theta = max(1.0 - minimum_good, LEAST_LIMIT)
        self.none = self.theta >= 1.0
        if not self.none:
            self._above = self._ratios(
                [
                    self.theta + (1.0 - self.theta) * g
                    for g in geometric(min(0.01, self.theta / 5), 0.98, _POINTS)
                ]
            )
            self._below = self._ratios([self.theta * share for share in linear(0.05, 0.9, _POINTS)])

    def capped(self, bad: float, requests: float) -> float:
        """What one step can contribute to `above`."""
        return min(bad, CAP_SHARE * self.theta * requests + CAP_FLOOR)

    def above(self, bad: float, requests: float, phi: float) -> float:
        """Nats: ln E, for a share of bad answers above theta; 0 with no data."""
        return 0.0 if self.none else self._mixture(self._above, bad, requests, phi)

    def below(self, bad: float, requests: float, phi: float) -> float:
        """Nats: ln E, for a share below theta; 0 with no data."""
        if self.none:
            return inf if requests else 0.0
        return self._mixture(self._below, bad, requests, phi)

    def _ratios(self, alternatives: list[float]) -> list[tuple[float, float]]:
        """Logarithms of the likelihood ratio of a bad answer, and of a good one."""
        good = log1p(-self.theta)
        return [(log(q / self.theta), log1p(-q) - good) for q in alternatives]

    @staticmethod
    def _mixture(ratios: list[tuple[float, float]], bad: float, requests: float, phi: float) -> float:
        good = requests - bad
        return log_sum_exp([(bad * b + good * g) / phi for b, g in ratios]) - log(len(ratios))
