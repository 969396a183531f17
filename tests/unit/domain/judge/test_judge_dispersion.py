"""Dispersion against its definition, added up by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.judge.dispersion import Dispersion, _Stratum, combined, over_time

tables = st.integers(2, 5).flatmap(
    lambda rows: st.lists(st.lists(st.integers(0, 30), min_size=rows, max_size=rows), min_size=2, max_size=12)
)


def pearson(columns):
    """X2 and its degrees of freedom, from expected counts."""
    columns = [column for column in columns if sum(column)]
    rows = [row for row in zip(*columns, strict=True) if sum(row)] if columns else []
    total = sum(map(sum, rows))
    square = 0.0
    for row in rows:
        for place, count in enumerate(row):
            expected = sum(row) * sum(columns[place]) / total
            square += (count - expected) ** 2 / expected
    return square, max(0, (len(columns) - 1) * (len(rows) - 1)), total


@given(tables)
def test_sums_give_pearsons_chi_square(columns):
    """X2 kept as running sums is X2 of the whole table."""
    stratum = _Stratum()
    for column in columns:
        stratum.add({f"h{i}": count for i, count in enumerate(column)})
    square, freedom, total = pearson(columns)
    if freedom:
        assert stratum.chi_square() == pytest.approx((square, freedom, total), abs=1e-6)
    else:
        assert stratum.chi_square() == (0.0, 0.0, 0.0)


def phi_of(counts_at, seconds=600):
    dispersion = Dispersion()
    for t in range(2, seconds + 1, 2):
        dispersion.add_past(t - 1 - seconds, counts_at(t))
    dispersion.end_past()
    return dispersion.phi


def test_what_all_hosts_share_is_no_dispersion():
    """An incident on all hosts, and a host that is lastingly worse, leave phi alone."""
    shared = phi_of(
        lambda t: {"a": 5 + (50 if 100 < t < 160 else 0), "b": 10 + (100 if 100 < t < 160 else 0)}
    )
    assert shared < 1.1


def test_bursts_of_single_hosts_are_dispersion():
    """A host that fails in bursts of its own raises phi, and longer bursts raise it more."""
    short = phi_of(lambda t: {"a": 60 if t % 60 == 0 else 0, "b": 2})
    long = phi_of(lambda t: {"a": 60 if t % 300 < 40 else 0, "b": 2})
    assert 5 < short < long


def test_blocks_add_up_to_longer_ones():
    """Ten minutes make 60, 20 and 10 complete blocks, and hosts that were away in a part of one are not in it."""
    dispersion = Dispersion()
    for t in range(2, 601, 2):
        hosts = {"a": 1, "b": 2} | ({"c": 3} if t != 4 else {})
        dispersion.add_past(t - 1, hosts)
    dispersion.end_past()
    columns = [
        {tuple(sorted(hosts)): s._columns for hosts, s in t._strata.items()} for t in dispersion._past.tables
    ]
    assert columns == [
        {("a", "b"): 1, ("a", "b", "c"): 59},
        {("a", "b"): 1, ("a", "b", "c"): 19},
        {("a", "b"): 1, ("a", "b", "c"): 9},
    ]


def test_noise_with_a_memory_counts_for_more():
    """Dispersion that grows with the block's length is raised above its largest value; there is a highest one."""
    assert combined([2.0, 2.5, 2.9]) == 2.9
    assert combined([2.0, 3.0, 8.0]) == pytest.approx(16.0)
    assert combined([2.0, 30.0, 90.0]) == 100.0


def test_nothing_seen_is_the_prior():
    """Without counts phi is a little above one."""
    assert Dispersion().phi == over_time([]) == pytest.approx(1.1)


def test_a_host_alone_is_compared_with_a_constant_rate():
    """Without other hosts, a rate that changes over time is dispersion, one that is constant is not."""
    assert over_time([(10, 1000)] * 60) == pytest.approx(1.0, abs=0.1)
    assert over_time([(2, 1000)] * 30 + [(18, 1000)] * 30) > 20
