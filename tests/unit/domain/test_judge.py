"""The judge's word on what canaries answered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.judge import judge
from rollout.domain.verdict import Interval, Policy, Status

RANK = {Status.FAIL: 0, Status.INCONCLUSIVE: 1, Status.RUNNING: 1, Status.PASS: 2}
POLICY = Policy(bake_s=60, deadline_s=120)


def bin_at(t, good=0, bad=0, *, host="web001", role="canary", observed=True, bad_class="5xx"):
    counts = {"2xx": good, "3xx": 0, "4xx": 0, "499": 0, "5xx": 0}
    counts[bad_class] += bad
    return Interval(t=float(t), dt=2.0, host=host, role=role, observed=observed, counts=counts)


def bins(until, good=0, bad=0, **given):
    return [bin_at(t, good, bad, **given) for t in range(2, until + 1, 2)]


@pytest.mark.parametrize(
    ("intervals", "status", "t", "reason"),
    [
        pytest.param([], Status.RUNNING, 0, "the canary got no request in 0 s; watched for 0 s", id="nothing yet"),
        pytest.param(
            bins(60, 100), Status.PASS, 60,
            "web001 answered well to 3,000 of 3,000 requests (100.0 %); 95 % are asked; passed after 60 s", id="healthy",
        ),
        pytest.param(
            bins(58, 100), Status.RUNNING, 58,
            "web001 answered well to 2,900 of 2,900 requests (100.0 %); 95 % are asked; watched for 58 s", id="baking",
        ),
        pytest.param(
            bins(60, 10, 90), Status.FAIL, 6,
            "web001 answered well to 30 of 300 requests (10.0 %); 95 % are asked; failed after 6 s", id="broken",
        ),
        pytest.param(
            bins(120), Status.INCONCLUSIVE, 120, "no traffic: web001 got no request in 120 s; undecided after 120 s",
            id="no traffic",
        ),
        pytest.param(
            [bin_at(2, 1), *bins(120)[1:]], Status.INCONCLUSIVE, 120,
            "not enough evidence: web001 answered well to 1 of 1 request (100.0 %); 95 % are asked, and so many requests "
            "prove neither good nor bad; undecided after 120 s", id="one request",
        ),
        pytest.param(
            [*bins(100, 10), *bins(120, observed=False)[50:]], Status.PASS, 60,
            "web001 answered well to 300 of 300 requests (100.0 %); 95 % are asked; passed after 60 s", id="passed before",
        ),
        pytest.param(
            [*bins(44, 10), *bins(120, observed=False)[22:]], Status.INCONCLUSIVE, 120,
            "stale: web001 could not be read for 76 s; web001 answered well to 220 of 220 requests (100.0 %); "
            "95 % are asked; undecided after 120 s", id="stale",
        ),
        pytest.param(
            bins(120, observed=False), Status.INCONCLUSIVE, 120,
            "stale: web001 could not be read for 120 s; web001 answered well to 0 of 0 requests; 95 % are asked; "
            "undecided after 120 s", id="never seen",
        ),
        pytest.param(bins(120, 1, role="baseline"), Status.INCONCLUSIVE, 120, "stale: the canary", id="baseline only"),
    ],
)  # fmt: skip
def test_verdict_table(intervals, status, t, reason):
    """The word, its time and its sentence, case by case."""
    verdict = judge(intervals, POLICY)
    assert (verdict.status, verdict.t) == (status, t)
    assert verdict.reason.startswith(reason)


def test_two_requests_in_the_first_seconds_do_not_fail():
    """Before 5 s nothing fails, whatever the answers."""
    assert judge(bins(4, 0, 1000), POLICY).status is Status.RUNNING
    assert judge(bins(6, 0, 1000), POLICY).status is Status.FAIL


def test_share_near_the_minimum_is_inconclusive():
    """A share that neither bound can part from the minimum is left to a person."""
    verdict = judge(bins(120, 19, 1), POLICY)
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.evidence["lower"] < 0.95 < verdict.evidence["upper"]


def test_share_shown_never_looks_like_the_minimum():
    """A share just below the minimum is printed with the digits that tell the difference."""
    verdict = judge([bin_at(6, 94_960_000 // 10, 5_040_000 // 10)], POLICY)
    assert verdict.status is Status.FAIL
    assert "(94.96 %); 95 % are asked" in verdict.reason


def test_unobserved_bins_contribute_nothing():
    """Counts of a bin that could not be read whole are not evidence."""
    assert judge(bins(60, 0, 100, observed=False), POLICY).status is Status.RUNNING


def test_canary_unseen_for_fifteen_seconds_blocks_a_pass_until_it_is_seen_again():
    """What was not watched to the end is not passed; seen again, it is."""
    blind = [*bins(44, 100), *bins(62, observed=False)[22:]]
    assert judge(blind, POLICY).status is Status.RUNNING
    verdict = judge([*blind, bin_at(64, 100)], POLICY)
    assert (verdict.status, verdict.t) == (Status.PASS, 64)


def test_several_canaries_are_pooled():
    """One dead host of two fails the canary, and both are named."""
    both = sorted([*bins(60, 50, host="web001"), *bins(60, 0, 50, host="web002")], key=lambda one: one.t)
    verdict = judge(both, POLICY)
    assert (verdict.status, verdict.t) == (Status.FAIL, 6)
    assert verdict.reason.startswith("web001, web002 answered well to 150 of 300")


def test_history_is_not_evidence():
    """What happened before readiness neither fails nor passes."""
    history = [bin_at(t, 0, 1000) for t in range(-20, 1, 2)]
    assert judge([*history, *bins(60, 100)], POLICY).status is Status.PASS


def test_verdict_does_not_change_with_later_bins():
    """FAIL and PASS are final, however the story goes on."""
    failed = judge(bins(6, 0, 10), POLICY)
    assert judge([*bins(6, 0, 10), *bins(120, 10_000)[3:]], POLICY) == failed
    passed = judge(bins(60, 10), POLICY)
    assert judge([*bins(60, 10), *bins(120, 0, 10_000)[30:]], POLICY) == passed


@pytest.mark.parametrize(
    ("good", "bad_class", "status"),
    [
        (("2xx", "3xx"), "4xx", Status.FAIL),
        (("2xx", "3xx", "4xx"), "4xx", Status.PASS),
        (("2xx", "4xx"), "499", Status.PASS),
        (("2xx", "404"), "404", Status.PASS),
        (("2xx",), "404", Status.FAIL),
    ],
)
def test_good_is_what_the_policy_names(good, bad_class, status):
    """Classes and single statuses; a status that is counted by itself belongs to its class."""
    counts = {"2xx": 50, bad_class: 50}
    intervals = [
        Interval(float(t), 2.0, "web001", "canary", observed=True, counts=counts) for t in range(2, 61, 2)
    ]
    assert judge(intervals, Policy(good=good)).status is status


def test_nothing_proves_all():
    """A minimum of 100 % fails at the first bad answer and is never proved."""
    all_of_them = Policy(minimum_good=1.0, bake_s=10, deadline_s=20)
    assert judge(bins(20, 1000), all_of_them).status is Status.INCONCLUSIVE
    assert judge([*bins(8, 1000), bin_at(10, 1000, 1)], all_of_them).status is Status.FAIL


counted = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.booleans()), min_size=0, max_size=70)
policies = st.builds(
    Policy,
    minimum_good=st.sampled_from([0.0, 0.5, 0.95, 0.999, 1.0]),
    bake_s=st.sampled_from([0.0, 10.0, 60.0]),
    deadline_s=st.sampled_from([60.0, 100.0]),
)


def story(numbers):
    return [bin_at(2 * i, g, b, observed=o) for i, (g, b, o) in enumerate(numbers, start=1)]


@given(counted, policies)
def test_same_intervals_same_verdict(numbers, policy):
    """The judge remembers nothing."""
    assert judge(story(numbers), policy) == judge(story(numbers), policy)


@given(st.integers(0, 80), st.booleans(), policies)
def test_no_data_never_passes(length, observed, policy):
    """Without a request that was seen there is no PASS and no FAIL."""
    verdict = judge(story([(0, 0, observed)] * length), policy)
    assert verdict.status in {Status.RUNNING, Status.INCONCLUSIVE}
    unseen = judge(story([(40, 0, False)] * length), policy)
    assert unseen.status in {Status.RUNNING, Status.INCONCLUSIVE}


@given(counted, policies)
def test_every_verdict_is_that_of_its_own_moment(numbers, policy):
    """Cutting the story at the verdict's time gives the same verdict; before it, none."""
    verdict = judge(story(numbers), policy)
    until = int(verdict.t // 2)
    assert judge(story(numbers[:until]), policy) == verdict
    if verdict.status is not Status.RUNNING:
        assert judge(story(numbers[: until - 1]), policy).status is Status.RUNNING


@given(counted, policies, st.data())
def test_more_bad_answers_never_help(numbers, policy, data):
    """Adding bad answers, or making good ones bad, moves no verdict towards PASS."""
    before = judge(story(numbers), policy).status
    worse = [
        (g - turned, b + turned + data.draw(st.integers(0, 5)), o)
        for g, b, o in numbers
        for turned in [data.draw(st.integers(0, g))]
    ]
    after = judge(story(worse), policy)
    assert RANK[after.status] <= RANK[before] or _had_no_data(numbers)


def _had_no_data(numbers):
    """The one exception: where every answer may be bad (minimum 0), a bad answer is better than none."""
    return not any(g + b for g, b, o in numbers if o)


@given(st.integers(1, 10**7), st.data())
def test_any_number_of_requests_is_judged(total, data):
    """Ten million requests in one bin are judged like ten."""
    bad = data.draw(st.integers(0, total))
    verdict = judge([bin_at(60, total - bad, bad)], Policy())
    assert verdict.evidence["lower"] <= (total - bad) / total <= verdict.evidence["upper"]
    if verdict.status is Status.PASS:
        assert verdict.evidence["lower"] >= 0.95 - 1e-9
    if verdict.status is Status.FAIL:
        assert verdict.evidence["upper"] < 0.95 + 1e-9
