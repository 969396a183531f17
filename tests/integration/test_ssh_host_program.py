"""`host.sh` itself, called by the SSH engine over a real OpenSSH server."""

import contextlib
import hashlib
import itertools
import subprocess
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rollout.domain.model import Answer, PrepareOrder, Release, SwitchOrder
from rollout.errors import NoSpace, OutcomeUnknown, StepFailed, Unreachable
from rollout.fleet.ssh import SshFleet
from tests.support.proxy import proxy
from tests.support.sshd import running_sshd

pytestmark = pytest.mark.needs("sshd", "ssh-keygen", "flock")

YES = lambda: True  # noqa: E731 -- a word


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A fleet of 30 hosts; each test takes a host that no other test has."""
    with running_sshd(tmp_path_factory.mktemp("sshd"), 30) as running:
        yield running


@pytest.fixture(scope="module")
def numbers():
    """Hosts that nobody has used yet."""
    return itertools.count()


@pytest.fixture
def target(server, numbers):
    """A host of this test's own."""
    return server.target(next(numbers))


@pytest.fixture
def fleet():
    """The real fleet with the real program."""
    with contextlib.closing(SshFleet()) as running:
        yield running


@dataclass
class Shop:
    """Releases of a small app, and orders with rising numbers."""

    folder: Path
    number: int = 10

    def release(self, name, filler=b""):
        """A release whose only files say its name."""
        tree = self.folder / name
        tree.mkdir()
        (tree / "name").write_text(name)
        (tree / "filler").write_bytes(filler)
        archive = self.folder / f"{name}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(tree / "name", "./name")
            tar.add(tree / "filler", "./filler")
        listing = "files\n" + "".join(
            f"{hashlib.sha256((tree / file).read_bytes()).hexdigest()}  ./{file}\n"
            for file in ("filler", "name")
        )
        digest = hashlib.sha256(f"{listing}executables\nlinks\n".encode()).hexdigest()
        commit = hashlib.sha1(name.encode()).hexdigest()
        return Release(commit, digest, str(archive), archive.stat().st_size)

    def numbered(self):
        """The next epoch and operation number."""
        self.number += 1
        return self.number

    def prepare(self, release):
        """An order to prepare it."""
        number = self.numbered()
        return PrepareOrder(number, number, release, 5, ())

    def switch(self, release, restart="", health="true", **changes):
        """An order to switch to it."""
        number = self.numbered()
        order = SwitchOrder(number, number, release.commit, release.digest, restart, health, 10, 10)
        return replace(order, **changes)


@pytest.fixture
def shop(tmp_path):
    """An app."""
    return Shop(tmp_path)


def running(target):
    """What the host's disk says."""
    return (Path(target.path) / "current" / "name").read_text()


def bring(fleet, shop, target, name, **commands):
    """Prepare and activate a release; the release and the outcome."""
    release = shop.release(name)
    assert fleet.prepare(target, shop.prepare(release), timeout_s=20, go_on=YES).answer is Answer.DONE
    return release, fleet.activate(target, shop.switch(release, **commands), lambda _: 10_000, timeout_s=30)


def test_prepare_and_activate(fleet, shop, target):
    """A release arrives whole and `current` is it."""
    release, outcome = bring(fleet, shop, target, "one", restart="cp name $HOME/restarted\necho done")
    assert (outcome.answer, outcome.intent, outcome.current) == (Answer.DONE, True, release.commit)
    assert running(target) == "one"
    assert (Path(target.path).parent.parent / "restarted").read_text() == "one"


def test_large_release_arrives_whole(fleet, shop, target):
    """Megabytes pass through the standard input of one command and match their digest."""
    release = shop.release("large", filler=hashlib.shake_128(b"x").digest(6_000_000))
    assert fleet.prepare(target, shop.prepare(release), timeout_s=30, go_on=YES).answer is Answer.DONE
    arrived = Path(target.path) / "releases" / release.commit / "filler"
    assert arrived.stat().st_size == 6_000_000


def test_prepare_sends_nothing_twice(fleet, shop, target):
    """A release that is there already is not sent again."""
    release = shop.release("one")
    fleet.prepare(target, shop.prepare(release), timeout_s=20, go_on=YES)

    def never():
        pytest.fail("nothing should have been sent")

    assert fleet.prepare(target, shop.prepare(release), timeout_s=20, go_on=never).answer is Answer.DONE


def test_wrong_digest_is_refused(fleet, shop, target):
    """Bytes that are not the tested ones never become a release."""
    release = replace(shop.release("one"), digest="0" * 64)
    outcome = fleet.prepare(target, shop.prepare(release), timeout_s=20, go_on=YES)
    assert (outcome.answer, outcome.reason) == (Answer.REFUSED, "digest")
    assert not (Path(target.path) / "releases" / release.commit).exists()


def test_doubled_activation_acts_once(fleet, shop, target):
    """The same operation a second time gets the answer of the first and restarts nothing."""
    release = shop.release("one")
    fleet.prepare(target, shop.prepare(release), timeout_s=20, go_on=YES)
    order = shop.switch(release, restart="echo x >>$HOME/restarts")
    first = fleet.activate(target, order, lambda _: 10_000, timeout_s=20)
    second = fleet.activate(target, order, lambda _: 10_000, timeout_s=20)
    assert (first.answer, second.answer, second.intent) == (Answer.DONE, Answer.DONE, True)
    assert (Path(target.path).parent.parent / "restarts").read_text() == "x\n"


def test_unhealthy_release_is_put_back(fleet, shop, target):
    """An unhealthy release fails with its output, and the host runs the previous one."""
    good, _ = bring(fleet, shop, target, "good")
    bad = shop.release("bad")
    fleet.prepare(target, shop.prepare(bad), timeout_s=20, go_on=YES)
    order = shop.switch(bad, health="grep good name || { echo 'no good'; exit 1; }", health_timeout_s=1)
    outcome = fleet.activate(target, order, lambda _: 10_000, timeout_s=30)
    assert (outcome.answer, outcome.put_back, outcome.current) == (Answer.FAILED, True, good.commit)
    assert "no good" in outcome.output
    assert running(target) == "good"


def test_rollback_and_rollback_again(fleet, shop, target):
    """A rollback switches back; a second one is a no-op that says the same."""
    one, _ = bring(fleet, shop, target, "one")
    bring(fleet, shop, target, "two")
    back = fleet.roll_back(target, shop.switch(one), lambda _: 10_000, timeout_s=20)
    again = fleet.roll_back(target, shop.switch(one), lambda _: 10_000, timeout_s=20)
    assert (back.answer, back.current) == (Answer.DONE, one.commit)
    assert (again.answer, again.current) == (Answer.DONE, one.commit)
    assert running(target) == "one"


def test_rollback_to_nothing(fleet, shop, target):
    """Where nothing was before, a rollback removes `current`."""
    bring(fleet, shop, target, "one")
    number = shop.numbered()
    order = SwitchOrder(number, number, None, None, "", "", 10, 10)
    assert fleet.roll_back(target, order, lambda _: 10_000, timeout_s=20).current is None
    assert not (Path(target.path) / "current").is_symlink()


def test_late_permission_is_refused(fleet, shop, target):
    """A permission that has run out switches nothing."""
    release = shop.release("one")
    fleet.prepare(target, shop.prepare(release), timeout_s=20, go_on=YES)
    outcome = fleet.activate(target, shop.switch(release), lambda _: 0, timeout_s=20)
    assert (outcome.answer, outcome.reason, outcome.current) == (Answer.REFUSED, "late", None)


def test_status_tells_of_the_operation_asked_for(fleet, shop, target):
    """Reading tells what runs, and what came of one operation."""
    release, _ = bring(fleet, shop, target, "one")
    found = fleet.status(target, asked=shop.number, timeout_s=20)
    assert (found.current, found.asked, found.epoch) == (release.commit, "done", shop.number)
    assert fleet.status(target, asked=shop.number - 5, timeout_s=20).asked == "none"


def test_seal_ends_what_was_sent_earlier(fleet, shop, target):
    """After a sealing status an operation that was greeted before it is refused."""
    release = shop.release("one")
    fleet.prepare(target, shop.prepare(release), timeout_s=20, go_on=YES)
    order = shop.switch(release)
    number = shop.numbered()
    seals = []

    def seal_then_permit(greeting):
        seals.append(fleet.status(target, asked=order.operation, seal=(number, number), timeout_s=20))
        return 10_000

    outcome = fleet.activate(target, order, seal_then_permit, timeout_s=20)
    assert (seals[0].sealed, seals[0].asked) == (True, "none")
    assert (outcome.answer, outcome.current) == (Answer.REFUSED, None)


def test_seal_while_health_waits(fleet, shop, target):
    """A seal is answered while an activation waits for health on the same connection, which goes on to its own end."""
    release = shop.release("one")
    fleet.prepare(target, shop.prepare(release), timeout_s=20, go_on=YES)
    order = shop.switch(
        release, restart="touch $HOME/restarted", health="test -e $HOME/well", health_timeout_s=60
    )
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fleet.activate, target, order, lambda _: 10_000, timeout_s=90)
        until((Path(target.path).parent.parent / "restarted").exists)
        number = shop.numbered()
        status = fleet.status(target, seal=(number, number), timeout_s=20)
        assert (status.sealed, status.running) == (True, True)
        (Path(target.path).parent.parent / "well").touch()
        outcome = waiting.result(timeout=30)
    assert outcome.answer is Answer.DONE
    assert len(fleet._pool) == 1


def test_seal_below_what_the_host_has_seen(fleet, shop, target):
    """A seal with an old epoch seals nothing, and the host is read all the same."""
    release, _ = bring(fleet, shop, target, "one")
    found = fleet.status(target, seal=(1, 1), timeout_s=20)
    assert (found.sealed, found.current) == (False, release.commit)


def test_check_looks_deep(fleet, target):
    """`check` names missing tools, room, rights and the time of a shell."""
    found = fleet.check(target, timeout_s=10)
    assert found["missing"] == ""
    assert found["writable"] == "yes"
    assert int(found["free_kb"]) > 0
    assert int(found["sh_ms"]) >= 0


def test_cut_while_preparing_leaves_nothing(server, fleet, shop, target):
    """A connection that breaks in the archive leaves no release and no temporary folder, and may be tried again."""
    release = shop.release("large", filler=hashlib.shake_128(b"x").digest(3_000_000))
    with proxy((target.address, target.port), cut_up_after=400_000) as bad:
        server.know(bad.address, bad.port)
        there = replace(target, address=bad.address, port=bad.port)
        with pytest.raises(Unreachable):
            fleet.prepare(there, shop.prepare(release), timeout_s=20, go_on=YES)
    until(lambda: list((Path(target.path) / "releases").iterdir()) == [])
    assert fleet.prepare(target, shop.prepare(release), timeout_s=20, go_on=YES).answer is Answer.DONE


def test_cut_while_activating_goes_on_to_the_end(server, fleet, shop, target):
    """A connection that breaks after the permission leaves the outcome unknown here and known on the host."""
    release = shop.release("one")
    fleet.prepare(target, shop.prepare(release), timeout_s=20, go_on=YES)
    home = Path(target.path).parent.parent
    order = shop.switch(release, restart="touch $HOME/began; while test ! -e $HOME/go; do sleep 0.05; done")
    with proxy((target.address, target.port)) as line, ThreadPoolExecutor(1) as pool:
        server.know(line.address, line.port)
        there = replace(target, address=line.address, port=line.port)
        waiting = pool.submit(fleet.activate, there, order, lambda _: 10_000, timeout_s=30)
        until((home / "began").exists)
        line.cut()
        with pytest.raises(OutcomeUnknown):
            waiting.result()
    assert fleet.status(target, asked=order.operation, timeout_s=20).asked == "intent"
    (home / "go").touch()
    until(lambda: fleet.status(target, asked=order.operation, timeout_s=20).asked == "done")


@pytest.mark.needs("root", "mount")
def test_full_disk_is_no_room(fleet, shop, target):
    """A release that does not fit is BROKEN with the reason, and what runs stays."""
    Path(target.path).mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", target.path], capture_output=True
    )
    if made.returncode:
        pytest.skip(f"may not mount here: {made.stderr.decode().strip()}")
    try:
        bring(fleet, shop, target, "small")
        large = shop.release("large", filler=hashlib.shake_128(b"x").digest(1_000_000))
        outcome = fleet.prepare(target, shop.prepare(large), timeout_s=20, go_on=YES)
        assert (outcome.answer, outcome.reason) == (Answer.BROKEN, "no room")
        assert running(target) == "small"
    finally:
        subprocess.run(["umount", "-l", target.path], check=True)


def test_path_that_is_a_file(fleet, target):
    """A release path that cannot be a folder is said with the host's own words."""
    Path(target.path).write_text("a file")
    with pytest.raises((NoSpace, StepFailed), match="could not be installed"):
        fleet.status(target, timeout_s=20)


def test_twenty_hosts_at_once(server, fleet, tmp_path):
    """Twenty hosts are prepared, activated and rolled back side by side."""
    targets = [server.target(n, path=f"{server.hosts[n].root}/srv/many") for n in range(20)]

    def whole(target):
        folder = tmp_path / target.name
        folder.mkdir()
        shop = Shop(folder)
        one, _ = bring(fleet, shop, target, "one", restart="true")
        bring(fleet, shop, target, "two", restart="true")
        fleet.roll_back(target, shop.switch(one), lambda _: 10_000, timeout_s=20)
        return running(target)

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(whole, targets)) == {"one"}


def until(condition, seconds=20):
    """Wait for a condition; fail after a deadline."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    pytest.fail("the condition did not come true")
