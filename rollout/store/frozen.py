"""Whoever holds SQLite's write lock and stands still would hold up everything, a stop included.

Our transactions take milliseconds and do nothing else meanwhile. A process of ours that was stopped (SIGSTOP, Ctrl-Z) in
the middle of one is ended: SQLite undoes its transaction, and its supervisor starts it again. Anybody else is named.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path

# The byte of FILE-shm that SQLite's writer locks (sqlite.org/walformat.html, section 2.3.1).
_WRITE_LOCK = 120
_OURS = (b"rollout", b"workers.app")


def holder(database: Path) -> int | None:
    """The process that holds the write lock of this database; None when nobody does, or it is hidden from us."""
    shared = Path(f"{database}-shm").resolve()
    try:
        number = shared.stat().st_ino
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for lock in locks:
        _, kind, *_, mode, process, file, first, last = lock.split()
        if (kind, mode, file.rpartition(":")[2]) != ("POSIX", "WRITE", str(number)):
            continue
        if int(first) <= _WRITE_LOCK and (last == "EOF" or int(last) >= _WRITE_LOCK):
            return int(process) if _has_open(process, shared) else None
    return None


def end_if_frozen(process: int) -> bool:
    """Kill this process if it is one of ours and was stopped; whether it was."""
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    if state != b"T" or not any(word in _command(process) for word in _OURS):
        return False
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    return True


def named(process: int) -> str:
    """As a person looks for it."""
    words = " ".join(_command(process).replace(b"\0", b" ").decode(errors="replace").split())
    return f"process {process} ({words[:80] or 'its name is hidden'})"


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def _has_open(process: str, file: Path) -> bool:
    """Inode numbers are unique in one file system only."""
    try:
        opened = list(Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return False
    for entry in opened:
        with suppress(OSError):
            if entry.readlink() == file:
                return True
    return False
