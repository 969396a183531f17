"""A release as one file: a tar.gz that is the same for the same contents, and the digest of what is in it."""

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

from rollout.errors import ReleaseError
from rollout.releases.tree import File, Link, Picked


def pack(root: bytes, picked: Picked, path: Path) -> str:
    """Write the archive at `path` and put it on the disk; the digest (docs/host.md) of exactly the bytes written."""
    with path.open("wb") as file:
        with (
            gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive,
        ):
            hashes = _fill(archive, root, picked)
        file.flush()
        os.fsync(file.fileno())
    return digest(hashes, picked)


def digest(hashes: dict[bytes, str], picked: Picked) -> str:
    """Of the canonical listing, which a host makes with find, sort and sha256sum."""
    return hashlib.sha256(listing(hashes, picked)).hexdigest()


def listing(hashes: dict[bytes, str], picked: Picked) -> bytes:
    """The canonical listing; `hashes` are the sha256 of the files by path."""
    lines = [b"files", *_hashed(hashes, picked, executable=False)]
    lines += [b"executables", *_hashed(hashes, picked, executable=True)]
    lines += [b"links", *(b"./" + link.path + b" -> " + link.target for link in picked.links)]
    return b"\n".join(lines) + b"\n"


def _hashed(hashes: dict[bytes, str], picked: Picked, *, executable: bool) -> list[bytes]:
    return [
        hashes[file.path].encode() + b"  ./" + file.path
        for file in picked.files
        if file.executable is executable
    ]


def _fill(archive: tarfile.TarFile, root: bytes, picked: Picked) -> dict[bytes, str]:
    hashes = {}
    for folder in picked.folders:
        archive.addfile(_member(folder, tarfile.DIRTYPE, 0o755))
    for file in picked.files:
        hashes[file.path] = _add_file(archive, root, file)
    for link in picked.links:
        archive.addfile(_link(link))
    return hashes


def _add_file(archive: tarfile.TarFile, root: bytes, file: File) -> str:
    member = _member(file.path, tarfile.REGTYPE, 0o755 if file.executable else 0o644)
    member.size = file.size
    try:
        with Path(os.fsdecode(root + b"/" + file.path)).open("rb") as source:
            reader = _Hashing(source)
            archive.addfile(member, reader)
    except PermissionError as error:
        raise ReleaseError(f"{member.name!r} in the built tree cannot be read: {error.strerror}") from error
    return reader.hash.hexdigest()


def _link(link: Link) -> tarfile.TarInfo:
    member = _member(link.path, tarfile.SYMTYPE, 0o777)
    member.linkname = os.fsdecode(link.target)
    return member


def _member(path: bytes, kind: bytes, mode: int) -> tarfile.TarInfo:
    """Nothing but path, kind and mode: no owner, no time."""
    member = tarfile.TarInfo(os.fsdecode(path))
    member.type = kind
    member.mode = mode
    return member


class _Hashing(io.RawIOBase):
    """Hashes what is read through it, so that the digest is of the very bytes in the archive."""

    def __init__(self, source: io.BufferedReader) -> None:
        super().__init__()
        self._source = source
        self.hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        chunk = self._source.read(size)
        self.hash.update(chunk)
        return chunk
