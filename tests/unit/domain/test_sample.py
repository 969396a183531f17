"""Which hosts are looked at in a fan-out, and how finely their past is kept."""

from itertools import pairwise

import pytest

from rollout.domain.sample import coarse, evenly
from rollout.domain.verdict import Interval


@pytest.mark.parametrize("total", [0, 1, 8, 9, 40, 1000])
def test_sample_is_bounded_and_spread(total):
    """So many at most, no position twice, and gaps that differ by one."""
    found = evenly(8, total)
    assert len(found) == len(set(found)) == min(8, total)
    assert all(0 <= place < total for place in found)
    gaps = {after - before for before, after in pairwise(found)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def a_bin(t, *, observed=True, dt=2.0):
    return Interval(t, dt, "web1", "other", observed=observed, counts={"2xx": 10, "5xx": 1})


def test_history_is_kept_in_long_bins_and_the_rest_as_it_is():
    """Each request once; a bin of which a part is missing or was not read is left out."""
    fine = [a_bin(float(t)) for t in range(-14, 6, 2)]
    found = coarse(fine, 10.0)
    assert [(one.t, one.dt, one.counts["2xx"]) for one in found] == [
        (0.0, 10.0, 50),
        (2.0, 2.0, 10),
        (4.0, 2.0, 10),
    ]
    torn = [a_bin(float(t), observed=t != -4) for t in range(-8, 2, 2)]
    assert coarse(torn, 10.0) == []


def test_history_that_is_coarse_stays_as_it_is():
    """A source with a pace of 15 s has no finer bins to sum up."""
    found = [a_bin(-15.0, dt=15.0), a_bin(0.0, dt=15.0)]
    assert coarse(found, 10.0) == found
