"""A worker has lost a host that still has its order in hand: whatever becomes of the host's row, a stop deals with it."""

import pytest

from rollout.domain.states import CommitState, HostState, RolloutState
from rollout.errors import HostKeyRefused, OutcomeUnknown, StepFailed
from rollout.services import halts, stopping
from tests.support.model_host import at_once, switch_call
from tests.support.world import World


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Ten hosts."""
    return World(tmp_path, monkeypatch)


def of(world, name):
    """The host in the newest rollout."""
    with world.store.reading() as tx:
        return next(host for host in tx.hosts.of(world.newest().id) if host.name == name)


class InHand:
    """The order of one host: it was permitted, its connection broke, and the host will act on it when we say."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.true = world.fleet.activate
        self.steps = self.call = None
        world.fleet.activate = self.activate

    def activate(self, target, order, permit, *, timeout_s, on_switch=None):
        if target.name != self.name or self.steps is not None:
            return self.true(target, order, permit, timeout_s=timeout_s, on_switch=on_switch)
        host = self.world.fleet.hosts[self.name]
        self.call = switch_call(host, "activate", order)
        self.steps = self.call.run()
        next(self.steps)
        self.within = permit(self.call.reply.greeting())
        raise OutcomeUnknown(f"{self.name}: the connection broke")

    def arrives(self):
        """The host acts on it now, if its fence lets it."""
        at_once(self.steps, self.within)
        return self.call.reply.answer


@pytest.fixture
def in_hand(world):
    """A good release everywhere; of the next one web05 has the order in hand, and nobody can reach it."""
    world.push()
    world.settle()
    order = InHand(world, "web05")
    world.push()
    host = world.fleet.hosts["web05"]
    world.run(until=lambda: setattr(host, "unreachable", order.steps is not None) or order.steps is not None)
    world.run(until=lambda: of(world, "web05").state is HostState.UNKNOWN)
    return order


def excluded(world):
    halts.exclude("shop", ["web05"], world.deps, who="me", why="bad memory")


def shows_another_key(world):
    true, host = world.fleet.status, world.fleet.hosts["web05"]

    def status(target, **options):
        if target.name == "web05":
            world.fleet.status, host.unreachable = true, True
            raise HostKeyRefused("web05: its host key has changed")
        return true(target, **options)

    host.unreachable, world.fleet.status = False, status
    world.run(until=lambda: of(world, "web05").state is HostState.FAILED, seconds=30)


@pytest.mark.parametrize("befalls", [excluded, shows_another_key])
def test_a_host_with_an_order_in_hand_is_sealed_by_a_stop(world, in_hand, befalls):
    """Excluded or failed meanwhile: the stop seals it all the same, the order is refused, and the host goes back."""
    befalls(world)
    host = world.fleet.hosts["web05"]
    good = host.current
    host.unreachable = False
    stopping.stop(world.newest().id, world.deps, who="me", why="enough")
    world.run(until=lambda: world.newest().state is not RolloutState.STOPPING)
    assert world.newest().unconfirmed == ()
    assert in_hand.arrives() == "refused"
    world.settle()
    assert (host.current, of(world, "web05").state) == (good, HostState.ROLLED_BACK)


@pytest.mark.parametrize("befalls", [excluded, shows_another_key])
def test_a_silent_host_with_an_order_in_hand_is_named(world, in_hand, befalls):
    """What cannot be sealed is unconfirmed, by its name, after the longest time; not a moment earlier."""
    befalls(world)
    accepted = stopping.stop(world.newest().id, world.deps, who="me", why="enough")
    began = world.seconds
    assert "web05" in accepted.leased
    world.run(until=lambda: world.newest().state is not RolloutState.STOPPING)
    assert world.newest().unconfirmed == ("web05",)
    assert world.seconds - began >= accepted.longest_s - stopping.ROUNDS_S


def test_a_reading_that_ends_oddly_decides_nothing(world):
    """The canary was switched and its answer lost; its first reading cannot even fork: it is read again, nothing is barred."""
    world.push()
    world.settle()
    host, true = world.fleet.hosts["web01"], world.fleet.status

    def status(target, **options):
        world.fleet.status = true
        raise StepFailed("web01: ended with 255: fork: Resource temporarily unavailable")

    def lose_it():
        host.loses_answer, host.after_act, world.fleet.status = 1, lambda: None, status

    host.after_act = lose_it
    sha = world.push()
    world.settle()
    assert world.fleet.status == true
    assert (world.newest().commit, world.newest().state) == (sha, RolloutState.DONE)
    with world.store.reading() as tx:
        assert tx.commits.get("shop", sha).state is CommitState.PASSED
