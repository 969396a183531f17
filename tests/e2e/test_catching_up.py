"""A real host that was down is brought to what the fleet runs when it is back."""

import contextlib
import sqlite3

import pytest

from tests.support.checker.check import check
from tests.support.system import System, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.needs("sshd", "git"), pytest.mark.timeout(300)]

DOWN = "kill -KILL $PPID; exit\n"  # whoever comes is hung up on


def hurry(system, name):
    """What this failed host waits for, to be read and then for its try, is over: how long that lasts is a unit test's truth."""
    database = sqlite3.connect(f"{system.folder}/state/rollout.db", timeout=30)
    with contextlib.closing(database), database:
        database.execute("UPDATE rollout_hosts SET due_at = 0 WHERE name = ? AND state = 'failed'", (name,))


def test_hosts_that_were_down_or_excluded_get_the_release_when_they_are_back():
    """Prepared, switched and healthy, as the disks say; `hosts` says who is behind; a rollback takes both along."""
    with System(hosts=6, fan_out='max_failed = 1\nhost_timeout = "5s"', bake="2s") as system:
        good = system.push("good")
        system.reaches(good, "done")
        away = system.sshd.hosts[2]
        away.login(DOWN)
        assert system.rollout("exclude", "web005", "--reason", "a new disk")[0] == 0
        new = system.push("new")
        done = system.reaches(new, "done")
        assert (done["counts"]["failed"], done["counts"]["total"]) == (1, 5)
        assert [name for name, sha in sorted(system.disks().items()) if sha == good] == ["web003", "web005"]

        assert system.rollout("include", "web005")[0] == 0
        wait_for(
            lambda: system.disks()["web005"] == new, seconds=60, why="the included host to be brought to it"
        )
        assert system.disks()["web003"] == good
        away.login("")
        wait_for(
            lambda: hurry(system, "web003") or system.disks()["web003"] == new,
            seconds=100,
            every=1.0,
            why="the host that was down to be brought to it",
        )
        wait_for(lambda: system.rollout_of(new)["counts"]["done"] == 6, seconds=30, why="it to be counted")
        assert system.rollout_of(new)["counts"]["failed"] == 0
        assert {host["release"] for host in system.rollout("hosts")[1]} == {new}

        assert system.rollout("rollback", "--reason", "slow", "--wait")[0] == 0
        assert set(system.disks().values()) == {good}
        assert check(system.history()) == []
