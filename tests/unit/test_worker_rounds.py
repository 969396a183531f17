"""The threads beside a worker's tasks."""

import threading
from threading import Event
from types import SimpleNamespace

import pytest

from rollout.config.settings import Settings
from rollout.services import reconcile
from workers import background

ROUNDS = {"sweep", "poll_all", "tell", "heal", "tidy"}


@pytest.mark.parametrize("name", sorted(ROUNDS))
def test_a_control_worker_goes_its_rounds(monkeypatch, name):
    """Each of them comes again after it failed: one that ends would take its promise along."""
    twice, rounds = Event(), []
    for other in ROUNDS:
        monkeypatch.setattr(reconcile, other, lambda *_: None)

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
