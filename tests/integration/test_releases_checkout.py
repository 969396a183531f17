"""Checkouts of ordinary and of hostile trees, by a real git."""

import os
from pathlib import Path

import pytest

from rollout.errors import ReleaseError, ServiceUnavailable
from rollout.releases import checkout
from rollout.releases.git import Git
from tests.support.sources import Source

pytestmark = pytest.mark.needs("git")


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path / "source")


@pytest.fixture
def export(source, tmp_path):
    """Check a commit out of the source's own .git."""

    def run(commit):
        folder = tmp_path / "tree"
        folder.mkdir()
        checkout.export(Git(source.path / ".git", dict(os.environ)), commit, folder)
        return folder

    return run


def test_tree_is_written_with_its_modes_and_links(source, export):
    """Files, executables, links and folders are there as the commit has them, and no .git."""
    (source.path / "link").symlink_to("dir/a")
    commit = source.commit({"dir/a": b"\x00\xff", "run.sh": "#!/bin/sh\n", "empty": ""})
    folder = export(commit)
    assert (folder / "dir/a").read_bytes() == b"\x00\xff"
    assert os.access(folder / "run.sh", os.X_OK)
    assert not (folder / "empty").stat().st_mode & 0o111
    assert (folder / "link").readlink() == Path("dir/a")
    assert sorted(p.name for p in folder.iterdir()) == ["dir", "empty", "link", "run.sh"]


def test_attributes_change_no_byte(source, export, tmp_path):
    """Filters, end-of-line conversion, export-ignore and export-subst have no effect."""
    source.git("config", "filter.evil.smudge", f"touch {tmp_path}/witness; cat")
    source.git("config", "filter.evil.clean", "cat")
    commit = source.commit(
        {
            ".gitattributes": "*.txt filter=evil text eol=crlf export-subst\nhidden export-ignore\n*.u working-tree-encoding=UTF-16\n",
            "a.txt": "$Format:%H$\nline\n",
            "hidden": "here",
        }
    )
    (tmp_path / "witness").unlink(missing_ok=True)
    folder = export(commit)
    assert (folder / "a.txt").read_bytes() == b"$Format:%H$\nline\n"
    assert (folder / "hidden").read_text() == "here"
    assert not (tmp_path / "witness").exists()


def test_submodule_is_an_empty_folder(source, export):
    """Submodules are not fetched."""
    commit = source.commit_tree([("160000", "sub", b"1" * 40), ("100644", "a", b"x")])
    folder = export(commit)
    assert list((folder / "sub").iterdir()) == []


def test_odd_names_are_only_names(source, export):
    """Names with newline, dash, escape, quotes and broken UTF-8 are written as they are."""
    names = ["-rf", "a\nb", "\x1b[31m", "q\"'", "\udcff", "A", "a"]
    commit = source.commit_tree(sorted(("100644", name, b"x") for name in names))
    folder = export(commit)
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_empty_tree_is_an_empty_folder(source, export):
    """A commit without files can be checked out."""
    assert list(export(source.commit_tree([])).iterdir()) == []


def test_link_and_folder_of_one_name_write_nothing_outside(source, export, tmp_path):
    """A tree with a link and a folder of the same name is refused, and nothing is written through the link."""
    outside = tmp_path / "outside"
    outside.mkdir()
    inner = source.git(
        "mktree",
        given=b"100644 blob %s\tfile\n" % source.git("hash-object", "-w", "--stdin", given=b"x").encode(),
    )
    commit = source.commit_tree([("120000", "d", str(outside).encode()), ("040000", "d", inner.encode())])
    with pytest.raises(ReleaseError, match="d"):
        export(commit)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", [".git", ".GIT", ".."])
def test_names_that_git_forbids_are_refused(source, export, name):
    """A tree that was made by hand to leave the checkout is refused."""
    commit = source.commit_tree([("100644", name, b"x")])
    with pytest.raises(ReleaseError, match="refuses"):
        export(commit)


def test_too_many_files_are_refused(source, export, monkeypatch):
    """The number of files is bounded before one is written."""
    monkeypatch.setattr(checkout, "MAX_FILES", 2)
    with pytest.raises(ReleaseError, match="too big"):
        export(source.commit({"a": "", "b": "", "c": ""}))


def test_too_many_bytes_are_refused(source, export, monkeypatch):
    """The size is bounded before one byte is written."""
    monkeypatch.setattr(checkout, "MAX_BYTES", 10)
    with pytest.raises(ReleaseError, match="too big"):
        export(source.commit({"a": "x" * 11}))


def test_missing_objects_are_no_fault_of_the_commit(source, export):
    """A damaged mirror is a service that does not answer, not a bad commit."""
    commit = source.commit({"a": "x"})
    sha = source.git("rev-parse", "HEAD:a")
    (source.path / ".git/objects" / sha[:2] / sha[2:]).unlink()
    with pytest.raises(ServiceUnavailable, match="damaged"):
        export(commit)
