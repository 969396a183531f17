"""The threads beside a worker's tasks."""

import threading
from threading import Event
from types import SimpleNamespace

import pytest

from rollout.config.settings import Settings
from rollout.errors import ServiceUnavailable
from rollout.services import editions, reconcile
from workers import background

ROUNDS = {"sweep", "poll_all", "tell", "heal", "tidy"}


@pytest.mark.parametrize("name", sorted(ROUNDS))
def test_a_control_worker_goes_its_rounds(monkeypatch, name):
    """Each of them comes again after it failed: one that ends would take its promise along."""
    twice, rounds = Event(), []
    for other in ROUNDS:
        monkeypatch.setattr(reconcile, other, lambda *_: None)
    monkeypatch.setattr(editions, "tell", lambda *_, **__: None)

    def fail(*_):
        rounds.append(name)
        if len(rounds) == 2:
            twice.set()
        raise OSError("this round is bad")

    monkeypatch.setattr(reconcile, name, fail)
    for period in ("OUTBOX_S", "POLL_S", "HEAL_S", "TIDY_S"):
        monkeypatch.setattr(background, period, 0.01)
    fleet = SimpleNamespace(close=lambda: None)
    deps = SimpleNamespace(settings=Settings(reconcile_s=0.01), fleet=fleet)
    others = set(threading.enumerate())
    running = background.Background(deps, holds_connections=False)
    try:
        assert twice.wait(20)
    finally:
        running.stop()
        for thread in set(threading.enumerate()) - others:  # none may find the real rounds put back
            thread.join(20)


def test_a_control_worker_says_at_once_what_it_goes_by(monkeypatch):
    """Before any round has come; and a database that does not answer keeps nobody from beginning."""
    told = []

    def tell(deps, *, begins):
        told.append((deps, begins))
        raise ServiceUnavailable("the database does not answer")

    monkeypatch.setattr(editions, "tell", tell)
    deps = SimpleNamespace(settings=Settings(reconcile_s=600), fleet=SimpleNamespace(close=lambda: None))
    for period in ("OUTBOX_S", "POLL_S", "HEAL_S", "TIDY_S"):
        monkeypatch.setattr(background, period, 600.0)
    background.Background(deps, holds_connections=False).stop()
    assert told == [(deps, True)]


def test_a_hosts_worker_says_when_it_goes_by_another_file(monkeypatch):
    """It plans nothing then, and may have been left over from before an edit."""
    told = Event()
    for other in ("sweep", "watch"):
        monkeypatch.setattr(reconcile, other, lambda *_: None)
    monkeypatch.setattr(editions, "TOLD_EVERY_S", 0.01)
    monkeypatch.setattr(
        editions, "tell_astray", lambda part, _: told.set() if part == "hosts worker" else None
    )
    fleet = SimpleNamespace(close=lambda: None)
    settings = Settings(reconcile_s=600, gate_s=600)
    others = set(threading.enumerate())
    running = background.Background(
        SimpleNamespace(settings=settings, fleet=fleet, bell=None), holds_connections=True
    )
    try:
        assert told.wait(20)
    finally:
        running.stop()
        for thread in set(threading.enumerate()) - others:
            if thread.name == "edition":  # none may find the real one put back
                thread.join(20)
