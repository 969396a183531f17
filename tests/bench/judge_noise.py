"""Traces of a canary and its baseline with real kinds of noise, seeded. The judges of `judge_peers` are run on them.

The six kinds:
poisson        requests that fail independently of each other
overdispersed  every host's error rate is drawn anew for each 2 s, from a gamma distribution (counts vary 2-fold and more)
hosts          each host is lastingly better or worse than the others (log-normal, standard deviation 0.2)
memory         each host's rate and the common one wander (log AR(1), 60 s and 120 s), and load follows the time of day
incidents      once in ten minutes all hosts answer 2-30 % more errors for 10-60 s
bursts         each host answers 20-60 % errors for 2-4 s, once in five minutes on average
"""

import math
import random
from dataclasses import dataclass, replace

from rollout.domain.verdict import Interval

KINDS = ("poisson", "overdispersed", "hosts", "memory", "incidents", "bursts")
DT = 2.0


@dataclass(frozen=True)
class Case:
    """What happens to whom. `canary(rate)` is the canary's error rate where its old release would have had `rate`."""

    noise: str
    rps: float  # of one host
    base: float
    fault: str = "none"  # or "material", "outage", or a number added to the rate
    hosts: int = 4  # of the baseline
    history: float = 600.0
    until: float = 600.0
    dt: float = DT
    classes: bool = (
        False  # every class has its own noise: 8 % redirects, and `base` is shared out to 4xx, 499 and 5xx
    )

    def canary(self, rate: float) -> float:
        """The canary's rate since the switch."""
        match self.fault:
            case "none":
                return rate
            case "material":
                return 1.25 * rate + 0.01
            case "outage":
                return 1.0
        return rate + float(self.fault)

    def but(self, **changes) -> "Case":
        """With changes."""
        return replace(self, **changes)


def trace(case: Case, seed: int) -> list[Interval]:
    """All intervals, sorted by t; the host web0 is the canary."""
    dice = random.Random(f"{case.noise} {case.rps} {case.base} {seed}")
    steps = [(i + 1) * case.dt for i in range(-round(case.history / case.dt), round(case.until / case.dt))]
    if case.classes:
        return _trace_of_classes(case, steps, dice)
    rates = _rates(case, steps, dice)
    found = []
    for place, t in enumerate(steps):
        load = case.rps * case.dt * (_time_of_day(t) if case.noise == "memory" else 1.0)
        for host in range(case.hosts + 1):
            rate = rates[host][place]
            if host == 0 and t > 0:
                rate = case.canary(rate)
            requests = poisson(load, dice)
            bad = binomial(requests, min(1.0, rate), dice)
            counts = {"2xx": requests - bad, "3xx": 0, "4xx": 0, "499": 0, "5xx": bad}
            role = "canary" if host == 0 else "baseline"
            found.append(Interval(t, case.dt, f"web{host}", role, observed=True, counts=counts))
    return found


SHARES = {"3xx": 8.0, "4xx": 0.3, "499": 0.1, "5xx": 0.6}  # of `base`


def _trace_of_classes(case: Case, steps: list[float], dice: random.Random) -> list[Interval]:
    of_class = {name: _rates(case.but(base=case.base * share), steps, dice) for name, share in SHARES.items()}
    found = []
    for place, t in enumerate(steps):
        load = case.rps * case.dt * (_time_of_day(t) if case.noise == "memory" else 1.0)
        for host in range(case.hosts + 1):
            requests = poisson(load, dice)
            counts = {"2xx": requests}
            for name, rates in of_class.items():
                rate = rates[host][place]
                if host == 0 and t > 0 and name == "5xx":
                    rate = case.canary(rate)
                counts[name] = binomial(counts["2xx"], min(1.0, rate), dice)
                counts["2xx"] -= counts[name]
            role = "canary" if host == 0 else "baseline"
            found.append(Interval(t, case.dt, f"web{host}", role, observed=True, counts=counts))
    return found


def _rates(case: Case, steps: list[float], dice: random.Random) -> list[list[float]]:
    """The error rate of each host in each step, as the old release has it."""
    hosts = range(case.hosts + 1)
    flat = [[case.base] * len(steps) for _ in hosts]
    match case.noise:
        case "overdispersed":
            shape = max(0.5, case.rps * case.dt * case.base)  # so that a count's variance is twice its mean
            return [[case.base * dice.gammavariate(shape, 1 / shape) for _ in steps] for _ in hosts]
        case "hosts":
            return [[case.base * math.exp(dice.gauss(0, 0.2))] * len(steps) for _ in hosts]
        case "memory":
            common = _wander(len(steps), 120.0 / case.dt, 0.4, dice)
            return [
                [case.base * math.exp(a + b) for a, b in zip(common, own, strict=True)]
                for own in (_wander(len(steps), 60.0 / case.dt, 0.2, dice) for _ in hosts)
            ]
        case "incidents":
            for begin, end, more in _events(steps, 600.0, (10.0, 60.0), (0.02, 0.3), dice):
                for host in flat:
                    _raise(host, steps, begin, end, more)
        case "bursts":
            for host in flat:
                for begin, end, more in _events(steps, 300.0, (2.0, 4.0), (0.2, 0.6), dice):
                    _raise(host, steps, begin, end, more)
    return flat


def _wander(length: int, memory: float, spread: float, dice: random.Random) -> list[float]:
    """A stationary AR(1) process of this standard deviation; `memory` in steps."""
    keep = math.exp(-1 / memory)
    value, found = dice.gauss(0, spread), []
    for _ in range(length):
        value = keep * value + dice.gauss(0, spread * math.sqrt(1 - keep * keep))
        found.append(value)
    return found


def _events(steps, every, lengths, sizes, dice):
    """Begin, end and size of events that come at random, once in `every` seconds on average."""
    t = steps[0] + dice.expovariate(1 / every)
    while t < steps[-1]:
        length = dice.uniform(*lengths)
        yield t, t + length, dice.uniform(*sizes)
        t += length + dice.expovariate(1 / every)


def _raise(rates: list[float], steps: list[float], begin: float, end: float, more: float) -> None:
    """Add `more` where a step lies in the event, in proportion."""
    dt = steps[1] - steps[0]
    first = max(0, int((begin - steps[0]) / dt))
    for place in range(first, min(len(steps), first + int((end - begin) / dt) + 3)):
        inside = min(end, steps[place]) - max(begin, steps[place] - dt)
        if inside > 0:
            rates[place] = min(1.0, rates[place] + more * inside / dt)


def _time_of_day(t: float) -> float:
    return 1.0 + 0.4 * math.sin(t / 300.0)


def poisson(mean: float, dice: random.Random) -> int:
    """A Poisson count; from 40 on by the normal distribution."""
    if mean >= 40:
        return max(0, round(dice.gauss(mean, math.sqrt(mean))))
    limit, count, product = math.exp(-mean), 0, dice.random()
    while product > limit:
        count += 1
        product *= dice.random()
    return count


def binomial(trials: int, share: float, dice: random.Random) -> int:
    """A binomial count: exact where it is small."""
    if share >= 1.0 or not trials:
        return trials
    if share > 0.5:
        return trials - binomial(trials, 1.0 - share, dice)
    mean = trials * share
    if trials <= 60:
        return sum(dice.random() < share for _ in range(trials))
    if mean < 30 and share < 0.1:
        return min(trials, poisson(mean, dice))
    return min(trials, max(0, round(dice.gauss(mean, math.sqrt(mean * (1 - share))))))
