"""The failing side goes on through the fan-out."""

from itertools import pairwise
from math import inf, log

import pytest

from rollout.domain.judge import Judge, watch, watching
from rollout.domain.judge.watching import _period, _periods
from rollout.domain.verdict import Interval, Policy, Status
from tests.support.traces import on_canary, story

HOSTS = tuple(f"web{i}" for i in range(8))
SWITCHED = {host: 20.0 * i for i, host in enumerate(HOSTS)}


def fan_out(rate, until=300, **given):
    return watch(
        story(canaries=(), baseline=HOSTS, rate=rate, until=until, history=300, **given), SWITCHED, Policy()
    )


def test_a_healthy_fan_out_is_let_go_on():
    """It never says PASS, and never fails what is fine."""
    assert fan_out(0.01).status is Status.RUNNING


def test_a_fault_that_begins_on_switched_hosts_later_is_found():
    """What the bake could not see: all switched hosts go wrong at 65 s, the others do not."""
    verdict = fan_out(lambda host, t: 0.3 if t > 65 and t > SWITCHED[host] else 0.01)
    assert verdict.status is Status.FAIL
    assert 65 < verdict.t <= 85


def test_an_incident_on_all_hosts_does_not_halt_it():
    """Hosts that are switched and hosts that are not go wrong alike."""
    assert fan_out(lambda host, t: 0.3 if 65 < t < 95 else 0.01).status is Status.RUNNING


def test_evidence_begins_anew_at_each_doubling():
    """With 1, 2, 4 and 8 hosts switched; each period is where the last one ends."""
    periods = _periods(SWITCHED)
    assert [begin for begin, _ in periods] == [0.0, 20.0, 60.0, 140.0]
    assert all(end == begin for (_, end), (begin, _) in pairwise(periods))


def test_a_fleet_that_goes_down_as_a_whole_is_found_when_all_are_switched():
    """With nobody left to compare with, the limit still holds."""
    assert fan_out(lambda host, t: 1.0 if t > 200 else 0.01).status is Status.FAIL


def test_what_befalls_all_when_all_are_switched_is_not_held_against_their_past():
    """With nobody left to compare with, errors within the limit halt nothing, whatever the hosts were like before."""
    assert fan_out(lambda host, t: 0.04 if t > 150 else 0.01).status is Status.RUNNING


def test_a_single_host_is_still_watched_by_its_own_past():
    """Where there never was anybody to compare with, it is all there is: 4 % after 1 % is harm."""
    alone = story(canaries=("web0",), baseline=(), rate=on_canary(0.04), until=120)
    verdict = watch(alone, {"web0": 0.0}, Policy())
    assert verdict.status is Status.FAIL
    assert "had its own past been as bad" in verdict.explanation


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [0.3, 0.8])
def test_an_incident_that_outlasts_the_last_switch_does_not_halt_it_at_once(seed, rate):
    """It was seen on hosts of both releases; only after 30 s without anybody to compare with the limit holds again."""
    short = fan_out(lambda host, t: rate if 125 < t < 160 else 0.01, seed=seed)
    assert short.status is Status.RUNNING
    stays = fan_out(lambda host, t: rate if t > 125 else 0.01, seed=seed)
    assert stays.status is Status.FAIL
    assert 165 <= stays.t <= 190


def test_the_bin_of_a_switch_counts_for_neither_side():
    """Errors while a host restarts belong to its activation; before it is baseline, after it canary."""
    intervals = [
        Interval(t, 2.0, "web1", "baseline", observed=True, counts={}) for t in (0.0, 20.0, 22.0, 24.0)
    ]
    switched = {"web0": 0.0, "web1": 21.0}
    period = _period(intervals, switched, switched, 0.0, inf)
    assert [(one.t, one.role) for one in period] == [(0.0, "baseline"), (20.0, "baseline"), (24.0, "canary")]


def test_alarms_of_all_beginnings_together_are_those_of_one(monkeypatch):
    """What each may spend sums to no more than 1 %."""
    spent = []

    def judging(policy, *, alpha, **given):
        spent.append(alpha)
        return Judge(policy, alpha=alpha, **given)

    monkeypatch.setattr(watching, "Judge", judging)
    fan_out(0.01, until=200)
    assert len(spent) == 4
    assert spent == sorted(spent, reverse=True)
    assert sum(spent) <= 0.01
    assert Judge(Policy(), alpha=0.001).failing.fail_at == pytest.approx(log(1000))


def test_nothing_switched_is_nothing_to_say():
    """Without a switched host there is no verdict."""
    verdict = watch(story(canaries=(), baseline=HOSTS, until=20), {}, Policy())
    assert (verdict.status, verdict.t) == (Status.RUNNING, 0.0)


def test_a_host_in_its_switch_counts_for_neither_side():
    """From its first order to its health, and for ever if it never becomes healthy."""
    intervals = [Interval(t, 2.0, "web1", "baseline", observed=True, counts={}) for t in range(18, 34, 2)]

    def roles(switched):
        found = _period(intervals, switched, {"web1": 21.0}, 0.0, inf)
        return [(one.t, one.role) for one in found]

    assert roles({"web1": 27.0}) == [(18, "baseline"), (20, "baseline"), (30, "canary"), (32, "canary")]
    assert roles({}) == [(18, "baseline"), (20, "baseline")]


def test_what_a_person_has_accepted_is_no_evidence():
    """Harm until then halts no more, harm that goes on does, and history stays what hosts are measured by."""
    ends = story(
        canaries=(),
        baseline=HOSTS,
        rate=lambda host, t: 0.3 if 65 < t < 100 and t > SWITCHED[host] else 0.01,
        until=300,
        history=300,
    )
    assert watch(ends, SWITCHED, Policy()).status is Status.FAIL
    assert watch(ends, SWITCHED, Policy(), since=100.0).status is Status.RUNNING
    goes_on = story(
        canaries=(),
        baseline=HOSTS,
        rate=lambda host, t: 0.3 if t > 65 and t > SWITCHED[host] else 0.01,
        until=130,
        history=300,
    )
    verdict = watch(goes_on, SWITCHED, Policy(), since=100.0)
    assert verdict.status is Status.FAIL
    assert 104 <= verdict.t <= 130


def test_acceptance_begins_a_period_and_spends_of_the_same_alarms():
    """The doublings before it are over; it is one more beginning among them."""
    assert [begin for begin, _ in _periods(SWITCHED, 100.0)] == [0.0, 20.0, 60.0, 100.0, 140.0]
