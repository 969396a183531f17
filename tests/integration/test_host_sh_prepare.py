"""host.sh: a release comes to the host, whole or not at all."""

import os

import pytest

from tests.support.host_sh import BROKEN, DONE, REFUSED, A, B, C, Release, a_release, hosts, tree_digest
from tests.support.processes import until

host = hosts()


def test_a_release_is_unpacked_checked_and_shelved(host):
    """After `prepare` the release's folder has its files, modes and links, and its digest is remembered."""
    release = a_release(A, {"app": "hi", "bin/run*": "#!/bin/sh\n", "lib/link": "-> ../app"})
    reply = host.prepare(release, op=1)
    assert reply.lines == ["send=yes", "end=0"]
    folder = host.root / "releases" / A
    assert (folder / "lib" / "link").read_text() == "hi"
    assert os.access(folder / "bin" / "run", os.X_OK)
    assert (host.fence / "digests" / A).read_text() == release.digest + "\n"
    assert host.releases == {A}
    assert host.current is None


NAMES = {
    "a b": "blank",
    "back\\slash": "1",
    "back\\\\slash": "2",
    "it's": "quote",
    '"': "double",
    "$(id)": "code",
    "-rf": "dash",
    "ünï": "utf-8",
    "*?[a]": "glob",
    "z*": "an executable",
    "Z": "order by byte",
    "a/b/c": "deep",
    "a.b": "before the slash",
    "l 1": "-> a b",
    "l2": "-> /no/such place",
    "l": "-> a shorter name comes first",
    "l !": "-> though ! is before -",
    "run me*": "#!/bin/sh\n",
    "empty": "",
}


def test_every_name_that_git_allows_has_the_same_digest_everywhere(host):
    """Blanks, quotes, backslashes, dashes and bytes beyond ASCII in names do not change what is computed."""
    release = a_release(A, NAMES)
    assert host.prepare(release, op=1).code == DONE
    assert tree_digest(host.root / "releases" / A) == release.digest


def test_a_tree_without_any_file_is_a_release_too(host):
    """The canonical listing of nothing is three headings."""
    assert host.prepare(a_release(A, {}), op=1).code == DONE


def test_what_is_there_is_not_sent_twice(host):
    """A second prepare of the same release says `send=no`."""
    release = a_release(A)
    host.prepare(release, op=1)
    assert host.prepare(release, op=2).lines == ["send=no", "end=0"]


def test_a_release_whose_digest_was_not_remembered_is_looked_at_again(host):
    """A crash between the rename and the digest costs a look at the tree, not a second upload."""
    release = a_release(A)
    host.prepare(release, op=1)
    (host.fence / "digests" / A).unlink()
    assert host.prepare(release, op=2).lines == ["send=no", "end=0"]
    assert (host.fence / "digests" / A).read_text() == release.digest + "\n"


def test_other_bytes_than_announced_are_refused(host):
    """An archive whose tree has another digest leaves nothing behind."""
    told = a_release(A, {"app": "told"})
    sent = Release(A, a_release(A, {"app": "sent"}).archive, told.digest)
    assert host.prepare(sent, op=1).brief == (REFUSED, "digest")
    assert host.releases == set()


def test_a_lost_executable_bit_is_another_digest(host):
    """Modes are part of what was tested."""
    told = a_release(A, {"run*": "#!/bin/sh\n"})
    sent = Release(A, a_release(A, {"run": "#!/bin/sh\n"}).archive, told.digest)
    assert host.prepare(sent, op=1).brief == (REFUSED, "digest")


def test_a_rebuilt_release_replaces_one_that_is_not_in_use(host):
    """Another digest of the same commit takes its place when nothing needs the old one."""
    host.prepare(a_release(A, {"app": "first", "gone": "x"}), op=1)
    again = a_release(A, {"app": "second"})
    assert host.prepare(again, op=2).code == DONE
    assert tree_digest(host.root / "releases" / A) == again.digest
    assert (host.fence / "digests" / A).read_text() == again.digest + "\n"
    assert host.releases == {A}


def test_the_current_release_is_never_replaced(host):
    """Another digest for what runs is refused, `in use`."""
    first = a_release(A, {"app": "first"})
    host.prepare(first, op=1)
    host.activate(first, op=2)
    assert host.prepare(a_release(A, {"app": "second"}), op=3).brief == (REFUSED, "in use")
    assert tree_digest(host.root / "releases" / A) == first.digest


def test_what_an_unhealthy_release_would_be_put_back_to_is_never_replaced(host):
    """Another digest for the release before the current one is refused, `in use`."""
    old, new = a_release(A), a_release(B)
    for op, release in enumerate((old, new), 1):
        host.prepare(release, op=op * 2 - 1)
        host.activate(release, op=op * 2)
    assert host.prepare(a_release(A, {"app": "rebuilt"}), op=5).brief == (REFUSED, "in use")


def test_a_release_that_was_rolled_back_may_be_replaced(host):
    """What was rolled back is nobody's target: a new build of it is accepted."""
    old, new = a_release(A), a_release(B)
    for op, release in enumerate((old, new), 1):
        host.prepare(release, op=op * 2 - 1)
        host.activate(release, op=op * 2)
    host.roll_back(old, op=5)
    assert host.prepare(a_release(B, {"app": "rebuilt"}), op=6).code == DONE


def test_a_header_that_ends_early_is_refused(host):
    """Without the empty line nothing is done."""
    reply = host.call("prepare", "epoch=1\nop=1\ncommit=")
    assert reply.brief == (REFUSED, "cut off")
    assert host.releases == set()


@pytest.mark.parametrize("share", [0, 1, 60, -1])
def test_an_archive_that_ends_early_leaves_nothing(host, share):
    """A connection that is lost while sending removes what had been unpacked."""
    release = a_release(A, fill=100_000)
    talk = host.start(
        "prepare",
        {
            "epoch": 1,
            "op": 1,
            "commit": A,
            "digest": release.digest,
            "size": len(release.archive),
            "keep": 5,
        },
    )
    talk.hear("send")
    talk.send(release.archive[:share] if share else b"")
    talk.hang_up()
    assert talk.reply().brief == (REFUSED, "cut off")
    assert host.releases == set()
    assert host.status()["op"] == "0"


def test_what_is_no_archive_is_broken(host):
    """Garbage is refused; BusyBox's tar cannot tell it from a lost connection."""
    release = Release(A, b"this is no archive at all" * 100, "0" * 64)
    assert host.prepare(release, op=1).brief in {(BROKEN, "bad archive"), (REFUSED, "cut off")}
    assert host.releases == set()


def test_an_upload_does_not_keep_others_waiting(host):
    """While a release is being sent the lock is free: a rollback does not wait for it."""
    old, new = a_release(A), a_release(B)
    host.prepare(old, op=1)
    slow = host.start(
        "prepare",
        {"epoch": 1, "op": 2, "commit": B, "digest": new.digest, "size": len(new.archive), "keep": 5},
    )
    slow.hear("send")
    assert host.activate(old, op=3).code == DONE
    slow.send(new.archive)
    assert slow.reply().brief == (REFUSED, "op")
    assert host.releases == {A}


@pytest.mark.parametrize(("epoch", "op", "reason"), [(4, 9, "epoch"), (5, 5, "op"), (5, 4, "op")])
def test_a_prepare_of_the_past_is_refused(host, epoch, op, reason):
    """Prepare is compared with what the host has seen, before and after the upload."""
    release = a_release(A)
    host.prepare(release, op=1)
    host.activate(release, op=5, epoch=5)
    assert host.prepare(a_release(B), epoch=epoch, op=op).brief == (REFUSED, reason)


def test_prepare_does_not_raise_the_epoch(host):
    """A prepare is compared only: what came before it may still act."""
    release = a_release(A)
    host.prepare(release, op=9, epoch=9)
    assert host.status()["epoch"] == "0"
    assert host.activate(release, op=1).code == DONE


def test_a_seal_during_an_upload_refuses_the_release(host):
    """Whatever was sent before a seal comes to nothing, a prepare too."""
    release = a_release(A)
    slow = host.start(
        "prepare",
        {"epoch": 1, "op": 2, "commit": A, "digest": release.digest, "size": len(release.archive), "keep": 5},
    )
    slow.hear("send")
    assert host.status(epoch=2, op=3)["sealed"] == "yes"
    slow.send(release.archive)
    assert slow.reply().brief == (REFUSED, "epoch")
    assert host.releases == set()


def test_the_leftover_of_a_killed_prepare_is_removed(host):
    """A folder that nobody unpacks into any more goes with the next prepare; a living one stays."""
    keys = {"epoch": 1, "commit": A, "digest": "0" * 64, "size": 10, "keep": 5}
    killed = host.start("prepare", keys | {"op": 1})
    killed.hear("send")
    killed.hang_up()
    killed.kill()
    until(lambda: len(host.left()) == 0, what="the killed prepare's tar is gone")
    (host.root / "releases" / ".new-1").mkdir(exist_ok=True)
    living = host.start("prepare", keys | {"op": 2})
    living.hear("send")
    host.prepare(a_release(B), op=3)
    assert host.releases == {B, ".new-1", ".new-2"}
    living.hang_up()
    living.reply()
    host.prepare(a_release(C), op=4)
    assert host.releases == {B, C}


def test_the_same_prepare_twice_at_once_is_busy(host):
    """Two deliveries of one operation do not unpack into the same folder."""
    release = a_release(A)
    keys = {
        "epoch": 1,
        "op": 1,
        "commit": A,
        "digest": release.digest,
        "size": len(release.archive),
        "keep": 5,
    }
    first = host.start("prepare", keys)
    first.hear("send")
    assert host.call("prepare", keys).brief == (REFUSED, "busy")
    first.send(release.archive)
    assert first.reply().code == DONE


def test_a_prepare_that_was_killed_can_be_sent_again(host):
    """The folder that a killed prepare left is taken over by the next delivery of the same operation."""
    (host.root / "releases" / ".new-1").mkdir(parents=True)
    (host.root / "releases" / ".new-1" / "half").write_text("x")
    assert host.prepare(a_release(A), op=1).code == DONE
    assert host.releases == {A}
