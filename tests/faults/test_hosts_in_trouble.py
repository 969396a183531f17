"""Hosts that reboot, lose their disk or come back with another key, at exact moments: each is read, none is guessed at."""

import shutil

import pytest

from tests.support.checker.check import check
from tests.support.machine import (
    AFTER_OUTCOME,
    AFTER_SWITCH,
    BEFORE_INTENT,
    BEFORE_SWITCH,
    Machine,
)
from tests.support.proxy import Proxy
from tests.support.sshd import Sshd, replace
from tests.support.system import System, wait_for

pytestmark = [
    pytest.mark.faults,
    pytest.mark.needs("root", "sshd", "git", "unshare", "mount"),
    pytest.mark.timeout(300),
]

DOWN = "web007"


def host_in(system, sha, name):
    number = system.rollout_of(sha)["id"]
    return next(one for one in system.rollout("show", number)[1]["hosts"] if one["name"] == name)


def comes_to(system, sha, name, *states, seconds=90):
    """The host, once it is in one of these states."""

    def there():
        found = host_in(system, sha, name)
        return found if found["state"] in states else None

    return wait_for(there, seconds=seconds, every=0.3, why=f"{name} to be {states}")


def recorded(system):
    return {host["name"]: host["release"] for host in system.rollout("hosts")[1]}


def intents(system, name, sha):
    return [one for one in system.journal(name) if one["what"] == "intent" and one["commit"] == sha]


def shipped(system, message="good"):
    sha = system.push(message)
    system.reaches(sha, "done")
    return sha


def hotfix(system):
    """A commit that goes out in a freeze: a host on which it fails is not tried again, however late we look."""
    assert system.rollout("freeze", "--reason", "to see who has failed")[0] == 0
    sha = system.commit("new")
    code, told = system.rollout("deploy", sha, "--now", "--reason", "the test")
    assert code == 0, told
    return sha


def test_reboots_at_every_moment_of_a_switch_and_of_the_way_back():
    """Before the intent: switched later, once. Before the switch and before the restart: put back. After the outcome: done."""
    with System(hosts=8, fan_out="max_failed = 2", bake="2s") as system:
        good = shipped(system)
        moments = {
            "web002": BEFORE_INTENT,
            "web003": BEFORE_SWITCH,
            "web004": AFTER_SWITCH,
            "web005": AFTER_OUTCOME,
        }
        machines = {name: Machine(system.sshd, name) for name in moments}
        for name, moment in moments.items():
            machines[name].trap(moment)
        new = hotfix(system)
        left = dict(machines)
        while left:
            name = wait_for(
                lambda: next((name for name, one in left.items() if one.trapped), None), seconds=90
            )
            left.pop(name).reboot()
        system.reaches(new, "done")
        found = {name: host_in(system, new, name) for name in moments}
        assert {name: one["state"] for name, one in found.items()} == {
            "web002": "done",
            "web003": "failed",
            "web004": "failed",
            "web005": "done",
        }
        for name in ("web003", "web004"):
            assert found[name]["error"] == f"{name}: was interrupted (reboot or kill); put back"
        assert [len(intents(system, name, new)) for name in moments] == [1, 1, 1, 1]
        assert system.restarts("web003")[-1] == system.restarts("web004")[-1] == good
        assert len({one["boot"] for one in system.journal("web004")}) == 3  # the kernel's, and two of its own
        on_disk = system.disks()
        assert [on_disk[name] for name in moments] == [new, good, good, new]
        assert recorded(system) == on_disk

        machines["web002"].trap(BEFORE_SWITCH, "rollback")
        machines["web005"].trap(AFTER_SWITCH, "rollback")
        assert system.rollout("rollback", "--reason", "enough")[0] == 0
        for name in ("web002", "web005"):
            wait_for(lambda one=machines[name]: one.trapped)
            machines[name].reboot()
        for name in ("web002", "web005"):
            comes_to(system, new, name, "rolled_back")
            assert system.restarts(name)[-1] == good
        system.reaches(new, "rolled_back")
        assert set(system.disks().values()) == {good}
        assert recorded(system) == system.disks()
        assert check(system.history()) == []


def test_an_unknown_host_keeps_its_token_until_it_is_read():
    """Strict, K = 0: while a host is off with its outcome unknown no other host starts; what it says then decides."""
    with System(
        hosts=6, fan_out='max_failed = 0\nmode = "strict"\nhost_timeout = "60s"', bake="2s"
    ) as system:
        shipped(system)
        machine = Machine(system.sshd, "web003")
        machine.trap(AFTER_OUTCOME)
        new = system.push("new")
        wait_for(lambda: machine.trapped, seconds=90)
        machine.power_off()
        comes_to(system, new, "web003", "unknown")
        before = [one.name for one in system.sshd.hosts if intents(system, one.name, new)]
        seen = machine.knocks
        wait_for(lambda: machine.knocks > seen + 2, why="it to be read again and again")
        assert [one.name for one in system.sshd.hosts if intents(system, one.name, new)] == before
        assert recorded(system)["web003"] == "unknown"
        assert system.rollout_of(new)["state"] == "fanning_out"
        machine.power_on()
        system.reaches(new, "done")
        assert host_in(system, new, "web003")["state"] == "done"
        assert recorded(system) == system.disks() == dict.fromkeys(system.disks(), new)
        assert check(system.history()) == []


def test_a_host_that_stays_away_is_read_when_it_is_back_after_the_end():
    """Off for longer than its host_timeout it counts as failed; back after the end it is sealed, read, and brought to the release."""
    with System(hosts=6, fan_out='max_failed = 1\nhost_timeout = "5s"', bake="2s") as system:
        shipped(system)
        machine = Machine(system.sshd, "web003")
        machine.trap(BEFORE_SWITCH)
        new = system.push("new")
        wait_for(lambda: machine.trapped, seconds=90)
        machine.power_off()
        system.reaches(new, "done")
        assert host_in(system, new, "web003")["state"] == "unknown"
        assert recorded(system)["web003"] == "unknown"
        machine.power_on()
        wait_for(
            lambda: recorded(system)["web003"] == new, seconds=90, why="the host to be read, and switched"
        )
        assert recorded(system) == system.disks() == dict.fromkeys(system.disks(), new)
        assert check(system.history()) == []


def test_disks_that_are_lost_before_during_and_after_a_switch():
    """Lost before: sent again and done. During: failed, and it runs nothing. After: seen as drift. All are healed."""
    with System(hosts=8, fan_out="max_failed = 1") as system:
        shipped(system)
        machines = {name: Machine(system.sshd, name) for name in ("web002", "web003", "web004", "web005")}
        machines["web002"].lose_disk()
        machines["web004"].trap(AFTER_SWITCH)
        new = hotfix(system)
        prepared = machines["web003"].root / "srv/shop/.rollout/digests" / new
        wait_for(prepared.exists, seconds=60)
        machines["web003"].reboot()
        machines["web003"].lose_disk()
        wait_for(lambda: machines["web004"].trapped, seconds=90)
        machines["web004"].power_off()
        machines["web004"].lose_disk()
        machines["web004"].power_on()
        system.reaches(new, "done")
        found = {name: host_in(system, new, name) for name in machines}
        assert {name: one["state"] for name, one in found.items()} == {
            "web002": "done",
            "web003": "done",
            "web004": "failed",
            "web005": "done",
        }
        assert "journal is gone" in found["web004"]["error"]
        assert (found["web002"]["previous"], found["web003"]["attempt"]) == (None, 2)
        assert recorded(system) == system.disks()
        assert system.disks()["web004"] is None

        machines["web005"].lose_disk()
        code, read = system.rollout("hosts", "--verify")
        assert code == 0
        assert [host["name"] for host in read if host["drift"]] == ["web005"]
        assert system.rollout("unfreeze")[0] == 0
        newer = shipped(system, "newer")
        assert recorded(system) == system.disks() == dict.fromkeys(system.disks(), newer)


class Rekeyed(System):
    """A system in which web004 is reached through a door, behind which another machine can be put."""

    def _configure(self):
        number = 3
        host = self.sshd.hosts[number]
        self.other = Sshd(self.folder / "other", 0)
        self.other.folder.mkdir()
        for name in ("id_ed25519", "id_ed25519.pub"):
            shutil.copy(self.sshd.folder / name, self.other.folder / name)
        (self.other.folder / "hosts").symlink_to(self.sshd.folder / "hosts")
        self.other.start()
        self.door = Proxy((host.address, self.sshd.port))
        behind = replace(host, door=(self.door.address, self.door.port))
        self.sshd.hosts[number] = self.apps["shop"][number] = behind
        self.sshd.know(self.door.address, self.door.port)
        super()._configure()

    def put_behind(self, sshd):
        """From now on this server is behind the door; whoever was connected is cut off."""
        self.door._upstream = (self.sshd.hosts[3].address, sshd.port)
        self.door.cut()

    def __exit__(self, *exc):
        if hasattr(self, "door"):
            self.door.close()
            self.other.stop()
        super().__exit__(*exc)


def test_a_host_that_comes_back_with_another_key_is_quarantined():
    """Failed, then rollback_failed, and the message says that its key has changed; with its own key again it is brought back."""
    with Rekeyed(hosts=6, fan_out="max_failed = 1", bake="2s") as system:
        good = shipped(system)
        machine = Machine(system.sshd, "web004")
        machine.trap(AFTER_SWITCH)
        new = hotfix(system)
        wait_for(lambda: machine.trapped, seconds=90)
        machine.power_off()
        system.put_behind(system.other)
        machine.power_on()
        system.reaches(new, "done")
        failed = host_in(system, new, "web004")
        assert failed["state"] == "failed"
        assert "host key has changed" in failed["error"]
        assert recorded(system)["web004"] == "unknown"
        assert system.disks()["web004"] == new  # nobody has touched it

        assert system.rollout("rollback", "--reason", "enough", "--wait")[0] == 1
        lost = comes_to(system, new, "web004", "rollback_failed")
        assert "host key has changed" in lost["error"]
        assert recorded(system)["web004"] == "unknown"
        assert system.other.sessions(system.sshd.hosts[3]) == set()

        system.put_behind(system.sshd)
        comes_to(system, new, "web004", "rolled_back")
        assert recorded(system) == system.disks() == dict.fromkeys(system.disks(), good)
        assert check(system.history()) == []
