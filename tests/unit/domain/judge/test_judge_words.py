"""What people are told of a verdict."""

import pytest

from rollout.domain.judge import Judge, judge, words
from rollout.domain.judge.words import _odds, _percent
from rollout.domain.verdict import Interval, Policy, Status
from tests.support.traces import on_all, on_canary, story


def sentence(policy=None, **given):
    judging = Judge(policy or Policy())
    judging.add(story(**given))
    return judging.closing.explanation


def test_a_fail_names_both_sides_the_odds_the_time_and_the_harm():
    """And what would have changed its mind."""
    verdict = judge(story(rate=on_canary(0.05), until=100), Policy())
    told = verdict.explanation
    assert told.startswith("web0 answered 5xx to ")
    assert ", the four baseline hosts to " in told
    assert f"It failed after {verdict.t:.0f} s, in which it harmed about " in told
    assert "% of the requests to one host; had the baseline" in told
    assert "the odds that this is chance are below 1 in 1" in told
    assert told.endswith("in the same seconds, it would have been watched on.")
    assert verdict.evidence["harmed"] == pytest.approx(0.04, abs=0.02)
    assert judge(story(rate=on_canary(0.01, 0.03), until=100), Policy()).evidence["harmed"] == 0.0


def test_a_fail_against_its_own_past_says_so():
    """A host that was better than the baseline and is now like it: that is harm, and the sentence says what it is measured by."""
    verdict = judge(story(rate=lambda host, t: 0.02 if host != "web0" or t > 0 else 0.005), Policy())
    assert verdict.status is Status.FAIL
    assert (
        " (as far as the time before the switch tells, 0.29 times as many as theirs were to be expected); the odds"
        in verdict.explanation
    )
    assert "had it been no worse beside the baseline than before, it would have been" in verdict.explanation
    assert verdict.evidence["harmed"] == pytest.approx(0.015, abs=0.006)


def test_how_much_more_is_lacking_is_said_in_words():
    """No powers of ten."""
    told = [words._times(amount) for amount in (1.0, 3.14, 99.0, 23_456.0, 5e9)]
    assert told == ["about 1.1", "about 3.1", "about 99", "about 23,000", "more than a million"]


def test_a_pass_says_what_is_ruled_out_and_how_many_more_it_bears():
    """Bad answers that many more would have kept it back: with them, the same trace does not pass at that time."""
    told = sentence(until=100, rps=1000)
    assert "; more than 1.25 times the baseline's rate + " in told
    assert "points is ruled out at 20 to 1. It passed after 60 s; with " in told
    assert told.endswith(" more bad answers it would have been watched on.")


def test_a_pass_tells_what_it_rests_on():
    """During an incident nothing is tested, so its answers do not stand beside the certificate."""
    told = sentence(until=300, rps=1000, rate=on_all(0.31, since=20, until=60))
    assert "(0.95 %), the four baseline hosts to 1.00 % of " in told
    assert " where they could be compared; more than 1.25 times the baseline's rate + 0." in told


def test_a_host_that_was_always_worse_passes_by_its_own_measure_and_that_is_told():
    """2 % beside 1 % is no contradiction to what is ruled out: its host had twice the baseline's rate before."""
    told = sentence(until=300, rps=1000, rate=lambda host, t: 0.02 if host == "web0" else 0.01)
    assert "(2.0 %), the four baseline hosts to 1.0 % of " in told
    assert (
        "; more than 2.5 times the baseline's rate (1.25 times what its host had beside it before) + 0."
        in told
    )


def test_what_would_have_been_enough_is_rounded_up():
    """With 605 requests to be expected in ten, "600" would still be starved."""
    assert [words._at_least(amount) for amount in (4, 99, 151, 605, 600, 6046)] == [
        "4", "99", "160", "610", "600", "6,100",
    ]  # fmt: skip
    assert "with 320 each it would" in sentence(
        canaries=("web0", "web9"),
        load=lambda host, t: 0 if host in {"web0", "web9"} and t > 0 else 105.0,
        until=60,
    )


def test_a_moment_is_not_told_as_no_time():
    """Nothing is unread "for 0 s", and what was read in next to no time was read."""
    gone = [Interval(0.3, 0.3, "web0", "canary", observed=False, counts={})]
    assert "could not be read for 1 s" in judge_all(gone)
    brief = [Interval(2.0, 1e-9, "web0", "canary", observed=True, counts={"2xx": 5})]
    assert judge_all(brief).startswith("not enough evidence: web0 answered badly to none of 5 requests")


def judge_all(intervals):
    judging = Judge(Policy())
    judging.add(intervals)
    return judging.closing.explanation


def test_nothing_to_compare_with_is_said():
    """The report of a pass or fail by the limit alone names it."""
    assert sentence(history=0, baseline=(), until=100).endswith("absolute limit only.")
    assert "only the limit of 5.0 % bad answers" in sentence(history=0, baseline=(), until=60, rate=0.5)
    assert "its own past" in sentence(baseline=(), until=60, rate=on_canary(0.2))


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (
            {"rps": 0, "until": 600},
            "no traffic: web0 got no request in 600 s. It is undecided after 600 s; a few hundred requests",
        ),
        (
            {"seen": lambda host, t: host != "web0" or t < 40},
            "stale: web0 could not be read for 562 s; before, web0 answered",
        ),
        (
            {"rate": on_all(0.3, since=20, until=1e9)},
            "shared incident: the baseline went wrong too; web0 answered",
        ),
        (
            {"rate": on_all(0.3, since=20, until=590), "until": 600},
            "shared incident: the baseline went wrong too, until 2 s ago; web0 answered",
        ),
        (
            {"seen": lambda host, t: host != "web0" or t < 0},
            "stale: web0 could not be read for 600 s. It is undecided after 600 s; what cannot be read does not pass.",
        ),
        ({"until": 0, "history": 0}, "no traffic: nothing was read of the canary. It is undecided"),
        ({"rps": 1}, "times as many requests like these would be enough."),
        ({"until": 20}, ": it is watched for at least 60 s."),
        (
            {"load": lambda host, t: 0 if host == "web0" and t > 0 else 50},
            "web0 got 0 requests in 30 s, and by the other hosts' traffic about 1,500 were to be expected.",
        ),
    ],
)
def test_doubt_says_why_and_what_is_missing(given, part):
    """Each reason has its sentence."""
    assert part in sentence(**given)


def test_no_bad_answer_is_none():
    """And not 0 %."""
    told = sentence(rate=0.0, until=100)
    assert told.startswith("web0 answered badly to none of ")
    assert "with 1 more bad answer it" in told


def test_several_hosts_are_harmed_together():
    """Their number, in words."""
    names = ("web0", "web9")
    told = sentence(canaries=names, rate=on_canary(0.2, canaries=names), until=60)
    assert "% of the requests to two hosts; had" in told


def test_an_outage_among_noisy_hosts_names_no_odds():
    """It fails after ten dark seconds whatever the odds are, and poor odds would explain nothing."""
    judging = Judge(Policy())
    judging.add(story(rate=on_canary(1.0), until=20, history=20))
    judging.failing.together = 1.0
    told = words.explanation(judging, Status.FAIL, "outage")
    assert "; half or more of its answers were bad for 10 s while the others were well. It failed" in told
    assert "odds" not in told


def test_a_canary_is_called_by_its_name_or_two_of_many():
    """Five canaries do not make five names."""
    names = tuple(f"web0{i}" for i in range(5))
    assert sentence(canaries=names, until=20).startswith(
        "not enough evidence: web00, web01 and 3 more answered"
    )


def test_odds_are_never_overstated():
    """Rounded down to a power of ten, and never better than one in a million, whatever the evidence."""
    assert _odds(4.7).endswith("below 1 in 100")
    assert _odds(9.2).endswith("below 1 in 1,000")
    assert _odds(9.22).endswith("below 1 in 10,000")
    assert _odds(5000.0).endswith("below 1 in 1,000,000")
    assert _odds(0.7).endswith("about 1 in 2.0")


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.0492, "4.9 %"),
        (0.012, "1.2 %"),
        (0.00031, "0.031 %"),
        (0.99996, "99.9960 %"),
        (0.31, "31.0 %"),
    ],
)
def test_shares_have_the_digits_that_mean_something(share, told):
    """Two of them, and never nothing or all when it is not."""
    assert _percent(share) == told
