"""This process's writers to SQLite: one after another, and many under one commit.

A commit waits for the disk, and everybody else waits for the commit: under load, with 40 threads, most of a host's time went
there. So whoever has written hands the open transaction on to the next one that waits, and returns when it is committed;
the last one commits. What has returned is on the disk, as ever; what was not committed has happened to nobody (decision 0016).

Nobody may wait for another writer while he writes: that one may not return before him.
"""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

from sqlalchemy import Connection, Engine

from rollout.errors import ServiceUnavailable

TOGETHER_S = 0.05  # from the first one's beginning nobody more joins: others wait for the lock, in this process and elsewhere
TOGETHER = 64


class _Group:
    """A transaction in the database, and those who have written in it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._transaction = connection.begin()
        self._began = time.monotonic()
        self._size = 0
        self._spoiled = False
        self._ended = threading.Event()
        self._error: BaseException | None = None

    @property
    def full(self) -> bool:
        """Nobody may join any more."""
        return self._size >= TOGETHER or time.monotonic() - self._began > TOGETHER_S

    @property
    def lost(self) -> bool:
        """It can only be undone; or SQLite has done that by itself, as it may when its disk is full."""
        return self._spoiled or not self._driver.in_transaction

    @contextmanager
    def part(self) -> Iterator[Connection]:
        """One writer's; it alone is undone when it fails."""
        self._size += 1
        self._driver.execute("SAVEPOINT part")
        try:
            yield self.connection
            self._driver.execute("RELEASE part")
        except BaseException:
            try:
                self._driver.execute("ROLLBACK TO part")
                self._driver.execute("RELEASE part")
            except sqlite3.Error:
                self._spoiled = True
            raise

    def end(self) -> bool:
        """Commit, and let everybody know; False when that failed, and its connection with it."""
        try:
            if not self.lost:
                self._transaction.commit()
            else:
                self._error = ServiceUnavailable(
                    "the database undid what several threads had written",
                    remedy="nothing is lost; try again. Is its disk full?",
                )
        except BaseException as error:  # noqa: BLE001 -- each of them raises it
            self._error = error
        self._ended.set()
        return self._error is None

    def wait(self) -> None:
        """Until it is committed; what kept it from that."""
        self._ended.wait()
        if self._error is not None:
            raise self._error

    @property
    def _driver(self) -> sqlite3.Connection:
        return cast("sqlite3.Connection", self.connection.connection.dbapi_connection)


class Writers:
    """In the order in which they came; each waits at most `wait_s` for its turn."""

    def __init__(self, engine: Engine, wait_s: float) -> None:
        self._engine, self._wait_s = engine, wait_s
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()
        # Whoever has the turn has both.
        self._connection: Connection | None = (
            None  # kept: to have it from the pool each time costs as much as a statement
        )
        self._group: _Group | None = None  # open

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Committed when this returns, undone by any exception."""
        self._take_turn()
        try:
            group = self._group = self._group or self._begin()
        except BaseException:
            self._leave()
            raise
        try:
            with group.part() as connection:
                yield connection
        finally:
            self._hand_on(group)
        group.wait()

    def close(self) -> None:
        """Give the connection back; the next transaction has a new one."""
        self._take_turn()
        self._let_go()
        self._leave()

    def _begin(self) -> _Group:
        if self._connection is None:
            self._connection = self._engine.connect()
        try:
            return _Group(self._connection)
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        """Of a connection that may have half a transaction in it: nobody gets that one."""
        if self._connection is not None:
            with suppress(Exception):
                self._connection.invalidate()
            with suppress(Exception):
                self._connection.close()
        self._connection = None

    def _take_turn(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        if mine.acquire(timeout=self._wait_s):
            return
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
                raise ServiceUnavailable(
                    f"other threads of this process have been writing to the database for {self._wait_s:g} s",
                    remedy="nothing is lost; try again. Is its disk full, or very slow?",
                )
        # It came in the very last moment.

    def _hand_on(self, group: _Group) -> None:
        with self._lock:
            if self._waiting and not group.full and not group.lost:
                self._waiting.popleft().release()
                return
        self._group = None
        if not group.end():
            self._let_go()
        self._leave()

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
