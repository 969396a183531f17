"""Up to when everybody has told."""

from rollout.domain.horizon import told_by_all
from rollout.domain.verdict import Interval


def bins(host, *ends, role="baseline", observed=True, dt=2.0):
    return [Interval(t=float(t), dt=dt, host=host, role=role, observed=observed, counts={}) for t in ends]


def told(*intervals):
    """The newest t of each host that is judged by."""
    found = told_by_all(sorted((one for each in intervals for one in each), key=lambda one: one.t))
    return {one.host: max(each.t for each in found if each.host == one.host) for one in found}


def test_nothing_is_told_of_nothing():
    """No intervals, no horizon."""
    assert told_by_all([]) == []


def test_canary_is_not_judged_before_the_baseline_has_told():
    """What befell every host is seen on the canary first; it waits for the others' word on that very bin."""
    assert told(bins("web1", 2, 4, 6, role="canary"), bins("web2", 2, 4), bins("web3", 2, 4, 6)) == {
        "web1": 4.0,
        "web2": 4.0,
        "web3": 4.0,
    }


def test_host_that_is_silent_for_long_is_not_waited_for():
    """A baseline host that is down holds up 6 s, and no more."""
    assert told(bins("web1", 2, 4, 6, 8, role="canary"), bins("web2", 2))["web1"] == 2.0
    assert told(bins("web1", 2, 4, 6, 8, 10, role="canary"), bins("web2", 2))["web1"] == 10.0


def test_host_that_was_never_observed_holds_nobody_up():
    """Unobserved is no word; neither is there one to wait for without a baseline."""
    canary = bins("web1", 2, 4, role="canary")
    assert told(canary, bins("web2", 2, observed=False))["web1"] == 4.0
    assert told(canary) == {"web1": 4.0}


def test_time_goes_on_for_a_canary_that_cannot_be_read():
    """The deadline comes: the baseline, or else nobody, says how late it is."""
    unseen = bins("web1", 31, 33, role="canary", observed=False)
    assert told(unseen, bins("web2", 28, 30, 32))["web1"] == 31.0
    assert told(unseen) == {"web1": 33.0}


def test_longer_intervals_are_waited_for_longer():
    """A scrape each 15 s comes up to 15 s later on another host."""
    canary = bins("web1", 15, 30, role="canary", dt=15.0)
    assert told(canary, bins("web2", 15, dt=15.0))["web1"] == 15.0
