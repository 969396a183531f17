"""What a command uses of the disk and of the memory, looked at while it runs.

Quotas, control groups and mounts of a fixed size are not to be had everywhere; looking is, and it is the same for every
user and in every container. Between two looks a command can use more than its bound: a bound is not exact.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rollout.releases import processes
from rollout.releases.group import Group
from rollout.releases.limits import Bounds

DISK, FULL, MEMORY = "disk", "full", "memory"  # which bound was broken

_SLICE_S = 0.005  # of each step, for counting files
_MEMORY_EVERY_S = 0.5
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Watch:
    """Says which bound is broken, when asked every few milliseconds."""

    def __init__(self, folder: str, bounds: Bounds, group: Group, user: int | None) -> None:
        self._folder, self._bounds, self._group, self._user = folder, bounds, group, user
        there, free = list(map(_size, _below(folder))), os.statvfs(folder)
        self._entries = bounds.disk_entries
        if free.f_favail:  # some file systems do not count
            self._entries = min(self._entries, len(there) + free.f_favail // 2)
        self._bytes = min(bounds.disk_bytes, sum(there) + free.f_bavail * free.f_frsize / 2)
        self._count = _Count(folder)
        self._memory_at = 0.0

    def broken(self) -> str | None:
        """The bound that is broken, as far as is known now."""
        if killed := self.killed():
            return killed
        if self._count.more(self._bytes, self._entries):
            return DISK
        free = os.statvfs(self._folder)
        if free.f_bavail * free.f_frsize < self._bounds.free_bytes:
            return FULL
        if time.monotonic() < self._memory_at:
            return None
        self._memory_at = time.monotonic() + _MEMORY_EVERY_S
        return MEMORY if self._memory_above(self._bounds.memory_bytes) else None

    def _memory_above(self, most: int) -> bool:
        """Shared pages count in each process that has them; only when that is too much we ask for exact shares: it is slow."""
        pids = processes.descendants(os.getpid())
        if sum(map(_resident, pids)) <= most:
            return False

        def exactly() -> bool:
            return sum(map(_share, pids)) > most

        # A user may always ask of its own processes; the root of a container may not ask of others'.
        return exactly() if self._user is None else processes.as_user(self._user, exactly)

    def killed(self) -> str | None:
        """The bound that the kernel has killed for."""
        return MEMORY if self._group.out_of_memory() else None


@dataclass(slots=True)
class _Count:
    """Counts what is below a folder, round after round, a little at a time: a tree may have a million entries."""

    folder: str
    bytes: float = 0.0
    entries: int = 0
    _walk: Iterator[os.stat_result] = field(default_factory=lambda: iter(()))

    def more(self, most_bytes: float, most_entries: int) -> bool:
        """Go on counting for a moment: whether this round has found more than that already."""
        until = time.monotonic() + _SLICE_S
        while time.monotonic() < until:
            facts = next(self._walk, None)
            if facts is None:
                self._walk, self.bytes, self.entries = _below(self.folder), 0.0, 0
                return False
            self.entries += 1
            self.bytes += _size(facts)
            if self.bytes > most_bytes or self.entries > most_entries:
                return True
        return False


def _below(folder: str) -> Iterator[os.stat_result]:
    waiting = [folder]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as scan:
            for entry in scan:
                with suppress(OSError):  # it went while we looked
                    yield entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)


def _size(facts: os.stat_result) -> float:
    """Its part of a file that has several names."""
    return facts.st_blocks * 512 / max(1, facts.st_nlink)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    except OSError:
        return 0


def _share(pid: int) -> int:
    """Its own pages, and its part of each shared one; all that it has, when that cannot be read."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()
    except OSError:
        return _resident(pid)
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:")), 0)
