"""Stopped means stopped."""

import time
from datetime import UTC, datetime

import pytest

from tests.support.checker.check import check
from tests.support.checker.history import Deed
from tests.support.system import System, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.needs("sshd", "git"), pytest.mark.timeout(300)]

SLOW_RESTART = 'mkdir -p ../../shared; echo "$COMMIT" >> ../../shared/restarts; sleep 3\n'


def intents(system, sha):
    """(host, clock in ms of the host's uptime) of every switch to this commit."""
    return [
        (host.name, int(one["clock"]))
        for host in system.sshd.hosts
        for one in system.journal(host.name)
        if one.get("commit") == sha and one["verb"] == "activate" and one["what"] == "intent"
    ]


def test_a_stop_in_the_middle_of_a_fan_out():
    """No journal has a switch to the release after the acknowledgement, and every touched host goes back."""
    with System(hosts=20, fan_out="max_failed = 1\nconcurrency = 4") as system:
        good = system.push("good")
        system.reaches(good, "done")
        bad = system.push("slow to restart", restart_sh=SLOW_RESTART)
        wait_for(lambda: len(intents(system, bad)) >= 4, seconds=90, why="the fan-out to be in its middle")
        code, stopped = system.rollout("stop", "--reason", "enough")
        acknowledged = time.clock_gettime(time.CLOCK_BOOTTIME) * 1000
        told = datetime.now(UTC)
        assert code == 0
        assert stopped["state"] in {"rolling_back", "rolled_back"}
        assert stopped["unconfirmed"] == []
        ended = system.reaches(bad, "rolled_back")
        assert set(system.disks().values()) == {good}
        assert [one for one in intents(system, bad) if one[1] > acknowledged] == []
        assert len(intents(system, bad)) < 20
        assert ended["counts"]["rollback_failed"] == 0
        system.deeds.append(Deed(told, "stop", {"rollout": ended["id"]}, {"acknowledged": True}))
        assert check(system.history()) == []
