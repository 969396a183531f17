"""The keys that hosts are known by: OpenSSH's known_hosts, parsed once and checked, never written."""

import base64
import binascii
import fnmatch
import hashlib
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rollout.errors import HostKeyRefused
from rollout.fleet.failures import worker_is_short

Key = tuple[str, bytes]
_BLOCK = 64  # bytes that SHA-1 works on at once


@dataclass(frozen=True, slots=True)
class _Line:
    """One line: who it is about, and the key."""

    names: tuple[str, ...]
    revoked: bool
    kind: str
    blob: bytes

    def about(self, name: str) -> bool:
        """Whether one of its patterns matches and no `!pattern` does."""
        found = False
        for pattern in self.names:
            if pattern.startswith("!"):
                if fnmatch.fnmatchcase(name, pattern[1:]):
                    return False
            else:
                found = found or _matches(pattern, name)
        return found


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("[") or not set(pattern) & set("*?"):
        return pattern == name
    return fnmatch.fnmatchcase(name, pattern)


class _Hashed:
    """A line about one name that it does not tell: |1|salt|HMAC-SHA1 of the name.

    Every name is tried on every line, so both hashes of the HMAC are begun once: a third of the time that hmac.digest takes.
    """

    __slots__ = ("_digest", "_inner", "_outer", "line")

    def __init__(self, line: _Line) -> None:
        """ValueError when it is none."""
        _, _, salt, digest = line.names[0].split("|")
        key = base64.b64decode(salt).ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha1(bytes(byte ^ 0x36 for byte in key), usedforsecurity=False)
        self._outer = hashlib.sha1(bytes(byte ^ 0x5C for byte in key), usedforsecurity=False)
        self._digest = base64.b64decode(digest)
        self.line = line

    def about(self, name: bytes) -> bool:
        """Whether it was made of this name."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(name)
        outer.update(inner.digest())
        return outer.digest() == self._digest


@dataclass(slots=True)
class KnownHosts:
    """A parsed file: plain names in a dictionary, hashed names and patterns in lists that are asked once a name."""

    path: str
    _plain: dict[str, list[Key]] = field(default_factory=dict)
    _hashed: list[_Hashed] = field(default_factory=list)
    _lines: list[_Line] = field(default_factory=list)
    _asked: dict[str, tuple[Key, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, path: str, text: str) -> "KnownHosts":
        """Read the format of sshd(8). Lines that cannot be read are skipped, as OpenSSH does."""
        known = cls(path)
        for raw in text.splitlines():
            line = _parse(raw.split())
            if line is not None:
                known._add(line)
        return known

    def _add(self, line: _Line) -> None:
        if line.names[0].startswith("|"):
            with suppress(ValueError):  # it cannot be read either
                self._hashed.append(_Hashed(line))
            return
        if line.revoked or any(set(name) & set("*?!") for name in line.names):
            self._lines.append(line)
            return
        for name in line.names:
            self._plain.setdefault(name, []).append((line.kind, line.blob))

    def keys(self, name: str) -> tuple[Key, ...]:
        """The keys (type, blob) of a host name as known_hosts spells it; revoked ones are left out."""
        if name not in self._asked:
            lines = [line for line in self._lines if line.about(name)]
            lines += [one.line for one in self._hashed if one.about(name.encode())]
            revoked = {line.blob for line in lines if line.revoked}
            found = [*self._plain.get(name, ()), *((x.kind, x.blob) for x in lines if not x.revoked)]
            self._asked[name] = tuple(key for key in found if key[1] not in revoked)
        return self._asked[name]


def _parse(fields: list[str]) -> _Line | None:
    if not fields or fields[0].startswith("#") or fields[0] == "@cert-authority":
        return None
    revoked = fields[0] == "@revoked"
    fields = fields[1:] if revoked else fields
    if len(fields) < 3:
        return None
    try:
        blob = base64.b64decode(fields[2], validate=True)
    except binascii.Error:
        return None
    return _Line(tuple(fields[0].split(",")), revoked, fields[1], blob)


def known_name(address: str, port: int) -> str:
    """How known_hosts spells this server."""
    return address if port == 22 else f"[{address}]:{port}"


def scan_remedy(path: str, address: str, port: int) -> str:
    """What a person types to look at the key that a host shows, and to add it."""
    scan = f"ssh-keyscan -p {port} {address}"
    return (
        f"compare `{scan} | ssh-keygen -lf -` with the key on the host itself "
        f"(`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`); if they agree: `{scan} >> {path}`"
    )


class KnownHostsFiles:
    """Every known_hosts file in use, parsed once and again when it has changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, tuple[tuple[int, int, int], KnownHosts]] = {}

    def of(self, path: str) -> KnownHosts:
        """The parsed file; HostKeyRefused when it cannot be read, since then no host is known."""
        file = Path(path).expanduser()
        try:
            stat = file.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            with self._lock:
                cached = self._files.get(path)
                if cached is None or cached[0] != stamp:
                    text = file.read_text(encoding="utf-8", errors="replace")
                    cached = self._files[path] = (stamp, KnownHosts.parse(str(file), text))
        except OSError as exc:
            if worker_is_short(exc):
                raise
            raise HostKeyRefused(
                f"{file}: {exc.strerror or exc}: without it no host is known",
                remedy=f"make it with ssh-keyscan and check the keys, or set known_hosts in rollout.toml (now {path})",
            ) from exc
        return cached[1]
