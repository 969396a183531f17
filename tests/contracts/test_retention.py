"""Rows that only ever grow go when nobody can need them any more, on both databases."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from rollout.domain.deliveries import End, Outcome
from rollout.domain.model import Check, CheckState, Member, Push, Role
from rollout.domain.states import RolloutEvent
from rollout.domain.verdict import Interval
from rollout.store import journal, retention, tables
from rollout.store.rollouts import Planned
from rollout.store.store import Transaction

SHA = "a" * 40
RE = RolloutEvent
OLD_ENOUGH = timedelta(days=91)
KINDS = ("samples", "outputs", "events", "deliveries", "notices", "checks")


@pytest.fixture
def later(monkeypatch):
    """Lets time pass, for people's clock."""

    def later(ago):
        now = datetime.now(UTC) + ago
        monkeypatch.setattr(Transaction, "today", staticmethod(lambda: now))

    return later


def live_through(tx, *, ended):
    """A rollout that leaves rows of every kind behind."""
    commit, _ = tx.commits.add("shop", SHA, who="ann", why="test")
    tx.commits.change(commit, "test", who="w")
    commit = tx.commits.get("shop", SHA)
    tx.commits.change(commit, "pass", who="w", output="ok\n" * 1000, tested_at=tx.today())
    fleet = [(Member("web1", "127.1.0.1", 22, "deploy", {}, "/srv/shop"), Role.CANARY)]
    rollout = tx.rollouts.add(
        Planned("shop", SHA, [SHA], None, "d" * 64, "ann", {}, 2, "ramp", 10, 3, fleet), why="test"
    )
    tx.record("shop", "host web1", "prepared", who="w", rollout=rollout.id)
    tx.samples.add(rollout.id, [Interval(0.0, 1.0, "web1", "canary", True, {"2xx": 5}, "probe", ())])
    tx.outputs.add(rollout.id, "web1", "activate", 1, "restarted")
    tx.deliveries.add(Push("github", "1", "push", (), "main", SHA), "shop", End(Outcome.STARTED, ""))
    tx.checks.put(SHA, {"shop": Check("unit", CheckState.SUCCESS)})
    tx.notices.add("shop", rollout.id, "told", "of it")
    for notice in tx.notices.claim(0):
        tx.notices.sent(notice)
    tx.notices.add("shop", rollout.id, "not told yet", "of that")
    rollout = tx.rollouts.change(rollout, RE.STOP, who="ann", why="enough")
    if ended:
        tx.rollouts.change(rollout, RE.ACKNOWLEDGE, who="stop")
    return rollout


def rows(tx):
    """How many there are of each kind."""
    tx.events.write()
    tables_ = [getattr(tables, kind) for kind in KINDS]
    return {
        table.name: tx.connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in tables_
    }


def test_what_is_old_goes_and_the_audit_stays(store, later):
    """After its time everything that only grows is gone, but who did what to the rollout and its commit, and what waits."""
    with store.transaction() as tx:
        rollout = live_through(tx, ended=True)
        before = rows(tx)
    later(OLD_ENOUGH)
    with store.transaction() as tx:
        removed = tx.retention.tidy()
        assert removed == {
            "samples": 1, "outputs": 1, "events": 1, "deliveries": 1, "notices": 1, "checks": 1, "commits": 1,
        }  # fmt: skip
        assert rows(tx) == {name: count - 1 for name, count in before.items()}
        assert tx.rollouts.get(rollout.id).state == "stopped"
        assert tx.commits.get("shop", SHA).output == ""
        subjects = {event.subject for event in tx.events.of_rollout(rollout.id)}
        assert subjects == {f"rollout {rollout.id}"}
        assert [event.what for event in tx.events.of_subject("shop", f"commit {SHA}")][:1] == ["receive"]
        assert tx.retention.tidy() == dict.fromkeys(removed, 0)


def test_what_is_young_stays(store, later):
    """Until its time nothing goes, and each kind has its own."""
    with store.transaction() as tx:
        live_through(tx, ended=True)
        assert not any(tx.retention.tidy().values())
    later(retention.TOLD + timedelta(days=1))
    with store.transaction() as tx:
        removed = tx.retention.tidy()
    assert {name for name, count in removed.items() if count} == {"samples", "deliveries", "notices"}


def test_a_delivery_without_an_end_stays(store, later, monkeypatch):
    """However long its commit waits and however many come after it: it is there when it ends."""
    monkeypatch.setattr(journal, "KEPT_DELIVERIES", 500)
    with store.transaction() as tx:
        push = Push("github", "1", "push", head=SHA)
        waits = tx.deliveries.add(push, "shop", End(Outcome.ACCEPTED, ""))
        tx.deliveries.add_all([(push, "shop", End(Outcome.IGNORED, "another branch"))] * 999)
        counts = tx.deliveries.counts()
        assert counts["accepted"] == 1
        assert counts["ignored"] <= 500
    later(OLD_ENOUGH)
    with store.transaction() as tx:
        tx.retention.tidy()
        assert tx.deliveries.counts() == {"accepted": 1}
        tx.deliveries.end(waits, End(Outcome.STARTED, "", "rollout 1"))
        tx.retention.tidy()
        assert tx.deliveries.counts() == {}


def test_an_unfinished_rollout_keeps_everything(store, later):
    """However long it has waited for a person, its samples and its hosts' steps are there."""
    with store.transaction() as tx:
        live_through(tx, ended=False)
        before = rows(tx)
    later(OLD_ENOUGH)
    with store.transaction() as tx:
        tx.retention.tidy()
        after = rows(tx)
    assert {name for name in before if before[name] != after[name]} == {"deliveries", "notices", "checks"}


def test_a_batch_is_bounded(store, later, monkeypatch):
    """A backlog goes in many short transactions, the oldest first."""
    monkeypatch.setattr(retention, "BATCH", 3)
    with store.transaction() as tx:
        for number in range(5):
            tx.deliveries.add(
                Push("github", str(number), "push", (), "main", SHA), "shop", End(Outcome.IGNORED, "")
            )
    later(OLD_ENOUGH)
    with store.transaction() as tx:
        assert tx.retention.tidy()["deliveries"] == 3
        left = tx.connection.execute(select(tables.deliveries.c.delivery)).scalars().all()
        assert left == ["3", "4"]
