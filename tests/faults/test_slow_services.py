"""Services that are slow to restart or to come up, behind real SSH: neither a dead worker nor a stop takes them for broken."""

import os
import signal
import time
from pathlib import Path

import pytest

from rollout.supervisor.descendants import descendants
from tests.support.checker.check import check
from tests.support.system import System, wait_for

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.needs("sshd", "git"),
    pytest.mark.faults,
    pytest.mark.timeout(600),
]
UP_AFTER_25_S = "test $(( $(date +%s) - $(stat -c %Y ../../shared/restarts) )) -gt 25\n"
RESTARTS_FOR_35_S = 'mkdir -p ../../shared; echo "$COMMIT" >> ../../shared/restarts; sleep 35\n'


def switches(system, sha):
    """Hosts that were told to switch to this commit, with what each says of it at last."""
    told = {}
    for host in system.sshd.hosts:
        for one in system.journal(host.name):
            if (one.get("commit"), one["verb"]) == (sha, "activate"):
                told[host.name] = one["what"]
    return told


def test_a_worker_that_dies_while_the_canary_comes_up_is_not_the_commits_fault():
    """A canary whose service needs 25 s of its 60 s is read until it is up, by another worker than the one that was killed."""
    with System(hosts=4, fan_out="max_failed = 1", health_timeout="60s", bake="2s") as system:
        system.reaches(system.push("good"), "done", seconds=300)
        slow = system.push("slow, and good", health_sh=UP_AFTER_25_S)
        wait_for(lambda: switches(system, slow), seconds=180, why="the canary to be switched")
        time.sleep(3)
        for pid in descendants(system.up.pid):
            if b"hosts@" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        ended = system.reaches(slow, "evaluating_canary", "fanning_out", "done", seconds=240)
        assert ended["canary"]["status"] != "fail"
        assert next(iter(switches(system, slow).values())) == "done"
        assert check(system.history(at_rest=False)) == []


def test_a_stop_waits_for_a_long_restart_and_then_brings_the_host_back():
    """A restart of 35 s outlasts every permission to wait for it: the way back is asked for again until the host is free."""
    with System(hosts=4, fan_out="max_failed = 1") as system:
        good = system.push("good")
        system.reaches(good, "done", seconds=300)
        bad = system.push("slow to restart", restart_sh=RESTARTS_FOR_35_S)
        wait_for(lambda: switches(system, bad), seconds=180, why="the canary to be switched")
        code, _ = system.rollout("stop", "--reason", "enough", timeout=300)
        assert code == 0
        ended = system.reaches(bad, "rolled_back", seconds=300)
        assert (ended["counts"]["rollback_failed"], ended["counts"]["rolled_back"]) == (0, 1)
        assert set(system.disks().values()) == {good}
        assert check(system.history(at_rest=True)) == []
