"""Messages lost, doubled and shuffled; hosts unhealthy, deaf or forgetful: the invariants hold at every step."""

import random
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollout.domain.counting import count
from rollout.domain.states import FINISHED, HostState, RolloutState
from rollout.services import halts, stopping
from tests.support.checker import read
from tests.support.checker.check import check as look_back
from tests.support.world import World

SLOW = settings(
    max_examples=200 if settings.get_current_profile_name() == "faults" else 12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def sums(rows):
    totals = dict.fromkeys(("done", "failed", "unreadable", "unknown", "in_flight"), 0)
    for row in rows:
        for name, value in asdict(count(row)).items():
            totals[name] += value
    return totals


def check(world):
    """I1, I3, I6 and the counters, as the rows and the hosts' own journals say now."""
    newest = world.newest()
    if newest is None:
        return
    rows = world.rollout_hosts()
    true = sums(rows)
    assert {name: getattr(newest, name) for name in true} == true
    if newest.state not in {RolloutState.STOPPING, RolloutState.ROLLING_BACK}:
        assert true["failed"] + true["unknown"] <= newest.worst_case
    if newest.mode == "strict":
        assert true["failed"] + true["unknown"] + true["in_flight"] <= newest.max_failed + 1
    assert true["in_flight"] <= newest.concurrency
    with world.store.reading() as tx:
        unfinished = tx.rollouts.unfinished("shop")
    assert sum(one.state is not RolloutState.PENDING for one in unfinished) <= 1
    for row in rows:
        switched = [
            entry
            for entry in world.fleet.hosts[row.name].journal
            if entry[0] == "intent" and entry[1] == "activate"
        ]
        assert sum(entry[4] == newest.commit for entry in switched) <= row.attempt


@SLOW
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.2, 0.6]),
    doubling=st.sampled_from([0.0, 0.5]),
    mode=st.sampled_from(["strict", "ramp"]),
    broken=st.integers(0, 5),
)
def test_any_order_of_messages_ends_with_the_invariants_kept(
    tmp_path_factory, seed, loss, doubling, mode, broken
):
    """Whatever is lost, doubled or late, the rollout ends done or halted within its bound, and stays countable."""
    chooser = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        world = World(
            tmp_path_factory.mktemp("chaos"), patch, hosts=12, fan_out=f'max_failed = 2\nmode = "{mode}"'
        )
        sha = world.push()
        names = list(world.fleet.hosts)[1:]
        for name in chooser.sample(names, broken):
            world.fleet.hosts[name].unhealthy.add(sha)
        for name in chooser.sample(names, 2):
            world.fleet.hosts[name].loses_answer = 1
        step = world.step

        def watched(entry):
            step(entry)
            check(world)

        world.step = watched
        ended = world.settle(chooser=chooser, loss=loss, doubling=doubling, seconds=3000)
        assert ended.state is (RolloutState.DONE if broken <= 2 else RolloutState.HALTED)
        if ended.state is RolloutState.DONE:
            done = {host.name for host in world.rollout_hosts() if host.state is HostState.DONE}
            assert done == {name for name, current in world.runs().items() if current == sha}
        assert look_back(read.world(world, at_rest=True)) == []
        world.store.close()


@SLOW
@given(seed=st.integers(0, 2**32), steps=st.integers(0, 60), loss=st.sampled_from([0.0, 0.4]))
def test_a_stop_at_any_moment_ends_with_every_host_back(tmp_path_factory, seed, steps, loss):
    """I2 and I16: from the acknowledgement on no host is switched to the stopped release, and all are back."""
    chooser = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        world = World(tmp_path_factory.mktemp("stop"), patch, hosts=8, fan_out="max_failed = 1")
        good = world.push()
        world.settle()
        bad = world.push()
        taken = iter(range(steps))
        world.run(until=lambda: next(taken, None) is None, chooser=chooser)
        number = world.newest().id
        if world.newest().commit != bad or world.newest().state in FINISHED:
            return
        stopping.stop(number, world.deps, who="me", why="stop")
        acknowledged = {RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK, RolloutState.STOPPED}
        world.run(until=lambda: world.newest().state in acknowledged, chooser=chooser, loss=loss)
        before = {name: list(host.activations) for name, host in world.fleet.hosts.items()}
        for order in (halts.resume, halts.retry):
            with pytest.raises(Exception, match="not halted"):
                order(number, world.deps, who="me")
        ended = world.settle(chooser=chooser, loss=loss, doubling=0.3)
        assert ended.state in {RolloutState.ROLLED_BACK, RolloutState.STOPPED}
        assert {name: host.activations for name, host in world.fleet.hosts.items()} == before
        assert set(world.runs().values()) == {good}
        assert look_back(read.world(world, at_rest=True)) == []
        world.store.close()
