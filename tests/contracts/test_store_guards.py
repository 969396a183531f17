"""What a claim asks for before it is given: the host's state, the rollout's state, the PASS."""

from dataclasses import replace

import pytest

from rollout.domain.model import UNREAD, Member, Role
from rollout.domain.states import HostEvent, HostState, RolloutEvent
from rollout.store import clock as store_clock
from rollout.store.rollouts import Planned
from rollout.store.store import Store

SHA = "a" * 40
H, HE, RE = HostState, HostEvent, RolloutEvent


def fanning_out(tx, *, status="pass"):
    """A rollout that fans out, its three hosts prepared."""
    fleet = [
        (Member(f"web{n}", f"127.1.0.{n}", 22, "deploy", {}, "/srv/shop"), Role.OTHER if n else Role.CANARY)
        for n in range(3)
    ]
    rollout = tx.rollouts.add(
        Planned("shop", SHA, [SHA], None, "d" * 64, "ann", {}, 2, "ramp", 10, 3, fleet), why="test"
    )
    for event in (RE.START, RE.CANARY_DEPLOYED, RE.CANARY_PASSED):
        rollout = tx.rollouts.change(rollout, event, who="test", canary_status=status)
    for host in tx.hosts.of(rollout.id):
        tx.hosts.change(tx.claims.preparation(host.id, "w", 15), HE.PREPARED, who="w")
    return rollout, tx.hosts.of(rollout.id)


def test_a_claim_asks_for_the_hosts_state(store):
    """A message about a host that is elsewhere by now finds nothing to do, and is no error."""
    with store.transaction() as tx:
        _, (_, host, _) = fanning_out(tx)
        assert tx.claims.preparation(host.id, "w", 15) is None
        assert tx.claims.reading(host.id, "w", 15) is None
        claim = tx.claims.activation(host.id, "w", 15)
        tx.hosts.change(claim, HE.DONE, who="w", token=False)
        for again in (tx.claims.preparation, tx.claims.activation, tx.claims.reading):
            assert again(host.id, "w", 15) is None
        assert tx.hosts.get(host.id).state is H.DONE


def test_a_fan_out_without_a_pass_in_its_row_starts_nothing(store):
    """I11: whatever brought it into this state, without the PASS no host beyond the canary is switched."""
    with store.transaction() as tx:
        _, (_, host, _) = fanning_out(tx, status="inconclusive")
        assert tx.claims.activation(host.id, "w", 15) is None


def test_a_host_that_waits_for_its_retry_does_not_start_while_halted(store):
    """Its token is no right to start: the rollout's state is asked again."""
    with store.transaction() as tx:
        rollout, (_, host, _) = fanning_out(tx)
        claim = tx.claims.activation(host.id, "w", 15)
        tx.hosts.change(claim, HE.RETRY, who="w", attempt=2)
        assert tx.hosts.get(host.id).token
        tx.rollouts.change(
            tx.rollouts.get(rollout.id), RE.HALT, who="w", halted_stage=rollout.state, canary_status="pass"
        )
        assert tx.claims.activation(host.id, "w", 15) is None


def test_a_prepare_learns_that_it_is_no_longer_wanted(store):
    """The claim is the row's last one and its rollout is under way: only then it goes on."""
    with store.transaction() as tx:
        rollout, (_, host, _) = fanning_out(tx)
        tx.hosts.change(host, HE.ACTIVATE, who="w")
        back = tx.hosts.change(tx.hosts.get(host.id), HE.PREPARE_AGAIN, who="w")[0]
        claim = tx.claims.preparation(back.id, "w", 15)
        assert all(tx.claims.still_hold([claim]))
        assert not any(tx.claims.still_hold([back]))
        tx.rollouts.change(tx.rollouts.get(rollout.id), RE.STOP, who="ann")
        assert not any(tx.claims.still_hold([claim]))


def test_every_edge_of_a_host_has_its_event(store):
    """I7: who, from where, to where, in the order in which it happened."""
    with store.transaction() as tx:
        rollout, (_, host, _) = fanning_out(tx)
        tx.hosts.change(tx.claims.activation(host.id, "w7", 15), HE.FAIL, who="w7", why="boom")
        events = [event for event in tx.events.of_rollout(rollout.id) if event.subject == "host web1"]
    assert [(event.before, event.after) for event in events] == [
        ("pending", "preparing"),
        ("preparing", "prepared"),
        ("prepared", "activating"),
        ("activating", "failed"),
    ]
    assert (events[-1].who, events[-1].why) == ("w7", "boom")


@pytest.mark.needs("postgresql")
def test_a_database_without_an_encoding_is_one_like_any_other(postgres):
    """A cluster that was made with the C locale answers in text all the same, and keeps what is not ASCII."""
    store = Store(postgres.database("ENCODING 'SQL_ASCII' TEMPLATE template0"))
    store.prepare()
    with store.transaction() as tx:
        tx.commits.add("shop", "a" * 40, who="Zoë", why="pushed")
    with store.reading() as tx:
        (event,) = tx.events.of_subject("shop", f"commit {'a' * 40}")
    assert event.who == "Zoë"
    store.close()


def test_a_late_report_records_nothing_over_a_newer_claims(store):
    """I5: what a host runs is written by the latest claim that reported, whichever rollout it was of; a lost outcome too."""
    newer = "b" * 40
    with store.transaction() as tx:
        _, (_, host, _) = fanning_out(tx)
        old = tx.claims.activation(host.id, "w", 15)
        new = replace(old, epoch=old.epoch + 1, operation=old.epoch + 1)
        tx.fleet.runs(new, newer, settled=True)
        tx.fleet.runs(old, SHA, settled=True)
        tx.fleet.unread(old)
        tx.fleet.owe(old, SHA)
        (known,) = (one for one in tx.fleet.hosts("shop") if one.name == host.name)
        assert (known.release, known.operation, known.owes) == (newer, new.epoch, False)
        tx.fleet.unread(new)
        tx.fleet.found(old, SHA)
        (known,) = (one for one in tx.fleet.hosts("shop") if one.name == host.name)
        assert known.release == UNREAD


def test_what_a_host_owes_is_the_next_claims_until_it_is_settled(store):
    """I2: a claim learns where the host should have gone back to; a reading that shows it there ends that."""
    with store.transaction() as tx:
        _, (_, host, _) = fanning_out(tx)
        earlier = replace(host, epoch=1, operation=1)
        tx.fleet.owe(earlier, None)
        claim = tx.claims.activation(host.id, "w", 15)
        assert (claim.owes, claim.owed) == (True, None)
        tx.claims.touch([(claim, SHA)], 15)
        touched = tx.hosts.get(claim.id)
        assert (touched.previous, touched.way_back) == (SHA, None)
        tx.fleet.runs(claim, SHA)
        assert _known(tx, host).owes
        tx.fleet.runs(claim, None)
        assert not _known(tx, host).owes


def _known(tx, host):
    return next(one for one in tx.fleet.hosts("shop") if one.name == host.name)


def test_a_permit_gives_no_more_than_what_is_left_of_the_lease(store, monkeypatch):
    """I2: a worker that was late may act until its lease ends, not for a whole lease from now on."""
    now = [1000.0]
    monkeypatch.setattr(store_clock, "store_seconds", lambda _connection: now[0])
    monkeypatch.setattr(store_clock, "own_seconds", lambda: now[0])
    with store.transaction() as tx:
        _, (_, host, _) = fanning_out(tx)
        claim = tx.claims.activation(host.id, "w", 15)
        assert tx.claims.touch([(claim, None)], 15)[0] == pytest.approx(15)
        now[0] += 12
        assert tx.claims.touch([(claim, None)], 15)[0] == pytest.approx(3)
        touched = replace(claim, touched=True)
        assert tx.claims.leases_left([touched], 15)[0] == pytest.approx(3)
        now[0] += 3
        assert tx.claims.touch([(claim, None)], 15) == [0.0]
        assert tx.claims.leases_left([touched], 15) == [0.0]
