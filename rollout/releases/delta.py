"""What a host that has one release lacks of another: a tar.gz of what differs, with the list of what does not.

    kept          the files of the base that the release has too, each ended by a zero byte: the host copies these
    tree/         the release's folders, its links, and its other files

The host puts both together and checks the digest of the whole, so nothing here is trusted.
"""

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_IN_MEMORY = 1024 * 1024  # of one file; a larger one waits on the disk until it is known whether it differs
_PIECE = 256 * 1024

Facts = tuple[bytes, bool]  # of a file: its sha256, and whether its owner may execute it


class TooMuch(Exception):
    """So much differs that the archive does as well."""


def make(base: Path, target: Path, path: Path, *, limit: int) -> None:
    """Write at `path` what a host with the archive `base` lacks of the archive `target`; TooMuch past `limit` bytes."""
    there = dict(_facts(base))
    kept: list[bytes] = []
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as delta,
    ):
        delta.addfile(_member("tree", tarfile.DIRTYPE, 0o755))
        for member, content, facts in _contents(target):
            name = os.fsencode(member.name)
            if facts and there.get(name) == facts:
                kept.append(b"./" + name + b"\0")
                continue
            member.name = f"tree/{member.name}"
            delta.addfile(member, content)
            delta.members.clear()  # type: ignore[attr-defined]
            if file.tell() > limit:
                raise TooMuch
        names = b"".join(kept)
        listed = _member("kept", tarfile.REGTYPE, 0o644)
        listed.size = len(names)
        delta.addfile(listed, io.BytesIO(names))
    with path.open("rb") as written:
        os.fsync(written.fileno())
    if path.stat().st_size > limit:
        raise TooMuch


def _facts(archive: Path) -> Iterator[tuple[bytes, Facts]]:
    for member, _, facts in _contents(archive):
        if facts:
            yield os.fsencode(member.name), facts


def _contents(archive: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None, Facts | None]]:
    """Its members as they come, of files also the bytes and what to compare them by."""
    with tarfile.open(archive, "r:gz") as tar:
        while member := tar.next():
            tar.members.clear()  # type: ignore[attr-defined]  # else it remembers all of them
            member.name = member.name.removeprefix("./")
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                yield member, None, None
                continue
            with tempfile.SpooledTemporaryFile(_IN_MEMORY) as copy:
                digest = hashlib.sha256()
                while piece := content.read(_PIECE):
                    digest.update(piece)
                    copy.write(piece)
                copy.seek(0)
                yield member, copy, (digest.digest(), bool(member.mode & 0o100))


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = mode
    return member
