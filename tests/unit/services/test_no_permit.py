"""A host that nobody has told to switch needs no seal when its rollout is stopped: the stop itself sees to it that nobody will."""

import pytest

from rollout.domain.states import HostState, RolloutState
from rollout.services import reconcile, stopping
from tests.support.released import released

H, R = HostState, RolloutState


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Three hosts with a first release."""
    world = released(tmp_path, monkeypatch, hosts=3)
    world.asked, status = [], world.fleet.status

    def listed(target, **more):
        world.asked.append((target.name, more.get("asked", 0)))
        return status(target, **more)

    monkeypatch.setattr(world.fleet, "status", listed)
    return world


def of(world, name):
    """The host in the second rollout."""
    with world.store.reading() as tx:
        return next(host for host in tx.hosts.of(2) if host.name == name)


def stopped_before_the_permit(world, during=lambda: None):
    """The second release's switch of web02 is stopped when it has greeted; `during`: behind the acknowledgement."""
    seen = []

    def stop(name):
        if name == "web02" and not seen:
            seen.append(stopping.stop(2, world.deps, who="me", why="bad"))
            reconcile.watch(world.deps)
            during()

    world.fleet.before_permit = stop
    bad = world.push()
    world.run(seconds=300, until=lambda: seen)
    return seen[0], bad


def test_it_is_not_asked_and_gets_no_permit(world):
    """The stop is acknowledged at once, and the worker that asks for its permit afterwards gets none."""
    rows = []

    def acknowledged():
        with world.store.reading() as tx:
            rows.append((tx.rollouts.get(2), of(world, "web02"), list(world.asked)))

    accepted, bad = stopped_before_the_permit(world, acknowledged)
    ((rollout, host, asked),) = rows
    assert (accepted.leased, accepted.longest_s) == ((), stopping.SOON_S)
    assert (rollout.state, rollout.unconfirmed, asked) == (R.ROLLING_BACK, (), [])
    assert (host.state, host.token, host.touched, host.lease_owner) == (H.PREPARED, False, False, None)
    world.settle()
    assert world.newest().state is R.ROLLED_BACK
    assert bad not in world.fleet.hosts["web02"].activations
    assert set(world.runs().values()) == {f"{1:040x}"}


def test_a_silent_one_holds_no_stop_up(world):
    """Its worker is gone, and nobody can reach it: it was told nothing, so it is neither waited for nor named."""

    class Gone(BaseException):
        pass

    def leave(name):
        if name == "web02":
            world.fleet.hosts[name].unreachable = True
            raise Gone

    world.fleet.before_permit = leave
    world.push()
    with pytest.raises(Gone):
        world.settle()
    stopping.stop(2, world.deps, who="me", why="bad")
    assert stopping.drive(2, world.deps)
    with world.store.reading() as tx:
        assert tx.rollouts.get(2).unconfirmed == ()
    assert world.settle().state is R.ROLLED_BACK


def test_its_token_is_counted_back(world):
    """The counters of the rollout are those of its rows."""
    stopped_before_the_permit(world)
    with world.store.transaction() as tx:
        assert tx.rollouts.recount(2) == {}
        assert tx.rollouts.get(2).in_flight == 0


def test_the_history_says_why(world):
    """Whoever reads it sees that the stop took the claim back, and whose stop it was."""
    stopped_before_the_permit(world)
    with world.store.reading() as tx:
        (event,) = [one for one in tx.events.of_rollout(2) if one.what == "found untouched"]
    assert (event.subject, event.who, event.why) == ("host web02", "me", "stopped")


def test_one_that_was_permitted_is_sealed(world):
    """An order may still reach it. What came of that is not asked: its host would wait for the end."""
    world.fleet.cuts.add("web02")
    world.push()
    world.run(seconds=300, until=lambda: of(world, "web02").touched if world.newest().id == 2 else False)
    accepted = stopping.stop(2, world.deps, who="me", why="bad")
    assert accepted.leased == ("web02",)
    reconcile.watch(world.deps)
    assert world.asked[-1] == ("web02", 0)


def test_one_whose_worker_went_silent_before_it_was_told_holds_no_stop_up(world):
    """Its lease is over and nobody can reach it: it was waited for, and named as unconfirmed, though it has no permit and gets none."""

    class Gone(BaseException):
        """The worker is killed."""

    def leave(name):
        if name == "web02":
            world.fleet.hosts[name].unreachable = True
            raise Gone

    world.fleet.before_permit = leave
    world.push()
    with pytest.raises(Gone):
        world.settle()
    world.bell.queue.clear()
    world.seconds += 16
    reconcile.sweep(world.deps)
    assert (of(world, "web02").state, of(world, "web02").touched) == (H.UNKNOWN, False)
    assert stopping.stop(2, world.deps, who="me", why="bad").leased == ()
    reconcile.watch(world.deps)
    with world.store.reading() as tx:
        assert (tx.rollouts.get(2).state, tx.rollouts.get(2).unconfirmed) == (R.ROLLING_BACK, ())
    assert of(world, "web02").state is H.PREPARED
