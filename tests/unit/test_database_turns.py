"""Transactions of one process on PostgreSQL: so many at a time, and whoever comes then waits for one of their connections."""

import threading
from contextlib import contextmanager

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout

from rollout.store import postgresql
from rollout.store.postgresql import KEPT, Turns


class Connections:
    """Counts those that are in use, and the most that ever were."""

    def __init__(self):
        self.lock, self.used, self.most = threading.Lock(), 0, 0

    @contextmanager
    def begin(self):
        with self.lock:
            self.used += 1
            self.most = max(self.most, self.used)
        try:
            yield self
        finally:
            with self.lock:
                self.used -= 1


def held(turns, connections, many):
    """Threads that stand in a transaction each; what lets them go on."""
    end, begun = threading.Event(), threading.Semaphore(0)

    def stand():
        with turns.transaction(connections.begin):
            begun.release()
            end.wait(30)

    threads = [threading.Thread(target=stand, daemon=True) for _ in range(many)]
    for thread in threads:
        thread.start()
    for _ in range(min(many, KEPT)):
        assert begun.acquire(timeout=30)

    def let_go():
        end.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()

    return let_go


def test_many_threads_use_few_connections():
    """Who finds all in use waits, and has his turn when one is free; no further connection is made for him."""
    turns, connections = Turns(), Connections()
    held(turns, connections, 3 * KEPT)()
    assert connections.most == KEPT
    assert connections.used == 0


def test_one_within_another_does_not_wait_for_itself():
    """A thread that has its turn and reads within its transaction needs no second one, and gives its turn back once."""
    turns, connections = Turns(), Connections()
    let_go = held(turns, connections, KEPT - 1)
    with turns.transaction(connections.begin), turns.transaction(connections.begin):
        assert connections.used == KEPT + 1
    with turns.transaction(connections.begin), pytest.raises(KeyError), turns.transaction(connections.begin):
        raise KeyError
    let_go()
    held(turns, connections, KEPT)()


def test_nobody_waits_for_ever(monkeypatch):
    """Where none becomes free in time there is an error, which the store tells as a database that does not answer; the next one has his turn."""
    turns, connections = Turns(), Connections()
    let_go = held(turns, connections, KEPT)
    monkeypatch.setattr(postgresql, "TURN_S", 0.05)
    with pytest.raises(PoolTimeout), turns.transaction(connections.begin):
        pass
    let_go()
    with turns.transaction(connections.begin):
        assert connections.used == 1
