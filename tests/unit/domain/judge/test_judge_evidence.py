"""The e-processes, the offset and the cap against their definitions."""

from math import exp, log, log1p, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.judge.absolute import Limit
from rollout.domain.judge.caps import capped, smoothed
from rollout.domain.judge.comparison import Comparison
from rollout.domain.judge.offset import UNKNOWN, Offset, learned
from rollout.domain.judge.relative import GRID, Alone, Paired, Relative, paired
from rollout.domain.judge.steps import HostBin, Step
from rollout.domain.judge.sums import log_sum_exp

counts = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.floats(0.05, 0.95)), min_size=1, max_size=8
)


def direct(steps, phi, spread):
    """L_rel as CANARY.md has it, without logarithms of sums."""
    spacing = [
        GRID[1] - GRID[0],
        *((b - a) / 2 for a, b in zip(GRID, GRID[2:], strict=False)),
        GRID[-1] - GRID[-2],
    ]
    sums = [sum(x * g - m * log(exp(g) * w + 1 - w) for x, m, w in steps) for g in GRID]
    harm = {i: spacing[i] / g for i, g in enumerate(GRID) if g > 0.07}
    null = {i: exp(-g * g / (2 * spread**2)) for i, g in enumerate(GRID) if abs(g) <= 0.6}
    above = sum(a / sum(harm.values()) * exp(sums[i] / phi) for i, a in harm.items())
    below = sum(z / sum(null.values()) * exp(sums[i] / phi) for i, z in null.items())
    return log(above / below)


@given(counts, st.floats(1, 5), st.floats(0.05, 0.3))
def test_relative_evidence_is_the_ratio_of_two_mixtures(steps, phi, spread):
    """Fed step by step, it is what the definition gives for all of them."""
    listed = [(x, x + b, w) for x, b, w in steps]
    process = Relative(Offset(0.0, spread))
    for x, m, w in listed:
        process.add(Paired(x, m, w))
    assert process.evidence(phi) == pytest.approx(direct(listed, phi, spread), abs=1e-9)


def test_grid_is_the_one_that_was_measured():
    """41 log rate ratios: -0.6 to 0.6 by 0.05, then 16 up to 7."""
    assert len(GRID) == 41
    assert GRID[:3] == [-0.6, -0.55, -0.5]
    assert GRID[24:26] == [0.6, pytest.approx(0.7)]
    assert GRID[-1] == pytest.approx(7.0)


@given(counts)
def test_steps_taken_out_are_as_if_they_had_not_been(steps):
    """Evidence without a step is the evidence of the others."""
    all_of_them = [Paired(x, x + b, w) for x, b, w in steps]
    process, others = Relative(), Relative()
    for number, one in enumerate(all_of_them):
        process.add(one)
        if number:
            others.add(one)
    if len(all_of_them) > 1:
        assert process.evidence(1.2, all_of_them[:1]) == pytest.approx(others.evidence(1.2), abs=1e-9)


def test_no_error_or_one_side_only_says_nothing():
    """Whatever the traffic is, a step is evidence only if there was an error and requests on both sides."""
    assert paired(0, 0, 100, 400) is None
    assert paired(3, 0, 100, 0) is None
    assert paired(0, 3, 0, 400) is None
    assert Relative().evidence(1.0) == 0.0


def test_a_common_rise_is_no_evidence():
    """Ten times the errors on both sides alike lowers the evidence, on the canary alone it raises it."""
    shared, alone = Relative(), Relative()
    for _ in range(10):
        shared.add(paired(20, 80, 200, 800))
        alone.add(paired(20, 8, 200, 800))
    assert shared.evidence(1.1) < 0
    assert alone.evidence(1.1) > 10


def test_expected_value_of_the_evidence_is_at_most_one():
    """For one error at the canary's share w, with the offset of the null, E is an e-value: its mean is at most 1."""
    for w in (0.1, 0.2, 0.5):
        both = [Relative(), Relative()]
        both[0].add(Paired(0, 1, w))
        both[1].add(Paired(1, 1, w))
        null = {g: exp(-g * g / (2 * UNKNOWN.spread**2)) for g in GRID[:25]}
        chance = sum(z * exp(g) * w / (exp(g) * w + 1 - w) for g, z in null.items()) / sum(null.values())
        mean = (1 - chance) * exp(both[0].evidence(1.0)) + chance * exp(both[1].evidence(1.0))
        assert mean == pytest.approx(1.0, abs=1e-9)


def test_without_baseline_the_own_rate_is_what_is_expected():
    """More errors than history lets expect are evidence, as many are not."""
    usual, more = Relative(), Relative()
    for _ in range(20):
        usual.add(Alone(2, 2.0))
        more.add(Alone(6, 2.0))
    assert usual.evidence(1.1) < 0
    assert more.evidence(1.1) > 5


@given(st.integers(0, 50), st.integers(1, 5000), st.floats(1, 4))
def test_absolute_evidence_is_the_mixture_of_likelihood_ratios(bad, good, phi):
    """As CANARY.md has it, for both sides of the limit."""
    theta, n = 0.05, bad + good
    geometric = [0.01 * 98 ** (i / 15) for i in range(16)]

    def mixture(rates):
        terms = [(bad * log(q / theta) + good * (log1p(-q) - log1p(-theta))) / phi for q in rates]
        return log_sum_exp(terms) - log(16)

    limit = Limit(0.95)
    assert limit.above(bad, n, phi) == pytest.approx(mixture([theta + (1 - theta) * g for g in geometric]))
    below = [theta * (0.05 + 0.85 * i / 15) for i in range(16)]
    assert limit.below(bad, n, phi) == pytest.approx(mixture(below))


def test_limits_at_the_ends():
    """Where all answers may be bad nothing exceeds the limit, and any request is within; where none may, one is too many."""
    assert Limit(0.0).above(9, 9, 1.0) == 0.0
    assert Limit(0.0).below(0, 0, 1.0) == 0.0
    assert Limit(0.0).below(9, 9, 1.0) > 1e9
    assert Limit(1.0).above(1, 1000, 1.1) > 2
    assert Limit(1.0).below(0, 100_000, 1.1) < 1


def test_offset_is_learned_as_far_as_history_tells():
    """Much history of a host that is twice as bad moves the offset nearly there; little leaves it where it was."""
    much = learned((2000, 100_000), (4000, 400_000), 1.1)
    assert much.mean == pytest.approx(log(2.0), abs=0.05)
    assert much.spread < 0.06
    little = learned((2, 100), (4, 400), 1.1)
    assert 0 < little.mean < 0.1
    assert little.spread == pytest.approx(sqrt(0.2**2 + 0.05**2), abs=0.02)
    assert learned((0, 0), (4, 400), 1.1) == learned((2, 100), (0, 0), 1.1) == UNKNOWN
    assert much.exposure(400) == pytest.approx(400 / exp(much.mean))


def test_a_burst_of_the_canary_is_capped_too():
    """What one step contributes is bounded on both sides."""
    bins = [HostBin("web0", canary=True, requests=200), HostBin("web1", canary=False, requests=200)]
    comparison = Comparison()
    comparison.learn(
        [Step(0.0, 600.0, [HostBin(b.host, b.canary, 60_000) for b in bins], frozenset())], [[599, 600]]
    )
    taken = comparison.take(Step(2.0, 2.0, bins, frozenset()), [150, 2], 200, 200)
    assert taken.errors == pytest.approx(3 + 2 + 4 * sqrt(2), rel=0.01)
    assert taken.both - taken.errors == 2


def test_a_burst_counts_only_so_much():
    """Four standard deviations above the expected count, or twice it; what is below is counted as it is."""
    assert capped(3, 10, 0.01) == 3
    assert capped(200, 200, 0.01) == pytest.approx(3 + 2 + 4 * sqrt(2))
    assert capped(23_000, 1_000_000, 0.01) == 20_003
    assert smoothed(0, 0) == 0.5
