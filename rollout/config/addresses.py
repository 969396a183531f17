"""Addresses of repositories: what may be fetched, and when two of them mean the same repository."""

import os.path
import re
from pathlib import Path
from urllib.parse import urlsplit

SCHEMES = ("https", "http", "ssh", "file")
HELPER = re.compile(r"[A-Za-z0-9+.-]*::")  # git runs `git-remote-<name>`: ext:: is a shell
SCP = re.compile(r"(?:[A-Za-z0-9._-]+@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?!//)(.+)")
EXPECTED = "an address that git can fetch: https://… ssh://… git@host:path, file://… or a path"


def repository(given: str, base: Path | None) -> str:
    """The address as git gets it, paths made absolute against `base`; ValueError says what was expected."""
    if not given or given.startswith("-") or HELPER.match(given) or not given.isprintable():
        raise ValueError(EXPECTED)
    if "://" in given:
        return _url(given)
    scp = SCP.fullmatch(given)
    if scp:
        if scp[1].startswith("-") or scp[2].startswith("-"):
            raise ValueError(EXPECTED)
        return given
    return str(absolute(Path(given), base))


def absolute(path: Path, base: Path | None) -> Path:
    """`path` with `~` expanded and, when relative, taken from `base`; without `base` it is left as it is."""
    try:
        full = path.expanduser()
    except RuntimeError:
        raise ValueError("a path; there is no such user, or no home folder") from None
    if base is None:
        return full
    return Path(os.path.normpath(base / full))


def _url(given: str) -> str:
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        raise ValueError(EXPECTED) from None
    host = parts.hostname or ""
    if parts.scheme not in SCHEMES or port == 0 or host.startswith("-") or not parts.path.strip("/"):
        raise ValueError(EXPECTED)
    if (parts.scheme == "file") == bool(host and host != "localhost"):
        raise ValueError(EXPECTED)
    if parts.password is not None or (parts.username or "").startswith("-"):
        raise ValueError(
            "an address without a password (it would show in process lists); use an SSH key or a git credential helper"
        )
    return given


def comparable(address: str) -> str:
    """The address without scheme, user, port, query, trailing `/` and `.git`, in one case; "" when there is nothing left.

    The servers that we hear from treat names that differ in case only as one name.
    """
    scp = SCP.fullmatch(address)
    if "://" in address:
        try:
            parts = urlsplit(address)
            host = parts.hostname or ""
        except ValueError:
            return ""
        local = parts.scheme == "file" or not host
        path = parts.path if local else f"{host}/{parts.path.strip('/')}"
    elif scp:
        path = f"{scp[1].strip('[]')}/{scp[2].strip('/')}"
    else:
        path = address
    return path.rstrip("/").removesuffix(".git").rstrip("/").casefold()
