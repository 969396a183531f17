"""A push reaches every host."""

import pytest

from tests.support.checker.check import check
from tests.support.system import System, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.needs("sshd", "git"), pytest.mark.timeout(300)]


def test_a_push_reaches_every_host_and_the_newest_done_rollout_goes_back():
    """Webhook → tests → canary → fan-out → done on every disk; a failing commit touches nothing; rollback restores."""
    with System(hosts=8) as system:
        assert system.webhook("0" * 40, secret="wrong") == 401
        first = system.push("first")
        done = system.reaches(first, "done")
        assert set(system.disks().values()) == {first}
        assert all(system.restarts(host.name) == [first] for host in system.sshd.hosts)
        assert done["canary"]["status"] == "pass"
        assert done["counts"]["done"] == done["counts"]["total"] == 8

        its = system.config.read_text()
        system.config.write_text(its + '[apps.shop.queue]\nfreeze = ["00:00 - 23:59"]\n')
        wait_for(
            lambda: "config_edited" in system.rollout("why", first)[1],
            why="what runs does not know of the edit",
        )
        system.config.write_text(its)
        assert "config_edited" not in system.rollout("why", first)[1]

        red = system.push("breaks the tests", tests_sh="echo broken; exit 3\n")
        wait_for(lambda: system.rollout("deploy", red, "--wait", "--timeout", "30s")[0] == 1, seconds=60)
        assert set(system.disks().values()) == {first}

        second = system.push("mends the tests", tests_sh="exit 0\n")
        shipped = system.reaches(second, "done")
        assert shipped["commits"] == [red, second]
        assert set(system.disks().values()) == {second}

        code, ended = system.rollout("rollback", "--reason", "slow", "--wait")
        assert (code, ended["state"]) == (0, "rolled_back")
        assert set(system.disks().values()) == {first}
        assert system.rollout("deploy", second)[0] == 4  # barred
        assert check(system.history()) == []
