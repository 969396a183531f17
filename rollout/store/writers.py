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
from sqlalchemy.exc import OperationalError

from rollout.errors import ServiceUnavailable
from rollout.store.checkpoints import Checkpoints

TOGETHER_S = 0.05  # from the first one's beginning nobody more joins: others wait for the lock, in this process and elsewhere
TOGETHER = 64
PAUSE_S = 0.002  # for writers of other processes, who look for a free lock now and then
# So often. SQLite itself would look more and more rarely, up to every 100 ms: who comes again and again, as a worker with a
# queue, then has the lock each time before one who has waited for a second.
TRY_S = PAUSE_S / 2


class _Group:
    """A transaction in the database, and those who have written in it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._transaction = connection.begin()
        self._driver = cast("sqlite3.Connection", connection.connection.dbapi_connection)
        self._began = time.monotonic()
        self._size = 0
        self._spoiled = False
        self._ended = threading.Event()
        self._error: BaseException | None = None

    @property
    def empty(self) -> bool:
        """Nobody has written in it."""
        return not self._size

    @property
    def full(self) -> bool:
        """Nobody may join any more."""
        return self._size >= TOGETHER or time.monotonic() - self._began > TOGETHER_S

    @property
    def lost(self) -> bool:
        """It can only be undone; or SQLite has done that by itself, as it may when its disk is full."""
        return self._spoiled or self.connection.invalidated or not self._driver.in_transaction

    @contextmanager
    def part(self) -> Iterator[Connection]:
        """One writer's; it alone is undone when it fails."""
        self._size += 1
        self._say("SAVEPOINT part")
        try:
            yield self.connection
            self._say("RELEASE part")
        except BaseException:
            try:
                self._say("ROLLBACK TO part")
                self._say("RELEASE part")
            except BaseException:  # noqa: BLE001 -- whatever it is, half of this part may be there
                self._spoiled = True
            raise

    def end(self) -> BaseException | None:
        """Commit, and let everybody know; what kept it from that, or came in between (Ctrl-C): of no more use is its connection then."""
        came: BaseException | None = None
        try:
            if self.lost:
                self._error = came = ServiceUnavailable("the database undid it by itself")
            else:
                self._transaction.commit()
        except Exception as error:  # noqa: BLE001 -- each of its writers raises it
            self._error = came = error
        except BaseException as error:  # noqa: BLE001 -- this thread's own; it comes before SQLite's call, or after it
            came = error
            self._error = error if self._driver.in_transaction else None
        self._ended.set()
        return came

    def wait(self) -> None:
        """Until it is committed; ServiceUnavailable if it was not."""
        self._ended.wait()
        if self._error is not None:
            raise ServiceUnavailable(
                f"the database did not take what was written: {self._error}",
                remedy="nothing is lost; try again. Is its disk full?",
            ) from self._error

    def _say(self, statement: str) -> None:
        say(self._driver, statement)


def say(driver: sqlite3.Connection, statement: str) -> None:
    """What begins and ends transactions, straight to the driver: it has neither parameters nor rows."""
    try:
        driver.execute(statement)
    except sqlite3.Error as error:
        raise OperationalError(statement, None, error) from error


class Readers:
    """Transactions that only read, over connections that are kept: to have one from the pool costs more than most of what is read."""

    KEPT = 8

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._idle: deque[Connection] = deque()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One, as the database is at its first statement."""
        connection = self._take()
        try:
            with connection.begin():
                yield connection
        except BaseException:
            connection.close()
            raise
        if len(self._idle) < self.KEPT:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Give them back."""
        while self._idle:
            self._take().close()

    def _take(self) -> Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return self._engine.connect()


class Writers:
    """In the order in which they came; each waits at most `wait_s` for its turn."""

    def __init__(self, engine: Engine, wait_s: float) -> None:
        self._engine, self._wait_s = engine, wait_s
        self._checkpoints = Checkpoints(engine)
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
        first = group.empty
        try:
            with group.part() as connection:
                yield connection
        except Exception:
            self._hand_on(group)
            if not first:
                group.wait()  # it may rest on what others wrote: then that must be true
            raise
        except BaseException:
            self._hand_on(group)
            raise
        self._hand_on(group)
        group.wait()

    def close(self) -> None:
        """Give the connection back; the next transaction has a new one."""
        with suppress(ServiceUnavailable):  # somebody writes still, and keeps it
            self._take_turn()
            group, self._group = self._group, None
            if group is not None:  # handed on to this one, and others wait for its commit
                group.end()
            self._let_go()
            self._leave()
        self._checkpoints.close()

    def _begin(self) -> _Group:
        if self._connection is None:
            self._connection = self._engine.connect()
            driver = cast("sqlite3.Connection", self._connection.connection.dbapi_connection)
            say(driver, "PRAGMA busy_timeout=0")  # who begins looks for the lock by himself
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
        try:
            if mine.acquire(timeout=self._wait_s):
                return
        except BaseException:  # Ctrl-C
            if not self._gave_up(mine):
                self._pass_on()
            raise
        if self._gave_up(mine):
            raise ServiceUnavailable(
                f"other threads of this process have been writing to the database for {self._wait_s:g} s",
                remedy="nothing is lost; try again. Is its disk full, or very slow?",
            )
        # It came in the very last moment.

    def _gave_up(self, mine: threading.Lock) -> bool:
        """False when the turn has come all the same."""
        with self._lock:
            if mine not in self._waiting:
                return False
            self._waiting.remove(mine)
            return True

    def _pass_on(self) -> None:
        """The turn came to one who does not want it any more."""
        if self._group is not None:
            self._hand_on(self._group)
        else:
            self._leave()

    def _hand_on(self, group: _Group) -> None:
        with self._lock:
            if self._waiting and not group.lost and not group.full:
                self._waiting.popleft().release()
                return
        self._group = None
        came = group.end()
        if came is None:
            self._checkpoints.committed()
            if self._waiting:
                time.sleep(PAUSE_S)
        else:
            self._let_go()
        self._leave()
        if came is not None and not isinstance(came, Exception):
            raise came

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
