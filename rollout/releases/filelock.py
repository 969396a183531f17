"""A lock between processes: `flock` on a file, which the kernel frees when its holder dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rollout.errors import ServiceUnavailable

_PAUSE_S = 0.05


@contextmanager
def held(path: Path, *, wait_s: float, what: str) -> Iterator[None]:
    """Hold the lock at `path`; ServiceUnavailable when another process keeps it for `wait_s`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(file, path, wait_s, what)
        yield
    finally:
        os.close(file)


def free(path: Path) -> bool:
    """Whether nobody holds the lock at `path` now."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return _try(file)
    finally:
        os.close(file)


def _acquire(file: int, path: Path, wait_s: float, what: str) -> None:
    until = time.monotonic() + wait_s
    while not _try(file):
        if time.monotonic() >= until:
            holds = f"has held {path} for {wait_s:.0f} s" if wait_s else f"holds {path}"
            raise ServiceUnavailable(
                f"{what}: another process {holds}",
                remedy=f"look for it with `fuser {path}`; it is free again when that process ends",
            )
        time.sleep(_PAUSE_S)


def _try(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
