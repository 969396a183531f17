"""A PostgreSQL behind a network that falls silent: on neither side anything waits for it for ever."""

import contextlib
import threading

import pytest
from alembic import command
from sqlalchemy.engine import make_url

from rollout.errors import ServiceUnavailable
from rollout.store import postgresql
from rollout.store.store import Store
from tests.support.proxy import proxy

pytestmark = pytest.mark.needs("postgresql")


@pytest.fixture
def address(postgres):
    return make_url(postgres.prepared())


@pytest.fixture
def near(address):
    """A store beside its database."""
    opened = Store(address.render_as_string(hide_password=False))
    opened.prepare()
    yield opened
    opened.close()


@pytest.fixture
def through(address, near):
    """A proxy in front of the database."""
    with proxy((address.host, address.port)) as running:
        yield running


@pytest.fixture
def far(address, through, monkeypatch):
    """The same store as seen through the proxy, its limits shorter so that the tests are."""
    monkeypatch.setattr(postgresql.Impatient, "patience_s", 1.0)
    options = postgresql._CONNECT["options"].replace(
        f"session_timeout={postgresql.IDLE_S}000 ", "session_timeout=500 "
    )
    monkeypatch.setitem(postgresql._CONNECT, "options", options)
    opened = Store(address.set(port=through.port).render_as_string(hide_password=False))
    yield opened
    opened.close()


def lock_app(tx):
    return tx.apps.next_epoch("shop")


def test_a_lock_does_not_outlive_a_worker_that_is_cut_off(near, far, through):
    """A worker that falls silent in the middle of a transaction keeps a stop waiting for seconds, not for a minute."""
    with near.transaction() as tx:
        lock_app(tx)
    held, healed = threading.Event(), threading.Event()

    def work():
        with contextlib.suppress(ServiceUnavailable), far.transaction() as tx:
            lock_app(tx)
            through.freeze()
            held.set()
            healed.wait(60)

    worker = threading.Thread(target=work)
    worker.start()
    assert held.wait(20)
    try:
        with near.transaction() as tx:  # the database itself gives up after LOCK_S
            lock_app(tx)
    finally:
        healed.set()
        through.cut()
        worker.join(60)


def test_an_answer_that_never_comes_is_an_error(near, far, through):
    """A connection over which nothing comes back is given up, and the next transaction has another one."""

    def ask():
        with far.reading() as tx:
            through.freeze()
            tx.now()

    with pytest.raises(ServiceUnavailable, match="no answer within 1 s"):
        ask()
    with far.reading() as tx:
        assert tx.now() > 0


def test_a_connection_that_died_while_idle_is_replaced(near, far, through, monkeypatch):
    """The first transaction after a cut that nobody noticed gets a connection that works."""
    monkeypatch.setattr(postgresql, "ALIVE_S", 0.0)
    with near.transaction() as tx:
        lock_app(tx)
    with far.transaction() as tx:
        before = lock_app(tx)
    through.freeze()
    with far.transaction() as tx:
        assert lock_app(tx) > before


def test_a_connection_that_was_just_used_is_not_asked_whether_it_lives(near, far, through, monkeypatch):
    """When it died all the same, one transaction is refused, and the next one has another connection."""
    monkeypatch.setattr(postgresql, "ALIVE_S", 60.0)
    with far.transaction() as tx:
        before = lock_app(tx)
    through.cut()
    with pytest.raises(ServiceUnavailable), far.transaction() as tx:
        lock_app(tx)
    with far.transaction() as tx:
        assert lock_app(tx) > before


def test_a_migration_may_take_its_time(postgres, monkeypatch):
    """What holds for a short transaction does not hold for the one that changes the schema."""
    options = postgresql._CONNECT["options"].replace(
        f"session_timeout={postgresql.IDLE_S}000 ", "session_timeout=200 "
    )
    monkeypatch.setitem(postgresql._CONNECT, "options", options)
    upgrade = command.upgrade

    def slowly(config, revision):
        connection = config.attributes["connection"]
        assert connection.connection.driver_connection.patience_s is None
        threading.Event().wait(0.6)  # idle in the middle of its transaction
        upgrade(config, revision)

    monkeypatch.setattr(command, "upgrade", slowly)
    store = Store(postgres.database())
    try:
        store.prepare()
        assert store.ready()
    finally:
        store.close()


def test_a_lock_is_waited_for_longer_than_a_silent_client_keeps_it():
    """The limits fit each other: a lock is free before its waiter gives up, and a waiter is answered before it hangs up."""
    assert postgresql.IDLE_S < postgresql.LOCK_S < postgresql.ANSWER_S
