"""Many writers of one process under one commit on SQLite: what each of them is promised."""

import gc
import signal
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event

from rollout.domain.model import AppName
from rollout.errors import Conflict, ServiceUnavailable
from rollout.store import store as rooms
from tests.support import stores
from tests.support.processes import until

APP = AppName("shop")


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """The machine may be slow: who waits joins, however long it took."""
    monkeypatch.setattr("rollout.store.writers.TOGETHER_S", 60.0)


@pytest.fixture
def opened(tmp_path):
    """A store on SQLite."""
    stores.put(tmp_path / "rollout.db")
    mine = rooms.Store(f"sqlite:///{tmp_path}/rollout.db")
    mine.prepare()
    yield mine
    mine.close()


@pytest.fixture
def commits(opened):
    """A list that grows with each commit."""
    seen = []
    event.listen(opened._engine, "commit", seen.append)
    return seen


def add(store, name, *, then=lambda: None):
    """One writer: a commit's row."""
    with store.transaction() as tx:
        tx.commits.add(APP, name, who="test", why="test")
        then()


def known(store, *names):
    """Those of them that are in the database, as everybody else sees it."""
    with store.reading() as tx:
        return [name for name in names if tx.commits.get(APP, name) is not None]


def together(store, first, *others):
    """The first one writes until all others wait for their turn; what each of them raised, in that order."""
    waiting = store._writers._waiting
    inside = threading.Event()

    def begin():
        inside.set()
        until(lambda: len(waiting) == len(others), what="the others to wait")

    with ThreadPoolExecutor(8) as pool:
        ends = [pool.submit(first, begin)]
        assert inside.wait(10)
        for number, other in enumerate(others, 1):
            ends.append(pool.submit(other))
            until(lambda number=number: len(waiting) >= number, what="it to wait")
        return [end.exception(timeout=20) for end in ends]


def test_those_who_wait_share_a_commit(opened, commits):
    """Three threads that write at once are committed once, and all is there when they return."""
    before = len(commits)
    told = together(
        opened,
        lambda begin: add(opened, "a", then=begin),
        lambda: add(opened, "b"),
        lambda: add(opened, "c"),
    )
    assert told == [None, None, None]
    assert len(commits) - before == 1
    assert known(opened, "a", "b", "c") == ["a", "b", "c"]


def test_nobody_returns_before_the_commit(opened):
    """Whoever has written first still waits while the next one writes: what it wrote is nobody's until it is committed."""
    going_on, seen = threading.Event(), []

    def first(begin):
        add(opened, "a", then=begin)
        seen.append(known(opened, "a", "b"))

    def second():
        add(opened, "b", then=lambda: (seen.append(known(opened, "a", "b")), going_on.set()))

    assert together(opened, first, second) == [None, None]
    assert going_on.is_set()
    assert seen == [[], ["a", "b"]]


def test_an_exception_undoes_its_own_part_alone(opened):
    """One of three fails in the middle of its transaction: the others' work is committed, its own is gone, and it knows."""

    def broken():
        raise ValueError("no")

    told = together(
        opened,
        lambda begin: add(opened, "a", then=begin),
        lambda: add(opened, "b", then=broken),
        lambda: add(opened, "c"),
    )
    assert [type(one) for one in told] == [type(None), ValueError, type(None)]
    assert known(opened, "a", "b", "c") == ["a", "c"]


def test_a_commit_that_fails_fails_for_all(opened):
    """The disk refuses the commit: each of its writers is told, nothing of it is there, and the next one gets through."""
    refused = []

    def refuse(_connection):
        if not refused:
            refused.append(True)
            raise OSError("no space left on device")

    event.listen(opened._engine, "commit", refuse)
    told = together(opened, lambda begin: add(opened, "a", then=begin), lambda: add(opened, "b"))
    assert [type(one) for one in told] == [ServiceUnavailable] * 2
    assert "no space left" in str(told[0])
    assert known(opened, "a", "b") == []
    add(opened, "c")
    assert known(opened, "c") == ["c"]


def test_what_the_database_undoes_by_itself_is_told_to_all(opened):
    """SQLite rolls the whole transaction back in the second one's part: the first one must not believe that it has written."""

    def second():
        with opened.transaction() as tx:
            tx.connection.connection.dbapi_connection.execute("ROLLBACK")

    told = together(opened, lambda begin: add(opened, "a", then=begin), second)
    assert isinstance(told[0], ServiceUnavailable)
    assert told[1] is not None
    assert known(opened, "a") == []
    add(opened, "c")
    assert known(opened, "c") == ["c"]


def test_one_that_gives_up_waiting_leaves_nobody_behind(tmp_path, monkeypatch):
    """A thread waits too long and goes away with an error; the one that it waited for commits all the same."""
    monkeypatch.setattr(rooms, "BUSY_S", 0.05)
    opened = rooms.Store(f"sqlite:///{tmp_path}/rollout.db")
    opened.prepare()
    gone = threading.Event()

    def second():
        try:
            add(opened, "b")
        finally:
            gone.set()

    def first(begin):
        add(opened, "a", then=lambda: (begin(), gone.wait(10)))

    told = together(opened, first, second)
    assert told[0] is None
    assert isinstance(told[1], ServiceUnavailable)
    assert "other threads" in str(told[1])
    assert known(opened, "a", "b") == ["a"]
    add(opened, "c")
    assert known(opened, "c") == ["c"]
    opened.close()


def test_who_closes_the_store_commits_what_was_handed_on_to_him(opened):
    """A thread closes the store while another one writes, and a third waits behind it: both are committed, and return."""
    told = together(
        opened,
        lambda begin: add(opened, "a", then=begin),
        opened.close,
        lambda: add(opened, "b"),
    )
    assert told == [None, None, None]
    assert known(opened, "a", "b") == ["a", "b"]


def test_ctrl_c_while_waiting_for_the_turn_takes_it_from_nobody(opened):
    """The main thread is interrupted while it waits: whoever wrote before it commits, and others go on."""
    inside, interrupted = threading.Event(), threading.Event()
    main = threading.get_ident()

    def first():
        add(opened, "a", then=lambda: (inside.set(), interrupted.wait(10)))

    def interrupt():
        until(lambda: opened._writers._waiting, what="the main thread to wait")
        signal.pthread_kill(main, signal.SIGINT)

    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(first)
        assert inside.wait(10)
        pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            add(opened, "b")
        interrupted.set()
        assert writing.exception(timeout=20) is None
    add(opened, "c")
    assert known(opened, "a", "b", "c") == ["a", "c"]


def test_ctrl_c_in_a_statement_undoes_its_own_part_alone(opened):
    """An interruption in the middle of a statement: the others of the commit are committed, and the lock is free at once."""
    armed = []

    def interrupt(*_):
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    def second():
        with opened.transaction() as tx:
            tx.commits.add(APP, "b", who="test", why="test")
            armed.append(True)
            tx.commits.starting_with(APP, "x")

    event.listen(opened._engine, "do_execute", interrupt)
    told = together(opened, lambda begin: add(opened, "a", then=begin), second, lambda: add(opened, "c"))
    assert [type(one) for one in told] == [type(None), KeyboardInterrupt, type(None)]
    add(opened, "d")
    assert known(opened, *"abcd") == list("acd")


def test_ctrl_c_in_the_commit_is_nobody_elses(opened):
    """The thread that commits is interrupted before it has: it is told that, the other that nothing was written, and so it is."""
    armed = [True]

    def interrupt(_connection):
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    event.listen(opened._engine, "commit", interrupt)
    told = together(opened, lambda begin: add(opened, "a", then=begin), lambda: add(opened, "b"))
    assert [type(one) for one in told] == [ServiceUnavailable, KeyboardInterrupt]
    add(opened, "c")
    assert known(opened, *"abc") == ["c"]


def test_what_rests_on_others_that_were_not_committed_is_not_said(opened):
    """The second one finds the first one's row and refuses; then the commit fails: it says that, and not what was never true."""

    def refuse(_connection):
        raise OSError("no space left on device")

    def second():
        with opened.transaction() as tx:
            if tx.commits.get(APP, "a") is not None:
                event.listen(opened._engine, "commit", refuse)
                raise Conflict("there is one already")

    told = together(opened, lambda begin: add(opened, "a", then=begin), second)
    assert [type(one) for one in told] == [ServiceUnavailable] * 2


def test_a_long_commit_takes_nobody_more(opened, commits, monkeypatch):
    """So many under one commit and no more: the lock is let go of, for other processes."""
    monkeypatch.setattr("rollout.store.writers.TOGETHER", 2)
    before = len(commits)
    told = together(
        opened,
        lambda begin: add(opened, "a", then=begin),
        *[lambda name=name: add(opened, name) for name in "bcd"],
    )
    assert told == [None] * 4
    assert len(commits) - before == 2
    assert known(opened, *"abcd") == list("abcd")


def test_the_log_is_written_back_beside_the_writers(opened, monkeypatch):
    """Long before a writer would have to do it, while all others wait for him."""
    monkeypatch.setattr("rollout.store.checkpoints.EVERY", 5)
    file = Path(opened.place.removeprefix("sqlite:///"))
    before = file.stat().st_mtime_ns
    for number in range(5):
        add(opened, f"{number}")
    until(lambda: file.stat().st_mtime_ns > before, what="its log written back into the file")


def test_who_closes_a_store_waits_for_its_log_and_may_write_again(opened, monkeypatch):
    """No thread is left of it, and the next commits have theirs."""
    monkeypatch.setattr("rollout.store.checkpoints.EVERY", 1)
    others = set(threading.enumerate())
    for name in ("first", "second"):
        add(opened, name)
        opened.close()
        assert set(threading.enumerate()) <= others
    assert known(opened, "first", "second") == ["first", "second"]


def test_a_store_that_nobody_closes_goes_with_its_threads(tmp_path, monkeypatch):
    """What wrote its log back does not keep it, nor its files."""
    monkeypatch.setattr("rollout.store.checkpoints.EVERY", 1)
    mine = rooms.Store(f"sqlite:///{tmp_path}/rollout.db")
    mine.prepare()
    add(mine, "first")
    engine = weakref.ref(mine._engine)
    del mine

    def is_gone():
        gc.collect()
        return engine() is None

    until(is_gone, what="the store's engine let go")


def test_without_a_thread_for_the_log_writers_write(opened, monkeypatch):
    """A process that may have no more threads commits as before."""
    monkeypatch.setattr("rollout.store.checkpoints.EVERY", 1)

    def cannot(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", cannot)
    for name in ("first", "second"):
        add(opened, name)
    assert known(opened, "first", "second") == ["first", "second"]
