"""A host that has left the inventory is no host of the app: no way back switches it, and who is back in it is read first."""

import pytest

from rollout.domain.model import UNREAD
from rollout.domain.states import HostState, RolloutState
from rollout.services import catching_up
from tests.support.across import (
    SLOW,
    out_of_the_inventory,
    recorded,
)
from tests.support.checker import read
from tests.support.checker.check import check
from tests.support.released import first_release
from tests.support.world import World

H, R = HostState, RolloutState
LEFT = f"left as they are, since they have left the fleet: {SLOW}"
ANOTHER_APPS = "b" * 40


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Five hosts, of which one may fail; SLOW is the last."""
    world = World(tmp_path, monkeypatch, hosts=5, fan_out="max_failed = 1\nretries = 0")
    yield world
    assert [*map(str, check(read.world(world)))] == []


def app(world):
    return world.config.app(None)


def leaves(world, monkeypatch):
    """SLOW is in the inventory no more, and that was read; the call that brings it back."""
    comes_back = out_of_the_inventory(world, monkeypatch, SLOW)
    world.run(until=lambda: recorded(world).left_at is not None, seconds=400)
    return comes_back


@pytest.mark.parametrize("has", ["another app's", "nothing"])
def test_who_is_back_at_the_same_address_is_read_before_the_record_is_believed(world, monkeypatch, has):
    """What it ran when it left is no news of what it runs by now: it is read as a host that is new, and brought along."""
    runs = first_release(world)
    comes_back, machine = leaves(world, monkeypatch), world.fleet.hosts[SLOW]
    machine.use(ANOTHER_APPS if has == "another app's" else None)
    comes_back()
    world.run(until=lambda: recorded(world).left_at is None, seconds=400)
    assert recorded(world).release in {UNREAD, machine.current}
    world.run(until=lambda: machine.current == runs, seconds=700)
    world.run(seconds=60)
    assert (recorded(world).release, recorded(world).found) == (runs, runs)


def test_who_is_back_as_it_was_is_read_and_left_as_it_is(world, monkeypatch):
    """Nothing is brought to it."""
    runs = first_release(world)
    comes_back, journal = leaves(world, monkeypatch), world.fleet.hosts[SLOW].journal
    switched = [line for line in journal if "intent" in str(line)]
    read_at = recorded(world).verified_at
    comes_back()
    world.run(until=lambda: recorded(world).left_at is None, seconds=400)
    world.run(until=lambda: recorded(world).release == runs, seconds=100)
    assert recorded(world).verified_at > read_at
    world.run(seconds=400)
    with world.store.reading() as tx:
        assert catching_up.late(tx, app(world)) == []
    assert (recorded(world).release, world.fleet.hosts[SLOW].current) == (runs, runs)
    assert [line for line in journal if "intent" in str(line)] == switched
