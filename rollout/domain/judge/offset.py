"""The host offset: how much worse than the baseline the canary's host was before the switch, as far as it can be known.

A normal prior for the log ratio of two hosts' error rates, and a normal likelihood of what history shows (the delta method
for a log rate): empirical Bayes, e.g. Efron and Morris, "Data analysis using Stein's estimator" (1975).
"""

from dataclasses import dataclass
from math import exp, log, sqrt

from rollout.domain.judge.constants import SPREAD_LEAST, SPREAD_OWN, TAU


@dataclass(frozen=True, slots=True)
class Offset:
    """ln of the canary's rate over the baseline's: what is expected of a harmless release, and how uncertain that is."""

    mean: float = 0.0
    spread: float = TAU

    def exposure(self, baseline_requests: float) -> float:
        """The baseline's requests, as many as they would be if its hosts were like the canary's."""
        return baseline_requests * exp(-self.mean)

    def rate_at(self, usual: float, now: float) -> float:
        """The rate to be expected of the canary's host where the baseline's is usually one and `now` another.

        A host that is better is so at its usual errors: what comes on top (a database that hangs) hits it like the others.
        For a host that is worse the offset stays as it is, and so whatever is uncertain speaks for the canary.
        """
        if self.mean >= 0.0 or now <= usual:
            return now * exp(self.mean)
        return usual * exp(self.mean) + now - usual

    def exposure_at(self, baseline_requests: float, usual: float, now: float) -> float:
        """`exposure` by `rate_at`; `now` is at least `usual`, and above 0."""
        return baseline_requests * now / self.rate_at(usual, now)


UNKNOWN = Offset()
OWN_HISTORY = Offset(0.0, SPREAD_OWN)


def learned(canary: tuple[float, float], baseline: tuple[float, float], phi: float) -> Offset:
    """From (errors, requests) before the switch. Nothing is learned where either had no request."""
    (errors_c, requests_c), (errors_b, requests_b) = canary, baseline
    if not requests_c or not requests_b:
        return UNKNOWN
    noise = phi * (1.0 / (errors_c + 0.5) + 1.0 / (errors_b + 0.5))
    ratio = log((errors_c + 0.5) / (requests_c + 1.0)) - log((errors_b + 0.5) / (requests_b + 1.0))
    weight = TAU**2 / (TAU**2 + noise)
    return Offset(ratio * weight, sqrt(noise * weight + SPREAD_LEAST**2))
