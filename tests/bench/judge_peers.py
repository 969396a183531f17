"""What others do with the same counts: the rules that the judge is measured against. Each gives "fail" or "pass" and a time.

They are the published rules in their plainest form, one canary against pooled baseline hosts:
once       a fixed threshold: at least 95 % of the canary's answers good, one look at the deadline
repeated   the same for each ten seconds, and the first one below fails
kayenta    at the deadline, a Mann-Whitney test (one-sided, 2 %) of the rates of 20 s, as Kayenta compares time series
fisher     Fisher's exact test (one-sided, 1 %) of all counts so far, every ten seconds
anytime    a sequential test of all counts so far, every bin: a beta mixture of the canary's share of the errors against its
           share of the requests, the form in which Netflix published it for counts; fails when it is above 100
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import exp, lgamma, log, sqrt

from rollout.domain.verdict import Interval

LEAST_GOOD, EVERY_S, ALPHA = 0.95, 10.0, 0.01
WINDOW_S, MANN_WHITNEY_Z = 20.0, 2.054
CONCENTRATION = 10.0


@dataclass(frozen=True)
class Bin:
    """Canary's and baseline's bad answers and requests until t."""

    t: float
    k_c: int
    n_c: int
    k_b: int
    n_b: int

    def since(self, before: "Bin") -> "Bin":
        """What came after another."""
        return Bin(
            self.t, self.k_c - before.k_c, self.n_c - before.n_c, self.k_b - before.k_b, self.n_b - before.n_b
        )


NONE = Bin(0.0, 0, 0, 0, 0)
Word = tuple[str, float]


def sums(intervals: list[Interval]) -> list[Bin]:
    """Running sums since the switch, for each t."""
    found: dict[float, list[int]] = {}
    for one in intervals:
        if one.t > 0:
            total = sum(one.counts.values())
            bad = total - one.counts["2xx"] - one.counts["3xx"]
            mine = found.setdefault(one.t, [0, 0, 0, 0])
            place = 0 if one.role == "canary" else 2
            mine[place] += bad
            mine[place + 1] += total
    running, bins = [0, 0, 0, 0], []
    for t in sorted(found):
        running = [a + b for a, b in zip(running, found[t], strict=True)]
        bins.append(Bin(t, *running))
    return bins


def once(bins: list[Bin]) -> Word:
    """One look at the end."""
    return _word(_below(bins[-1]), bins[-1].t)


def repeated(bins: list[Bin]) -> Word:
    """First strike."""
    before = NONE
    for one in bins:
        if one.t % EVERY_S == 0:
            if _below(one.since(before)):
                return "fail", one.t
            before = one
    return "pass", bins[-1].t


def kayenta(bins: list[Bin]) -> Word:
    """One look at the end."""
    marks = [NONE, *(one for one in bins if one.t % WINDOW_S == 0)]
    windows = [after.since(before) for before, after in pairwise(marks)]
    canary = [one.k_c / one.n_c for one in windows if one.n_c]
    baseline = [one.k_b / one.n_b for one in windows if one.n_b]
    return _word(_mann_whitney(canary, baseline) > MANN_WHITNEY_Z, bins[-1].t)


def fisher(bins: list[Bin]) -> Word:
    """Peeking."""
    for one in bins:
        if one.t % EVERY_S == 0 and _fisher(one) < ALPHA:
            return "fail", one.t
    return "pass", bins[-1].t


def anytime(bins: list[Bin]) -> Word:
    """Valid whenever one looks, if requests fail independently of each other."""
    for one in bins:
        if _mixture(one) >= -log(ALPHA):
            return "fail", one.t
    return "pass", bins[-1].t


PEERS: dict[str, Callable[[list[Bin]], Word]] = {
    "95 % threshold, one look": once,
    "95 % threshold every 10 s": repeated,
    "Mann-Whitney as Kayenta's": kayenta,
    "Fisher every 10 s": fisher,
    "plain anytime-valid": anytime,
}


def _word(failed: bool, t: float) -> Word:
    return ("fail" if failed else "pass"), t


def _below(one: Bin) -> bool:
    return one.n_c > 0 and 1 - one.k_c / one.n_c < LEAST_GOOD


def _mann_whitney(first: list[float], second: list[float]) -> float:
    """The z of U with ties, positive when `first` is higher."""
    if not first or not second:
        return 0.0
    ordered = sorted([*((value, 0) for value in first), *((value, 1) for value in second)])
    ranks, ties, place = 0.0, 0.0, 0
    while place < len(ordered):
        end = place
        while end < len(ordered) and ordered[end][0] == ordered[place][0]:
            end += 1
        ranks += (place + end + 1) / 2 * sum(side == 0 for _, side in ordered[place:end])
        ties += (end - place) ** 3 - (end - place)
        place = end
    n, m = len(first), len(second)
    u = ranks - n * (n + 1) / 2
    variance = n * m / 12 * ((n + m + 1) - ties / ((n + m) * (n + m - 1)))
    return (u - n * m / 2) / sqrt(variance) if variance > 0 else 0.0


def _fisher(one: Bin) -> float:
    """P(at least so many of the errors are the canary's), by the hypergeometric distribution."""
    errors, total = one.k_c + one.k_b, one.n_c + one.n_b
    if not errors or one.k_c * total <= one.n_c * errors:
        return 1.0
    most = min(errors, one.n_c)
    term = exp(_choose(one.n_c, one.k_c) + _choose(one.n_b, one.k_b) - _choose(total, errors))
    tail, k = 0.0, one.k_c
    while k <= most and term > 1e-18:
        tail += term
        term *= (one.n_c - k) * (errors - k) / ((k + 1) * (one.n_b - errors + k + 1))
        k += 1
    return min(1.0, tail)


def _choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _mixture(one: Bin) -> float:
    """The log of the mixture against the share of the requests; 0 where the canary is not the worse one."""
    m = one.k_c + one.k_b
    if not m or not one.n_c or not one.n_b or one.k_c * one.n_b <= one.k_b * one.n_c:
        return 0.0
    w = one.n_c / (one.n_c + one.n_b)
    a, b = CONCENTRATION * w, CONCENTRATION * (1 - w)
    mixture = (
        lgamma(a + one.k_c) + lgamma(b + one.k_b) - lgamma(a + b + m) - lgamma(a) - lgamma(b) + lgamma(a + b)
    )
    return mixture - one.k_c * log(w) - one.k_b * log(1 - w)
