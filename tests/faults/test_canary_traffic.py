"""The canary over real SSH, with traffic as it is: bad on all hosts, none at all, and a log that is rotated."""

from pathlib import Path

import pytest

from tests.faults.test_clock_jumps import intervals
from tests.support.checker.check import check
from tests.support.system import System, wait_for

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.needs("sshd", "git"),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def system():
    """Six hosts, 400 requests a second each, and a quarter of a minute of what they answered before."""
    with System(hosts=6, bake="4s", deadline="60s") as running:
        running.reaches(running.push("good"), "done")
        served = Path(running.sshd.hosts[-1].path, "shared", "access.log")
        wait_for(lambda: served.exists() and served.stat().st_size > 80 * 6000, why="some history")
        yield running
        assert check(running.history()) == []


def baking(system, sha):
    """The canary runs the commit, and is watched."""
    system.reaches(sha, "evaluating_canary")


def test_errors_on_every_host_do_not_blame_the_canary(system):
    """While 30 of 100 answers are errors everywhere nothing passes and nothing fails; then it passes."""
    sha = system.push("good, in a bad hour")
    baking(system, sha)
    system.traffic.errors = 0.3
    looked = intervals(system, sha)
    wait_for(lambda: intervals(system, sha) > looked + 7, why="a quarter of a minute to be looked at")
    assert system.rollout_of(sha)["state"] == "evaluating_canary"
    system.traffic.errors = 0.0
    assert system.reaches(sha, "done", "halted", "rolled_back")["state"] == "done"


def test_a_canary_that_no_traffic_reaches_fails_as_starved(system):
    """The others get their requests and the canary none: it was taken out of the load balancer, or is deaf."""
    sha = system.push("deaf", answer="none\n")
    ended = system.reaches(sha, "rolled_back", "done", "halted")
    assert (ended["state"], ended["canary"]["status"]) == ("rolled_back", "fail")
    assert "by the other hosts' traffic" in ended["canary"]["reason"]
    fix = system.push(f"Revert\n\nThis reverts commit {sha}.", answer="200\n")
    system.reaches(fix, "done")


def test_a_log_that_is_rotated_in_the_middle_changes_nothing(system):
    """Renamed while the canary is watched, on it and on the baseline: every line is counted, and it passes."""
    sha = system.push("good, at midnight")
    baking(system, sha)
    for host in system.sshd.hosts:
        log = Path(host.path, "shared", "access.log")
        log.rename(log.with_name("access.log.1"))
    assert system.reaches(sha, "done", "halted", "rolled_back")["state"] == "done"
