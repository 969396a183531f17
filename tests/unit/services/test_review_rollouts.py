"""What a review found: orders that come at bad moments, canaries without a budget, hosts of rollouts that are over."""

from dataclasses import asdict

import pytest

from rollout.domain.counting import count
from rollout.domain.states import CommitState, HostEvent, HostState, RolloutState
from rollout.domain.verdict import Interval
from rollout.services import canaries, halts, hosts, reconcile, rollouts, stopping
from rollout.services.steps import GoOn
from tests.support.released import first_release
from tests.support.world import World


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch, hosts=5, fan_out="max_failed = 0")


def until_state(world, state):
    world.run(until=lambda: world.newest() is not None and world.newest().state is state)
    assert world.newest().state is state


def host_of(world, name):
    return next(host for host in world.rollout_hosts() if host.name == name)


def test_an_unhealthy_canary_fails_the_commit_even_if_no_host_may_fail(world):
    """With K = 0 an unhealthy canary goes back and bars its commit by itself; it does not wait for a person."""
    first_release(world)
    world.fleet.hosts["web01"].unhealthy.add(f"{2:040x}")
    bad = world.push()
    world.run(until=lambda: world.newest().commit == bad and world.newest().ended_at is not None)
    assert (world.newest().state, world.newest().canary_status) == (RolloutState.ROLLED_BACK, "fail")
    with world.store.reading() as tx:
        assert tx.commits.get("shop", bad).state is CommitState.BARRED


def test_a_canary_whose_fence_refuses_is_not_the_commits_fault(tmp_path, monkeypatch):
    """Only restart and health speak of the release: a host that refuses is replaced, and nothing is barred."""
    world = World(tmp_path, monkeypatch, hosts=5, fan_out="max_failed = 1")
    world.fleet.hosts["web01"].marks.add((1, 2**53))
    sha = world.push()
    assert world.settle().state is RolloutState.DONE
    assert world.runs()["web02"] == sha
    assert host_of(world, "web01").cause == "StepRefused"


def test_the_chain_goes_on_when_the_outcome_was_counted_before_its_next_tick(world):
    """count_outcome may see the canary done first; the waiting stage then hands on instead of ending the chain."""
    world.push()
    until_state(world, RolloutState.EVALUATING_CANARY)
    assert rollouts.deploy_canary(world.newest().id, world.deps) == GoOn()


def test_two_looks_at_the_canary_at_once_count_its_requests_once(world):
    """A slow look that is overtaken by another one from the same place does not store the same requests again."""
    world.push()
    until_state(world, RolloutState.EVALUATING_CANARY)
    number, inner = world.newest().id, world.metrics.read
    nested = []

    def slow(target, role, config, cursor, **how):
        if not nested:
            nested.append(True)
            world.seconds += 3
            canaries.evaluate(number, world.deps)
        return inner(target, role, config, cursor, **how)

    world.metrics.read = slow
    world.seconds += 3
    canaries.evaluate(number, world.deps)
    with world.store.reading() as tx:
        times = [one.t for one in tx.samples.of(number)]
    assert times
    assert len(times) == len(set(times))


def test_a_look_from_before_a_resume_does_not_count_after_it(world):
    """Resuming measures again: what an older look brings in late is dropped."""
    world.push()
    until_state(world, RolloutState.EVALUATING_CANARY)
    number = world.newest().id
    world.seconds += 3
    canaries.evaluate(number, world.deps)

    def late(target, role, config, cursor, *, elapsed):
        with world.store.transaction() as tx:
            tx.samples.forget(number)
            tx.hosts.forget_cursors(number)
        return [Interval(t=99.0, dt=2.0, host=target.name, role=role, observed=True, counts={"2xx": 9})], "99"

    world.metrics.read = late
    world.seconds += 3
    canaries.evaluate(number, world.deps)
    with world.store.reading() as tx:
        assert tx.samples.of(number) == []


def test_the_counters_stay_true_through_a_rollback(world):
    """A host that is being brought back is neither done nor failed: the counters say so at every step."""
    first_release(world)
    second = world.push()
    world.run(until=lambda: world.newest().commit == second and world.newest().done >= 3)
    stopping.stop(world.newest().id, world.deps, who="me", why="stop")
    step, wrong = world.step, []

    def watched(entry):
        step(entry)
        newest, rows = world.newest(), world.rollout_hosts()
        true = {n: sum(asdict(count(row))[n] for row in rows) for n in asdict(count(rows[0]))}
        if {name: getattr(newest, name) for name in true} != true:
            wrong.append((entry, true))

    world.step = watched
    assert world.settle().state is RolloutState.ROLLED_BACK
    assert wrong == []


def rolled_back_but_for_web01(world):
    """Two rollouts: the second was stopped and could not bring web01 back. Its number, and what both shipped."""
    good = first_release(world)
    bad = world.push()
    world.run(until=lambda: world.runs()["web01"] == bad)
    world.fleet.hosts["web01"].unreachable = True
    stopping.stop(world.newest().id, world.deps, who="me", why="stop")
    assert world.settle().state is RolloutState.ROLLED_BACK
    world.fleet.hosts["web01"].unreachable = False
    return world.newest().id, good, bad


def test_a_late_rollback_never_undoes_a_newer_rollout(world):
    """A rollback that was rung before a newer rollout touched the host finds nothing to do."""
    old, _, bad = rolled_back_but_for_web01(world)
    with world.store.reading() as tx:
        lame = next(host for host in tx.hosts.of(old) if host.name == "web01")
    assert lame.state is HostState.ROLLBACK_FAILED
    with world.store.transaction() as tx:
        tx.going_back.leave(lame)
    fix = world.push(f"This reverts commit {bad}.")
    world.run(until=lambda: world.newest().commit == fix and world.newest().state is RolloutState.DONE)
    assert world.newest().state is RolloutState.DONE
    world.seconds = max(world.seconds, lame.lease_until or 0.0)
    hosts.roll_back(lame.rollout, lame.id, world.deps)
    assert world.runs()["web01"] == fix


def test_a_rollback_that_fell_silent_is_left_to_the_newer_rollout(world):
    """It is not rung for ever: the newer rollout has the host."""
    old, _, bad = rolled_back_but_for_web01(world)
    with world.store.transaction() as tx:
        lame = next(host for host in tx.hosts.of(old) if host.name == "web01")
        world.seconds = lame.due_at
        assert tx.claims.roll_back(lame.id, "dead worker", 1.0).state is HostState.ROLLING_BACK
        renewed = world.seconds + 10_000
        tx.hosts.update(tx.hosts.get(lame.id), lease_until=renewed)
    fix = world.push(f"This reverts commit {bad}.")
    world.run(until=lambda: world.newest().commit == fix and world.newest().state is RolloutState.DONE)
    world.seconds = renewed + 1
    reconcile.sweep(world.deps)
    with world.store.reading() as tx:
        left = tx.hosts.get(lame.id)
    assert (left.state, left.due_at) == (HostState.ROLLBACK_FAILED, None)
    assert world.runs()["web01"] == fix


def test_a_rollback_of_the_done_rollout_works_after_a_stopped_newer_one(world):
    """A newer rollout that touched a host and was brought back itself does not keep the older one from going back."""
    first = first_release(world)
    world.push()
    world.settle()
    bad = world.push()
    world.run(until=lambda: world.runs()["web01"] == bad)
    stopping.stop(world.newest().id, world.deps, who="me", why="stop")
    assert world.settle().state is RolloutState.ROLLED_BACK
    back = stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="me", why="slow")
    world.run(seconds=120)
    with world.store.reading() as tx:
        assert tx.rollouts.get(back.id).state is RolloutState.ROLLED_BACK
    assert set(world.runs().values()) == {first}


def test_excluding_a_host_while_its_rollout_stops_takes_nothing_from_the_stop(world):
    """A host that may have been switched is sealed and brought back before it is left out."""
    good = first_release(world)
    bad = world.push()
    lost = world.fleet.hosts["web03"]
    lost.loses_answer = 0

    def lose(name):
        if name == "web03":
            lost.loses_answer = 1

    world.fleet.before_permit = lose
    world.run(until=lambda: lost.current == bad)
    lost.unreachable = True
    assert host_of(world, "web03").state is HostState.UNKNOWN
    stopping.stop(world.newest().id, world.deps, who="me", why="stop")
    halts.exclude("shop", ["web03"], world.deps, who="me", why="odd")
    assert host_of(world, "web03").state is HostState.UNKNOWN
    lost.unreachable = False
    assert world.settle().state is RolloutState.ROLLED_BACK
    assert lost.current == good


def test_a_touched_host_that_waits_for_another_try_is_brought_back_without_a_broker(world):
    """Whoever does the rollback himself finds the same hosts as the reconciler."""
    first_release(world)
    second = world.push()
    world.run(until=lambda: world.newest().commit == second and world.newest().done >= 2)
    with world.store.transaction() as tx:
        touched = next(host for host in tx.hosts.of(world.newest().id, HostState.DONE))
        tx.hosts.change(touched, HostEvent.ROLL_BACK, who="x")
    with world.store.transaction() as tx:
        row = tx.hosts.get(touched.id)
        tx.hosts.update(row, state=HostState.PREPARED, due_at=world.seconds + 60)
    stopping.stop(world.newest().id, world.deps, who="me", why="stop")
    assert stopping.drive(world.newest().id, world.deps)
    assert touched.name in {ring.arguments[2] for ring in stopping.unclaimed(world.newest().id, world.deps)}


def test_a_silent_rollback_is_not_rung_at_every_sweep(world):
    """One message is under way at a time, however many sweep."""
    old, _, _ = rolled_back_but_for_web01(world)
    with world.store.transaction() as tx:
        lame = next(host for host in tx.hosts.of(old) if host.name == "web01")
        world.seconds = lame.due_at
        tx.claims.roll_back(lame.id, "dead worker", 1.0)
    world.seconds += 2
    world.bell.queue.clear()
    for _ in range(5):
        reconcile.sweep(world.deps)
    assert len([entry for entry in world.bell.queue if entry[1] == ("rollout.roll_back_host",)]) == 1


def test_a_second_retry_prepares_a_host_anew_that_has_lost_the_release(world):
    """A host with a new disk refuses what it does not have; retrying then brings the release there again."""
    first_release(world)
    bad = world.push()
    host = world.fleet.hosts["web03"]
    host.unhealthy.add(bad)
    assert world.settle().state is RolloutState.HALTED
    host.unhealthy.clear()
    host.prepared.clear()
    for _ in range(2):
        if world.newest().state is RolloutState.HALTED:
            halts.retry(world.newest().id, world.deps, who="me")
            world.settle()
    assert world.newest().state is RolloutState.DONE
    assert host.current == bad


def test_one_apps_broken_inventory_is_noted_and_kept_from_others(world, monkeypatch):
    """A fleet that cannot be resolved is why nothing starts: it is said there, and ends no sweep and no report."""
    from rollout.errors import ConfigError

    def broken(_config):
        raise ConfigError("inventory: exit status 1")

    monkeypatch.setattr(world.fleet, "members", broken)
    world.push()
    world.run(seconds=20)
    with world.store.reading() as tx:
        assert "inventory" in tx.apps.noted("shop")
    reconcile.sweep(world.deps)


def test_one_stop_that_cannot_be_driven_does_not_hold_up_the_rest(world, monkeypatch):
    """Trouble with one rollout stays with it: unknown hosts are read all the same."""
    seen = []
    monkeypatch.setattr(stopping, "drive", lambda number, _deps: seen.append(number) or 1 / 0)
    world.push()
    until_state(world, RolloutState.DEPLOYING_CANARY)
    stopping.stop(world.newest().id, world.deps, who="me", why="stop")
    reconcile.watch(world.deps)
    assert seen
