"""The row is the truth, a message is a hint: whatever a broker does to messages, hosts do the same.

Each contract is a full rollout of 50 hosts, two of which fail, and must end with the journals of an undisturbed one.
"""

import random

import pytest

from rollout.domain.states import RolloutState
from rollout.services import reconcile
from tests.support.world import World

FAILING = ("web17", "web33")
EMPTIED_EVERY_S = 10.0


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A fleet that runs a first release."""
    world = World(tmp_path, monkeypatch, hosts=50, fan_out='max_failed = "10%"')
    world.push()
    assert world.settle().state is RolloutState.DONE
    yield world
    world.store.close()


def journals(world):
    """What each host did and for which commit; without epochs, and in no order."""
    return {
        name: sorted((entry.what, entry.verb, entry.commit) for entry in host.journal)
        for name, host in world.fleet.hosts.items()
    }


def ship(world, *, arrives=True, **disturbance):
    """A second release, with everything that becomes of it."""
    for name in FAILING:
        world.fleet.hosts[name].unhealthy.add(f"{len(world.workshop.commits) + 1:040x}")
    sha = world.push("the second")
    if not arrives:
        world.bell.queue.clear()
    world.run(seconds=300, until=lambda: world.newest().commit == sha, **disturbance)
    ended = world.settle(seconds=3000, **disturbance)
    assert (ended.commit, ended.state) == (sha, RolloutState.DONE)
    return journals(world)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The journals when every message comes once and in order: each host switched once, the two put back."""
    with pytest.MonkeyPatch.context() as patch:
        world = World(tmp_path_factory.mktemp("calm"), patch, hosts=50, fan_out='max_failed = "10%"')
        first = world.push()
        assert world.settle().state is RolloutState.DONE
        found = ship(world)
        assert {name for name, current in world.runs().items() if current == first} == set(FAILING)
        world.store.close()
    return found


def test_with_every_message_lost_but_the_reconcilers(world, undisturbed, monkeypatch):
    """(a) No task that a task or a webhook sends ever arrives, and the reconciler alone brings the rollout to its end."""
    step = world.step

    def without_followers(entry):
        before = list(world.bell.queue)
        step(entry)
        world.bell.queue[:] = before

    monkeypatch.setattr(world, "step", without_followers)
    assert ship(world, arrives=False) == undisturbed


def test_with_every_message_delivered_three_times(world, undisturbed, monkeypatch):
    """(b) Whatever comes again finds a row that has moved on, and does nothing."""
    step = world.step

    def thrice(entry):
        for _ in range(3):
            step(entry)

    monkeypatch.setattr(world, "step", thrice)
    assert ship(world) == undisturbed


@pytest.mark.parametrize("seed", range(2))
def test_with_messages_in_any_order_and_late(world, undisturbed, monkeypatch, seed):
    """(c) Messages that overtake each other, and come up to 20 s late, change when things happen and nothing else."""
    chooser = random.Random(seed)
    ring = world.bell.ring

    def late(rings):
        known = len(world.bell.queue)
        ring(rings)
        world.bell.queue[known:] = [
            (world.seconds + chooser.uniform(0, 20), *rest) for _, *rest in world.bell.queue[known:]
        ]
        return True

    monkeypatch.setattr(world.bell, "ring", late)
    assert ship(world, chooser=chooser) == undisturbed


def test_with_a_broker_that_is_replaced_by_an_empty_one(world, undisturbed, monkeypatch):
    """(d) Every 10 s all that was queued is gone, and nobody has to do anything about it."""
    emptied = world.seconds
    watch = reconcile.watch

    def and_replace(deps):
        nonlocal emptied
        if world.seconds - emptied >= EMPTIED_EVERY_S:
            emptied = world.seconds
            world.bell.queue.clear()
        watch(deps)

    monkeypatch.setattr(reconcile, "watch", and_replace)
    assert ship(world) == undisturbed
