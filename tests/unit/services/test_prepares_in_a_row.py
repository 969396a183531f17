"""While the canary bakes, a prepare's report claims the next host: one message prepares many."""

import pytest

from rollout.domain import pipeline
from rollout.domain.states import HostState, RolloutState
from rollout.services import stopping
from rollout.services.hosts import IN_A_ROW
from tests.support.world import World

HOSTS = 60


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A good release everywhere, and the next one's canary under watch."""
    world = World(tmp_path, monkeypatch, hosts=HOSTS)
    world.prepares = []
    true = world.fleet.prepare
    world.fleet.prepare = lambda target, *a, **k: world.prepares.append(target.name) or true(target, *a, **k)
    world.push()
    world.settle()
    world.prepares.clear()
    world.push()
    return world


def counted(world, *states):
    """How many hosts of the newest rollout are in these states."""
    return sum(host.state in states for host in world.rollout_hosts())


def prepare_messages(world):
    return [entry for entry in world.bell.queue if entry[1][0] == pipeline.PREPARE_HOST]


def bake(world):
    """Until the canary is watched, without preparing anybody beyond it."""

    def baking():
        newest = world.newest()
        return newest is not None and newest.id == 2 and newest.state is RolloutState.EVALUATING_CANARY

    seconds = world.seconds
    while not baking():
        canary = [
            entry
            for entry in world.bell.queue
            if entry[1][0] != pipeline.PREPARE_HOST or entry[2][1] == HOSTS + 1
        ]
        due = [entry for entry in canary if entry[0] <= world.seconds]
        if not due:
            world.seconds += 0.5
            assert world.seconds < seconds + 60, "no canary"
            continue
        world.bell.queue.remove(due[0])
        world.step(due[0])


def test_one_message_prepares_many_and_then_others_have_their_turn(world):
    """A message prepares its host and the next ones that no message is under way for, sixteen at most, each of them once."""
    bake(world)
    entry = prepare_messages(world)[0]
    world.bell.queue.remove(entry)
    before = len(world.prepares)
    world.step(entry)
    assert len(world.prepares) - before == IN_A_ROW
    assert len(set(world.prepares)) == len(world.prepares)
    assert counted(world, HostState.PREPARING) == 0
    world.settle()
    assert world.newest().state is RolloutState.DONE
    assert len(set(world.prepares)) == len(world.prepares) == HOSTS


def test_nobody_is_prepared_in_a_row_after_a_stop(world):
    """The claim of the next host is no way around a stop: it ends with the host that was being prepared."""
    bake(world)
    entry = prepare_messages(world)[0]
    world.bell.queue.remove(entry)
    prepare, third = world.fleet.prepare, len(world.prepares) + 3

    def stops_at_the_third(target, order, **rest):
        outcome = prepare(target, order, **rest)
        if len(world.prepares) == third:
            stopping.stop(world.newest().id, world.deps, who="test", why="enough", keep=False)
        return outcome

    world.fleet.prepare = stops_at_the_third
    world.step(entry)
    assert len(world.prepares) == third
    assert counted(world, HostState.PREPARING) == 0


def test_one_that_fails_ends_the_row(world):
    """A failed prepare is counted before another begins on its message."""
    bake(world)
    entry = prepare_messages(world)[0]
    world.bell.queue.remove(entry)
    name = entry[2][2]
    world.fleet.hosts[name].unreachable = True
    before = len(world.prepares)
    world.step(entry)
    assert world.prepares[before:] == [name]
