"""The files that are being sent: each is open once a process, however many hosts it goes to.

They are read piece by piece where each host is: all of it lies in one place, the kernel's page cache, and an upload has
no more of it in its hands than the piece that it sends. (A mapping would be as cheap, and a file that is cut short under
it would kill the worker.)
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Source:
    """An open file of that many bytes."""

    size: int
    _file: int

    def read(self, start: int, length: int) -> bytes:
        """That piece of it; safe from any number of threads at once."""
        return os.pread(self._file, length, start)

    def close(self) -> None:
        """Nobody sends it any more."""
        os.close(self._file)


class Uploads:
    """Opens files for whoever sends them, and closes each behind the last one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[int, int], tuple[Source, int]] = {}  # by device and inode; for how many

    @property
    def files(self) -> int:
        """How many are open."""
        return len(self._open)

    @contextmanager
    def source(self, path: Path) -> Iterator[Source]:
        """The file at `path`; OSError when it cannot be opened."""
        key, source = self._take(path)
        try:
            yield source
        finally:
            self._give_back(key)

    def _take(self, path: Path) -> tuple[tuple[int, int], Source]:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        facts = os.fstat(file)
        key = facts.st_dev, facts.st_ino  # not the path: a rebuilt archive is another file
        with self._lock:
            source, users = self._open.get(key) or (Source(facts.st_size, file), 0)
            self._open[key] = source, users + 1
        if users:
            os.close(file)
        return key, source

    def _give_back(self, key: tuple[int, int]) -> None:
        with self._lock:
            source, users = self._open[key]
            if users > 1:
                self._open[key] = source, users - 1
                return
            del self._open[key]
        source.close()
