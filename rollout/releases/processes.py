"""Finding the processes of a command, and killing them (Linux)."""

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def descendants(ancestor: int) -> list[int]:
    """Everything below it now, zombies too."""
    parents = _facts("stat", lambda stat: int(stat.rpartition(b")")[2].split()[1]))
    below = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return sorted(below - {ancestor})


def with_environment(entry: bytes) -> list[int]:
    """Those that were started with this in their environment."""
    return [pid for pid, found in _facts("environ", lambda text: entry in text).items() if found]


def of_user(user: int) -> list[int]:
    """All that run as this user, but for zombies."""
    return [pid for pid, found in _facts("status", lambda text: _runs_as(text, user)).items() if found]


def _runs_as(status: bytes, user: int) -> bool:
    lines = dict(line.partition(b":")[::2] for line in status.splitlines())
    return lines[b"Uid"].split()[0] == b"%d" % user and not lines[b"State"].strip().startswith(b"Z")


def kill(pids: Iterable[int]) -> None:
    """Stop them, then kill them: so none forks while others are killed."""
    left = list(pids)
    for sent in (signal.SIGSTOP, signal.SIGKILL):
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, sent)


def kill_user(user: int) -> None:
    """Kill all that this user runs, at once: no process can fork its way out of it."""
    as_user(user, lambda: os.kill(-1, signal.SIGKILL))  # all but init and the caller that it may signal


def as_user(user: int, ask: Callable[[], object]) -> bool:
    """Whether `ask` says yes, called in a process of this user."""
    pid = os.fork()
    if pid == 0:
        said = False
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            said = bool(ask())
        finally:
            os._exit(not said)
    return os.waitpid(pid, 0)[1] == 0


def _facts(name: str, read: Callable[[bytes], T]) -> dict[int, T]:
    """What `read` makes of /proc/PID/`name` of every process that is still there."""
    found = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  # names, not paths: this runs while a fork bomb does
        if entry.isdigit():
            with suppress(OSError, IndexError, KeyError):
                found[int(entry)] = read(Path(f"/proc/{entry}/{name}").read_bytes())
    return found
