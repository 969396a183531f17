r"""A clean checkout: the bytes of a commit's tree, written by us, so that nothing in the tree can change them.

Policy: `.gitattributes` does nothing here (no filters, no end-of-line conversion, no export-ignore, no export-subst);
LFS pointers stay pointers; a submodule is an empty folder; there is no `.git`. File names are bytes.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rollout.errors import ReleaseError, RolloutError, ServiceUnavailable
from rollout.releases.git import Git
from rollout.releases.limits import EXPORT_LIMIT_S, MAX_BYTES, MAX_FILES

_CHUNK = 1024 * 1024
_LONGEST = 8 * 1024  # of one line of ls-tree: a path is at most 4 KiB


@dataclass(frozen=True, slots=True)
class _Entry:
    mode: bytes
    sha: bytes
    size: int
    path: bytes


def export(git: Git, commit: str, folder: Path) -> None:
    """Write the tree of `commit` into the empty `folder`; ReleaseError when it is too big or not a sane tree."""
    entries = list(_entries(git, commit))
    try:
        _write(git, entries, os.fsencode(folder))
    except OSError as error:
        raise _translated(error, commit, os.fsencode(folder)) from error


def _entries(git: Git, commit: str) -> Iterator[_Entry]:
    total = 0
    records = git.records(
        "ls-tree", "-r", "-z", "-l", "--full-tree", "--end-of-options", commit, longest=_LONGEST
    )
    for count, record in enumerate(records, start=1):
        facts, _, path = record.partition(b"\t")
        mode, _, sha, size = facts.split()
        _refuse_strange(path)
        length = _bytes(size, path)
        total += length
        if count > MAX_FILES or total > MAX_BYTES:
            raise ReleaseError(
                f"commit {commit[:12]} is too big: more than {MAX_FILES:,} files or {MAX_BYTES:,} bytes"
            )
        yield _Entry(mode, sha, length, path)


def _bytes(size: bytes, path: bytes) -> int:
    """Of ls-tree's column: `-` for a submodule, `BAD` when the object is not there."""
    if size == b"-":
        return 0
    if not size.isdigit():
        raise _damaged(f"{path[:200]!r} is missing")
    return int(size)


def _damaged(what: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"the git mirror is damaged: {what}", remedy="delete it below server.state_dir: it is fetched again"
    )


def _refuse_strange(path: bytes) -> None:
    parts = path.split(b"/")
    if any(part in {b"", b".", b".."} or part.lower() == b".git" for part in parts):
        raise ReleaseError(f"the tree has an entry that git itself refuses: {path[:200]!r}")


def _write(git: Git, entries: list[_Entry], root: bytes) -> None:
    """Folders, then files, then links: no file is ever written through a link."""
    made: set[bytes] = set()
    for entry in entries:
        folder = entry.path if entry.mode == b"160000" else os.path.dirname(entry.path)  # noqa: PTH120  # bytes
        _make_folders(root, folder, made)
    links = []
    with git.talk("cat-file", "--batch", limit_s=EXPORT_LIMIT_S) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for entry in entries:
            if entry.mode == b"160000":
                continue
            _ask(process.stdin, process.stdout, entry)
            if entry.mode == b"120000":
                links.append((entry.path, process.stdout.read(entry.size)))
            else:
                _copy(process.stdout, entry, root + b"/" + entry.path)
            process.stdout.read(1)
    for path, target in links:
        if b"\0" in target:
            raise ReleaseError(f"the link {path!r} has a NUL in its target")
        os.symlink(target, root + b"/" + path)  # noqa: PTH211  # names are bytes


def _make_folders(root: bytes, folder: bytes, made: set[bytes]) -> None:
    if not folder or folder in made:
        return
    _make_folders(root, os.path.dirname(folder), made)  # noqa: PTH120  # names are bytes
    os.mkdir(root + b"/" + folder, 0o755)  # noqa: PTH102  # names are bytes
    made.add(folder)


def _ask(stdin: IO[bytes], stdout: IO[bytes], entry: _Entry) -> None:
    try:
        stdin.write(entry.sha + b"\n")
        stdin.flush()
    except BrokenPipeError as error:
        raise _damaged("git cat-file ended early") from error
    header = stdout.readline().split()
    if header[1:] != [b"blob", str(entry.size).encode()]:
        raise _damaged(f"{entry.path[:200]!r} cannot be read")


def _copy(source: IO[bytes], entry: _Entry, path: bytes) -> None:
    mode = 0o755 if entry.mode == b"100755" else 0o644
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(file, "wb") as copy:
        os.fchmod(file, mode)
        left = entry.size
        while left:
            chunk = source.read(min(left, _CHUNK))
            if not chunk:
                raise _damaged("git cat-file ended early")
            copy.write(chunk)
            left -= len(chunk)


def _translated(error: OSError, commit: str, root: bytes) -> RolloutError:
    """Our disk's fault, or the tree's: entries that clash, a name that is too long, a link to nothing."""
    where = os.fsencode(error.filename2 or error.filename or b"").removeprefix(root + b"/")
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}:
        return ServiceUnavailable(
            f"checkout of {commit[:12]}: {error.strerror}: {os.fsdecode(root)}",
            remedy="make room in server.state_dir",
        )
    return ReleaseError(f"commit {commit[:12]} cannot be checked out: {error.strerror}: {where[:200]!r}")
