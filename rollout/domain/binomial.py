"""Exact one-sided bounds of a share (Clopper and Pearson), for any number of requests up to tens of millions.

The binomial distribution is the regularised incomplete beta function, computed by its continued fraction (Lentz).
"""

from collections.abc import Callable
from math import exp, lgamma, log, log1p

_TINY = 1e-300
_ENOUGH = 1e-14
_STEPS = 200_000  # it needs about the square root of the number of requests


def at_most(successes: int, trials: int, share: float) -> float:
    """P(X <= successes) for X successes in `trials`, each with probability `share`."""
    if successes >= trials:
        return 1.0
    if successes < 0:
        return 0.0
    return beta(1.0 - share, trials - successes, successes + 1.0)


def at_least(successes: int, trials: int, share: float) -> float:
    """P(X >= successes)."""
    if successes <= 0:
        return 1.0
    return beta(share, successes, trials - successes + 1.0) if successes <= trials else 0.0


def upper(successes: int, trials: int, confidence: float) -> float:
    """The share that the true one does not exceed, with this confidence: 1 without trials."""
    if successes >= trials:
        return 1.0
    return _root(lambda share: at_most(successes, trials, share) > 1.0 - confidence)


def lower(successes: int, trials: int, confidence: float) -> float:
    """The share that the true one is not below, with this confidence: 0 without trials."""
    if successes <= 0:
        return 0.0
    return _root(lambda share: at_least(successes, trials, share) <= 1.0 - confidence)


def beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), a and b above 0."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
    if x < (a + 1.0) / (a + b + 2.0):
        return min(1.0, front * _fraction(x, a, b) / a)
    return max(0.0, 1.0 - front * _fraction(1.0 - x, b, a) / b)


def _fraction(x: float, a: float, b: float) -> float:
    c = 1.0
    d = 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < _ENOUGH:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _root(below: Callable[[float], bool]) -> float:
    """Where a property that holds for small shares ends, to within 1e-15."""
    low, high = 0.0, 1.0
    for _ in range(52):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2
