"""A host that has left the inventory is no host of the app: no way back switches it, and who is back in it is read first."""

import pytest

from rollout.domain.model import UNREAD, AppName
from rollout.domain.states import HostState, RolloutState
from rollout.errors import ConfigError, Conflict
from rollout.services import catching_up, freezes, hosts, planning, stopping, verifying
from tests.support.across import (
    SLOW,
    out_of_the_inventory,
    owes_a_rollback,
    recorded,
    row_of,
    state_of,
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


def rolled_back(world, to=None):
    """Over, and as it is then."""
    number = stopping.roll_back_done(app(world), world.deps, to=to, who="ann", why="slow").id
    world.run(until=lambda: state_of(world, number) is R.ROLLED_BACK, seconds=60)
    with world.store.reading() as tx:
        return tx.rollouts.get(number)


def two_releases(world):
    """Both out, the older one first."""
    older = first_release(world)
    newer = world.push()
    assert world.settle().state is R.DONE
    return older, newer


def the_others(world):
    return {release for name, release in world.runs().items() if name != SLOW}


def test_a_rollback_leaves_who_has_left_the_fleet_as_it_is_and_says_so(world, monkeypatch):
    """Another app may have it by now; the others are back without it, and nobody takes it for one that failed."""
    older, newer = two_releases(world)
    leaves(world, monkeypatch)
    found = rolled_back(world)
    world.run(seconds=700)
    assert (the_others(world), world.fleet.hosts[SLOW].current) == ({older}, newer)
    assert found.reason == f"slow; {LEFT}"
    assert row_of(world, found.id).state is H.DONE


def test_who_has_left_and_is_off_holds_no_rollback_up(world, monkeypatch):
    """It was scaled in: nobody waits for it, nor tries it later."""
    older, _ = two_releases(world)
    leaves(world, monkeypatch)
    world.fleet.hosts[SLOW].unreachable = True
    found = rolled_back(world)
    assert (the_others(world), found.reason) == ({older}, f"slow; {LEFT}")


def test_an_edit_of_this_moment_counts_for_a_rollback(world, monkeypatch):
    """rollout.toml names it no more, and no worker has read that yet."""
    _, newer = two_releases(world)
    out_of_the_inventory(world, monkeypatch, SLOW)
    found = rolled_back(world)
    assert (found.reason, world.fleet.hosts[SLOW].current) == (f"slow; {LEFT}", newer)


def test_an_inventory_that_cannot_be_read_loses_no_host(world, monkeypatch):
    """All of them go back."""
    older, _ = two_releases(world)

    def broken(_config):
        raise ConfigError("it is broken")

    monkeypatch.setattr(world.fleet, "members", broken)
    assert rolled_back(world).reason == "slow"
    assert set(world.runs().values()) == {older}


def test_to_a_commit_that_only_who_has_left_lacks(world, monkeypatch):
    """It had joined after that commit, and is gone: the fleet's way back is not refused for it."""
    comes = out_of_the_inventory(world, monkeypatch, SLOW)
    oldest = world.push()
    world.settle()
    world.push()
    assert world.settle().state is R.DONE
    comes()
    world.run(until=lambda: set(world.runs().values()) == {world.newest().commit}, seconds=700)
    world.run(seconds=20)
    with pytest.raises(Conflict, match=f"never on {SLOW}"):
        rolled_back(world, to=oldest)
    leaves(world, monkeypatch)
    assert rolled_back(world, to=oldest).reason == f"slow; {LEFT}"
    assert the_others(world) == {oldest}


def the_canary_alone(world):
    """A release is out, the next one is on its canary: the older one, the rollout, and the canary."""
    older, bad = first_release(world), world.push()
    world.run(until=lambda: bad in world.runs().values(), seconds=60)
    (name,) = [host for host, release in world.runs().items() if release == bad]
    world.run(until=lambda: row_of(world, world.newest().id, name).state is H.DONE, seconds=60)
    return older, world.newest().id, name


def stopped(world, number):
    """Over, and as it is then."""
    world.run(until=lambda: state_of(world, number) in {R.STOPPED, R.ROLLED_BACK}, seconds=60)
    with world.store.reading() as tx:
        return tx.rollouts.get(number)


def test_who_left_in_the_middle_of_a_rollout_is_taken_back_by_its_stop(world, monkeypatch):
    """A slip in the inventory, or a program that told of a part of it: the rollout switched it, so its stop does; then the inventory counts again."""
    older, number, name = the_canary_alone(world)
    out_of_the_inventory(world, monkeypatch, name)
    verifying.verify("shop", world.deps)  # a person has the inventory read
    assert recorded(world, name).left_at is not None
    stopping.stop(number, world.deps, who="ann", why="bad")
    found = stopped(world, number)
    assert (found.state, found.reason) == (R.ROLLED_BACK, "bad")
    assert set(world.runs().values()) == {older}
    world.run(until=lambda: recorded(world, name).left_at is not None, seconds=400)
    assert recorded(world, name).left_at is not None


def test_who_left_in_the_middle_of_a_rollout_and_is_off_is_tried_once(world, monkeypatch):
    """Nobody can say that it is back, so it is told as one that is not; but no later try looks for what is gone."""
    _, number, name = the_canary_alone(world)
    out_of_the_inventory(world, monkeypatch, name)
    verifying.verify("shop", world.deps)
    world.fleet.hosts[name].unreachable = True
    stopping.stop(number, world.deps, who="ann", why="bad")
    found = stopped(world, number)
    assert found.reason.startswith(f"bad; not back: all hosts: {name} ")
    world.run(until=lambda: recorded(world, name).left_at is not None, seconds=400)
    failures = row_of(world, number, name).failures
    world.run(seconds=900)
    assert row_of(world, number, name).failures == failures


def test_who_leaves_while_a_stop_is_under_way_is_left_by_it(world, monkeypatch):
    """It runs what is stopped, and is no host of the app any more; it was the only one: no bad release is kept on it by a person's word."""
    older, number, name = the_canary_alone(world)
    stopping.stop(number, world.deps, who="ann", why="bad")
    comes_back = out_of_the_inventory(world, monkeypatch, name)
    with world.store.transaction() as tx:
        tx.fleet.take_stock("shop", world.fleet.members(app(world)))
    found, bad = stopped(world, number), world.workshop.commits[-1].sha
    assert (found.state, found.reason) == (R.ROLLED_BACK, f"bad; {LEFT.replace(SLOW, name)}")
    assert world.fleet.hosts[name].current == bad
    comes_back()
    world.run(until=lambda: set(world.runs().values()) == {older}, seconds=900)
    assert set(world.runs().values()) == {older}
    world.run(seconds=60)


def test_a_slip_in_the_inventory_that_is_mended_is_over_once_that_is_read(world, monkeypatch):
    """`rollout hosts --verify` reads it at once: whom a rollback had left is brought to what the fleet runs with the next looks."""
    older, newer = two_releases(world)
    comes_back = leaves(world, monkeypatch)
    rolled_back(world)
    assert world.fleet.hosts[SLOW].current == newer
    comes_back()
    verifying.verify("shop", world.deps)
    world.run(until=lambda: world.fleet.hosts[SLOW].current == older, seconds=60)
    assert world.fleet.hosts[SLOW].current == older
    world.run(seconds=60)


def test_no_later_try_switches_who_has_left_and_one_that_is_back_is_brought_back(world, monkeypatch):
    """It owed a rollback when it left; nobody pays that for another app's host, and it is paid once it is in the fleet again."""
    good, bad, number = owes_a_rollback(world)
    world.fleet.hosts[SLOW].unreachable = True
    comes_back = leaves(world, monkeypatch)
    world.fleet.hosts[SLOW].unreachable = False
    world.run(seconds=900)
    assert (world.fleet.hosts[SLOW].current, row_of(world, number).state) == (bad, H.ROLLBACK_FAILED)
    row = row_of(world, number)
    hosts.roll_back(row.rollout, row.id, world.deps)  # a message that came late
    assert world.fleet.hosts[SLOW].current == bad
    comes_back()
    world.run(until=lambda: row_of(world, number).state is H.ROLLED_BACK, seconds=900)
    assert world.fleet.hosts[SLOW].current == good


def test_what_a_silent_worker_had_begun_to_bring_back_is_over_when_it_leaves(world, monkeypatch):
    """Nobody takes it over; the rollback does not wait for it."""
    two_releases(world)
    number = stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow").id
    with world.store.transaction() as tx:
        assert tx.claims.roll_back(row_of(world, number).id, "gone", 15.0) is not None
    out_of_the_inventory(world, monkeypatch, SLOW)
    with world.store.transaction() as tx:
        tx.fleet.take_stock("shop", world.fleet.members(app(world)))
    world.run(until=lambda: state_of(world, number) is R.ROLLED_BACK, seconds=60)
    with world.store.reading() as tx:
        assert tx.rollouts.get(number).reason == f"slow; {LEFT}"


def test_who_is_back_is_brought_to_what_the_fleet_runs_and_owes_nothing(world, monkeypatch):
    """It kept what was taken back while it was away: it is read, and brought along like any other."""
    older, newer = two_releases(world)
    comes_back = leaves(world, monkeypatch)
    rolled_back(world)
    comes_back()
    world.run(until=lambda: recorded(world).left_at is None, seconds=400)
    world.run(until=lambda: recorded(world).release == newer, seconds=60)
    assert (recorded(world).release, world.fleet.hosts[SLOW].current) == (newer, newer)
    world.run(until=lambda: world.fleet.hosts[SLOW].current == older, seconds=700)
    world.run(seconds=60)
    assert (recorded(world).release, recorded(world).owes) == (older, False)


def test_a_stop_takes_who_is_back_past_what_was_taken_back_meanwhile(world, monkeypatch):
    """The next rollout has it before anybody has brought it along: its way back does not lead to the bad release (I2)."""
    older, bad = two_releases(world)
    comes_back = leaves(world, monkeypatch)
    rolled_back(world)
    comes_back()
    world.push(f"Fix\n\nRollout-Fixes: {bad}")
    number = world.newest().id
    world.run(until=lambda: world.newest().id > number, seconds=30)
    number = world.newest().id
    world.run(until=lambda: row_of(world, number).state is H.DONE, seconds=120)
    assert (row_of(world, number).previous, row_of(world, number).way_back) == (bad, older)
    if state_of(world, number) is R.DONE:
        rolled_back(world)
    else:
        stopping.stop(number, world.deps, who="ann", why="bad too")
    world.run(until=lambda: state_of(world, number) is R.ROLLED_BACK, seconds=60)
    assert set(world.runs().values()) == {older}


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


def test_nobody_reads_who_has_left(world, monkeypatch):
    """Its switch was lost, and it is gone: the machine may be another app's, or nobody's."""
    first_release(world)
    world.fleet.hosts[SLOW].unreachable = True
    world.push()
    assert world.settle().state is R.DONE
    comes_back = leaves(world, monkeypatch)
    with world.store.transaction() as tx:
        assert recorded(world).release == UNREAD
        assert tx.hosts.nobody_reads("shop", SLOW) is None
    comes_back()
    with world.store.transaction() as tx:
        tx.fleet.take_stock("shop", world.fleet.members(app(world)))
        assert tx.hosts.nobody_reads("shop", SLOW) is not None


def test_who_is_back_is_no_baseline_until_it_is_read(world, monkeypatch):
    """It may run what was taken back while it was away; one that has only moved is most likely the same."""
    first_release(world)
    comes_back = leaves(world, monkeypatch)
    world.push()
    world.run(until=lambda: world.newest().state is R.EVALUATING_CANARY, seconds=60)
    comes_back()
    rollout, places = world.newest(), [host.position for host in world.rollout_hosts()]
    with world.store.transaction() as tx:
        before = {host.name for host in tx.hosts.compared(rollout, places)}
        name = max(before)
        others = [one for one in world.fleet.members(app(world)) if one.name != name]
        tx.fleet.take_stock("shop", others)
        tx.fleet.take_stock("shop", world.fleet.members(app(world)))
        assert tx.fleet.recorded("shop", name) == UNREAD
        assert {host.name for host in tx.hosts.compared(rollout, places)} == before - {name}
        its = next(one for one in others if one.name in before)
        tx.fleet.know("shop", [its], moved=[its.name])
        assert {host.name for host in tx.hosts.compared(rollout, places)} == before - {name}
    world.settle()


def test_who_is_back_and_had_been_taken_back_to_nothing_is_read(world, monkeypatch):
    """It was recorded as without a release, and has got another app's meanwhile."""
    world.push()
    world.settle()
    rolled_back(world)
    comes_back = leaves(world, monkeypatch)
    assert recorded(world).release is None
    world.fleet.hosts[SLOW].use(ANOTHER_APPS)
    comes_back()
    world.run(until=lambda: recorded(world).release == ANOTHER_APPS, seconds=400)
    assert recorded(world).release == ANOTHER_APPS


@pytest.mark.parametrize("how", ["stop", "rollback"])
def test_who_came_with_another_apps_release_does_not_stay_on_it_after_a_way_back(world, monkeypatch, how):
    """The next rollout switches it before it was brought along; taken back it has that release again, and is brought along then."""
    older = first_release(world)
    comes_back, machine = leaves(world, monkeypatch), world.fleet.hosts[SLOW]
    machine.prepared[ANOTHER_APPS] = "d" * 64
    machine.use(ANOTHER_APPS)
    comes_back()
    number = world.newest().id
    world.push()
    world.run(until=lambda: world.newest().id > number, seconds=60)
    number = world.newest().id
    world.run(until=lambda: row_of(world, number).state is H.DONE, seconds=200)
    if how == "stop" and state_of(world, number) is not R.DONE:
        stopping.stop(number, world.deps, who="ann", why="bad")
        stopped(world, number)
    else:
        world.run(until=lambda: state_of(world, number) is R.DONE, seconds=60)
        rolled_back(world)
    assert machine.current == ANOTHER_APPS
    with world.store.reading() as tx:
        assert [one.name for one in catching_up.late(tx, app(world))] == [SLOW]
    world.run(until=lambda: machine.current == older, seconds=700)
    world.run(seconds=60)
    assert (machine.current, recorded(world).release) == (older, older)


def test_what_was_planned_ahead_and_came_to_nothing_hides_no_host_that_missed_its_way_back(
    world, monkeypatch
):
    """Its row in what was set aside says nothing of what it runs: in a freeze it goes back all the same."""
    older, bad = two_releases(world)
    number = world.newest().id
    world.push()
    world.run(until=lambda: world.newest().id > number, seconds=60)
    freezes.freeze(app(world), world.deps, who="ann", why="incident", until=None)
    with world.store.transaction() as tx:
        planning.set_aside(tx, tx.rollouts.lock(number + 1), "tried", who="test")
    assert not row_of(world, number + 1).touched
    comes_back = leaves(world, monkeypatch)
    rolled_back(world)
    assert (world.fleet.hosts[SLOW].current, the_others(world)) == (bad, {older})
    comes_back()
    world.run(until=lambda: row_of(world, number).state is H.ROLLED_BACK, seconds=900)
    assert (world.fleet.hosts[SLOW].current, recorded(world).owes) == (older, False)


@pytest.mark.parametrize("first", [False, True], ids=["in a freeze", "the first release"])
def test_who_was_away_for_a_moment_goes_back_when_it_is_in_the_fleet_again(world, monkeypatch, first):
    """A way back is never frozen; and where no other release is out nobody else would bring it anything."""
    older = None if first else first_release(world)
    bad = world.push()
    world.settle()
    comes_back = leaves(world, monkeypatch)
    if not first:
        freezes.freeze(app(world), world.deps, who="ann", why="incident", until=None)
    number = rolled_back(world).id
    assert (world.fleet.hosts[SLOW].current, the_others(world)) == (bad, {older})
    comes_back()
    world.run(until=lambda: row_of(world, number).state is H.ROLLED_BACK, seconds=900)
    assert (world.fleet.hosts[SLOW].current, recorded(world).owes) == (older, False)
    world.run(seconds=60)
    with world.store.reading() as tx:
        assert catching_up.late(tx, app(world)) == []


def test_a_rollout_that_came_to_nothing_does_not_hide_that_a_host_missed_its_way_back(world, monkeypatch):
    """It was planned with the host, and stopped before it came to it: what was taken back stayed there for ever."""
    bad = first_release(world)
    comes_back = leaves(world, monkeypatch)
    number = rolled_back(world).id
    comes_back()
    world.push(message=f"a fix\n\nRollout-Fixes: {bad}")

    def on_its_canary():
        with world.store.reading() as tx:
            return tx.rollouts.active(AppName("shop"))

    world.run(until=lambda: (found := on_its_canary()) and found.state is R.EVALUATING_CANARY, seconds=100)
    assert (world.fleet.hosts[SLOW].current, row_of(world, number + 1).touched) == (bad, False)
    stopping.stop(number + 1, world.deps, who="ann", why="not yet")
    stopped(world, number + 1)
    world.run(until=lambda: row_of(world, number).state is H.ROLLED_BACK, seconds=900)
    assert set(world.runs().values()) == {None}
