"""How PostgreSQL is connected to, so that a network that is cut holds up nobody for long, on either side.

A cut is no error by itself: the kernel goes on sending for a quarter of an hour, and waits for an answer for ever.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout

CONNECT_S = 5
LOCK_S = 20  # as long as SQLite waits for another process
ANSWER_S = 30.0  # longer than a lock is waited for: then the other side is there, and says nothing
LOST_S = 10  # what we sent is not acknowledged: cut off
# Transactions at a time, and connections that stay: one that comes and goes costs the server more than all that is asked
# on it, and what was prepared on it is forgotten. All our processes together stay well below the 100 that a server has as it comes.
KEPT = 8
TURN_S = 20.0
ALIVE_S = 1.0  # a connection that was used so recently is believed to be there
IDLE_S = 5  # in the middle of a transaction, whose locks a stop may be waiting for

# The server gives up a client that is cut off just as the client gives up the server: its locks must not outlive it.
_SESSION = {
    "lock_timeout": LOCK_S * 1000,
    "idle_in_transaction_session_timeout": IDLE_S * 1000,
    "tcp_keepalives_idle": LOST_S // 2,
    "tcp_keepalives_interval": LOST_S // 2,
    "tcp_keepalives_count": 2,
    "tcp_user_timeout": LOST_S * 1000,
}
_CONNECT = {
    "connect_timeout": CONNECT_S,
    "prepare_threshold": 1,  # at the second time: what many rows need is asked seldom, and costs most to plan
    "client_encoding": "utf8",  # a database made without an encoding would answer in bytes
    "keepalives_idle": LOST_S // 2,
    "keepalives_interval": LOST_S // 2,
    "keepalives_count": 2,
    "tcp_user_timeout": LOST_S * 1000,
    "options": " ".join(f"-c {name}={value}" for name, value in _SESSION.items()),
}
_ACTIVE = psycopg.pq.TransactionStatus.ACTIVE


class Impatient(psycopg.Connection[Any]):
    """A connection that is closed when the server says nothing for so long."""

    patience_s: float | None = ANSWER_S

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait as psycopg does, and not for ever; OperationalError."""
        try:
            return super().wait(gen, interval, self.patience_s if timeout is None else timeout)
        except psycopg.OperationalError:
            if timeout is None and not self.closed and self.pgconn.transaction_status == _ACTIVE:
                self.close()  # its answer may still come, and would be taken for another's
                raise psycopg.OperationalError(f"no answer within {self.patience_s:g} s") from None
            raise


def engine(url: str) -> Engine:
    """An engine whose connections give up in time."""
    made = create_engine(
        url,
        pool_size=KEPT,
        max_overflow=72 - KEPT,
        pool_timeout=TURN_S,
        pool_use_lifo=True,
        connect_args=_CONNECT,
    )
    event.listen(made, "do_connect", _connect)
    event.listen(made, "checkin", _given_back)
    event.listen(made, "checkout", _taken)
    return made


class Turns:
    """A process's transactions: who finds all connections in use waits for one, and makes none; but for one within another."""

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(KEPT)
        self._own = threading.local()

    @contextmanager
    def transaction(self, begin: Callable[[], AbstractContextManager[Connection]]) -> Iterator[Connection]:
        """When it is this thread's turn; TimeoutError."""
        if getattr(self._own, "turn", False):
            with begin() as connection:
                yield connection
            return
        if not self._free.acquire(timeout=TURN_S):
            raise PoolTimeout(f"{KEPT} transactions of this process have been under way for {TURN_S:g} s")
        self._own.turn = True
        try:
            with begin() as connection:
                yield connection
        finally:
            self._own.turn = False
            self._free.release()


def _given_back(_driver: Any, record: Any) -> None:
    record.info["given_back"] = time.monotonic()


def _taken(driver: Any, record: Any, _fairy: Any) -> None:
    """Ask it whether it lives, as SQLAlchemy would each time: that is a third of what a small transaction asks."""
    given_back = record.info.get("given_back")
    if given_back is None or time.monotonic() - given_back < ALIVE_S:
        return
    try:
        driver.autocommit = True
        driver.execute("SELECT 1")
        driver.autocommit = False
    except psycopg.Error as error:
        raise InvalidatePoolError from error


@contextmanager
def unhurried(connection: Connection) -> Iterator[None]:
    """For a migration, in its transaction: what is asked in this block, and what is done in between, may take its time."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, Impatient):
        yield
        return
    connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    driver.patience_s = None
    try:
        yield
    finally:
        del driver.patience_s  # the class's again


def _connect(_dialect: Any, _record: Any, words: tuple[Any, ...], options: dict[str, Any]) -> DBAPIConnection:
    return Impatient.connect(*words, **options)  # type: ignore[return-value]  # what SQLAlchemy's dialect does itself
