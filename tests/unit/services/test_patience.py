"""Waiting is kept: a second copy of a message is no attempt, and a host that is busy is asked again, but not for ever."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

from rollout.domain.model import Answer, Outcome
from rollout.domain.states import HostState, RolloutState
from rollout.services import hosts, reconcile, stopping
from tests.support.across import SLOW, fix, owes_a_rollback, row_of, state_of
from tests.support.model_host import SENDING, WAITING, prepare_call
from tests.support.world import World

H, R = HostState, RolloutState


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("what", ["prepare_host", "deploy_host"])
def test_a_doubled_message_is_no_second_attempt(tmp_path, monkeypatch, copies, what):
    """A blip of a second and one retry: the wait before it is not cut short by another copy of the first message."""
    monkeypatch.setattr(hosts, "IN_A_ROW", 1)  # a message for each host
    world = World(tmp_path, monkeypatch, hosts=5, fan_out="max_failed = 0\nretries = 1")
    world.push()
    world.settle()
    blip, step = [], world.step

    def host_of(row):
        with world.store.reading() as tx:
            return getattr(tx.hosts.get(row), "name", "")

    def doubled(entry):
        _, (task, *_), args = entry
        mine = task.endswith(what) and world.newest().id == 2 and host_of(args[1]) == "web03"
        if mine and not blip:
            blip.append(world.seconds + 1.0)
        world.fleet.hosts["web03"].unreachable = bool(blip) and world.seconds < blip[0]
        for _ in range(copies if mine else 1):
            step(entry)

    monkeypatch.setattr(world, "step", doubled)
    world.push()
    assert world.settle().state is R.DONE
    assert blip


def test_copies_of_a_failed_way_back_change_nothing(tmp_path, monkeypatch):
    """A host that could not be brought back is tried again when its back-off is over, however many messages there are."""
    world = World(tmp_path, monkeypatch, hosts=5, fan_out="max_failed = 2")
    world.push()
    world.settle()
    world.push()
    world.run(until=lambda: world.newest().id == 2 and row_of(world, 2).state is H.DONE)
    world.fleet.hosts[SLOW].unreachable = True
    stopping.stop(2, world.deps, who="me", why="x")
    world.run(until=lambda: state_of(world, 2) is R.ROLLED_BACK)
    row = row_of(world, 2)
    assert (row.state, row.failures) == (H.ROLLBACK_FAILED, 1)
    for _ in range(5):
        hosts.roll_back(row.rollout, row.id, world.deps)
    assert row_of(world, 2) == row


def test_unreachable_hosts_do_not_hold_up_the_way_back_of_the_others(tmp_path, monkeypatch):
    """Each has its first try before any has a second: the rollout is rolled back when that is over."""
    world = World(tmp_path, monkeypatch, hosts=12, fan_out="max_failed = 12")
    world.push()
    world.settle()
    world.push()
    world.run(until=lambda: world.newest().id == 2 and world.newest().done == 12)
    true, tries = world.fleet.roll_back, []

    def slow(target, *order, **given):
        tries.append(target.name)
        if target.name != "web12":
            world.seconds += 20.0  # two times as long as it takes until a message is sent again
            world.fleet.hosts[target.name].unreachable = True
            reconcile.sweep(world.deps)
        return true(target, *order, **given)

    monkeypatch.setattr(world.fleet, "roll_back", slow)
    stopping.stop(2, world.deps, who="me", why="x")
    world.run(until=lambda: state_of(world, 2) is R.ROLLED_BACK, seconds=2000)
    assert state_of(world, 2) is R.ROLLED_BACK
    assert sorted(tries) == sorted({*tries})


def test_a_prepare_waits_for_an_older_way_back_that_restarts(tmp_path, monkeypatch):
    """It is refused as busy for longer than host.sh waits for the lock: that is no failure of this host, and no attempt."""
    world = World(tmp_path, monkeypatch, hosts=5, fan_out="max_failed = 0\nretries = 0")
    _, bad, _ = owes_a_rollback(world)
    host, true, restart, until = world.fleet.hosts[SLOW], world.fleet.prepare, object(), []

    def prepare(target, order, *, timeout_s, go_on):
        if target.name != SLOW:
            return true(target, order, timeout_s=timeout_s, go_on=go_on)
        if not until:
            until.append(world.seconds + 75.0)  # host.sh waits for 60
        host.holder = restart if world.seconds < until[0] else None
        call, said = prepare_call(host, order), None
        steps = call.run()
        try:
            while True:
                moment = steps.send(said)
                said = order.release.digest if moment == SENDING else None
                if moment == WAITING:
                    world.seconds += 0.5
                    host.holder = host.holder if world.seconds < until[0] else None
        except StopIteration:
            return call.reply.outcome(call.reply.answer)

    monkeypatch.setattr(world.fleet, "prepare", prepare)
    _, new = fix(world, bad)
    assert world.settle().state is R.DONE
    assert row_of(world, new).attempt == 1


def test_a_host_that_is_busy_for_ever_fails(tmp_path, monkeypatch):
    """Whatever keeps its lock: the rollout says so, and a person decides; it does not wait without an end."""
    world = World(tmp_path, monkeypatch, hosts=5, fan_out="max_failed = 0")
    world.push()
    world.settle()
    true = world.fleet._switch

    def switch(verb, target, order, permit, on_switch=None):
        if target.name == SLOW and verb == "activate":
            world.seconds += 13.0
            return Outcome(Answer.REFUSED, "busy", current="0" * 39 + "1")
        return true(verb, target, order, permit)

    monkeypatch.setattr(world.fleet, "_switch", switch)
    world.push()
    world.run(until=lambda: world.newest().state is R.HALTED, seconds=1200)
    assert state_of(world, 2) is R.HALTED
    assert row_of(world, 2).error == f"{SLOW}: its fence refused: busy"


def test_hosts_that_wait_for_something_else_hold_up_no_way_back(tmp_path, monkeypatch):
    """Unreadable hosts of a done rollout are looked at ever less often: that is no place in the window of those that go back."""
    world = World(tmp_path, monkeypatch, hosts=24, fan_out="max_failed = 8\nhost_timeout = '30s'")
    world.deps = replace(world.deps, settings=world.deps.settings.model_copy(update={"slots": 2}))
    world.push()
    world.settle()
    gone = {f"web{number:02d}" for number in range(5, 13)}

    def vanish(name):
        world.fleet.hosts[name].unreachable = True

    for name in gone:
        world.fleet.hosts[name].after_act = partial(vanish, name)
        world.fleet.hosts[name].loses_answer = 1
    world.push()
    assert world.settle(seconds=3000).state is R.DONE
    world.run(seconds=600)
    began = world.seconds
    stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="me", why="x")
    world.run(until=lambda: state_of(world, 2) is R.ROLLED_BACK, seconds=1000)
    back = {host.name for host in world.rollout_hosts() if host.state is H.ROLLED_BACK}
    assert (back, world.seconds - began < 30.0) == ({*world.fleet.hosts} - gone, True)


def test_without_a_broker_the_way_back_needs_no_window(tmp_path, monkeypatch):
    """A window keeps the queue short. Where there is none, one sweep hands out everything."""
    world = World(tmp_path, monkeypatch, hosts=40, fan_out="max_failed = 3")
    world.deps = replace(world.deps, settings=world.deps.settings.model_copy(update={"slots": 1}))
    world.push()
    world.settle()
    world.bell.deaf = True
    world.bell.queue.clear()
    stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="me", why="x")
    handed_out = []
    here = SimpleNamespace(do=handed_out.extend)
    world.seconds += world.deps.settings.ring_again_s + 1
    reconcile.sweep(world.deps, here)
    assert len({ring.arguments[1] for ring in handed_out}) == 40


def test_one_slot_ships(tmp_path, monkeypatch):
    """The smallest setting that is accepted prepares one host after the other."""
    world = World(tmp_path, monkeypatch, hosts=5)
    world.deps = replace(world.deps, settings=world.deps.settings.model_copy(update={"slots": 1}))
    world.push()
    assert world.settle().state is R.DONE
