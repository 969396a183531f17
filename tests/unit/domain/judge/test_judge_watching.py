"""The failing side goes on through the fan-out."""

from itertools import pairwise

from rollout.domain.judge import watch
from rollout.domain.judge.watching import _periods
from rollout.domain.verdict import Policy, Status
from tests.support.traces import story

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


def test_nothing_switched_is_nothing_to_say():
    """Without a switched host there is no verdict."""
    verdict = watch(story(canaries=(), baseline=HOSTS, until=20), {}, Policy())
    assert (verdict.status, verdict.t) == (Status.RUNNING, 0.0)
