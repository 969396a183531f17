"""A bad commit hurts the canary and nobody else."""

import pytest

from tests.support.checker.check import check
from tests.support.system import System

pytestmark = [pytest.mark.e2e, pytest.mark.needs("sshd", "git"), pytest.mark.timeout(300)]


def test_a_canary_that_answers_errors_goes_back_and_the_fix_ships():
    """Only the canary's journal has the bad commit; it is barred; a revert brings the next release out."""
    with System(hosts=6) as system:
        good = system.push("good")
        system.reaches(good, "done")
        bad = system.push("answers 500", answer="500\n")
        ended = system.reaches(bad, "rolled_back")
        assert ended["canary"]["status"] == "fail"
        assert set(system.disks().values()) == {good}
        switched = [
            host.name
            for host in system.sshd.hosts
            if any(
                one.get("commit") == bad and one["verb"] == "activate" for one in system.journal(host.name)
            )
        ]
        assert switched == ended["canary"]["hosts"]
        fix = system.push(f"Revert\n\nThis reverts commit {bad}.", answer="200\n")
        assert system.reaches(fix, "done")["commits"] == [bad, fix]
        assert set(system.disks().values()) == {fix}
        assert check(system.history()) == []


def test_no_traffic_is_never_a_pass():
    """A canary without requests is inconclusive, halts, and goes on only by a person's word."""
    with System(hosts=4, bake="2s", deadline="8s") as system:
        system.traffic.stop()
        sha = system.push("quiet")
        halted = system.reaches(sha, "halted")
        assert halted["canary"]["status"] == "inconclusive"
        assert list(system.disks().values()).count(sha) == 1
        assert system.rollout("resume", halted["id"], "--accept-canary")[0] in {2, 4}
        code, _ = system.rollout("resume", halted["id"], "--accept-canary", "--reason", "night", "--wait")
        assert code == 0
        assert set(system.disks().values()) == {sha}
        assert check(system.history()) == []
