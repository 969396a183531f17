"""The pass test: is a material regression ruled out?

A sequential probability ratio test (Wald, 1947) of "the canary's rate is the baseline's" against "it is 1.25 x the
baseline's + d", with the baseline's rate b profiled out of two Poisson likelihoods. The margin d begins strict and
relaxes to the user's at the deadline. Whoever passes at a smaller margin has passed the test at the user's too, so a
regression of exactly the user's margin passes with probability about beta, at whatever time; "about", because b is profiled
and phi estimated.
"""

from math import sqrt
from typing import NamedTuple

from rollout.domain.judge.constants import PASS_AT, RATIO, STRICT_MARGIN
from rollout.domain.judge.sums import times_log


class Counts(NamedTuple):
    """Bad answers and requests of canary and baseline; the baseline's exposure is its requests, offset by its hosts."""

    bad_c: float = 0.0
    requests_c: float = 0.0
    bad_b: float = 0.0
    exposure_b: float = 0.0


def margin_at(t: float, deadline: float, margin: float) -> float:
    """d(t): from 0.1 points at readiness to the user's margin at the deadline, geometrically."""
    strict = min(STRICT_MARGIN, margin)
    if not strict:
        return 0.0
    share = min(t, deadline) / deadline if deadline > 0 else 1.0
    return strict * float((margin / strict) ** share)


def evidence(counts: Counts, margin: float, phi: float) -> float:
    """Nats for "no worse" against "worse by RATIO and margin"; 0 without requests on either side."""
    if not counts.requests_c or not counts.exposure_b:
        return 0.0
    return (_profile(counts, 1.0, 0.0) - _profile(counts, RATIO, margin)) / phi


def certificate(counts: Counts, phi: float) -> float:
    """The smallest margin d that is ruled out: "at most 1.25 x baseline + d"; 1 when none is."""
    low, high = 0.0, 1.0
    if evidence(counts, high, phi) < PASS_AT:
        return high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if evidence(counts, middle, phi) >= PASS_AT else (middle, high)
    return high


def _profile(counts: Counts, ratio: float, margin: float) -> float:
    """The log likelihood at the baseline's rate that explains both best when the canary's is ratio x b + margin."""
    k_c, n_c, k_b, n_b = counts
    b = _best_rate(counts, ratio, margin)
    rate = ratio * b + margin
    return times_log(k_c, rate) - n_c * rate + times_log(k_b, b) - n_b * b


def _best_rate(counts: Counts, ratio: float, margin: float) -> float:
    """The positive root of A r b^2 + (A d - r (K_C + K_B)) b - K_B d = 0, A = r N_C + N_B."""
    k_c, n_c, k_b, n_b = counts
    a = ratio * n_c + n_b
    linear = a * margin - ratio * (k_c + k_b)
    root = sqrt(linear * linear + 4.0 * a * ratio * k_b * margin)
    if linear > 0:
        return 2.0 * k_b * margin / (linear + root)
    return (root - linear) / (2.0 * a * ratio)
