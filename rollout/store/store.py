"""Opening the store, and its transactions."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import structlog
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    and_,
    bindparam,
    case,
    create_engine,
    delete,
    event,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from rollout.domain.model import AppName, Rollout, RolloutId
from rollout.domain.states import RolloutState
from rollout.errors import Conflict, ServiceUnavailable
from rollout.store import checkpoints, clock, frozen, migrate, tables
from rollout.store.apps import HEAD_UNREAD, Apps
from rollout.store.bars import Bars
from rollout.store.catching_up import CatchingUp
from rollout.store.checks import Checks
from rollout.store.claims import Claims
from rollout.store.commits import Commits
from rollout.store.fleet import Fleet
from rollout.store.going_back import GoingBack
from rollout.store.hosts import Hosts
from rollout.store.journal import Deliveries, Events, Notices, Outputs, Samples
from rollout.store.places import Places
from rollout.store.retention import Retention
from rollout.store.rollouts import Rollouts
from rollout.store.straight import Answer, Prepared, Straight
from rollout.store.turns import Turns
from rollout.store.writers import TRY_S, Readers, Writers, say

if TYPE_CHECKING:
    import sqlite3

log = structlog.get_logger()
_Begin = Callable[[], AbstractContextManager[Connection]]
BUSY_S = 20.0  # so long is waited for SQLite's other writers, those of this process and then those of others
LOOK_S = 2.0  # so often is looked at who the other writer is
CACHE_KB = 512  # of each of a process's connections to SQLite, of which a worker has twenty
# In the order in which everyone locks: a rollout's row before its hosts'.
_DUE = [
    tables.rollouts.c.due_at,
    tables.rollouts.c.watch_due_at,
    *(table.c.due_at for table in (tables.commits, tables.rollout_hosts, tables.notices)),
]
_NOW: Any = bindparam("now", type_=Float())
_READY_AT = func.coalesce(tables.rollouts.c.ready_at, _NOW)
_LONGEST: dict[Column[Any], Any] = {
    tables.rollouts.c.due_at: bindparam("stage_s", type_=Float()),
    tables.rollouts.c.watch_due_at: bindparam("stage_s", type_=Float())
    + bindparam("pace", type_=Float()) * case((_READY_AT < _NOW, _NOW - _READY_AT), else_=0.0),
}
_MOMENTS = [
    *(tables.rollouts.c[name] for name in ("ready_at", "accepted_at", "stop_started")),
    *(tables.rollout_hosts.c[name] for name in ("lost_at", "touched_at", "switched_at", "busy_since")),
]
_LEASES = [table.c.lease_until for table in (tables.commits, tables.rollout_hosts)]
_TOO_LATE = {
    column: column > _NOW + _LONGEST.get(column, bindparam("longest_s", type_=Float()))
    for column in (*_DUE, *_LEASES, tables.apps.c.told_s)
}
# It is asked every minute, and hardly ever finds one.
_ANY_TOO_LATE = Prepared(
    select(or_(*(select(column).where(its).exists() for column, its in _TOO_LATE.items())))
)


class Transaction:
    """One transaction: the tables' verbs, and the store's clock."""

    def __init__(
        self, connection: Connection, time: clock.Clock, stopwatch: clock.Stopwatch, straight: Straight
    ) -> None:
        self.connection = connection
        self._clock = time
        self._stopwatch = stopwatch
        self._straight = straight
        self.apps = Apps(self)
        self.commits = Commits(self)
        self.turns = Turns(self)
        self.bars = Bars(self)
        self.checks = Checks(self)
        self.rollouts = Rollouts(self)
        self.hosts = Hosts(self)
        self.claims = Claims(self)
        self.going_back = GoingBack(self)
        self.fleet = Fleet(self)
        self.places = Places(self)
        self.catching_up = CatchingUp(self)
        self.events = Events(self)
        self.deliveries = Deliveries(self)
        self.samples = Samples(self)
        self.outputs = Outputs(self)
        self.notices = Notices(self)
        self.retention = Retention(self)

    def run(self, prepared: Prepared, values: Mapping[str, Any]) -> Answer:
        """What runs for every host; anything else is for `connection.execute`."""
        return self._straight.run(self.connection, prepared, values)

    def run_each(self, prepared: Prepared, values: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """The same for each of these, no two of which are for the same row; PostgreSQL is asked once for all of them."""
        return self._straight.run_each(self.connection, prepared, values)

    def now(self) -> float:
        """Seconds on the store's clock; it goes on during the transaction."""
        return self._clock.seconds(self.connection)

    def elapsed(self, moment: float) -> float:
        """Seconds since a moment of the store's clock; on PostgreSQL, whose clock may be stepped, as this process has seen them pass."""
        return self._stopwatch.elapsed(moment) if self.is_postgresql else self.now() - moment

    def watched_s(self, rollout: Rollout) -> float:
        """Seconds since its canary was ready: t of now.

        On PostgreSQL the clock is asked at this process's first look alone, and not believed when less than what was
        measured; from then on no step moves it. Every process has about the same, unless it began after a step forward.
        """
        if rollout.ready_at is None:
            return 0.0
        ready_at, number = rollout.ready_at, rollout.id

        if not self.is_postgresql:
            return self.now() - ready_at

        def passed() -> float:
            return max(0.0, self.now() - ready_at, self.samples.newest_t(number))

        return self._stopwatch.elapsed((number, ready_at), passed)

    @staticmethod
    def today() -> datetime:
        """UTC, for people."""
        return datetime.now(UTC)

    @property
    def is_postgresql(self) -> bool:
        """Row locks are needed; SQLite has one writer at a time."""
        return self.connection.dialect.name == "postgresql"

    def record(
        self,
        app: AppName,
        subject: str,
        what: str,
        *,
        who: str,
        why: str | None = None,
        rollout: RolloutId | None = None,
        states: tuple[str | None, str | None] = (None, None),
    ) -> None:
        """Write an event into this very transaction (I7)."""
        self.events.add(app, subject, what, who=who, why=why, rollout=rollout, states=states)

    def end(self) -> None:
        """Nothing works any more: its connection is somebody else's soon, and the tables' verbs and it would keep each other."""
        vars(self).clear()


class Store:
    """SQLite (embedded) or PostgreSQL; everything else is the same."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = _engine(url)
        self._clock, self._stopwatch = clock.Clock(), clock.Stopwatch()
        self._straight = Straight()
        self._writer = self._engine.execution_options(rollout_writes=True)
        self._writers, self._readers = Writers(self._writer, BUSY_S), Readers(self._engine)
        self._writing: _Begin = self._writers.transaction
        self._reading: _Begin = self._readers.transaction
        if self._engine.dialect.name != "sqlite":
            # Each statement sees what is committed by then, in a transaction too; BEGIN and COMMIT cost twice what it does.
            reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")
            self._writing, self._reading = _in_turn(self._writer, reader)

    @cached_property
    def place(self) -> str:
        """Where the database is, without its password."""
        return self._engine.url.render_as_string(hide_password=True)

    def prepare(self) -> None:
        """Bring the schema up to date; leases of another boot are void."""
        with self._translated():
            if self._engine.url.database and self._engine.dialect.name == "sqlite":
                Path(self._engine.url.database).parent.mkdir(parents=True, exist_ok=True)
            migrate.upgrade(self._engine)
        with self.transaction() as tx:
            migrate.alone(tx.connection)  # the second to start must not void what the first has leased
            _void_leases_of_another_boot(tx)

    def heal(self, longest_s: float, *, stage_s: float, pace: float) -> int:
        """What waits for longer than anything does was set by a clock that has been set back since: it is due; how much it was.

        `longest_s`: the longest that anything waits. A rollout's stage never waits longer than `stage_s`, nor does the
        watch over its fan-out but for the share `pace` of the time that it is watched.
        """
        if self._engine.dialect.name == "sqlite":  # its clock is never set
            return 0
        waits = {"longest_s": longest_s, "stage_s": stage_s, "pace": pace}
        with self.reading() as tx:
            if not tx.run(_ANY_TOO_LATE, {"now": tx.now(), **waits}).scalar_one():
                return 0
        with self.transaction() as tx:
            its = {"now": tx.now(), **waits}
            return sum(
                tx.connection.execute(
                    update(column.table).where(too_late).values({column: 0.0}), its
                ).rowcount
                for column, too_late in _TOO_LATE.items()
            )

    def ready(self) -> bool:
        """The schema is there."""
        with self._translated():
            return migrate.present(self._engine)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A writing transaction; committed at the end, undone by any exception."""
        with self._translated(), self._writing() as connection:
            tx = Transaction(connection, self._clock, self._stopwatch, self._straight)
            try:
                yield tx
                tx.events.write()
            finally:
                tx.end()

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """A transaction that only reads."""
        with self._translated(), self._reading() as connection:
            tx = Transaction(connection, self._clock, self._stopwatch, self._straight)
            try:
                yield tx
            finally:
                tx.end()

    def close(self) -> None:
        """Give the connections back."""
        try:
            self._writers.close()
        finally:
            self._readers.close()
            self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise Conflict(
                f"the store refused a second one: {_last_line(error)}",
                remedy="somebody else was faster; look again with `rollout status`",
            ) from error
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise ServiceUnavailable(
                f"the database {self.place} does not answer: {_last_line(error)}",
                remedy="start it, or correct `database` in [server]; nothing is lost, rollout goes on when it is back",
            ) from error
        except DBAPIError as error:
            if type(error) is DatabaseError:  # SQLite's word for a file that is damaged or no database
                raise ServiceUnavailable(
                    f"the database {self.place} cannot be read: {_last_line(error)}",
                    remedy="put a backup in its place, or move it away to begin anew (hosts keep what they run)",
                ) from error
            if error.connection_invalidated:
                raise ServiceUnavailable(
                    f"the database {self.place} went away", remedy="try again"
                ) from error
            raise


def _in_turn(*engines: Engine) -> list[_Begin]:
    from rollout.store.postgresql import Turns  # noqa: PLC0415  # as below

    turns = Turns()
    return [partial(turns.transaction, engine.begin) for engine in engines]


def _last_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


def _engine(url: str) -> Engine:
    if url.startswith("sqlite"):
        engine = create_engine(
            url, connect_args={"timeout": LOOK_S, "check_same_thread": False}, pool_size=8, max_overflow=64
        )
        event.listen(engine, "connect", _sqlite_connected)
        event.listen(engine, "begin", _sqlite_begins)
        event.listen(engine, "handle_error", _sqlite_was_interrupted)
        return engine
    from rollout.store import postgresql  # noqa: PLC0415  # its driver takes long to import

    return postgresql.engine(url)


def _sqlite_was_interrupted(context: Any) -> None:
    """Ctrl-C comes between calls of SQLite, never inside one: the connection is as good as before."""
    if not isinstance(context.original_exception, Exception):
        context.is_disconnect = False


def _sqlite_connected(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={LOOK_S * 1000:.0f}")
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")  # a webhook that was answered survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA wal_autocheckpoint={checkpoints.BY_ITSELF}")
    # For one transaction: whoever reads after another has written begins with none, and the system keeps the file's pages.
    cursor.execute(f"PRAGMA cache_size=-{CACHE_KB}")
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:
    """Changing the journal mode ignores the busy timeout, so processes that open a new file together would collide."""
    deadline = time.monotonic() + 20
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except Exception as error:  # the driver's class is not ours to import
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # nothing to wait on: the lock is another process's
        else:
            return


def _sqlite_begins(connection: Connection) -> None:
    driver = cast("sqlite3.Connection", connection.connection.dbapi_connection)
    if not connection.get_execution_options().get("rollout_writes", False):
        say(driver, "BEGIN")
        return
    began = looked = time.monotonic()
    while True:
        try:
            # A transaction that reads first and writes later would fail at once when another one wrote in between.
            say(driver, "BEGIN IMMEDIATE")
        except OperationalError as error:
            if "locked" not in str(error):
                raise
        else:
            return
        if (now := time.monotonic()) - looked > LOOK_S:
            looked = now
            _make_way(Path(connection.engine.url.database or ""), waited=now - began > BUSY_S)
        time.sleep(TRY_S)


def _make_way(database: Path, *, waited: bool) -> None:
    """ServiceUnavailable, naming the other writer, when we have waited for long."""
    other = frozen.holder(database)
    if other is not None and frozen.end_if_frozen(other):
        log.error("frozen_writer_ended", process=other, why="it stood still while it held the database")
    elif waited:
        raise ServiceUnavailable(
            f"the database {database} has been locked for {BUSY_S:g} s by {frozen.named(other) if other else 'another process'}",
            remedy=f"look at it, and end it if it hangs: kill {other}; nothing is lost"
            if other
            else "find it with `fuser`, and try again; nothing is lost",
        )


def _void_leases_of_another_boot(tx: Transaction) -> None:
    boot, facts = clock.boot_of(tx.connection), tables.facts
    known = tx.connection.execute(select(facts.c.value).where(facts.c.name == "boot")).scalar_one_or_none()
    if known == boot:
        return
    if known is None:
        tx.connection.execute(insert(facts).values(name="boot", value=boot))
        return
    tx.connection.execute(update(facts).where(facts.c.name == "boot").values(value=boot))
    for column in (*_DUE, *_LEASES):
        tx.connection.execute(update(column.table).where(column.is_not(None)).values({column: 0.0}))
    tx.connection.execute(update(tables.apps).where(tables.apps.c.poll_due_at > 0).values(poll_due_at=0.0))
    still = case((HEAD_UNREAD, 0.0), else_=None)  # a head that nobody has read yet is still to be read
    tx.connection.execute(
        update(tables.apps).values(told_s=still, read_s=None, answered_s=None, looked_s=None)
    )
    tx.connection.execute(update(tables.commits).values(received_s=None))
    # One that has not begun begins now: without a time it would be one that was planned ahead.
    its = tables.rollouts.c
    pending = and_(its.state == RolloutState.PENDING, its.began_s.is_not(None))
    tx.connection.execute(update(tables.rollouts).values(began_s=case((pending, tx.now()), else_=None)))
    # A canary under watch is measured anew, since its t = 0 is.
    watched = select(tables.rollouts.c.id).where(tables.rollouts.c.state == RolloutState.EVALUATING_CANARY)
    tx.connection.execute(delete(tables.samples).where(tables.samples.c.rollout.in_(watched)))
    hosts = tables.rollout_hosts
    tx.connection.execute(update(hosts).where(hosts.c.rollout.in_(watched)).values(cursor=None))
    for column in _MOMENTS:
        tx.connection.execute(update(column.table).where(column.is_not(None)).values({column: tx.now()}))
