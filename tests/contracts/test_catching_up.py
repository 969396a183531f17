"""Hosts that are behind, on every database."""

import threading

import pytest

from rollout.domain.states import HostState, RolloutState
from rollout.services import bars, planning, stopping, testing
from tests.support.across import row_of
from tests.support.checker import read
from tests.support.checker.check import check
from tests.support.world import World

H, R = HostState, RolloutState
AWAY = "web04"


@pytest.fixture
def world(tmp_path, monkeypatch, database):
    """Four hosts; the release is everywhere but on one that was down, and is prepared on it."""
    made = World(tmp_path, monkeypatch, hosts=4, fan_out="max_failed = 1\nretries = 0", url=database)
    made.push()
    made.settle()
    host = made.fleet.hosts[AWAY]
    host.unreachable = True
    made.push()
    assert made.settle().state is R.DONE
    host.unreachable = False
    made.run(until=lambda: row_of(made, made.newest().id, AWAY).state is H.PREPARED, seconds=500)
    yield made
    assert [*map(str, check(read.world(made)))] == []
    made.store.close()


def test_a_host_that_was_down_is_brought_to_the_release(world):
    """Every statement of it is understood."""
    world.run(until=lambda: row_of(world, world.newest().id, AWAY).state is H.DONE, seconds=60)
    assert (world.newest().done, world.newest().in_flight) == (4, 0)
    assert set(world.runs().values()) == {world.newest().commit}


@pytest.mark.parametrize("other", ["a rollout", "a rollback"])
def test_a_claim_waits_for_what_is_decided_at_that_moment(world, monkeypatch, other):
    """Who plans a rollout or takes one back holds the app's row: a claim comes before or after, never in between."""
    number, decided, go_on, claimed = world.newest().id, threading.Event(), threading.Event(), []

    def slowly(module, name):
        true = getattr(module, name)

        def work(*arguments, **options):
            decided.set()
            go_on.wait(10)
            return true(*arguments, **options)

        monkeypatch.setattr(module, name, work)

    def decide():
        if other == "a rollout":
            testing.run_tests(commit.id, world.deps)
        else:
            stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="ann", why="slow")

    def try_to_claim():
        with world.store.transaction() as tx:
            row = next(host for host in tx.hosts.of(number) if host.name == AWAY)
            claimed.append(tx.claims.activation(row.id, "w", 15.0))

    world.push()
    with world.store.reading() as tx:
        commit = tx.commits.newest("shop")
    slowly(*{"a rollout": (planning, "_add"), "a rollback": (bars, "taken_back")}[other])
    decider, claimer = threading.Thread(target=decide), threading.Thread(target=try_to_claim)
    decider.start()
    assert decided.wait(10)
    claimer.start()
    claimer.join(0.5)
    assert claimer.is_alive()
    go_on.set()
    decider.join(30)
    claimer.join(30)
    assert claimed == [None]
    world.settle()
    assert len(set(world.runs().values())) == 1
