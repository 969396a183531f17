"""The services together: from a push to the last host, on a real store with modelled hosts."""

from dataclasses import replace

import pytest

from rollout.domain.states import CommitState, HostState, RolloutState
from rollout.services import reconcile, stopping
from tests.support.world import World


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


def state_of(world, sha):
    with world.store.reading() as tx:
        return tx.commits.get("shop", sha).state


def test_a_good_commit_reaches_every_host(world):
    """A commit that passes its tests and its canary ends on every host's disk, each switched once."""
    sha = world.push()
    assert world.settle().state is RolloutState.DONE
    assert set(world.runs().values()) == {sha}
    assert all(host.activations == [sha] for host in world.fleet.hosts.values())


def test_a_commit_that_fails_its_tests_touches_nothing(world):
    """A failing commit is never shipped."""
    sha = world.push(fails=True)
    world.run(seconds=60)
    assert state_of(world, sha) is CommitState.FAILED
    assert world.newest() is None
    assert set(world.runs().values()) == {None}


def test_a_bad_canary_is_rolled_back_and_barred(world):
    """A canary that answers errors goes back, no other host is touched, and the commit is barred."""
    good = world.push()
    world.settle()
    world.metrics.share = 0.5
    bad = world.push()
    world.run(until=lambda: world.newest().commit == bad and world.newest().state is RolloutState.ROLLED_BACK)
    assert set(world.runs().values()) == {good}
    assert [name for name, host in world.fleet.hosts.items() if bad in host.activations] == ["web01"]
    assert state_of(world, bad) is CommitState.BARRED
    reconcile.tell(world.deps)
    assert any("failed its canary" in title for title, _ in world.notifier.sent)


def test_way_back_of_a_fleet_is_handed_out_bit_by_bit(tmp_path, monkeypatch):
    """Not a message for each of a hundred thousand hosts at once: a few times what is worked on, and more as hosts come back."""
    world = World(tmp_path, monkeypatch, hosts=40, fan_out="max_failed = 40\nconcurrency = 4")
    world.deps = replace(world.deps, settings=world.deps.settings.model_copy(update={"slots": 2}))
    world.push()
    world.settle()
    world.push()
    world.run(until=lambda: world.newest().id == 2 and world.newest().done == 40)
    queued, step = [], world.step

    def counted(entry):
        queued.append(sum(one[1] == ("rollout.roll_back_host",) for one in world.bell.queue))
        step(entry)

    monkeypatch.setattr(world, "step", counted)
    began = world.seconds
    stopping.stop(2, world.deps, who="me", why="x")
    world.run(until=lambda: world.newest().state is RolloutState.ROLLED_BACK)
    assert all(host.state is HostState.ROLLED_BACK for host in world.rollout_hosts())
    assert max(queued) < 8
    assert world.seconds - began < 5.0, (
        "each that is back makes room at once, not when the reconciler comes by"
    )
