"""Intervals become steps in which canary and baseline can be compared."""

import random
from dataclasses import replace

import pytest

from rollout.domain.judge import judge
from rollout.domain.judge.kinds import kinds_of
from rollout.domain.judge.steps import Steps
from rollout.domain.verdict import Interval, Policy, Status
from tests.support.traces import on_all, on_canary, story


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


PHASES = {"web0": 0.0, "web1": 0.3, "web2": 0.7, "web3": 1.1, "web4": 1.6}


def shifted(intervals, times=1.0):
    moved = [replace(one, t=one.t + times * PHASES[one.host]) for one in intervals]
    return sorted(moved, key=lambda one: one.t)


def test_bins_that_end_at_different_moments_are_compared():
    """Each step has one bin of each host, those nearest to each other, and no second is counted twice."""
    found = steps(*shifted([one(t, f"web{i}") for t in range(2, 21, 2) for i in range(5)]))
    assert all(sorted(bins) == list(PHASES) for _, _, bins in found[2:])
    assert all(set(bins.values()) == {(10, 0)} for _, _, bins in found[2:])
    assert [t for t, _, _ in found[2:]] == pytest.approx([6.7, 8.7, 10.7, 12.7, 14.7, 16.7, 18.7, 20.7])
    assert sum(dt for _, dt, _ in found) == pytest.approx(20.7)


def test_a_host_that_lagged_and_is_gone_is_not_waited_for_for_ever():
    """Without the last one of each round, a round ends when the next one begins."""
    kept = [one(t, f"web{i}") for t in range(2, 21, 2) for i in range(5) if i != 2 or t < 10]
    found = steps(*shifted(kept))
    late = [(t, sorted(bins)) for t, _, bins in found if t > 9]
    assert late == [(t, ["web0", "web1", "web3", "web4"]) for t in (10.3, 12.3, 14.3, 16.3, 18.3, 20.3)]


@pytest.mark.parametrize(("dt", "times"), [(2.0, 1.0), (15.0, 5.0)])
def test_hosts_out_of_step_are_judged_like_others(dt, times):
    """A healthy one passes, one with 3 points more fails, and 30 points more on every host blame nobody."""

    def said(rate):
        return judge(shifted(story(rate=rate, until=600, dt=dt, seed=3), times), Policy())

    assert said(0.01).status is Status.PASS
    assert said(on_all(0.31, since=20, until=100)).status is Status.PASS
    worse = said(on_canary(0.04))
    assert (worse.status, worse.reason) == (Status.FAIL, "error rate")
    assert worse.t <= 120


def test_bins_that_end_late_by_chance_stay_with_their_own():
    """Ends that wander by 0.4 s around the same moment change no word."""
    dice = random.Random(1)
    for rate, status in ((on_canary(0.04), Status.FAIL), (0.01, Status.PASS)):
        moved = [replace(one, t=one.t + dice.uniform(-0.4, 0.4)) for one in story(rate=rate, until=600)]
        assert judge(sorted(moved, key=lambda one: one.t), Policy()).status is status


def test_roles_that_are_neither_are_passed_over():
    """A host that was switched later is no baseline any more."""
    stranger = Interval(2.0, 2.0, "web7", "switched", observed=True, counts={"5xx": 9})
    assert steps(stranger, one(2, "web0")) == [(2.0, 2.0, {"web0": (10, 0)})]
