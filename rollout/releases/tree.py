"""What a release consists of: the picked files, links and folders of a built tree, checked.

The rules keep a release inside itself: a link may point to something in the release, or into the app's `shared` folder
(`../../shared/…` as seen from the release's root), and nowhere else.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob

from rollout.errors import ReleaseError
from rollout.releases.limits import MAX_BYTES, MAX_FILES

_SHARED = [b"..", b"..", b"shared"]


@dataclass(frozen=True, slots=True)
class File:
    """A regular file at `path` (relative, bytes)."""

    path: bytes
    executable: bool  # by its owner
    size: int


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link at `path`."""

    path: bytes
    target: bytes


@dataclass(frozen=True, slots=True)
class Picked:
    """A release's contents, each sorted by path, byte by byte."""

    files: tuple[File, ...]
    links: tuple[Link, ...]
    folders: tuple[bytes, ...]


def pick(root: bytes, include: Sequence[str]) -> Picked:
    """What `include` (paths or glob patterns) names below `root`; ReleaseError when it breaks a rule."""
    facts = os.lstat(root)
    if not stat.S_ISDIR(facts.st_mode):
        raise ReleaseError("the build replaced the folder that it ran in")
    found: dict[bytes, File | Link | None] = {}
    total = 0
    for pattern in include:
        for start in _named(root, pattern):
            for path in _walk(root, start):
                if path in found:
                    continue
                found[path] = _entry(root, path, facts.st_uid)
                total += _size(found[path])
                _bounded(len(found), total)
    entries = sorted(found.items())
    files = tuple(entry for _, entry in entries if isinstance(entry, File))
    if not files:
        raise ReleaseError("the release would be empty", remedy="look at release.build and release.include")
    return Picked(
        files=files,
        links=tuple(entry for _, entry in entries if isinstance(entry, Link)),
        folders=tuple(path for path, entry in entries if entry is None),
    )


def _named(root: bytes, pattern: str) -> list[bytes]:
    """The starting points of a pattern: a path that is there means itself, whatever characters it has."""
    plain = os.path.normpath(os.fsencode(pattern))
    if plain == b".":
        return [b""]
    if plain.startswith((b"/", b"../")) or plain == b"..":
        raise ReleaseError(f"release.include: {pattern!r} is outside of the tree")
    matches = [plain] if os.path.lexists(root + b"/" + plain) else _globbed(root, pattern)
    if not matches:
        raise ReleaseError(
            f"release.include: {pattern!r} is not in the tree",
            remedy="does release.build make it? Paths are relative to the top of the repository",
        )
    for match in matches:
        _refuse_through_link(root, match)
    return matches


def _globbed(root: bytes, pattern: str) -> list[bytes]:
    found = glob(os.fsencode(pattern), root_dir=root, recursive=True, include_hidden=True)  # noqa: PTH207  # bytes
    return sorted(os.path.normpath(path) for path in found)


def _refuse_through_link(root: bytes, path: bytes) -> None:
    parts = path.split(b"/")
    for depth in range(1, len(parts)):
        parent = b"/".join(parts[:depth])
        if os.path.islink(root + b"/" + parent):  # noqa: PTH114  # names are bytes
            raise ReleaseError(
                f"release.include: {path!r} goes through the link {parent!r}; name what it points to"
            )


def _walk(root: bytes, start: bytes) -> Iterator[bytes]:
    """`start` with the folders above it, and everything below it; never through a link; without `.git` at the top."""
    if start == b".git" or start.startswith(b".git/"):
        return
    parts = start.split(b"/") if start else []
    yield from (b"/".join(parts[:depth]) for depth in range(1, len(parts)))
    if start:
        yield start
    waiting = [start] if stat.S_ISDIR(os.lstat(root + b"/" + start).st_mode) else []
    while waiting:
        folder = waiting.pop()
        with os.scandir(root + b"/" + folder) as scan:
            entries = list(scan)
        for entry in entries:
            path = folder + b"/" + entry.name if folder else entry.name
            if path == b".git":
                continue
            yield path
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)


def _entry(root: bytes, path: bytes, owner: int) -> File | Link | None:
    """None stands for a folder."""
    _refuse_name(path)
    facts = os.lstat(root + b"/" + path)
    if stat.S_ISDIR(facts.st_mode):
        return None
    if stat.S_ISLNK(facts.st_mode):
        target = os.readlink(root + b"/" + path)  # noqa: PTH115  # names are bytes
        _refuse_target(path, target)
        return Link(path, target)
    if stat.S_ISREG(facts.st_mode):
        _refuse_foreign(path, facts, owner)
        return File(path, bool(facts.st_mode & stat.S_IXUSR), facts.st_size)
    raise ReleaseError(
        f"{_shown(path)} is a device, socket or pipe; a release has files, folders and links only"
    )


def _refuse_foreign(path: bytes, facts: os.stat_result, owner: int) -> None:
    """Root can read everything: a hard link to somebody's secret must not become part of a release."""
    if facts.st_uid != owner and os.geteuid() == 0:
        raise ReleaseError(
            f"{_shown(path)} belongs to user {facts.st_uid}; a release has the build's own files only"
        )


def _refuse_name(name: bytes) -> None:
    if b"\\" in name or any(byte < 0x20 or byte == 0x7F for byte in name):
        raise ReleaseError(
            f"{_shown(name)}: a name in a release must not have control characters or backslashes"
        )


def _refuse_target(path: bytes, target: bytes) -> None:
    """`..` is allowed at the beginning only: behind another link it would mean something else than it looks like."""
    _refuse_name(target)
    steps = [step for step in target.split(b"/") if step not in {b"", b"."}]
    ups = next((number for number, step in enumerate(steps) if step != b".."), len(steps))
    depth = path.count(b"/")
    if target.startswith(b"/"):
        raise ReleaseError(f"the link {_shown(path)} -> {_shown(target)} is absolute; make it relative")
    if b".." in steps[ups:]:
        raise ReleaseError(
            f"the link {_shown(path)} -> {_shown(target)} has `..` in its middle; write it shorter"
        )
    if ups > depth and steps[depth : depth + 3] != _SHARED:
        raise ReleaseError(
            f"the link {_shown(path)} -> {_shown(target)} leaves the release",
            remedy="links may point into the release, or to ../../shared/ as seen from its top",
        )


def _size(entry: File | Link | None) -> int:
    return entry.size if isinstance(entry, File) else 0


def _bounded(count: int, total: int) -> None:
    if count > MAX_FILES or total > MAX_BYTES:
        raise ReleaseError(
            f"the release is too big: more than {MAX_FILES:,} entries or {MAX_BYTES:,} bytes",
            remedy="name what is needed in release.include",
        )


def _shown(name: bytes) -> str:
    return name[:200].decode(errors="backslashreplace").encode("unicode_escape").decode()
