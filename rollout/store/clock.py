"""The one clock that rules leases and due times.

PostgreSQL: `clock_timestamp()`, the real clock of the one database (not `now()`, which stands still in a transaction).
SQLite is one machine by definition: seconds since its boot, which no clock step moves. Another boot id means that every
lease has expired (`Store` sees to it when it opens).
"""

import time
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
