"""Past the budget a person decides."""

import pytest

from tests.support.checker.check import check
from tests.support.system import System

pytestmark = [pytest.mark.e2e, pytest.mark.needs("sshd", "git"), pytest.mark.timeout(300)]


def on_disks(system, sha):
    return sorted(name for name, commit in system.disks().items() if commit == sha)


def test_it_halts_past_the_budget_then_retry_exclude_resume():
    """Strict, K = 1: exactly two hosts are hurt and put back; the ways out work on the real disks."""
    with System(hosts=7, fan_out='max_failed = 1\nmode = "strict"') as system:
        good = system.push("good")
        system.reaches(good, "done")
        bad = system.push("breaks on some", broken="web003\nweb004\nweb005\n")
        halted = system.reaches(bad, "halted")
        number = halted["id"]
        assert halted["counts"]["failed"] == 2
        failed = [
            one["name"] for one in system.rollout("show", number)[1]["hosts"] if one["state"] == "failed"
        ]
        assert all(system.disks()[name] == good for name in failed)
        assert len(on_disks(system, bad)) <= 3

        code, refusal = system.rollout("resume", number)
        assert code == 4
        assert failed[0] in refusal["message"]
        code, _ = system.rollout("retry", number, "--wait")
        assert code == 1  # still unhealthy there: halted again, with no more hurt than before
        assert system.rollout_of(bad)["counts"]["failed"] == 2

        assert system.rollout("exclude", *failed, "--reason", "bad memory")[0] == 0
        code, _ = system.rollout("resume", number, "--wait")
        state = system.rollout_of(bad)
        if code:  # the third broken host is within the budget, unless ramping met it at once with another
            raise AssertionError(state)
        assert state["state"] == "done"
        assert state["counts"]["excluded"] == 2
        assert len(on_disks(system, bad)) == 4
        assert len(on_disks(system, good)) == 3
        assert check(system.history()) == []


@pytest.mark.faults  # a stop on real disks is test_stop's, and one of a halted rollout the services'
def test_a_halted_rollout_is_stopped_and_every_host_is_back():
    """`stop --wait` exits 0 when every touched host is back, 4 when nothing is there to stop."""
    with System(hosts=8, fan_out="max_failed = 0") as system:
        good = system.push("good")
        system.reaches(good, "done")
        assert system.rollout("stop")[0] == 4
        bad = system.push("breaks on one", broken="web005\n")
        halted = system.reaches(bad, "halted")
        code, ended = system.rollout("stop", halted["id"], "--reason", "no", "--wait")
        assert (code, ended["state"]) == (0, "rolled_back")
        assert set(system.disks().values()) == {good}
        assert system.rollout("stop", halted["id"])[0] == 0
        assert check(system.history()) == []
