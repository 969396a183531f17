"""The one clock that rules leases and due times.

PostgreSQL: `clock_timestamp()`, the real clock of the one database (not `now()`, which stands still in a transaction).
SQLite is one machine by definition: seconds since its boot, which no clock step moves. Another boot id means that every
lease has expired (`Store` sees to it when it opens).

A database server's clock may be stepped. Forward, leases run out early, which is safe: whatever they were for is read before
anything else. Back, everything would wait for as long as the step: what is due later than anything ever is, is due
(`Store.heal`). What a step would hurt is measured by a `Stopwatch` of the process that waits: how long a stop has lasted from
its first look on, since less than has passed is safe; how long a canary has been watched from its readiness on.
"""

import threading
import time
from collections.abc import Callable, Hashable
from pathlib import Path

from sqlalchemy import Connection, text

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def store_seconds(connection: Connection) -> float:
    """Seconds on the store's own clock; only differences mean something."""
    if connection.dialect.name == "sqlite":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def boot_of(connection: Connection) -> str:
    """What the clock counts from: the boot id on SQLite; the same for ever on PostgreSQL."""
    if connection.dialect.name != "sqlite":
        return "database"
    return _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else "unknown"


def own_seconds() -> float:
    """Seconds on this machine's clock that no step moves."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """The store's clock, asked once a second at most: in between a process knows by its own how far on it is.

    A step of a database server's clock is noticed so much later, as if it had come then.
    """

    KNOWN_S, AT_ONCE_S = 1.0, 0.05  # an answer that took longer is not kept: it is as much too early

    def __init__(self) -> None:
        self._known: tuple[float, float] | None = (
            None  # when it was asked by our own clock, and how far it was ahead
        )

    def seconds(self, connection: Connection) -> float:
        """Seconds on the store's own clock."""
        if connection.dialect.name == "sqlite":
            return store_seconds(connection)
        known, before = self._known, own_seconds()
        if known is not None and 0 <= before - known[0] < self.KNOWN_S:
            return before + known[1]
        seconds, after = store_seconds(connection), own_seconds()
        self._known = (after, seconds - after) if after - before < self.AT_ONCE_S else None
        return seconds


class Stopwatch:
    """How much time has passed since a moment, for as much of it as this process has seen: no step of a clock moves that."""

    MOST = 10_000  # moments that are remembered

    def __init__(self) -> None:
        self._seen: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def elapsed(self, moment: Hashable, before: Callable[[], float] = float) -> float:
        """Seconds since this process was first asked about this moment, and those that had passed `before`."""
        if moment not in self._seen:
            first = own_seconds() - before()
            with self._lock:
                self._seen.setdefault(moment, first)
        now = own_seconds()
        with self._lock:
            first = self._seen.setdefault(moment, now)
            if len(self._seen) > self.MOST:
                del self._seen[next(iter(self._seen))]
        return now - first
