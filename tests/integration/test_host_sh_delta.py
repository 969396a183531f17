"""host.sh: a release is built of the one that is there and of what was sent, and is the tested one or is sent whole."""

import io
import os
import signal
import subprocess
import tarfile
from dataclasses import replace

import pytest

from tests.support import nobody
from tests.support.host_sh import (
    BOTH,
    BROKEN,
    DONE,
    REFUSED,
    A,
    B,
    C,
    Delta,
    Host,
    a_delta,
    a_release,
    hosts,
    shell,
    tree_digest,
)
from tests.support.processes import until

host = hosts()

KEPT = {
    "a b": "blank",
    "it's": "quote",
    '"': "double",
    "$(id)": "code",
    "-rf": "dash",
    "--checkpoint=1": "an option of tar",
    "-T": "another",
    "ünï": "utf-8",
    "*?[a]": "glob",
    " ": "only a blank",
    " end ": "blanks around",
    "#comment": "#",
    "back\\slash": "which tar would unquote",
    "deep/er/still/file": "deep",
    "long/" + "n" * 180: "long",
    "bin/run*": "#!/bin/sh\n",
    "empty": "",
}
OLD = a_release(A, KEPT | {"app": "old", "gone": "x", "was/file": "x", "turns": "file", "flips": "mode"})
NEW = a_release(
    B,
    KEPT
    | {
        "app": "new",
        "came": "y",
        "was": "a folder before",
        "turns/into": "a folder",
        "flips*": "mode",
        "new link": "-> a b",
        "deep/up": "-> ../../../shared/x",
    },
)
DELTA = a_delta(OLD, NEW)


@pytest.fixture
def running(host):
    """A host that runs OLD."""
    host.prepare(OLD, op=1)
    host.activate(OLD, op=2)
    return host


def entries(folder):
    """Path, kind, mode, links and target of everything in a folder."""
    found = []
    for entry in sorted(folder.rglob("*"), key=os.fsencode):
        facts = entry.lstat()
        target = str(entry.readlink()) if entry.is_symlink() else None
        links = facts.st_nlink if entry.is_file() else None
        found.append((str(entry.relative_to(folder)), oct(facts.st_mode), links, target))
    return found


def whole(host, tmp_path):
    """The release as it is when its archive is sent to another host."""
    other = Host(tmp_path / "other", host.shell)
    assert other.prepare(NEW, op=1).code == DONE
    return other.root / "releases" / B


def assert_is_new(host):
    """The release is there, with its digest, and nothing lies beside it."""
    assert tree_digest(host.root / "releases" / B) == NEW.digest
    assert (host.fence / "digests" / B).read_text() == NEW.digest + "\n"
    assert host.releases == {A, B}


def test_a_delta_makes_what_the_archive_makes(running, tmp_path):
    """Names, kinds, modes and links are the archive's: folder for file, file for folder, an executable bit, odd names."""
    assert running.prepare(NEW, op=3, delta=DELTA).lines == ["send=delta", "end=0"]
    assert_is_new(running)
    assert entries(running.root / "releases" / B) == entries(whole(running, tmp_path))
    assert running.activate(NEW, op=4).code == DONE


def test_the_base_stays_what_it_is(running):
    """Files are copied, never shared: what an app writes into one release changes no other."""
    running.prepare(NEW, op=3, delta=DELTA)
    assert tree_digest(running.root / "releases" / A) == OLD.digest
    (running.root / "releases" / B / "a b").write_text("written in place")
    assert running.roll_back(OLD, op=4).code == DONE


def add_files(base):
    (base / "__pycache__").mkdir()
    (base / "__pycache__" / "x.pyc").write_text("cache")
    (base / "deep" / "own.log").write_text("log")
    (base / "deep" / "link").symlink_to("/etc")
    os.mkfifo(base / "deep" / "socket")


def change_modes(base):
    for entry in base.rglob("*"):
        if entry.is_file():
            entry.chmod(0o4775 if entry.stat().st_mode & 0o100 else 0o666)
    (base / "deep").chmod(0o777)


def touch(base):
    os.utime(base / "a b", (1, 1))


def remove_what_is_gone(base):
    (base / "gone").unlink()
    (base / "was" / "file").write_text("changed, and not needed")


@pytest.mark.parametrize("harm", [add_files, change_modes, touch, remove_what_is_gone])
def test_what_an_app_did_beside_the_release_costs_nothing(running, tmp_path, harm):
    """Caches, logs, links, pipes, modes and times of the base do not come along, and the delta does all the same."""
    harm(running.root / "releases" / A)
    assert running.prepare(NEW, op=3, delta=DELTA).lines == ["send=delta", "end=0"]
    assert_is_new(running)
    assert entries(running.root / "releases" / B) == entries(whole(running, tmp_path))


def rewrite(base):
    (base / "a b").write_text("written in place")


def remove(base):
    (base / "a b").unlink()


def link_away(base):
    (base / "a b").unlink()
    (base / "a b").symlink_to("/etc/passwd")


def make_folder(base):
    (base / "a b").unlink()
    (base / "a b").mkdir()
    (base / "a b" / "more").write_text("more")


def make_pipe(base):
    (base / "a b").unlink()
    os.mkfifo(base / "a b")


def flip_mode(base):
    (base / "a b").chmod(0o755)


def remove_folder(base):
    subprocess.run(["rm", "-r", str(base / "deep")], check=True)


def link_two(base):
    (base / "empty").unlink()
    (base / "a b").write_text("")
    (base / "empty").hardlink_to(base / "a b")


def escape(base):
    away = base.parent.parent / "away"
    (base / "deep").rename(away)
    (away / "er" / "still" / "file").write_text("not what it was")
    (base / "deep").symlink_to(away)


@pytest.mark.parametrize(
    "harm", [rewrite, remove, link_away, make_folder, make_pipe, flip_mode, remove_folder, link_two, escape]
)
def test_a_base_that_is_not_what_it_was_costs_the_archive(running, tmp_path, harm):
    """What the app changed of what is kept is found, and the archive is asked for in the same call."""
    harm(running.root / "releases" / A)
    assert running.prepare(NEW, op=3, delta=DELTA).lines == ["send=delta", "send=yes", "end=0"]
    assert_is_new(running)
    assert entries(running.root / "releases" / B) == entries(whole(running, tmp_path))


def test_files_that_became_one_do_not_stay_one(host):
    """Two equal files that the app linked to each other would change together: the archive is asked for."""
    old = a_release(A, {"one": "same", "two": "same", "app": "old"})
    new = a_release(B, {"one": "same", "two": "same", "app": "new"})
    host.prepare(old, op=1)
    base = host.root / "releases" / A
    (base / "two").unlink()
    (base / "two").hardlink_to(base / "one")
    reply = host.prepare(new, op=2, delta=a_delta(old, new))
    assert reply.lines == ["send=delta", "send=yes", "end=0"]
    assert (host.root / "releases" / B / "two").stat().st_nlink == 1


def test_without_its_base_the_archive_is_asked_for(host):
    """A host that has another release, or none, gets all of it at once."""
    host.prepare(a_release(C), op=1)
    assert host.prepare(NEW, op=2, delta=DELTA).lines == ["send=yes", "end=0"]


def test_another_build_of_the_base_is_not_the_base(host):
    """The base's digest counts, not only its commit."""
    host.prepare(a_release(A, {"app": "another build"}), op=1)
    assert host.prepare(NEW, op=2, delta=DELTA).lines == ["send=yes", "end=0"]


def test_what_is_there_is_neither_sent_whole_nor_in_part(running):
    """A release that is on the host costs a question."""
    running.prepare(NEW, op=3, delta=DELTA)
    assert running.prepare(NEW, op=4, delta=DELTA).lines == ["send=no", "end=0"]


def test_a_release_of_nothing_kept_is_one_too(host):
    """With every file changed the list is empty."""
    old, new = a_release(A, {"app": "old"}), a_release(B, {"app": "new"})
    host.prepare(old, op=1)
    assert host.prepare(new, op=2, delta=a_delta(old, new)).lines == ["send=delta", "end=0"]


def test_a_release_with_nothing_changed_is_one_too(host):
    """A commit that changed no file of the release: all is copied."""
    old, new = a_release(A, KEPT), a_release(B, KEPT)
    host.prepare(old, op=1)
    assert host.prepare(new, op=2, delta=a_delta(old, new)).lines == ["send=delta", "end=0"]
    assert tree_digest(host.root / "releases" / B) == new.digest


@pytest.mark.parametrize(
    "spoil", [lambda it: it[: len(it) // 2], lambda it: os.urandom(200_000), lambda it: b"x"]
)
def test_a_spoilt_delta_costs_the_archive(running, spoil):
    """Whatever the delta's bytes are, what follows them is read as the archive."""
    delta = replace(DELTA, archive=spoil(DELTA.archive))
    assert running.prepare(NEW, op=3, delta=delta).lines == ["send=delta", "send=yes", "end=0"]
    assert_is_new(running)


def test_a_delta_of_another_release_costs_the_archive(running):
    """A delta that makes something else is not taken for the release."""
    other = a_release(C, {"app": "other"})
    reply = running.prepare(NEW, op=3, delta=a_delta(OLD, other))
    assert reply.lines == ["send=delta", "send=yes", "end=0"]
    assert_is_new(running)


def test_a_list_that_leads_out_of_the_base_is_no_way_out(running):
    """A list with `..` and `/` in its names, which no release has, brings nothing of the host's into a release."""
    secret = running.root / "secret"
    secret.write_text("x")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in (("kept", f"./../../secret\0{secret}\0".encode()), ("tree/app", b"new")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    new = a_release(B, {"app": "new"})
    reply = running.prepare(new, op=3, delta=Delta(OLD, packed.getvalue()))
    assert reply.code == DONE
    assert entries(running.root / "releases" / B) == [("app", "0o100644", 1, None)]
    assert secret.read_text() == "x"


def start(running):
    """A prepare with a delta, up to where it waits for it."""
    keys = {"epoch": 1, "op": 3, "commit": B, "digest": NEW.digest, "size": len(NEW.archive), "keep": 5}
    talk = running.start("prepare", keys | DELTA.keys)
    assert talk.hear("send") == "delta"
    return talk


@pytest.mark.parametrize("share", [0, 1, 60])
def test_a_delta_that_ends_early_leaves_nothing(running, share):
    """A connection that is lost while sending it is `cut off`."""
    talk = start(running)
    talk.send(DELTA.archive[:share])
    talk.hang_up()
    assert talk.reply().brief == (REFUSED, "cut off")
    assert running.releases == {A}


@pytest.mark.parametrize(
    ("tool", "when", "after"),
    [
        ("tar", "*-xzof*", False),
        ("tar", "*-xzof*", True),
        ("xargs", "*", False),
        ("xargs", "*", True),
        ("stat", "*", False),
        ("sha256sum", "*", False),
        ("sync", "-f*", False),
        ("mv", "*releases*", False),
        ("mv", "*releases*", True),
    ],
)
def test_a_kill_at_any_moment_leaves_a_host_that_can_go_on(running, tool, when, after):
    """Killed while it builds, it has left the base as it was, and the next prepare brings the release."""
    waits = running.stop_at(tool, when=when, after=after)
    talk = start(running)
    talk.send(DELTA.archive)
    until(waits.exists, what=f"{tool} was reached")
    os.killpg(talk.process.pid, signal.SIGKILL)
    talk.kill()
    running.unshadow()
    running.end_all()
    running.quiet()
    assert running.current == f"releases/{A}"
    assert tree_digest(running.root / "releases" / A) == OLD.digest
    assert running.prepare(NEW, op=4, delta=DELTA).code == DONE
    assert running.call("clean", {"keep": 5}).code == DONE
    assert_is_new(running)


def full_for(host, words):
    """The host has a tar that finds no room when it is called so."""
    host.shadow(
        "tar",
        f'case $1 in {words}) cat >/dev/null; echo "tar: x: No space left on device" >&2; exit 2 ;; esac\nexec "$real" "$@"',
    )


def test_a_full_disk_is_no_reason_to_ask_for_more(running):
    """Without room for the delta it is `no room`, as with an archive."""
    full_for(running, "-xzof")
    assert running.prepare(NEW, op=3, delta=DELTA).brief == (BROKEN, "no room")
    assert running.releases == {A}


def test_no_room_for_the_copies_costs_the_archive(running):
    """What is copied may have grown since it was shipped: that there is no room for it says nothing of the release."""
    full_for(running, "-xof")
    assert running.prepare(NEW, op=3, delta=DELTA).lines == ["send=delta", "send=yes", "end=0"]
    assert_is_new(running)


def test_a_seal_while_it_builds_refuses_the_release(running):
    """Epoch and operation are checked under the lock before the rename, as with an archive."""
    talk = start(running)
    assert running.status(epoch=1, op=9)["sealed"] == "yes"
    talk.send(DELTA.archive)
    assert talk.reply().brief == (REFUSED, "op")
    assert running.releases == {A}


@pytest.mark.parametrize("missing", ["base", "base_digest", "delta"])
def test_half_a_delta_is_bad_input(host, missing):
    """The three keys come together or not at all."""
    keys = {"epoch": 1, "op": 3, "commit": B, "digest": NEW.digest, "size": 1, "keep": 5} | DELTA.keys
    del keys[missing]
    assert host.call("prepare", keys).brief == (REFUSED, "bad input")


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
@pytest.mark.parametrize("name", BOTH)
@pytest.mark.needs("busybox")
def test_modes_are_the_archives_for_everybody(name, mask):
    """A user without rights has a umask, and a delta obeys it exactly as an archive does."""
    with nobody.folder_of_nobody() as folder:

        def both():
            os.umask(mask)
            there = shell(name, folder / "applets")
            one, other = Host(folder / "one", there), Host(folder / "other", there)
            one.prepare(OLD, op=1)
            change_modes(one.root / "releases" / A)
            assert one.prepare(NEW, op=2, delta=DELTA).lines == ["send=delta", "end=0"]
            assert other.prepare(NEW, op=1).code == DONE
            assert entries(one.root / "releases" / B) == entries(other.root / "releases" / B)

        assert nobody.as_nobody(both)
