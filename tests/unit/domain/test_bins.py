"""Intervals summed up for a chart."""

import pytest

from rollout.domain.bins import bins
from rollout.domain.verdict import Interval, Policy
from tests.support.traces import on_canary, story


def an_interval(t, dt=2.0, host="web0", *, role="canary", observed=True, **counts):
    return Interval(t, dt, host, role, observed=observed, counts=counts or {"2xx": 1})


@pytest.mark.parametrize("most", [2, 3, 60, 300, 600])
def test_nothing_is_lost_and_there_are_never_too_many(most):
    """However few bins may be, they hold every request of both sides, and history is apart from what follows."""
    told = story(until=100, history=600, rate=on_canary(0.5))
    found = bins(told, Policy(), most)
    assert len(found) <= most
    for side, role in (("canary", "canary"), ("baseline", "baseline")):
        for after in (True, False):
            wanted = sum(
                sum(one.counts.values()) for one in told if one.role == role and (one.t > 0) is after
            )
            assert sum(getattr(one, side).requests for one in found if (one.t > 0) is after) == wanted


def test_bins_follow_each_other_and_meet_at_the_switch():
    """One length, no gap, and 0 is the end of one of them."""
    found = bins(story(until=50, history=50), Policy(), 20)
    assert {one.dt for one in found} == {6.0}
    assert [round(one.t / 6.0, 9) for one in found] == list(range(-8, 10))


def test_bad_is_what_the_policy_calls_bad():
    """With 2xx alone good, redirects are bad."""
    told = [an_interval(2.0, **{"2xx": 5, "3xx": 3, "5xx": 1})]
    assert bins(told, Policy(), 10)[0].canary.bad == 1
    assert bins(told, Policy(good=("2xx",)), 10)[0].canary.bad == 4


def test_what_was_not_read_is_not_zero():
    """A gap, and a bin that could not be read, are unobserved; a bin without requests that was read is observed."""
    told = [
        an_interval(2.0),
        an_interval(4.0, observed=False),
        an_interval(8.0, **{"2xx": 0}),
    ]
    assert [(one.canary.observed, one.canary.requests) for one in bins(told, Policy(), 10)] == [
        (True, 1),
        (False, 0),
        (False, 0),
        (True, 0),
    ]


def test_intervals_at_odd_moments_leave_no_bin_empty():
    """Scrapes of 15 s that jitter by a second: two fit into each bin, so none looks unread."""
    told = [an_interval(15.0 * step + 7.5 + (step % 2), dt=15.0) for step in range(40)]
    assert all(one.canary.observed for one in bins(told, Policy(), 300))


def test_an_interval_over_the_switch_is_no_history():
    """The judge takes it for what followed, and so does the chart."""
    (found,) = bins([an_interval(5.0, dt=15.0)], Policy(), 300)
    assert found.t > 0


def test_without_intervals_there_are_no_bins():
    """Nothing is drawn of nothing."""
    assert bins([], Policy(), 300) == []
