"""The bounds against sums that are added up by hand."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain import binomial


def exact_at_most(successes: int, trials: int, share: Fraction) -> float:
    return float(sum(comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(successes + 1)))


@given(st.integers(1, 60), st.data(), st.integers(1, 999))
def test_distribution_agrees_with_exact_sums(trials, data, thousandths):
    """For small numbers the continued fraction says what adding up says."""
    successes = data.draw(st.integers(0, trials))
    share = Fraction(thousandths, 1000)
    exact = exact_at_most(successes, trials, share)
    assert binomial.at_most(successes, trials, float(share)) == pytest.approx(exact, abs=1e-11)
    above = 1 - exact_at_most(successes - 1, trials, share) if successes else 1.0
    assert binomial.at_least(successes, trials, float(share)) == pytest.approx(above, abs=1e-11)


@given(st.integers(1, 60), st.data())
def test_bounds_are_where_the_sums_say(trials, data):
    """At the upper bound so few successes have a chance of 5 %, at the lower bound so many."""
    successes = data.draw(st.integers(0, trials))
    upper, lower = (bound(successes, trials, 0.95) for bound in (binomial.upper, binomial.lower))
    assert lower <= successes / trials <= upper
    if successes < trials:
        assert exact_at_most(successes, trials, Fraction(upper)) == pytest.approx(0.05, abs=1e-9)
    if successes:
        assert 1 - exact_at_most(successes - 1, trials, Fraction(lower)) == pytest.approx(0.05, abs=1e-9)


@pytest.mark.parametrize(
    ("successes", "trials", "lower", "upper"),
    [
        (0, 10, 0.0, 0.2588655),
        (10, 10, 0.7411345, 1.0),
        (59, 59, 0.9504908, 1.0),
        (95, 100, 0.8977190, 0.9801010),
    ],
)
def test_bounds_are_those_of_the_tables(successes, trials, lower, upper):
    """Published Clopper-Pearson bounds."""
    assert binomial.lower(successes, trials, 0.95) == pytest.approx(lower, abs=1e-4)
    assert binomial.upper(successes, trials, 0.95) == pytest.approx(upper, abs=1e-4)


@pytest.mark.parametrize("trials", [10**5, 10**6, 10**7])
@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.95, 0.999])
def test_bounds_stay_sound_for_many_requests(trials, share):
    """Ten million requests give bounds close to the normal ones."""
    successes = int(trials * share)
    error = 1.645 * (share * (1 - share) / trials) ** 0.5
    assert binomial.upper(successes, trials, 0.95) == pytest.approx(share + error, abs=0.2 * error)
    assert binomial.lower(successes, trials, 0.95) == pytest.approx(share - error, abs=0.2 * error)


def test_without_trials_nothing_is_known():
    """The bounds of nothing are everything."""
    assert (binomial.lower(0, 0, 0.95), binomial.upper(0, 0, 0.95)) == (0.0, 1.0)
