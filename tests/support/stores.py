"""Stores as the product opens them, without what costs tests most of their time and none of them is about.

A statement is compiled once for all SQLite stores of this process, not once for each; the schema is copied from one that
the migrations made; nothing is synced to the disk, since nobody pulls the plug.
"""

import atexit
import shutil
import sqlite3
import tempfile
import weakref
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest import mock

import psycopg
from sqlalchemy import event
from sqlalchemy.util import LRUCache

from rollout.store import straight
from rollout.store.store import Store
from rollout.store.straight import Straight

STATEMENTS, STRAIGHT = LRUCache(5000), Straight()
_left = []


def opened(url):
    """A store that is ready for use."""
    store = Store(url)
    if store._engine.dialect.name == "sqlite":
        database = Path(store._engine.url.database)
        if not database.exists():
            put(database)
        _lighten(store)
    store.prepare()
    return store


def until_the_end_of_the_test(url):
    """As `opened`, for whoever has nobody to close it; `close_all` does."""
    _left.append(opened(url))
    return _left[-1]


def close_all():
    """A collector comes by too seldom for three open files of each: after a thousand `select` knows no more."""
    while _left:
        _left.pop().close()


def put(database):
    """An empty database in this file, as the migrations make it."""
    database.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_template()[1], database)


def _lighten(store):
    dialect, _ = _template()
    for engine in (store._engine, store._writer):  # one pool
        engine.dialect, engine._compiled_cache = dialect, STATEMENTS
    store._engine.pool._dialect = dialect
    store._straight = STRAIGHT
    event.listen(store._engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))


@cache
def _template():
    """The dialect of a store that was connected, which knows all there is to be known of SQLite; and its file."""
    folder = Path(tempfile.mkdtemp(prefix="rollout-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    store = Store(f"sqlite:///{folder}/rollout.db")
    store.prepare()
    store.close()  # the last connection: then all is in the one file
    return store._engine.dialect, folder / "rollout.db"


@contextmanager
def asked(store):
    """What it is asked meanwhile, a statement each: those that go straight to the driver SQLAlchemy does not hear."""
    told, sent = [], straight._sent

    def heard(_connection, statement, *_):
        told.append(str(statement))

    def goes_straight(connection, way, *its, **more):
        told.append(way.sql)
        return sent(connection, way, *its, **more)

    event.listen(store._engine, "before_execute", heard)
    try:
        with mock.patch.object(straight, "_sent", goes_straight):
            yield told
    finally:
        event.remove(store._engine, "before_execute", heard)


# SQLite counts what others commit. PostgreSQL logs whatever is written; that other things are logged too does no harm.
VERSIONS = {"sqlite": "PRAGMA data_version", "postgresql": "SELECT pg_current_wal_insert_lsn()::text"}


class Writes:
    """Whether anybody has written to a database since it was asked last."""

    def __init__(self, store):
        self._engine = store._engine
        self._connection, self._closed = None, 0

    def version(self):
        """Another one after each commit."""
        return self._closed, *self.ask(VERSIONS[self._engine.dialect.name])

    def ask(self, query):
        """The first column of each row, without what SQLAlchemy takes for that."""
        if self._connection is None:
            self._connection = self._connected()
            event.listen(self._engine, "engine_disposed", self._close, once=True)
        return [value for (value,) in self._connection.execute(query)]

    def _connected(self):
        url = self._engine.url
        if url.get_backend_name() == "sqlite":
            return sqlite3.connect(url.database, isolation_level=None, check_same_thread=False)
        address = url.set(drivername="postgresql").render_as_string(hide_password=False)
        connection = psycopg.connect(address, autocommit=True)
        weakref.finalize(self, connection.close)  # with a store that nobody closes
        return connection

    def _close(self, _engine):
        """With the store, whose file may be copied or replaced then. Each connection counts for itself."""
        self._connection.close()
        self._connection = None
        self._closed += 1
