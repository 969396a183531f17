"""SQLite's log is written back into its file beside the writers.

Whoever finds the log long at his commit does that himself, and all others wait for him: 20 to 50 ms, once a second when a
hundred webhooks come in one. So a thread does it sooner. What writers do by themselves stays, for when it cannot keep up.
"""

import sqlite3
import threading
from contextlib import closing, suppress
from typing import cast

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

EVERY = 50  # commits; each is some ten pages
BY_ITSELF = 4000  # pages, 16 MB, at which a writer does it
TRIES = 5  # what was committed meanwhile is left, and only a log of which nothing is left begins anew


class Checkpoints:
    """Of one process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._commits = 0
        self._thread: threading.Thread | None = None

    def committed(self) -> None:
        """One more. For whoever has the writers' turn."""
        self._commits += 1
        if self._commits < EVERY or (self._thread is not None and self._thread.is_alive()):
            return
        self._commits = 0
        # One for each time: it keeps no store that nobody closes.
        thread = threading.Thread(target=self._go, name="checkpoint", daemon=True)
        with suppress(RuntimeError):  # there is no room for one more: as if it could not keep up
            thread.start()
            self._thread = thread

    def close(self) -> None:
        """When the one that is under way is over."""
        if self._thread is not None:
            self._thread.join()

    def _go(self) -> None:
        # Of a disk that is full, or gone, the writers hear by their own commits.
        with suppress(sqlite3.Error, SQLAlchemyError):
            self._write_back()

    def _write_back(self) -> None:
        with closing(self._engine.raw_connection()) as connection:  # another one is in a transaction at once
            driver = cast("sqlite3.Connection", connection.driver_connection)
            for _ in range(TRIES):
                busy, logged, written = driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if busy or written == logged:
                    return
