"""The pass test against a search for the best explanation."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rollout.domain.judge import passing
from rollout.domain.judge.constants import PASS_AT
from rollout.domain.judge.passing import Counts
from rollout.domain.judge.sums import times_log

some = st.builds(
    Counts, st.integers(0, 200), st.integers(200, 20_000), st.integers(0, 800), st.floats(800, 80_000)
)


def likelihood(counts, ratio, margin, b):
    rate = ratio * b + margin
    k_c, n_c, k_b, n_b = counts
    return times_log(k_c, rate) - n_c * rate + times_log(k_b, b) - n_b * b


@given(some, st.sampled_from([(1.0, 0.0), (1.25, 0.001), (1.25, 0.01), (1.25, 0.0)]))
def test_the_root_is_where_the_likelihood_is_highest(counts, form):
    """No other rate of the baseline explains both better."""
    ratio, margin = form
    assume(margin or counts.bad_c + counts.bad_b)
    best = passing._best_rate(counts, ratio, margin)
    assert best >= 0
    top = passing._profile(counts, ratio, margin)
    for other in (best * 0.99, best * 1.01, best + 1e-6):
        if other > 0:
            assert likelihood(counts, ratio, margin, other) <= top + 1e-6


def test_the_root_keeps_its_digits():
    """One error among billions: the difference of two nearly equal numbers would lose them."""
    counts = Counts(0, 1_000_000_000_000, 1, 4e12)
    a, d, r = 1.25 * counts.requests_c + counts.exposure_b, 0.01, 1.25
    best = passing._best_rate(counts, r, d)
    assert a * r * best * best + (a * d - r) * best == pytest.approx(d, rel=1e-9)


def test_margin_relaxes_to_the_users():
    """From 0.1 points to the margin at the deadline, and no further; a smaller margin is strict from the first."""
    told = [passing.margin_at(t, 600, 0.01) for t in (0, 300, 600, 1200)]
    assert told == pytest.approx([0.001, 0.001 * 10**0.5, 0.01, 0.01])
    assert passing.margin_at(300, 600, 0.0005) == pytest.approx(0.0005)
    assert passing.margin_at(300, 600, 0.0) == 0.0


@given(some, st.floats(1, 5))
def test_certificate_is_the_smallest_margin_that_is_ruled_out(counts, phi):
    """At it the test passes, a little below it does not."""
    margin = passing.certificate(counts, phi)
    if margin < 1.0:
        assert passing.evidence(counts, margin, phi) >= PASS_AT
        assert margin < 1e-8 or passing.evidence(counts, margin * 0.999, phi) < PASS_AT


def test_zero_errors_need_about_three_hundred_requests():
    """At the user's margin of 1 %, as the policy promises; and no requests need nothing and prove nothing."""
    assert passing.evidence(Counts(0, 290, 0, 1160), 0.01, 1.0) < PASS_AT
    assert passing.evidence(Counts(0, 310, 0, 1240), 0.01, 1.0) >= PASS_AT
    assert passing.evidence(Counts(0, 0, 0, 1000), 0.01, 1.0) == 0.0
    assert passing.evidence(Counts(0, 1000, 0, 0), 0.01, 1.0) == 0.0
    assert passing.certificate(Counts(), 1.0) == 1.0
