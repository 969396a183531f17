"""What tests ask of processes: is it alive, what is below it, wait until something is so."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def busy() -> float:
    """So many times as long as on a quiet machine anything takes now: by what waits for each processor, ten times at most."""
    return min(10.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


def moments(seconds: float, every: float) -> Iterator[None]:
    """One moment after the other, as many as a quiet machine has in these seconds: what others do with it delays the last one."""
    left, before = seconds, time.monotonic()
    while left > 0:
        yield
        time.sleep(every)
        now = time.monotonic()
        left, before = left - (now - before) / busy(), now
    yield


def until(truth: Callable[[], object], *, what: str, timeout_s: float = 20) -> None:
    """Return as soon as `truth()` is true; AssertionError with `what` after `timeout_s`, on a busy machine later."""
    assert any(truth() for _ in moments(timeout_s, 0.02)), f"never happened: {what}"


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
