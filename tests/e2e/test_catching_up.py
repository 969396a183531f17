"""A real host that was down is brought to what the fleet runs when it is back."""

import contextlib
import json
import re
import sqlite3

import pytest

from tests.support.checker.check import check
from tests.support.system import System, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.needs("sshd", "git"), pytest.mark.timeout(300)]

DOWN = "kill -KILL $PPID; exit\n"  # whoever comes is hung up on


class Listed(System):
    """The fleet is what an inventory program says."""

    def _configure(self):
        super()._configure()
        its = 'inventory = "./inventory"\n'
        self.config.write_text(
            re.sub(r"hosts = \[\n.*?\n\]\n", its, self.config.read_text(), flags=re.DOTALL)
        )
        program = self.folder / "inventory"
        program.write_text("#!/bin/sh\ncat inventory.json\n")
        program.chmod(0o755)
        self.list()

    def list(self, **elsewhere):
        """From now on, whole; these hosts are at other addresses."""
        its = {
            host.name: {
                "ansible_host": elsewhere.get(host.name, host.address),
                "ansible_port": self.sshd.port,
                "root": str(host.root),
            }
            for host in self.sshd.hosts
        }
        new = self.folder / "inventory.new"
        new.write_text(json.dumps({"all": {"hosts": list(its)}, "_meta": {"hostvars": its}}))
        new.rename(self.folder / "inventory.json")

    def moves(self, host):
        """The same machine, at another address; nobody lets anybody in at its old one."""
        address = f"{self.sshd.network}.9.9"
        (self.sshd.folder / "hosts" / address).mkdir()
        self.sshd.know(address, self.sshd.port)
        host.login(DOWN)
        self.list(**{host.name: address})
        return address

    def read_inventory(self):
        """Now, not in five minutes: how long that lasts is a unit test's truth."""
        database = sqlite3.connect(f"{self.folder}/state/rollout.db", timeout=30)
        with contextlib.closing(database), database:
            database.execute("UPDATE apps SET members_read_at = NULL")


def host_address(system, name):
    """Where the newest rollout looks for it."""
    database = sqlite3.connect(f"{system.folder}/state/rollout.db", timeout=30)
    with contextlib.closing(database):
        newest = "SELECT address FROM rollout_hosts WHERE name = ? ORDER BY rollout DESC"
        return database.execute(newest, (name,)).fetchone()[0]


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


@pytest.mark.faults  # who is followed, and to where, is the services'; that a real host is brought along is the one above's
def test_a_host_that_moves_during_a_rollout_is_brought_along_and_taken_back_where_it_is():
    """The rollout has the addresses of its plan; when it is done the host is looked for where the inventory has it, and so by a rollback."""
    with Listed(hosts=4, fan_out='max_failed = 1\nhost_timeout = "3s"', bake="2s") as system:
        good = system.push("good")
        system.reaches(good, "done")
        new = system.push("new")
        system.reaches(new, "deploying_canary", "evaluating_canary")
        name = system.sshd.hosts[3].name
        address = system.moves(system.sshd.hosts[3])
        assert system.reaches(new, "done")["counts"]["failed"] == 1
        assert system.disks()[name] == good

        def is_followed():
            system.read_inventory()
            return host_address(system, name) == address

        # Not hurried before that: a host that is just being read is followed when the inventory is read again.
        wait_for(is_followed, seconds=60, every=1.0, why="the host that has moved to be looked for there")
        wait_for(
            lambda: hurry(system, name) or system.disks()[name] == new,
            seconds=60,
            every=1.0,
            why="the host that has moved to be brought to it",
        )
        wait_for(lambda: system.rollout_of(new)["counts"]["done"] == 4, seconds=30, why="it to be counted")
        assert {host["name"]: host["address"] for host in system.rollout("hosts")[1]}[name] == address
        assert system.rollout("rollback", "--reason", "slow", "--wait")[0] == 0
        assert set(system.disks().values()) == {good}
        assert check(system.history()) == []
