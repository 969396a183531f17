"""A token that goes from host to host is given and taken by the same rule as one that somebody hands out, on both databases."""

import itertools

import pytest

from rollout.domain import budget
from rollout.domain.states import HostState, RolloutState
from rollout.services import stopping
from rollout.services.rollouts import counters, limits
from tests.contracts.test_store import fanning_out
from tests.support.checker import read
from tests.support.checker.check import check
from tests.support.world import World

K, CONCURRENCY, WINDOW = 1, 3, 2
# failed, unreadable, unknown (with the unreadable ones), in flight (the one that is done among them)
CASES = [
    (failed, unreadable, unreadable + unknown, flying)
    for failed, unreadable, unknown, flying in itertools.product((0, 1, 2), (0, 1), (0, 1, 2), (1, 2, 3))
]


@pytest.mark.parametrize("window", [1, WINDOW, CONCURRENCY])
def test_it_is_passed_on_exactly_when_it_could_be_given_back_and_taken(store, window):
    """For every state of the counters: the one guarded UPDATE says what the budget says of the state after the first host."""
    rollout, _ = fanning_out(store, max_failed=K)
    for failed, unreadable, unknown, flying in CASES:
        with store.transaction() as tx:
            now = tx.rollouts.update(
                tx.rollouts.lock(rollout.id),
                failed=failed,
                unreadable=unreadable,
                unknown=unknown,
                in_flight=flying,
                concurrency=CONCURRENCY,
                window=WINDOW,
                done=1,
            )
        after = budget.Counters(
            done=2, failed=failed, unreadable=unreadable, unknown=unknown, in_flight=flying - 1, window=window
        )
        with store.transaction() as tx:
            passed = tx.rollouts.pass_tokens_on(rollout.id, [window], 1)
            assert passed is budget.may_start(after, limits(now)), (failed, unreadable, unknown, flying)
            row = tx.rollouts.get(rollout.id)
        if passed:
            assert (row.done, row.in_flight, row.window) == (2, flying, window)
        else:
            assert counters(row) == counters(now)


def test_several_at_once_are_passed_on_as_one_after_another(store):
    """Of three hosts that are done one row ends: as many are done and the window is as wide as step by step, and its token is given back."""
    rollout, _ = fanning_out(store, max_failed=K)
    with store.transaction() as tx:
        tx.rollouts.update(
            tx.rollouts.lock(rollout.id), in_flight=3, concurrency=CONCURRENCY, window=2, done=1, max_failed=2
        )
        assert tx.rollouts.pass_tokens_on(rollout.id, [3, 3, 3], 2)
        row = tx.rollouts.get(rollout.id)
    assert (row.done, row.in_flight, row.window) == (4, 2, 3)


@pytest.mark.parametrize("state", [state for state in RolloutState if state is not RolloutState.FANNING_OUT])
def test_in_no_other_state_is_it_passed_on(store, state):
    """A rollout that is halted, stopped or over passes none on."""
    rollout, _ = fanning_out(store, max_failed=K)
    with store.transaction() as tx:
        tx.rollouts.update(tx.rollouts.lock(rollout.id), state=state, in_flight=1)
        assert not tx.rollouts.pass_tokens_on(rollout.id, [WINDOW], 1)


def test_the_next_host_is_claimed_with_it(store):
    """The done host's successor has the token, its own epoch and lease, and nobody else gets a second one."""
    rollout, hosts = fanning_out(store, names=("web1", "web2", "web3", "web4"))
    with store.transaction() as tx:
        first = tx.claims.activation(hosts[1].id, "me", 15)
        assert first is not None
    with store.transaction() as tx:
        found = tx.claims.next_to_activate(rollout.id, 1)
        assert tx.rollouts.pass_tokens_on(rollout.id, [1], 1)
        (second,) = tx.claims.with_tokens(found, "me", 15)
    assert (second.name, second.state, second.token) == ("web3", HostState.ACTIVATING, True)
    assert (second.epoch or 0) > (first.epoch or 0)
    with store.transaction() as tx:
        assert tx.rollouts.get(rollout.id).in_flight == 1
        assert tx.claims.activation(hosts[3].id, "another", 15) is None


def test_a_fleet_goes_from_host_to_host_and_back(tmp_path, monkeypatch, database):
    """A rollout and its rollback with many hosts on a message, on every database: the histories keep every rule."""
    world = World(
        tmp_path, monkeypatch, hosts=40, fan_out='concurrency = 3\nmax_failed = "10%"', url=database
    )
    first = world.push()
    world.settle()
    world.fleet.hosts["web17"].unhealthy.add(f"{2:040x}")
    second = world.push()
    assert world.settle().state is RolloutState.DONE
    assert (world.newest().done, world.newest().failed) == (39, 1)
    stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="me", why="slow")
    assert world.settle().state is RolloutState.ROLLED_BACK
    assert second not in world.runs().values()
    assert set(world.runs().values()) == {first}
    assert [*map(str, check(read.world(world)))] == []
    world.store.close()
