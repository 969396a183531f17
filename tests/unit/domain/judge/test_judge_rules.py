"""The judge's word, rule by rule: who is blamed, who is not, and what is said when nothing can be known."""

import json
from dataclasses import replace
from functools import partial
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.domain.judge import Judge, judge
from rollout.domain.judge.absolute import Limit
from rollout.domain.verdict import Interval, Policy, Status
from tests.support.traces import always, on_all, on_canary, story

POLICY = Policy()
REASONS = {
    "no traffic", "stale", "shared incident", "not enough evidence", "starved", "error rate", "outage", "no harm found",
}  # fmt: skip


def at_the_end(intervals, policy=POLICY):
    judging = Judge(policy)
    judging.add(intervals)
    return judging.closing


def canary(host):
    return host == "web0"


# The examples of what is right


def test_a_healthy_canary_passes_soon_after_its_bake():
    """1000 requests/s, base 1 %: PASS between 60 and 90 s."""
    verdict = judge(story(rps=1000, until=120), POLICY)
    assert (verdict.status, verdict.reason) == (Status.PASS, "no harm found")
    assert 60 <= verdict.t <= 90


def test_a_broken_canary_fails_within_ten_seconds():
    """100 requests/s, base 1 %, the canary at 98 %."""
    verdict = judge(story(rate=on_canary(0.98), until=60), POLICY)
    assert (verdict.status, verdict.reason) == (Status.FAIL, "outage")
    assert verdict.t <= 10


@pytest.mark.parametrize("seed", range(3))
def test_an_incident_on_all_hosts_does_not_blame_the_canary(seed):
    """30 % errors on every host from 20 to 100 s: PASS, and not before it is over."""
    verdict = judge(story(rate=on_all(0.31, since=20, until=100), until=300, seed=seed), POLICY)
    assert verdict.status is Status.PASS
    assert verdict.t >= 130


def test_no_requests_at_all_are_no_traffic_at_the_deadline():
    """INCONCLUSIVE, and not later than the deadline."""
    verdict = judge(story(rps=0), POLICY)
    assert (verdict.status, verdict.reason, verdict.t) == (Status.INCONCLUSIVE, "no traffic", 600)


@pytest.mark.parametrize("history", [600, 0])
def test_a_canary_without_requests_among_busy_hosts_is_starved(history):
    """Observed, 0 requests, the others 50/s each: FAIL at 30-40 s, with history and without."""
    verdict = judge(
        story(load=lambda host, t: 0 if canary(host) and t > 0 else 50, history=history, until=60), POLICY
    )
    assert (verdict.status, verdict.reason) == (Status.FAIL, "starved")
    assert 30 <= verdict.t <= 40


def test_a_request_now_and_then_is_not_enough_evidence():
    """0.3 requests/s, healthy: undecided after ten minutes."""
    verdict = at_the_end(story(rps=0.3))
    assert (verdict.status, verdict.reason) == (Status.INCONCLUSIVE, "not enough evidence")


# Whom it blames


@pytest.mark.parametrize(
    ("given", "reason", "latest"),
    [
        pytest.param({"rate": on_canary(1.0), "rps": 10}, "outage", 12, id="outage at 10/s"),
        pytest.param({"rate": on_canary(1.0), "rps": 2}, "outage", 30, id="outage at 2/s"),
        pytest.param({"rate": on_canary(1.0), "rps": 0.3}, "outage", 120, id="outage at one request in three seconds"),
        pytest.param({"rate": on_canary(1.0, since=150), "rps": 5}, "outage", 165, id="outage after a long calm"),
        pytest.param({"rate": on_canary(0.2, since=100), "rps": 10}, "error rate", 140, id="late fault"),
        pytest.param({"rate": on_canary(0.3), "bad": "4xx"}, "error rate", 10, id="4xx storm"),
        pytest.param({"rate": on_canary(0.97, 0.05), "bad": "3xx"}, "error rate", 12, id="redirect loop"),
        pytest.param({"rate": on_canary(0.1, 0.005), "bad": "499"}, "error rate", 12, id="users give up"),
        pytest.param({"rate": on_canary(0.02, 0.001), "rps": 10}, "error rate", 120, id="low base"),
        pytest.param({"rate": on_canary(0.005, 0.0)}, "error rate", 30, id="base of zero"),
        pytest.param({"rate": on_canary(1.0), "dt": 15.0}, "outage", 30, id="scraped every 15 s"),
        pytest.param({"rate": on_canary(0.0235), "rps": 5e5, "until": 20}, "error rate", 20, id="a million a bin"),
        pytest.param({"rate": on_canary(1.0), "history": 0, "baseline": ()}, "outage", 12, id="nothing to compare"),
        pytest.param({"rate": on_canary(0.06), "baseline": ()}, "error rate", 20, id="history alone"),
        pytest.param({"rate": on_canary(0.98, 0.08)}, "outage", 12, id="while the baseline is bad too"),
        pytest.param(
            {"rate": lambda host, t: 1.0 if canary(host) and t > 0 else 0.31 if 0 < t < 100 else 0.01},
            "outage", 12, id="in the middle of an incident",
        ),
        pytest.param(
            {"rate": on_canary(1.0, since=100), "seen": lambda host, t: canary(host) or t < 30},
            "outage", 112, id="when nobody sees the baseline any more",
        ),
    ],
)  # fmt: skip
def test_harm_is_found(given, reason, latest):
    """FAIL, for the right reason, and soon."""
    verdict = judge(story(**{"until": 300.0} | given), POLICY)
    assert (verdict.status, verdict.reason) == (Status.FAIL, reason)
    assert verdict.t <= latest


@pytest.mark.parametrize("rps", [10, 100])
def test_one_dead_canary_of_two_fails(rps):
    """Canaries are pooled; half of the answers bad is found in six seconds."""
    verdict = judge(
        story(canaries=("web0", "web9"), rate=on_canary(1.0, canaries=("web9",)), rps=rps, until=60), POLICY
    )
    assert verdict.status is Status.FAIL
    assert verdict.t <= 8
    assert "web0, web9 answered 5xx" in verdict.explanation


# Whom it does not blame


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="healthy"),
        pytest.param({"rate": 0.0}, id="no error at all"),
        pytest.param({"rps": 20_000, "until": 100}, id="20,000 requests/s"),
        pytest.param({"rps": 5e5, "until": 100}, id="a million a bin"),
        pytest.param({"dt": 15.0}, id="scraped every 15 s"),
        pytest.param({"history": 0}, id="no history"),
        pytest.param({"there": lambda host, t: canary(host) or t > 0}, id="history of the canary alone"),
        pytest.param({"there": lambda host, t: not canary(host) or t > 0}, id="history of the baseline alone"),
        pytest.param({"there": lambda host, t: canary(host) or t > 40}, id="baseline that comes late"),
        pytest.param({"there": lambda host, t: canary(host) or t < 20 * int(host[-1])}, id="hosts that leave"),
        pytest.param({"baseline": ()}, id="no baseline"),
        pytest.param({"baseline": (), "history": 0}, id="nothing to compare with"),
        pytest.param({"baseline": ("web1",)}, id="one host of baseline"),
        pytest.param({"load": lambda host, t: 20 if canary(host) and t > 20 else 100}, id="a fifth of the traffic"),
        pytest.param({"load": lambda host, t: 500 if canary(host) and t > 20 else 100}, id="five times the traffic"),
        pytest.param({"load": lambda _host, t: 100 if t < 60 or t > 120 else 0}, id="a pause of all traffic"),
        pytest.param({"seen": lambda host, t: not canary(host) or t < 0 or (t // 20) % 2 == 0}, id="gaps"),
        pytest.param({"rate": on_canary(0.01, 0.03)}, id="better than the baseline"),
        pytest.param({"rate": on_canary(0.3, until=4)}, id="a slow start"),
        pytest.param({"rate": on_all(0.31, since=-20, until=80)}, id="incident that was there before"),
        pytest.param({"rate": lambda host, _t: 0.02 if canary(host) else 0.01}, id="host that was always worse"),
        pytest.param({"canaries": ("web0", "web9")}, id="two canaries"),
    ],
)  # fmt: skip
def test_a_healthy_canary_passes_whatever_happens_around_it(given):
    """PASS in the end, and never before the bake."""
    verdict = judge(story(**{"until": 600.0} | given), POLICY)
    assert verdict.status is Status.PASS
    assert verdict.t >= 60


@pytest.mark.parametrize("rps", [10, 100, 1000])
@pytest.mark.parametrize("begin", [0, 30])
def test_one_burst_of_four_seconds_fails_nobody(rps, begin):
    """Not even when every answer in it is bad; it may keep from passing."""
    verdict = judge(story(rate=on_canary(1.0, since=begin, until=begin + 4), rps=rps, until=120), POLICY)
    assert verdict.status is not Status.FAIL


def test_a_rise_on_all_hosts_below_the_limit_is_an_incident_too():
    """Twenty times the usual errors, though all within `minimum_good`: the pass waits until it is over for 30 s."""
    verdict = judge(story(rate=on_all(0.02, 0.001, since=20, until=64), rps=1000, until=200), POLICY)
    assert verdict.status is Status.PASS
    assert verdict.t >= 94


def test_a_spike_on_all_hosts_is_no_evidence_for_the_limit():
    """Too short and too small for an incident, in a fleet that has seen worse: what the baseline shares is not counted."""

    def rate(_host, t):
        return 0.13 if -500 < t < -300 else 0.074 if 0 < t <= 6 else 0.01

    verdict = judge(story(rate=rate, rps=1000, until=200), POLICY)
    assert verdict.status is Status.PASS
    assert verdict.t < 100  # no incident was seen


def test_each_condition_of_a_pass_holds_it_back_alone():
    """What would pass does not when it leans towards harm, is not seen, is near the limit, not baked, or near an incident."""
    judging = Judge(Policy(bake_s=1000, deadline_s=2000))
    judging.add(story(rps=1000, until=100))
    judging.policy = POLICY
    assert judging._passes()
    for owner, name, value in (
        (judging.failing, "together", 1.2),
        (judging, "_compared_at", judging.t - 15),
        (judging, "limit", Limit(0.9899)),
        (judging, "compared_s", 59.0),
        (judging.failing.incidents, "last", judging.t - 29),
        (judging, "counts", judging.counts._replace(bad_c=judging.counts.bad_c * 2)),
    ):
        before = getattr(owner, name)
        setattr(owner, name, value)
        assert not judging._passes(), name
        setattr(owner, name, before)
    assert judging._passes()


def test_where_nothing_can_be_compared_the_limit_has_all_the_weight():
    """The evidence is that of the limit, not a quarter of it."""
    evidence = judge(story(rate=0.2, history=0, baseline=(), until=4), POLICY).evidence
    assert evidence["L"] == evidence["L_abs"] > 1


def test_a_blackout_of_all_hosts_is_nobodys():
    """Most answers bad on every host for 20 s does not blame the canary."""
    verdict = judge(story(rate=on_all(0.6, since=20, until=40), until=200), POLICY)
    assert verdict.status is Status.PASS


def test_one_bad_scrape_fails_nobody():
    """A single bin of 15 s is one observation, however long."""
    verdict = judge(story(rate=on_canary(1.0, until=15), dt=15.0, until=120), POLICY)
    assert verdict.status is not Status.FAIL


def test_a_release_is_not_blamed_for_a_host_that_never_had_traffic():
    """Whoever got nothing before the switch is not starved by the release: no traffic."""
    verdict = judge(story(load=lambda host, _t: 0 if canary(host) else 50), POLICY)
    assert (verdict.status, verdict.reason) == (Status.INCONCLUSIVE, "no traffic")


# What it says when it cannot know


@pytest.mark.parametrize("good", [0, 40])
@pytest.mark.parametrize(
    "policy", [Policy(minimum_good=m, bake_s=b) for m in (0.0, 0.95) for b in (0.0, 60.0)]
)
def test_no_data_is_never_a_pass(good, policy):
    """No request that was seen, no PASS and no FAIL, whatever the baseline answers."""
    for intervals in (
        story(load=lambda host, _t: 0 if canary(host) else good, history=0, baseline=("web1",), until=28),
        story(load=always(good), seen=lambda host, t: not canary(host) or t <= 0, until=700),
        story(load=lambda host, t: 0 if t > 0 else good, until=700),
        story(load=lambda host, t: 0 if canary(host) and t > 0 else 0.1, until=700),
    ):
        judging = Judge(policy)
        assert judging.add(intervals).status in {Status.RUNNING, Status.INCONCLUSIVE}


def test_a_canary_that_cannot_be_read_is_stale():
    """Not read is not the same as no requests, and it is said at the deadline."""
    for seen in (lambda host, t: not canary(host), lambda host, t: not canary(host) or t < 40):
        verdict = judge(story(seen=seen), POLICY)
        assert (verdict.status, verdict.reason, verdict.t) == (Status.INCONCLUSIVE, "stale", 600)


def test_a_canary_unseen_for_fifteen_seconds_does_not_pass_until_it_is_seen():
    """What was not watched to the end is not passed; seen again, it is."""
    blind = story(seen=lambda host, t: not canary(host) or not 46 < t < 200, until=230, rps=1000)
    verdict = judge(blind, POLICY)
    assert verdict.status is Status.PASS
    assert verdict.t >= 200


def after(seconds):
    """Which hosts there are when the baseline leaves at this moment."""
    return lambda host, t: canary(host) or t <= seconds


@pytest.mark.parametrize("how", ["seen", "there"])
@pytest.mark.parametrize(("rps", "seconds", "rate"), [(100, 20, 0.03), (100, 20, 0.045), (1000, 10, 0.045)])
def test_nobody_to_compare_with_any_more_is_never_a_pass(how, rps, seconds, rate):
    """The baseline is not read any more, or gone, and the canary regresses: held, and told at the deadline."""
    intervals = story(rps=rps, rate=on_canary(rate, since=seconds), until=700, **{how: after(seconds)})
    verdict = judge(intervals, POLICY)
    assert (verdict.status, verdict.reason, verdict.t) == (Status.INCONCLUSIVE, "stale", 600)
    assert (
        f"the baseline could not be read for {600 - seconds} s; before, web0 answered" in verdict.explanation
    )


def test_a_baseline_that_answers_nothing_compares_with_nothing():
    """Read, and without a request: no pass either, and it is said."""
    load = {True: always(100), False: lambda host, t: 100 if canary(host) or t <= 20 else 0}
    assert judge(story(load=load[True], until=300), POLICY).status is Status.PASS
    verdict = judge(story(load=load[False], rate=on_canary(0.03, since=20), until=1300), POLICY)
    assert (verdict.status, verdict.reason) == (Status.INCONCLUSIVE, "not enough evidence")
    assert "for 1180 s the baseline answered nothing that it could be compared with" in verdict.explanation


def test_the_bake_is_of_seconds_that_were_compared():
    """A baseline that is read half of the time makes it twice as long."""

    def half(host, t):
        return canary(host) or t <= 0 or (t // 10) % 2 == 0

    judging = Judge(POLICY)
    verdict = judging.add(story(rps=1000, seen=half, until=300))
    assert verdict.status is Status.PASS
    assert 105 <= verdict.t <= 135
    assert 60 <= judging.compared_s < judging.observed_s


def test_a_baseline_that_comes_late_begins_the_comparison():
    """What was measured against the canary's own past does not count for the bake beside it."""
    late = story(rps=1000, there=lambda host, t: canary(host) or t > 50, until=200)
    verdict = judge(late, POLICY)
    assert verdict.status is Status.PASS
    assert 110 <= verdict.t <= 130


@pytest.mark.parametrize("bad", [0.0, 1.0])
def test_where_every_answer_may_be_bad_and_nothing_compares_nothing_passes(bad):
    """`minimum_good` 0 without baseline and history: no evidence is possible, so there is none."""
    verdict = judge(story(rate=bad, rps=0.5, history=0, baseline=(), until=700), Policy(minimum_good=0.0))
    assert (verdict.status, verdict.reason, verdict.t) == (Status.INCONCLUSIVE, "not enough evidence", 600)
    assert "nothing to compare it with, and by its policy every answer may be bad" in verdict.explanation


def test_one_silent_canary_of_two_is_starved():
    """The other one's traffic does not hide it, and it alone is named."""
    verdict = judge(
        story(
            canaries=("web0", "web9"), load=lambda host, t: 0 if host == "web9" and t > 0 else 100, until=100
        ),
        POLICY,
    )
    assert (verdict.status, verdict.reason, verdict.t) == (Status.FAIL, "starved", 30)
    assert verdict.explanation.startswith("web9 got 0 requests in 30 s")


def test_canaries_of_which_little_was_expected_are_starved_together():
    """Five hosts at half a request a second, and none of them gets one."""
    names = tuple(f"web{i}" for i in range(5, 10))
    verdict = judge(
        story(canaries=names, load=lambda host, t: 0 if host in names and t > 0 else 0.5, until=60), POLICY
    )
    assert (verdict.status, verdict.reason) == (Status.FAIL, "starved")
    assert verdict.explanation.startswith("web5, web6 and 3 more got 0 requests in 30 s")
    assert " each" not in verdict.explanation


@pytest.mark.parametrize("rps", [20, 100, 1000])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.8])
def test_an_incident_does_not_blame_a_host_that_used_to_be_better(share, rps):
    """It had fewer errors of its own; of the 30 points that hit every host it has as many as the others."""

    def rate(host, t):
        return (0.01 * share if canary(host) else 0.01) + (0.3 if 20 < t <= 100 else 0.0)

    for seed in range(4):
        assert judge(story(rate=rate, rps=rps, until=140, seed=seed), POLICY).status is not Status.FAIL


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_an_outage_in_the_middle_of_an_incident_is_found(share):
    """Of a host that was better, too: everybody at 31 %, and from 60 s on the canary at 100 %."""

    def rate(host, t):
        usual = (0.01 * share if canary(host) else 0.01) + (0.3 if 20 < t <= 200 else 0.0)
        return 1.0 if canary(host) and t > 60 else usual

    verdict = judge(story(rate=rate, until=200), POLICY)
    assert verdict.status is Status.FAIL
    assert verdict.t <= 100


@pytest.mark.parametrize("rps", [100, 1000])
def test_a_host_that_used_to_be_better_is_still_held_to_that(rps):
    """Without an incident, errors of a canary that was at half of the baseline's rate are measured by its own half."""
    verdict = judge(story(rate=lambda host, t: 0.005 if canary(host) and t <= 0 else 0.01, rps=rps), POLICY)
    assert verdict.status is Status.FAIL


def test_a_shared_incident_at_the_deadline_is_waited_for_once():
    """When it ends, the word falls 30 s later; when it does not, at twice the deadline."""
    ends = judge(story(rate=on_all(0.31, since=20, until=650), until=1300), POLICY)
    assert ends.status is Status.PASS
    assert 680 <= ends.t <= 700
    stays = judge(story(rate=on_all(0.31, since=20, until=1e9), until=1300), POLICY)
    assert (stays.status, stays.reason, stays.t) == (Status.INCONCLUSIVE, "shared incident", 1200)


def test_a_baseline_above_the_limit_neither_blames_nor_passes():
    """Where all answer 8 % badly, nobody is blamed and nothing goes forward."""
    verdict = judge(story(rate=0.08, until=1200), POLICY)
    assert (verdict.status, verdict.reason, verdict.t) == (Status.INCONCLUSIVE, "shared incident", 1200)


def test_too_little_evidence_gets_as_much_time_again():
    """Undecided at the deadline goes on once, and then a person decides."""
    verdict = judge(story(rps=0.1, until=1300), POLICY)
    assert (verdict.status, verdict.reason, verdict.t) == (Status.INCONCLUSIVE, "not enough evidence", 1200)


def test_requests_of_our_own_pass_only_where_the_policy_allows_it():
    """Probes may fail a canary, and pass it only with `allow_probe_pass`."""
    healthy = story(rps=5, rate=0.0, source="probe")
    told = judge(healthy, POLICY)
    assert (told.status, told.t) == (Status.INCONCLUSIVE, 600.0)
    assert judge(healthy, Policy(allow_probe_pass=True)).status is Status.PASS
    assert judge(story(rps=5, rate=on_canary(1.0), source="probe"), POLICY).status is Status.FAIL


@pytest.mark.parametrize(
    ("good", "bad", "status"),
    [
        (("2xx", "3xx"), "4xx", Status.FAIL),
        (("2xx", "3xx", "4xx"), "4xx", Status.PASS),
        (("2xx", "4xx"), "499", Status.PASS),
        (("2xx", "404"), "404", Status.PASS),
        (("2xx",), "404", Status.FAIL),
        (("2xx",), "3xx", Status.FAIL),
    ],
)
def test_good_is_what_the_policy_names(good, bad, status):
    """Classes and single statuses; a status that is counted by itself belongs to its class."""
    counts = {"2xx": 50, bad: 50}
    intervals = [
        Interval(float(t), 2.0, "web0", "canary", observed=True, counts=counts) for t in range(2, 99, 2)
    ]
    assert judge(intervals, Policy(good=good)).status is status


def test_stricter_limits_fail_what_laxer_ones_pass():
    """The same 2 % bad answers with nothing to compare with, at 95 %, 99 % and 100 %."""
    intervals = story(rate=0.02, history=0, baseline=(), until=300)
    said = [judge(intervals, Policy(minimum_good=least)).status for least in (0.95, 0.99, 1.0)]
    assert said == [Status.PASS, Status.FAIL, Status.FAIL]


# The same intervals, the same verdict


hosts = ("web0", "web1", "web2")
answers = st.tuples(st.integers(0, 60), st.integers(0, 12), st.booleans())
stories = st.lists(st.tuples(answers, answers, answers), max_size=60)
policies = st.builds(
    Policy,
    minimum_good=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    bake_s=st.sampled_from([0.0, 10.0, 60.0]),
    deadline_s=st.sampled_from([60.0, 80.0]),
    margin=st.sampled_from([0.0, 0.01, 1.0]),
)


def told(numbers, begin=-20):
    return [
        Interval(
            begin + 2.0 * (i + 1), 2.0, host, "canary" if canary(host) else "baseline",
            observed=seen, counts={"2xx": good, "5xx": bad},
        )
        for i, step in enumerate(numbers)
        for host, (good, bad, seen) in zip(hosts, step, strict=True)
    ]  # fmt: skip


@settings(max_examples=60)
@given(stories, policies)
def test_the_verdict_does_not_depend_on_how_it_is_fed(numbers, policy):
    """All at once, bin by bin, again, or with the hosts of a bin in another order."""
    intervals = told(numbers)
    verdict = judge(intervals, policy)
    assert judge(intervals, policy) == verdict
    judging = Judge(policy)
    for _, group in groupby(intervals, key=lambda one: one.t):
        judging.add(reversed(list(group)))
    again = judging.verdict
    assert (again.status, again.reason, again.t) == (verdict.status, verdict.reason, verdict.t)
    assert again.evidence == pytest.approx(verdict.evidence, rel=1e-6, abs=1e-5)


@settings(max_examples=60)
@given(stories, policies, stories)
def test_a_word_that_has_fallen_stays(numbers, policy, later):
    """It is that of its own moment, before it there was none, and whatever comes later does not change it."""
    intervals = told(numbers)
    verdict = judge(intervals, policy)
    before = [one for one in intervals if one.t <= verdict.t]
    assert judge(before, policy) == verdict
    if verdict.status is not Status.RUNNING:
        assert judge([one for one in before if one.t < verdict.t], policy).status is Status.RUNNING
        more = told(later, begin=2.0 * len(numbers) - 20)
        assert judge([*intervals, *more], policy) == verdict


@settings(max_examples=60)
@given(stories, policies)
def test_every_verdict_can_be_told(numbers, policy):
    """One of the eight reasons, a sentence, and evidence that is finite, whatever was counted."""
    judging = Judge(policy)
    judging.add(told(numbers))
    for verdict in (judging.verdict, judging.closing):
        assert verdict.reason in REASONS
        assert verdict.explanation
        json.dumps(verdict.evidence, allow_nan=False)


@pytest.mark.parametrize(
    ("minimum_good", "base", "rps"), [(0.95, 0.1, 1.0), (0.99, 0.02, 3.0), (0.999, 0.005, 10.0)]
)
def test_limit_blames_no_canary_while_the_baseline_is_above_it_too(minimum_good, base, rps):
    """With few requests a step is clean on the baseline by chance: those steps alone prove nothing against the canary."""
    policy = replace(POLICY, minimum_good=minimum_good)
    verdicts = [judge(story(rps=rps, rate=base, until=1210, seed=seed), policy) for seed in range(8)]
    assert {verdict.status for verdict in verdicts} == {Status.INCONCLUSIVE}


@pytest.mark.parametrize("share", [0.04, 0.1])
def test_what_is_bad_while_no_baseline_is_seen_passes_nothing(share):
    """It cannot be compared, so it speaks for nothing, and it is not forgotten either."""

    def unseen(t):
        return t > 0 and (t // 20) % 2 == 1

    def rate(host, t):
        return share if canary(host) and unseen(t) else 0.01

    for seed in range(3):
        verdict = judge(
            story(rate=rate, seen=lambda host, t: canary(host) or not unseen(t), until=1210, seed=seed),
            POLICY,
        )
        assert verdict.status is not Status.PASS


def test_who_drops_out_of_the_baseline_takes_along_what_was_learned_of_him():
    """web1 had eight times the errors of the rest. Without it the canary is as good as they, and no better than it was."""
    gone = partial(story, seen=lambda host, t: host != "web1" or t <= 0)
    healthy = judge(gone(rate=lambda host, _t: 0.08 if host == "web1" else 0.01), POLICY)
    assert healthy.status is Status.PASS
    assert "more than 1.25 times the baseline's rate + " in healthy.explanation
    worse = judge(
        gone(rate=lambda host, t: 0.08 if host == "web1" or (host == "web0" and t > 0) else 0.01), POLICY
    )
    assert (worse.status, worse.reason) == (Status.FAIL, "error rate")


@pytest.mark.parametrize("history", [0, 600])
def test_one_host_with_all_the_traffic_starves_nobody(history):
    """A balancer's favourite, forty times as busy: the others' median says what is to be expected."""
    trace = story(
        load=lambda host, t: 4000.0 if host == "web1" and t > 0 else 60.0, history=history, until=100
    )
    assert judge(trace, POLICY).status is not Status.FAIL


@pytest.mark.parametrize(
    "unread", [{"web0"}, {"web2", "web3", "web4"}], ids=["canary", "most of the baseline"]
)
def test_one_bin_that_could_not_be_read_changes_nothing(unread):
    """Missing is not zero, and what was learned of the hosts is not forgotten for it, nor doubted for the rest of the watch."""
    trace = partial(story, rate=on_canary(0.0175), until=300)
    whole = judge(trace(), POLICY)
    holed = judge(trace(seen=lambda host, t: t != 2.0 or host not in unread), POLICY)
    assert (whole.status, holed.status) == (Status.FAIL, Status.FAIL)
    assert abs(whole.t - holed.t) <= 10


def test_a_canary_that_was_the_balancers_favourite_is_not_starved_when_it_is_none_any_more():
    """It gets what the others get: that is no sign that the release hangs."""

    def load(host, t):
        return 90.0 if host == ("web0" if t <= 0 else "web1") else 5.0

    assert judge(story(load=load, until=100), POLICY).status is not Status.FAIL
