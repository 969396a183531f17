"""What tests ask of processes: is it alive, what is below it, wait until something is so."""

import os
import time
from collections.abc import Callable
from pathlib import Path


def until(truth: Callable[[], object], *, what: str, timeout_s: float = 20) -> None:
    """Return as soon as `truth()` is true; AssertionError with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not truth():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether `pid` runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def marked(mark: str) -> list[int]:
    """The processes whose command line or environment has `mark` in it, without this one."""
    wanted, found = mark.encode(), []
    for name in (entry.name for entry in Path("/proc").iterdir()):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            its = wanted in _bytes(f"/proc/{name}/cmdline") or wanted in _bytes(f"/proc/{name}/environ")
        except OSError:
            continue
        if its and alive(int(name)):
            found.append(int(name))
    return found


def _bytes(name: str) -> bytes:
    """What is in the file; it is looked into hundreds at a time."""
    file = os.open(name, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(file, 1 << 16), b""))
    finally:
        os.close(file)
