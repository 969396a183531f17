"""Bytes on the wire: a release goes to a host once, and of a changed one only what changed, through a real OpenSSH server."""

import contextlib
import fcntl
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.domain.model import Answer, PrepareOrder, SwitchOrder
from rollout.errors import OutcomeUnknown, Unreachable
from rollout.fleet.ssh import SshFleet
from rollout.releases.deltas import Deltas
from tests.support import trees
from tests.support.host_sh import tree_digest
from tests.support.processes import until
from tests.support.proxy import proxy
from tests.support.sshd import running_sshd

pytestmark = pytest.mark.needs("sshd", "ssh-keygen", "flock")

OLD, NEW = "a" * 40, "b" * 40
# As 10 of 10,000 files in 100 MB are a thousandth: here 2 of 800 in 8 MB. `make bench` has the 100 MB.
FILES, BYTES_EACH, CHANGED = 800, 10_000, 2
TALK = 25_000  # bytes of key exchange, login, installing host.sh, headers and answers
YES = lambda: True  # noqa: E731 -- a word


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A fleet; each test takes a host that no other test has."""
    with running_sshd(tmp_path_factory.mktemp("sshd"), 10) as running:
        yield running


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Two releases, and what a host with the first lacks of the second."""
    folder = tmp_path_factory.mktemp("shop")
    root = trees.grow(folder / "tree", files=FILES, bytes_each=BYTES_EACH)
    old = trees.release(root, OLD, folder / "shelf")
    trees.change(root, CHANGED, seed=2)
    new = trees.release(root, NEW, folder / "shelf")
    delta = Deltas(folder / "shelf" / "deltas", 5).find(old, new)
    assert delta is not None
    return old, new, delta


@pytest.fixture(scope="module")
def numbers():
    """Hosts that nobody has used yet."""
    return itertools.count()


class Wire:
    """One host behind a proxy that counts."""

    def __init__(self, fleet, door, target, disk):
        self.fleet, self.door, self.target, self.disk = fleet, door, target, disk
        self.number = 0

    def order(self, release, delta=None):
        self.number += 1
        return PrepareOrder(self.number, self.number, release, 5, (), delta)

    def prepare(self, release, delta=None):
        """What it answered, and the bytes that it cost in both directions."""
        before = self.door.passed
        outcome = self.fleet.prepare(self.target, self.order(release, delta), timeout_s=60, go_on=YES)
        return outcome.answer, self.door.passed - before

    def activate(self, release):
        self.number += 1
        order = SwitchOrder(self.number, self.number, release.commit, release.digest, "", "", 10, 10)
        assert self.fleet.activate(self.target, order, lambda _: 10_000, timeout_s=30).answer is Answer.DONE

    def has(self, release):
        folder = self.disk / "releases" / release.commit
        return folder.exists() and tree_digest(folder) == release.digest


@pytest.fixture
def wire(server, numbers):
    """A host that has nothing yet."""
    with contextlib.ExitStack() as stack:
        target = server.target(next(numbers))
        door = stack.enter_context(proxy((target.address, target.port)))
        server.know(door.address, door.port)
        fleet = stack.enter_context(contextlib.closing(SshFleet()))
        yield Wire(fleet, door, replace(target, address=door.address, port=door.port), Path(target.path))


@pytest.fixture
def running(wire, shop):
    """A host that runs the first release."""
    assert wire.prepare(shop[0])[0] is Answer.DONE
    wire.activate(shop[0])
    return wire


def test_a_change_of_a_few_files_costs_about_these_files(running, shop):
    """Unchanged files are not sent: less than a hundredth of the tree, and the release is the tested one."""
    _, new, delta = shop
    answer, cost = running.prepare(new, delta)
    assert answer is Answer.DONE
    assert running.has(new)
    assert cost < delta.size + 3_000
    assert cost < FILES * BYTES_EACH / 100
    running.activate(new)


def test_a_release_is_never_sent_twice(wire, shop):
    """A host that has the release is not sent a byte of it, delta or not."""
    old, new, delta = shop
    _, cost = wire.prepare(old)
    assert old.size < cost < old.size + old.size // 50 + TALK
    assert wire.prepare(old)[1] < 3_000
    wire.prepare(new, delta)
    assert wire.prepare(new, delta)[1] < 3_000


def test_a_lost_answer_costs_no_second_upload(running, shop):
    """The host has all of it and its answer does not arrive: the next try finds the release there."""
    _, new, delta = shop
    sent = running.door.passed
    with ThreadPoolExecutor(1) as pool, (running.disk / ".rollout" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the host builds the release, and waits for its lock
        order = running.order(new, delta)
        asked = pool.submit(running.fleet.prepare, running.target, order, timeout_s=60, go_on=YES)
        until(lambda: running.door.passed > sent + delta.size, what="the host has all of it")
        running.door.stall("down")
        fcntl.flock(lock, fcntl.LOCK_UN)
        until((running.disk / ".rollout" / "digests" / NEW).exists, what="the release is there")
        running.door.cut()
        with pytest.raises(OutcomeUnknown):
            asked.result()
    running.door.heal()
    answer, cost = running.prepare(new, delta)
    assert answer is Answer.DONE
    assert cost < TALK
    assert running.has(new)


def test_a_base_that_was_written_to_costs_the_archive_in_the_same_step(running, shop):
    """What the app changed in place is found by the host, and the host is done, not failed."""
    _, new, delta = shop
    file = next((running.disk / "releases" / OLD).rglob("*.js"))
    file.write_bytes(b"written by the app")
    answer, cost = running.prepare(new, delta)
    assert answer is Answer.DONE
    assert running.has(new)
    assert new.size + delta.size < cost < new.size + delta.size + new.size // 50 + TALK


def test_a_host_without_the_base_gets_the_archive(wire, shop):
    """A host that is new to the fleet has nothing to build on."""
    _, new, delta = shop
    assert wire.prepare(new, delta)[0] is Answer.DONE
    assert wire.has(new)


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"cut")])
def test_a_delta_that_is_gone_from_the_shelf_costs_the_archive(running, shop, tmp_path, spoil):
    """A delta that was pruned, or is not what was announced, fails nobody."""
    _, new, delta = shop
    copy = tmp_path / "delta"
    copy.write_bytes(Path(delta.archive).read_bytes())
    spoil(copy)
    assert running.prepare(new, replace(delta, archive=str(copy)))[0] is Answer.DONE
    assert running.has(new)


def test_a_stop_cuts_a_delta_like_an_archive(running, shop):
    """What is no longer wanted is not sent to its end, and the host keeps nothing of it."""
    _, new, delta = shop
    running.door.stall("up")
    with pytest.raises((OutcomeUnknown, Unreachable)):
        running.fleet.prepare(running.target, running.order(new, delta), timeout_s=2, go_on=lambda: False)
    running.door.heal()
    assert not running.has(new)
    assert running.prepare(new, delta)[0] is Answer.DONE
