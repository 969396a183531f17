"""Traces of a canary and its baseline as a judge gets them: seeded Poisson counts, with whatever goes wrong as functions of (host, t)."""

import random

from rollout.domain.verdict import Interval
from tests.bench.judge_noise import binomial, poisson

BASELINE = ("web1", "web2", "web3", "web4")


def always(value):
    return lambda _host, _t: value


ALWAYS = always(True)


def on_canary(rate, base=0.01, *, since=0.0, until=1e9, canaries=("web0",)):
    """This error rate on the canary between two moments, and the usual one everywhere else."""
    return lambda host, t: rate if host in canaries and since < t <= until else base


def on_all(rate, base=0.01, *, since, until):
    """This error rate on every host between two moments."""
    return lambda _host, t: rate if since < t <= until else base


def story(
    *,
    until=600.0,
    history=600.0,
    dt=2.0,
    rps=100.0,
    rate=0.01,
    load=None,
    seen=ALWAYS,
    there=ALWAYS,
    canaries=("web0",),
    baseline=BASELINE,
    bad="5xx",
    seed=1,
    source="log",
):
    """All intervals, sorted by t. `there` False: no interval at all; `seen` False: it could not be read."""
    rate = rate if callable(rate) else always(rate)
    load = load or always(rps)
    dice = random.Random(seed)
    found = []
    for step in range(-round(history / dt), round(until / dt)):
        t = (step + 1) * dt
        for host in (*canaries, *baseline):
            if not there(host, t):
                continue
            requests = poisson(load(host, t) * dt, dice)
            errors = binomial(requests, rate(host, t), dice)
            counts = {"2xx": requests - errors, "3xx": 0, "4xx": 0, "499": 0, "5xx": 0}
            counts[bad] += errors
            role = "canary" if host in canaries else "baseline"
            observed = seen(host, t)
            found.append(
                Interval(
                    t, dt, host, role, observed=observed, counts=counts if observed else {}, source=source
                )
            )
    return found
