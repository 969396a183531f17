"""What a host lacks of a release: made once, small or not at all, and kept within bounds."""

import os
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.domain import transfer
from rollout.releases import delta
from rollout.releases.deltas import Deltas
from tests.support import trees

OLD, NEW, NEWER = "a" * 40, "b" * 40, "c" * 40
BIG = {"files": 40, "bytes_each": 100_000}


def tree_of(root, files):
    """A tree: a path that ends in `*` is executable, a content `-> x` a link to x."""
    for name, content in files.items():
        file = root / name.removesuffix("*")
        file.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            file.symlink_to(content[3:])
            continue
        file.write_text(content)
        file.chmod(0o755 if name.endswith("*") else 0o644)
    return root


@pytest.fixture
def between(tmp_path):
    """Makes the delta between two trees; what it keeps, and what it has under `tree/`."""

    def make(old, new, limit=10**9):
        base = trees.release(tree_of(tmp_path / "old", old), OLD, tmp_path)
        target = trees.release(tree_of(tmp_path / "new", new), NEW, tmp_path)
        delta.make(Path(base.archive), Path(target.archive), tmp_path / "delta", limit=limit)
        with tarfile.open(tmp_path / "delta") as tar:
            kept = tar.extractfile("kept").read().decode(errors="surrogateescape").split("\0")[:-1]
            return kept, {m.name.removeprefix("tree/"): m for m in tar if m.name.startswith("tree/")}

    return make


@pytest.fixture
def shop(tmp_path):
    """A shelf with two releases of 4 MB that differ in one file."""
    root = trees.grow(tmp_path / "tree", **BIG)
    old = trees.release(root, OLD, tmp_path / "shelf")
    trees.change(root, 1, seed=2)
    return old, trees.release(root, NEW, tmp_path / "shelf"), Deltas(tmp_path / "shelf" / "deltas", 3)


def test_what_is_the_same_is_named_and_what_differs_is_sent(between):
    """Equal files are kept; changed and new ones, other modes, links and folders are in the delta; nothing that is gone is."""
    kept, sent = between(
        {"same": "1", "changed": "1", "gone": "1", "mode": "1", "d/same*": "1", "link": "-> same"},
        {"same": "1", "changed": "2", "came": "1", "mode*": "1", "d/same*": "1", "link": "-> same"},
    )
    assert kept == ["./d/same", "./same"]
    assert set(sent) == {"changed", "came", "mode", "link", "d"}
    assert sent["mode"].mode == 0o755


def test_a_file_that_moved_is_sent(between):
    """Files are told apart by path: equal bytes elsewhere are not kept."""
    kept, sent = between({"one": "1"}, {"two": "1"})
    assert (kept, set(sent)) == ([], {"two"})


def test_a_file_for_a_folder_and_a_link_for_a_file(between):
    """What changed its kind is not kept."""
    kept, sent = between({"a": "1", "b/c": "1", "l": "1"}, {"a/b": "1", "b": "1", "l": "-> b"})
    assert kept == []
    assert {name for name, one in sent.items() if one.isreg()} == {"a/b", "b"}


def test_odd_names_are_kept_as_they_are(between):
    """Blanks, leading dashes, and bytes that are no UTF-8 go to the host untouched."""
    names = {"-rf": "1", "a b": "1", os.fsdecode(b"\xff\xfe"): "1", "ü" * 100: "1"}
    kept, sent = between({**names, "app": "1"}, {**names, "app": "2"})
    assert set(kept) == {f"./{name}" for name in names}
    assert set(sent) == {"app"}


def test_a_delta_past_its_limit_is_given_up(between):
    """When too much differs it is `TooMuch`, not a large file."""
    with pytest.raises(delta.TooMuch):
        between({"a": "1"}, {"a": "2"}, limit=50)


def test_a_large_file_goes_through_the_disk(between):
    """A changed file past what is held in memory arrives whole."""
    _, sent = between({"a": "1"}, {"a": "2" * 3_000_000})
    assert sent["a"].size == 3_000_000


def test_one_changed_file_costs_about_itself(shop):
    """The delta of one file of 100 KB in a release of 4 MB is that file and a list."""
    old, new, deltas = shop
    found = deltas.find(old, new)
    assert (found.base, found.base_digest) == (OLD, old.digest)
    assert found.size == Path(found.archive).stat().st_size
    assert 100_000 < found.size < 102_000


def test_a_delta_is_made_once(shop, monkeypatch):
    """Many hosts that need it at once wait for the one who makes it, and later ones find it."""
    old, new, deltas = shop
    made = []
    monkeypatch.setattr(delta, "make", lambda *a, real=delta.make, **k: (made.append(1), real(*a, **k)))
    found = []
    threads = [threading.Thread(target=lambda: found.append(deltas.find(old, new))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert found == [found[0]] * 8
    assert found[0] is not None


def test_a_small_release_is_not_even_looked_at(shop, monkeypatch):
    """Below the threshold the archive is sent whole, and nothing is read or written for it."""
    old, new, deltas = shop
    monkeypatch.setattr(delta, "make", lambda *_, **__: pytest.fail("looked"))
    assert deltas.find(old, replace(new, size=transfer.SMALL - 1)) is None
    assert not deltas.folder.exists()


def test_a_delta_that_saves_less_than_half_is_not_used(shop, tmp_path, monkeypatch):
    """When more than half is new the archive is sent, and that is found out once."""
    old, _, deltas = shop
    trees.change(tmp_path / "tree", 30, seed=3)
    newer = trees.release(tmp_path / "tree", NEWER, tmp_path / "shelf")
    assert deltas.find(old, newer) is None
    monkeypatch.setattr(delta, "make", lambda *_, **__: pytest.fail("made again"))
    assert deltas.find(old, newer) is None


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_bytes(b"no archive"), lambda path: os.truncate(path, 500_000)]
)
def test_a_spoilt_archive_is_no_delta_and_is_read_once(shop, monkeypatch, spoil):
    """Trouble with the base's archive costs the delta, never the step, and is not gone through for each host."""
    old, new, deltas = shop
    spoil(Path(old.archive))
    assert deltas.find(old, new) is None
    monkeypatch.setattr(delta, "make", lambda *_, **__: pytest.fail("read again"))
    assert deltas.find(old, new) is None


def test_without_the_bases_archive_there_is_no_delta(shop):
    """An archive that was pruned is no trouble."""
    old, new, deltas = shop
    Path(old.archive).unlink()
    assert deltas.find(old, new) is None


def test_a_shelf_that_cannot_be_written_is_no_trouble(shop):
    """Without room for the delta the archive is sent."""
    old, new, deltas = shop
    deltas.folder.write_text("in the way")
    assert deltas.find(old, new) is None


def test_another_build_of_a_commit_has_a_delta_of_its_own(shop):
    """A delta is found by the digests of both releases."""
    old, new, deltas = shop
    first = deltas.find(old, new)
    assert deltas.find(replace(old, digest="f" * 64), new).archive != first.archive


def test_deltas_are_bounded_and_go_with_their_archives(shop, tmp_path):
    """The newest few stay, and none outlives the archive that it belongs to."""
    old, new, deltas = shop
    for number in range(5):
        assert deltas.find(replace(old, digest=f"{number}" * 64), new)
    assert len(list(deltas.folder.glob("*.delta"))) == 3
    newer = trees.release(tmp_path / "tree", NEWER, tmp_path / "shelf")
    Path(new.archive).unlink()
    assert deltas.find(old, newer)
    assert [path.name.partition("-")[0] for path in deltas.folder.glob("*.delta")] == [NEWER]
