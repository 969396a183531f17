"""Sums of likelihoods that are kept as logarithms."""

from collections.abc import Iterable, Sequence
from math import exp, log


def log_sum_exp(values: Sequence[float]) -> float:
    """The logarithm of the sum of e^value, whatever their size."""
    most = max(values)
    return most + log(sum([exp(value - most) for value in values]))


def times_log(count: float, rate: float) -> float:
    """A count x ln(rate), with 0 ln 0 = 0."""
    return count * log(rate) if count else 0.0


def geometric(first: float, last: float, points: int) -> list[float]:
    """So many points from `first` to `last`, each the same multiple of the one before."""
    return [first * (last / first) ** (i / (points - 1)) for i in range(points)]


def linear(first: float, last: float, points: int) -> list[float]:
    """So many points from `first` to `last`, equally far apart."""
    return [first + (last - first) * i / (points - 1) for i in range(points)]


def normalised(weights: Iterable[float]) -> list[float]:
    """The weights' logarithms, divided so that the weights sum to 1."""
    listed = list(weights)
    total = log(sum(listed))
    return [log(weight) - total for weight in listed]
