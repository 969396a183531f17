"""Processes that must not outlive us: whoever loses its parent becomes ours, and is ended with us (Linux)."""

import ctypes
import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, whatever session it moved to."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with(parent: int, sign: signal.Signals) -> None:
    """Get `sign` as soon as `parent`, who started us, is gone; also when it went before this call."""
    _libc.prctl(PR_SET_PDEATHSIG, int(sign), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), sign)


def descendants(pid: int) -> list[int]:
    """Everything below `pid` at this moment, zombies included, nearest first."""
    below = _children()
    found: list[int] = []
    todo = [pid]
    while todo:
        children = below.get(todo.pop(0), [])
        found += children
        todo += children
    return found


def _children() -> dict[int, list[int]]:
    table: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it ended while we looked
                after_name = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                table.setdefault(int(after_name[1]), []).append(int(entry.name))
    return table


def end_descendants(timeout_s: float = 5) -> None:
    """Kill all that is below us, until nothing is left: orphans become our children and are killed in turn."""
    deadline = time.monotonic() + timeout_s
    while (left := descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap()
        time.sleep(0.02)


def reap() -> None:
    """Collect every child that has ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_strangers(known: Collection[int]) -> None:
    """Kill and collect the children of ours that are not `known`, with all below them: orphans that came to us."""
    for pid in set(children(os.getpid())) - set(known):
        for each in (*descendants(pid), pid):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
    reap_strangers(known)


def reap_strangers(known: Collection[int]) -> None:
    """Collect ended children of ours that are not `known`."""
    with suppress(ChildProcessError):
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return  # nobody has ended: looking through /proc at each line of a log would cost more than the line
    for pid in set(children(os.getpid())) - set(known):
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def children(pid: int) -> list[int]:
    """The children of `pid` at this moment, zombies included."""
    return _children().get(pid, [])
