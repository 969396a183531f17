"""What a host runs is recorded when it was read or told, and is `unknown` until then: never a guess (I5)."""

import itertools

import pytest

from rollout.domain.model import UNREAD
from rollout.domain.states import HostState, RolloutState
from rollout.services import hosts, reconcile, stopping, verifying, views
from tests.support.checker.check import check
from tests.support.checker.read import world as told
from tests.support.released import first_release
from tests.support.world import World


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch, hosts=6, fan_out="max_failed = 2")


@pytest.fixture
def lost(world):
    """web05, which acts, loses its answer and is then out of reach; the rollout is done without it."""
    first_release(world)
    host = world.fleet.hosts["web05"]

    def vanish():
        host.loses_answer, host.unreachable = 1, True

    host.after_act = vanish
    world.push()
    world.settle()
    host.after_act = lambda: None
    return host


def of(world, name):
    return next(host for host in world.rollout_hosts() if host.name == name)


def recorded(world, name="web05"):
    with world.store.reading() as tx:
        return next(host for host in tx.fleet.hosts("shop") if host.name == name)


def test_a_host_that_acts_and_then_refuses_our_key_is_not_known(world):
    """It stays unknown, and counts as failed when it has had its time; neither release is claimed to run on it."""
    first_release(world)
    host = world.fleet.hosts["web05"]

    def lock_us_out():
        host.loses_answer, host.refuses_login = 1, True

    host.after_act = lock_us_out
    world.push()
    world.settle()
    assert of(world, "web05").state is HostState.UNKNOWN
    assert of(world, "web05").unreadable
    assert recorded(world).release == UNREAD
    assert check(told(world)) == []


def test_a_host_is_not_known_from_the_moment_that_its_answer_was_lost(world):
    """While it is unknown in a rollout that goes on, nothing is recorded of it, whoever loses it: worker or answer."""
    first_release(world)
    host, silent = world.fleet.hosts["web05"], world.fleet.hosts["web06"]

    def vanish():
        host.loses_answer, host.unreachable = 1, True

    def die():
        silent.unreachable = True
        raise KeyboardInterrupt

    host.after_act, silent.before_act = vanish, die
    world.push()
    with pytest.raises(KeyboardInterrupt):
        world.settle()
    world.run(until=lambda: of(world, "web06").state is HostState.UNKNOWN)
    assert of(world, "web05").state is HostState.UNKNOWN
    assert (recorded(world, "web05").release, recorded(world, "web06").release) == (UNREAD, UNREAD)
    host.unreachable = silent.unreachable = False
    host.after_act = silent.before_act = lambda: None
    world.settle()
    assert (recorded(world, "web05").release, recorded(world, "web06").release) == (
        host.current,
        silent.current,
    )


def test_a_plain_reading_settles_nothing_while_an_order_may_act(world):
    """Somebody verifies while the host is unknown, and then a late order acts: only what the seal finds is recorded."""
    first_release(world)
    host = world.fleet.hosts["web05"]

    def die():
        host.unreachable = True
        raise KeyboardInterrupt

    host.before_act = die
    new = world.push()
    with pytest.raises(KeyboardInterrupt):
        world.settle()
    world.run(until=lambda: of(world, "web05").state is HostState.UNKNOWN)
    host.unreachable = False
    verifying.verify("shop", world.deps)
    known, late = recorded(world), of(world, "web05").operation
    host.current = new
    for what in ("intent", "done"):
        host.note(what, "activate", late, late, new)
    world.settle()
    assert (known.release, known.verified_at) == (UNREAD, None)
    assert (of(world, "web05").state, recorded(world).release) == (HostState.DONE, new)


def test_a_host_that_never_let_us_in_is_not_known(world):
    """Who refuses our key from the first word on may run anything: its old release is not claimed any more."""
    first_release(world)
    world.fleet.hosts["web05"].refuses_login = True
    world.push()
    world.settle()
    assert (of(world, "web05").state, recorded(world).release) == (HostState.FAILED, UNREAD)


def test_an_unknown_host_of_a_finished_rollout_is_read_when_it_is_back(world, lost):
    """Its outcome was not known at the end; once it answers, it is sealed and what it runs is recorded."""
    assert world.newest().state is RolloutState.DONE
    assert (of(world, "web05").state, recorded(world).release) == (HostState.UNKNOWN, UNREAD)
    lost.unreachable = False
    world.run(until=lambda: recorded(world).release == lost.current, seconds=400)
    assert recorded(world).release == lost.current
    assert lost.journal[-1].what == "seal"
    assert check(told(world)) == []


def test_looking_at_a_lost_host_is_tried_ever_less_often(world, lost):
    """A host that stays away is asked with back-off, for ever, and nothing else comes of it."""
    asked = []
    lost.reach = lambda: (
        asked.append(world.seconds) or (_ for _ in ()).throw(hosts.Unreachable("web05: no answer"))
    )
    world.run(seconds=300)
    waits = [after - before for before, after in itertools.pairwise(asked)]
    assert len(asked) > 5
    assert waits == sorted(waits)
    assert waits[-1] > 10 * waits[0]
    assert recorded(world).release == UNREAD


def test_nobody_looks_from_outside_while_a_rollout_deals_with_the_fleet(world, lost):
    """A seal of somebody else's would end an activation of the next rollout: while one is active it does its own reading."""
    lost.unreachable = False
    world.push()
    world.run(until=lambda: world.newest().state is RolloutState.EVALUATING_CANARY)
    with world.store.reading() as tx:
        assert tx.hosts.to_look_at() == []
    world.settle()
    assert of(world, "web05").state is HostState.DONE
    assert recorded(world).release == lost.current


def test_what_a_stop_has_revoked_is_not_the_reading_after_its_end(world, lost, monkeypatch):
    """Workers remember a revoked rollout for as long as they live: its hosts are read by messages that this does not meet."""
    sent = []
    monkeypatch.setattr(world.bell, "ring", sent.extend)
    world.seconds += 400
    reconcile.sweep(world.deps)
    assert [(ring.arguments[-1], ring.revocable) for ring in sent] == [("web05", False)]


def test_a_host_that_the_next_rollout_never_came_to_is_read_after_it(world):
    """Not known since the last rollout, and only prepared in the stopped one after it: its own row does not say that it is not known."""
    world.fleet.hosts["web05"].unreachable = True
    world.push()
    world.settle()
    assert recorded(world).release == UNREAD
    world.fleet.hosts["web05"].unreachable = False
    sha = world.push()
    world.run(until=lambda: world.newest().commit == sha and of(world, "web05").state is HostState.PREPARED)
    stopping.stop(world.newest().id, world.deps, who="me", why="enough")
    world.settle()
    assert (of(world, "web05").state, recorded(world).release) == (HostState.PREPARED, UNREAD)
    world.run(seconds=30)
    assert recorded(world).release is None


def test_verify_records_what_was_not_known(world, lost):
    """`hosts --verify` reads the disk of a host that nobody knew of; there is nothing that it could have drifted from."""
    with world.store.reading() as tx:
        before = views.fleet(tx, "shop")[4]
    lost.unreachable = False
    assert verifying.verify("shop", world.deps).unread == {}
    with world.store.reading() as tx:
        after = views.fleet(tx, "shop")[4]
    assert (before["release"], before["drift"], before["verified_at"]) == (UNREAD, None, None)
    assert (after["release"], after["drift"]) == (lost.current, False)
    assert lost.journal[-1].what == "seal"


def test_verify_says_why_a_lost_host_is_not_read(world, lost):
    """It is the reading of hosts that were lost, made at once: what that came upon is told."""
    assert [*verifying.verify("shop", world.deps).unread] == ["web05"]
    assert recorded(world).release == UNREAD


@pytest.mark.parametrize("first", [True, False])
def test_what_verify_read_before_a_switch_is_no_news_after_it(world, monkeypatch, first):
    """A rollout has switched the host meanwhile: it neither drifts, nor has it lost its disk, and nobody restarts it."""
    if not first:
        world.push()
        world.settle()
    true = world.fleet.status

    def slow(target, **how):
        status = true(target, **how)
        if target.name == "web05" and "seal" not in how:
            monkeypatch.setattr(world.fleet, "status", true)
            world.push()
            world.settle()
        return status

    monkeypatch.setattr(world.fleet, "status", slow)
    assert verifying.verify("shop", world.deps, threads=1).unread == {}
    sha, number = world.newest().commit, world.newest().id
    assert (recorded(world).release, recorded(world).found) == (sha, sha)
    world.run(seconds=120)
    with world.store.reading() as tx:
        assert "catch up" not in {event.what for event in tx.events.of_rollout(number)}


def test_each_reading_of_verify_is_written_at_once(world, monkeypatch):
    """Not when the slowest host has answered: by then it may be wrong of all others."""
    first_release(world)
    world.fleet.hosts["web01"].current = None
    true, seen = world.fleet.status, []

    def status(target, **how):
        if target.name == "web06":
            seen.append(recorded(world, "web01").found)
        return true(target, **how)

    monkeypatch.setattr(world.fleet, "status", status)
    verifying.verify("shop", world.deps, threads=1)
    assert seen == [None]


def test_verify_says_nothing_of_a_host_that_is_being_switched(world):
    """Its order has acted and its report is on its way: that the disk has the new release already is no drift."""
    first_release(world)
    host, found = world.fleet.hosts["web05"], []

    def verify():
        verifying.verify("shop", world.deps)
        found.append((recorded(world).found, host.current))

    host.after_act = verify
    old = recorded(world).release
    sha = world.push()
    world.settle()
    assert found == [(old, sha)]


@pytest.mark.parametrize("trouble", ["unreachable", "refuses_login"])
def test_a_host_that_could_not_be_brought_back_is_not_known(world, trouble):
    """It may run the stopped release or the one before: unknown until its rollback works, and it is tried until it does."""
    good = first_release(world)
    bad = world.push()
    host = world.fleet.hosts["web05"]
    world.run(until=lambda: host.current == bad)
    setattr(host, trouble, True)
    stopping.stop(world.newest().id, world.deps, who="me", why="enough")
    world.settle()
    assert (of(world, "web05").state, recorded(world).release) == (HostState.ROLLBACK_FAILED, UNREAD)
    setattr(host, trouble, False)
    world.run(until=lambda: of(world, "web05").state is HostState.ROLLED_BACK)
    assert (recorded(world).release, host.current) == (good, good)


def test_a_host_that_refuses_its_way_back_is_read(world):
    """A refusal says nothing of the disk: it is read at once, and that is recorded until the way back works."""
    good = first_release(world)
    bad = world.push()
    host = world.fleet.hosts["web05"]
    world.run(until=lambda: host.current == bad)
    host.before_act = lambda: setattr(world, "seconds", world.seconds + 20)
    stopping.stop(world.newest().id, world.deps, who="me", why="enough")
    world.settle()
    assert (of(world, "web05").state, recorded(world).release) == (HostState.ROLLBACK_FAILED, bad)
    host.before_act = lambda: None
    world.run(until=lambda: of(world, "web05").state is HostState.ROLLED_BACK)
    assert recorded(world).release == good


def test_a_host_whose_answer_was_lost_in_a_stop_is_read_before_it_is_recorded(world):
    """Its switch was done and its rollback refused: what is recorded is what a reading found, not what it ran before."""
    first_release(world)
    bad = world.push()
    host = world.fleet.hosts["web05"]

    def stop_now():
        host.loses_answer, host.after_act = 1, lambda: None
        host.before_act = lambda: setattr(world, "seconds", world.seconds + 20)  # the way back is late
        stopping.stop(world.newest().id, world.deps, who="me", why="enough")

    host.after_act = stop_now
    world.settle()
    assert of(world, "web05").state is HostState.ROLLBACK_FAILED
    assert (recorded(world).release, host.current) == (bad, bad)
