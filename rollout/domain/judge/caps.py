"""The burst cap: what one host can contribute to the evidence in one step is bounded, so that no single burst decides.

A winsorised count (Huber, "Robust Statistics", 1981) at four standard deviations of a Poisson count above what was to be
expected, or at twice that, whichever is more: with hundreds of expected errors a step, four standard deviations are so
little that a doubled error rate would be taken for the usual one. Used on the failing side only, where a smaller count
is the careful one.
"""

from math import sqrt

from rollout.domain.judge.constants import CAP_FLOOR, CAP_SIGMAS


def smoothed(errors: float, requests: float) -> float:
    """A rate that is never 0 nor unknown: (K + 0.5) / (N + 1), Krichevsky and Trofimov's estimator."""
    return (errors + 0.5) / (requests + 1.0)


def capped(errors: float, requests: float, rate: float) -> float:
    """At most 3 + mu + max(4 sqrt(mu), mu), where mu = requests x rate."""
    if errors <= CAP_FLOOR:
        return errors
    mean = requests * rate
    return min(errors, CAP_FLOOR + mean + max(CAP_SIGMAS * sqrt(mean), mean))
