"""Intervals become steps in which canary and baseline can be compared."""

import pytest

from rollout.domain.judge import judge
from rollout.domain.judge.kinds import kinds_of
from rollout.domain.judge.steps import Steps
from rollout.domain.verdict import Interval, Policy, Status
from tests.support.traces import on_canary, story


def one(t, host, dt=2.0, *, requests=10, observed=True, **counts):
    role = "canary" if host == "web0" else "baseline"
    return Interval(float(t), dt, host, role, observed=observed, counts=counts or {"2xx": requests})


def steps(*intervals):
    policy = Policy()
    found = Steps(policy, kinds_of(policy)).of(intervals)
    return [(step.t, step.dt, {b.host: (b.requests, b.bad) for b in step.bins}) for step in found]


def test_one_bin_of_every_host_is_a_step():
    """The usual case; hosts that could not be read are not in it."""
    assert steps(one(2, "web0"), one(2, "web1"), one(4, "web1", observed=False), one(4, "web0")) == [
        (2.0, 2.0, {"web0": (10, 0), "web1": (10, 0)}),
        (4.0, 2.0, {"web0": (10, 0)}),
    ]


def test_hosts_at_different_paces_are_compared_over_the_same_time():
    """A log every 2 s and a scrape every 6 s: steps of 6 s once that is known."""
    fast = [one(t, "web0") for t in range(2, 19, 2)]
    slow = [one(t, "web1", 6.0) for t in (6, 12, 18)]
    found = steps(*sorted([*fast, *slow], key=lambda i: i.t))
    assert found[-2:] == [(t, 6.0, {"web0": (30, 0), "web1": (10, 0)}) for t in (12.0, 18.0)]


def test_a_part_that_was_not_read_takes_the_host_out_of_the_step():
    """Missing is not zero: a third of a scrape's time unread is no third less of traffic."""
    found = steps(
        one(6, "web1", 6.0),
        one(8, "web0"),
        one(10, "web0", observed=False),
        one(12, "web0"),
        one(12, "web1", 6.0),
    )
    assert found[-1] == (12.0, 6.0, {"web1": (10, 0)})


def test_history_in_long_bins_does_not_slow_the_present():
    """Ten minutes of history in one bin, and steps of 2 s after the switch."""
    found = steps(one(0, "web0", 600.0), one(0, "web1", 600.0), one(2, "web0"), one(2, "web1"))
    assert [(t, dt) for t, dt, _ in found] == [(0.0, 600.0), (2.0, 2.0)]
    gone = steps(one(0, "web9", 600.0), one(0, "web0", 600.0), one(2, "web0"), one(4, "web0"))
    assert [(t, dt) for t, dt, _ in gone] == [(0.0, 600.0), (2.0, 2.0), (4.0, 2.0)]


def test_kinds_are_those_that_are_not_good_and_redirects():
    """Their weights sum to one."""
    assert [name for name, _ in kinds_of(Policy()).weights] == ["5xx", "4xx", "3xx", "499"]
    lax = kinds_of(Policy(good=("2xx", "3xx", "4xx"))).weights
    assert lax == (("5xx", pytest.approx(6 / 7)), ("3xx", pytest.approx(1 / 7)))
    kinds = kinds_of(Policy())
    assert [kinds.of(name) for name in ("503", "4xx", "404", "429", "301", "499", "200")] == [
        0,
        1,
        None,
        None,
        2,
        3,
        None,
    ]


def test_mixed_paces_are_judged():
    """An outage that the log tells every 2 s, against a baseline that is scraped every 15 s."""
    for rate, status in ((on_canary(1.0), Status.FAIL), (0.01, Status.PASS)):
        fast = [i for i in story(rate=rate, until=600) if i.host == "web0"]
        slow = [i for i in story(rate=rate, until=600, dt=15.0) if i.host != "web0"]
        verdict = judge(sorted([*fast, *slow], key=lambda i: i.t), Policy())
        assert verdict.status is status


def test_roles_that_are_neither_are_passed_over():
    """A host that was switched later is no baseline any more."""
    stranger = Interval(2.0, 2.0, "web7", "switched", observed=True, counts={"5xx": 9})
    assert steps(stranger, one(2, "web0")) == [(2.0, 2.0, {"web0": (10, 0)})]
