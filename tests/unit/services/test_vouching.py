"""A host that says that it has switched needs no seal when its rollout is stopped: that order makes no second switch."""

import pytest

from rollout.domain.states import RolloutState
from rollout.services import reconcile, stopping
from tests.support.released import released

R = RolloutState


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Three hosts with a first release; the second release's switch of web02 is stopped in its middle, as `during` says."""
    world = released(tmp_path, monkeypatch, hosts=3)
    world.asked, status, activate = [], world.fleet.status, world.fleet.activate

    def stopped_meanwhile(target, order, permit, *, timeout_s, on_switch):
        outcome = activate(target, order, permit, timeout_s=timeout_s, on_switch=on_switch)
        if target.name == "web02" and world.newest().id == 2:
            world.during(on_switch)
        return outcome

    def listed(target, **more):
        world.asked.append(target.name)
        return status(target, **more)

    monkeypatch.setattr(world.fleet, "activate", stopped_meanwhile)
    monkeypatch.setattr(world.fleet, "status", listed)
    return world


def stop(world):
    stopping.stop(2, world.deps, who="me", why="slow")
    reconcile.watch(world.deps)
    with world.store.reading() as tx:
        return tx.rollouts.get(2)


@pytest.mark.parametrize("told", [True, False])
def test_who_has_said_so_is_not_asked(world, told):
    """The stop is acknowledged without asking the host; one that has not said so is sealed first."""
    seen = []

    def during(on_switch):
        if told:
            on_switch()
        seen.append((stop(world), list(world.asked)))

    world.during = during
    world.push()
    world.run(seconds=300, until=lambda: seen)
    stopped, asked = seen[0]
    assert (stopped.state, stopped.unconfirmed) == (R.ROLLING_BACK, ())
    assert asked == ([] if told else ["web02"])
    world.settle()
    assert world.newest().state is R.ROLLED_BACK
    assert set(world.runs().values()) == {f"{1:040x}"}


def test_what_was_said_of_an_earlier_claim_counts_for_nothing(world):
    """Another worker may have claimed the host since: the word of the first one is no word on that order."""
    seen = []

    def during(on_switch):
        on_switch()
        with world.store.transaction() as tx:
            host = next(host for host in tx.hosts.of(2) if host.name == "web02")
            tx.hosts.update(host)
        seen.append((stop(world), list(world.asked)))

    world.during = during
    world.push()
    world.run(seconds=300, until=lambda: seen)
    assert seen[0][1] == ["web02"]


def test_it_is_forgotten_with_the_lease(world):
    """A process remembers what its hosts have said for as long as it works on them."""
    world.during = lambda on_switch: on_switch()
    world.push()
    world.settle()
    assert world.newest().state is R.DONE
    assert world.deps.leases.switched() == {}
