"""No message can be sent, or far too many wait: whoever has hands goes on by itself, and nobody makes the queue longer."""

import pytest

from rollout.domain import pipeline
from rollout.errors import ServiceUnavailable
from rollout.services import bell, reconcile, rollouts, stopping
from rollout.services.perform import STEPS
from rollout.store.hosts import Hosts
from tests.support.released import released
from tests.support.world import World

SWEEP_S = 5.05  # a round, and what it takes


class Hands:
    """A hosts worker's threads, which take no time."""

    def __init__(self, world):
        self._world = world

    def do(self, rings):
        for ring in rings:
            if ring.task in STEPS:
                STEPS[ring.task](ring, self._world.deps)


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch, hosts=24, fan_out="concurrency = 24\nmax_failed = 24")


def sweeps(world, behind_s, until):
    """The control worker's, which has no hands, and so many seconds later a hosts worker's, in turn; how many of its own that took."""
    hands = Hands(world)
    for number in range(8):
        world.seconds += SWEEP_S - behind_s
        reconcile.sweep(world.deps)
        world.seconds += behind_s
        reconcile.sweep(world.deps, hands)
        reconcile.watch(world.deps, hands)
        if until():
            return number + 1
    return None


@pytest.mark.parametrize("behind_s", [0.5, 2.5, 4.5])
def test_a_rollback_needs_no_messages_whoever_sweeps_first(world, behind_s):
    """I10: the control worker cannot ring and leaves the hosts due, so that a hosts worker finds them: not one went back, for as long as the broker was away."""
    released_twice(world)
    world.bell.deaf = True
    stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="ann", why="bad")
    assert sweeps(world, behind_s, lambda: world.newest().state == "rolled_back") in {1, 2, 3}


@pytest.mark.parametrize("behind_s", [0.5, 2.5, 4.5])
def test_a_fan_out_goes_on_without_messages_whoever_sweeps_first(world, behind_s):
    """The same for hosts that are to be switched: they stood still until the broker was back."""
    released_twice(world, until=lambda: count(world, "done") >= 3)
    world.bell.queue.clear()
    world.bell.deaf = True
    assert sweeps(world, behind_s, lambda: world.newest().state == "done") is not None


def test_what_waits_for_a_person_is_not_due_because_nobody_was_heard(world):
    """Each sweep would look at it anew, for as long as it waits."""
    released_twice(world, until=lambda: count(world, "done") >= 3)
    with world.store.transaction() as tx:
        halted = rollouts.halt(tx, tx.rollouts.lock(2), "a person looks", automatic=False)
    world.bell.deaf = True
    bell.ring([pipeline.deploy_host(world.rollout_hosts()[5])], world.deps)
    with world.store.reading() as tx:
        assert tx.rollouts.get(2).due_at == halted.due_at


def test_who_cannot_be_heard_goes_on_though_the_database_is_away_as_well(world, monkeypatch):
    """A message is a hint: who rings has claimed the next host by then, which would be nobody's."""

    def locked(*_):
        raise ServiceUnavailable("the database is locked", remedy="")

    released_twice(world, until=lambda: count(world, "done") >= 3)
    monkeypatch.setattr(Hosts, "not_rung", locked)
    world.bell.deaf = True
    bell.ring([pipeline.deploy_host(world.rollout_hosts()[5])], world.deps)


def count(world, state):
    return sum(host.state == state for host in world.rollout_hosts())


def released_twice(world, until=None):
    world.push()
    assert world.settle().state == "done"
    world.push()
    if until is None:
        assert world.settle().state == "done"
        return
    world.run(until=lambda: world.newest().state == "fanning_out" and until())


def test_a_queue_that_is_full_gets_no_more_messages_for_prepares(tmp_path, monkeypatch):
    """Rows whose messages wait for longer than a moment are due again: thousands of copies kept a hosts worker from everything else."""
    world = released(tmp_path, monkeypatch, hosts=60)
    world.bell.waiting = 10_000
    world.push()
    world.run(until=lambda: world.newest().state == "evaluating_canary")
    now = world.seconds
    world.run(until=lambda: world.seconds > now + 3)
    assert count(world, "pending") >= 55
    assert not [entry for entry in world.bell.queue if entry[1][0] == pipeline.PREPARE_HOST]
    world.bell.waiting = 0
    assert world.settle().state == "done"
