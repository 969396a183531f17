"""A switch that has no end is nobody's guilt: the host goes back, whoever is lost on the way, and the commit is not blamed."""

import pytest

from rollout.domain.model import UNREAD
from rollout.domain.states import CommitState, HostState, RolloutState
from rollout.errors import OutcomeUnknown, Unreachable
from rollout.services import halts, hosts, reconcile, stopping
from tests.support.across import SLOW, fix, owes_a_rollback, roll_back_again, row_of
from tests.support.checker.check import check
from tests.support.checker.read import world as told
from tests.support.model_host import HEALTH, SENDING, at_once, prepare_call
from tests.support.released import released
from tests.support.world import World


class Killed(BaseException):
    pass


@pytest.fixture
def world(tmp_path, monkeypatch):
    return released(tmp_path, monkeypatch, hosts=6, fan_out="max_failed = 2", canary='deadline = "1m"')


def of(world, name):
    return next(host for host in world.rollout_hosts() if host.name == name)


def recorded(world, name):
    with world.store.reading() as tx:
        return next(host.release for host in tx.fleet.hosts("shop") if host.name == name)


def state_of(world, sha):
    with world.store.reading() as tx:
        return tx.commits.get("shop", sha).state


def interrupts(world, monkeypatch, name, *, on_the_way_back=lambda _go: None):
    """The host reboots behind its switch to the next release; then `on_the_way_back` may do as it likes, once."""
    true, host, armed = world.fleet._switch, world.fleet.hosts[name], ["reboot", "way back"]

    def switch(verb, target, order, permit, on_switch=None):
        if target.name != name or verb[:4] not in {"acti", "roll"} or not armed:
            return true(verb, target, order, permit)
        if verb == "activate" and armed[0] == "reboot":
            armed.pop(0)
            outcome = true(verb, target, order, permit)
            host.journal[:] = [
                one for one in host.journal if (one.operation, one.what) != (order.operation, "done")
            ]
            raise OutcomeUnknown(f"{name}: rebooted, {outcome.answer}")
        if verb == "rollback" and armed[0] == "way back":
            armed.pop(0)
            on_the_way_back(lambda: true(verb, target, order, permit))
        return true(verb, target, order, permit)

    monkeypatch.setattr(world.fleet, "_switch", switch)
    return host


def test_an_interrupted_canary_is_not_the_commits_fault(world, monkeypatch):
    """It goes back and counts as failed, the next host takes its place, and the commit ships."""
    old = world.fleet.hosts["web01"].current
    host = interrupts(world, monkeypatch, "web01")
    sha = world.push()
    assert world.settle().state is RolloutState.DONE
    assert state_of(world, sha) is CommitState.PASSED
    assert (of(world, "web01").state, of(world, "web01").cause) == (HostState.FAILED, "Interrupted")
    assert (host.current, recorded(world, "web01")) == (old, old)
    assert of(world, "web01").error == "web01: was interrupted (reboot or kill); put back"
    assert check(told(world)) == []


def test_a_canary_that_lost_its_disk_is_not_the_commits_fault(world):
    """A journal that is gone says nothing of the release."""
    host = world.fleet.hosts["web01"]

    def lose():
        host.lose_disk()
        host.loses_answer, host.after_act = 1, lambda: None

    host.after_act = lose
    sha = world.push()
    assert world.settle().state is RolloutState.DONE
    assert (of(world, "web01").cause, state_of(world, sha)) == ("Interrupted", CommitState.PASSED)


def test_an_unhealthy_canary_whose_answer_was_lost_is_the_commits_fault(world):
    """What its own journal says is guilt as ever, whoever reads it."""
    world.fleet.hosts["web01"].loses_answer = 1
    sha = world.push()
    world.fleet.hosts["web01"].unhealthy.add(sha)
    assert world.settle().state is RolloutState.ROLLED_BACK
    assert state_of(world, sha) is CommitState.BARRED
    assert "web01: was unhealthy and put back" in world.newest().reason


def is_unreachable(_go):
    raise Unreachable("web03: no answer")


def is_killed(_go):
    raise Killed


def loses_its_answer(go):
    go()
    raise OutcomeUnknown("web03: the connection broke")


def is_killed_behind_it(go):
    go()
    raise Killed


@pytest.mark.parametrize("trouble", [is_unreachable, is_killed, loses_its_answer, is_killed_behind_it])
def test_a_way_back_that_is_lost_is_resumed(world, monkeypatch, trouble):
    """Before it or behind it, by a broken connection or a kill: the host ends on what it ran before, and the reason is true."""
    old = world.fleet.hosts["web03"].current
    host = interrupts(world, monkeypatch, "web03", on_the_way_back=trouble)
    world.push()
    for _ in range(3):
        try:
            world.settle()
            break
        except Killed:
            pass
    assert (of(world, "web03").state, host.current, recorded(world, "web03")) == (HostState.FAILED, old, old)
    assert of(world, "web03").error == "web03: was interrupted (reboot or kill); put back"
    assert of(world, "web03").cause == "Interrupted"
    assert host.last.open is False
    assert check(told(world)) == []


def test_a_host_that_cannot_be_put_back_for_want_of_room_counts_as_failed_in_time(world, monkeypatch):
    """It is tried until there is room again, and the budget does not wait for that for ever."""
    host = interrupts(world, monkeypatch, "web03", on_the_way_back=lambda _go: setattr(host, "no_room", True))
    old = host.current
    world.push()
    world.settle(seconds=900)
    assert (of(world, "web03").state, of(world, "web03").unreadable) == (HostState.UNKNOWN, True)
    assert recorded(world, "web03") == UNREAD
    host.no_room = False
    world.run(until=lambda: recorded(world, "web03") == host.current, seconds=400)
    assert host.current in {old, world.newest().commit}


def test_a_worker_that_dies_while_a_canary_comes_up_is_not_the_commits_fault(world):
    """Readers wait for the health check that goes on without it, and the canary is done."""
    fleet, host = world.fleet, world.fleet.hosts["web01"]
    fleet.while_waiting = lambda: setattr(world, "seconds", world.seconds + 0.05)
    fleet.cuts.add("web01")
    sha = world.push()
    host.comes_up_s[sha] = 8.0
    world.run(until=lambda: "web01" in fleet.in_hand)
    _call, steps, within = fleet.in_hand.pop("web01")
    moment = steps.send(within)
    while moment != HEALTH:
        moment = steps.send(None)
    world.run(seconds=6)
    assert of(world, "web01").state is HostState.UNKNOWN
    while moment is not None:
        world.run(seconds=0.5)
        moment = next(steps, None)
    assert world.settle().state is RolloutState.DONE
    assert (of(world, "web01").state, state_of(world, sha)) == (HostState.DONE, CommitState.PASSED)
    assert host.activations.count(sha) == 1
    assert check(told(world)) == []


def restarting(world, name, monkeypatch, *, free_at):
    """The host has its lock in other hands until then: a way back waits for as long as it may, and is refused."""
    host = world.fleet.hosts[name]
    true = world.fleet._switch

    def switch(verb, target, order, permit, on_switch=None):
        if target.name != name or verb != "rollback" or world.seconds >= free_at:
            return true(verb, target, order, permit)
        host.holder = object()
        world.fleet.while_waiting = lambda: None
        try:
            return true(verb, target, order, lambda greeting: permit(greeting) * 0)
        finally:
            world.seconds = min(free_at, world.seconds + 14.0)
            host.holder = None

    monkeypatch.setattr(world.fleet, "_switch", switch)


def switched(world, name):
    """The next release is on this host, and the rollout goes on."""
    sha = world.push()
    world.run(until=lambda: world.newest().commit == sha and of(world, name).state is HostState.DONE)


@pytest.mark.parametrize("rolled_back_before", [False, True])
def test_a_stop_waits_for_a_restart_that_outlasts_every_permission(world, monkeypatch, rolled_back_before):
    """`busy` means ask again: the healthy host goes back in the stop's own rollback as soon as it is free."""
    old = world.fleet.hosts["web05"].current
    switched(world, "web05")
    if rolled_back_before:  # and it is the same for one that is tried again after the end
        world.fleet.hosts["web05"].unreachable = True
        stopping.stop(world.newest().id, world.deps, who="me", why="enough")
        world.settle()
        world.fleet.hosts["web05"].unreachable = False
        restarting(world, "web05", monkeypatch, free_at=world.seconds + 45)
        world.run(until=lambda: of(world, "web05").state is HostState.ROLLED_BACK)
        assert of(world, "web05").failures == 1
    else:
        restarting(world, "web05", monkeypatch, free_at=world.seconds + 45)
        stopping.stop(world.newest().id, world.deps, who="me", why="enough")
        world.run(until=lambda: of(world, "web05").busy_since is not None)
        assert of(world, "web05").state is HostState.ROLLING_BACK
        world.settle()
        assert "not back" not in world.newest().reason
    assert (of(world, "web05").state, of(world, "web05").busy_since) == (HostState.ROLLED_BACK, None)
    assert (world.fleet.hosts["web05"].current, recorded(world, "web05")) == (old, old)
    assert check(told(world)) == []


def test_a_host_that_is_busy_beyond_all_its_time_has_failed(world, monkeypatch):
    """The rollout does not wait for ever: after restart and health, twice, it ends and names the host, and goes on trying."""
    switched(world, "web05")
    began = world.seconds
    restarting(world, "web05", monkeypatch, free_at=began + 500)
    stopping.stop(world.newest().id, world.deps, who="me", why="enough")
    assert "not back with the others: web05" in world.settle().reason
    assert 270 < world.seconds - began < 330
    world.run(until=lambda: of(world, "web05").state is HostState.ROLLED_BACK, seconds=900)
    assert of(world, "web05").state is HostState.ROLLED_BACK


def test_who_finds_a_host_that_is_asked_again_says_why(world, monkeypatch):
    """It has no worker that could have gone silent: when a newer rollout has it, the event names the refusal."""
    switched(world, "web05")
    restarting(world, "web05", monkeypatch, free_at=world.seconds + 60)
    stopping.stop(world.newest().id, world.deps, who="me", why="enough")
    world.run(until=lambda: of(world, "web05").busy_since is not None)
    world.seconds += 3
    reconcile.sweep(world.deps)
    assert of(world, "web05").error == "web05: its fence refused: busy"


def never_ends(world, monkeypatch):
    """Whichever host switches, reboots before it can say how it went."""
    true = world.fleet._switch

    def switch(verb, target, order, permit, on_switch=None):
        outcome = true(verb, target, order, permit)
        if verb == "activate":
            journal = world.fleet.hosts[target.name].journal
            journal[:] = [one for one in journal if (one.operation, one.what) != (order.operation, "done")]
            raise OutcomeUnknown(f"{target.name}: rebooted")
        return outcome

    monkeypatch.setattr(world.fleet, "_switch", switch)


def test_release_that_interrupts_every_canary_halts_at_the_second(world, monkeypatch):
    """It may be the release that reboots its hosts: without a PASS it goes no further, however many may fail."""
    never_ends(world, monkeypatch)
    sha = world.push()
    rollout = world.settle()
    assert (rollout.state, rollout.halted_stage) == (RolloutState.HALTED, RolloutState.DEPLOYING_CANARY)
    assert rollout.reason.startswith("canary host web02 went the way of web01: web02: was interrupted")
    assert [name for name, host in world.fleet.hosts.items() if sha in host.activations] == ["web01", "web02"]


def test_canary_that_is_gone_after_its_switch_holds_nothing_up_for_ever(world):
    """It counts as unreadable in time, keeps its place in the budget, and the next host is the canary."""
    host = world.fleet.hosts["web01"]

    def vanish():
        host.unreachable, host.loses_answer = True, 1

    host.after_act = vanish
    world.push()
    rollout = world.settle(seconds=1500)
    assert rollout.state is RolloutState.DONE
    assert (of(world, "web01").role, of(world, "web01").unreadable) == ("other", True)
    assert of(world, "web02").role == "canary"
    assert rollout.failed + rollout.unreadable == 1
    assert check(told(world)) == []


def test_prepare_that_an_older_way_back_overtakes_is_made_again(tmp_path, monkeypatch):
    """A host that an older rollout brings back while the newer one's archive is on its way has another attempt."""
    world = World(tmp_path, monkeypatch, hosts=6, fan_out="max_failed = 0")
    _, bad, old = owes_a_rollback(world)
    host, prepare = world.fleet.hosts[SLOW], world.fleet.prepare

    def overtaken(target, order, *, timeout_s, go_on):
        if target.name != SLOW:
            return prepare(target, order, timeout_s=timeout_s, go_on=go_on)
        monkeypatch.setattr(world.fleet, "prepare", prepare)
        call = prepare_call(host, order)
        steps = call.run()
        assert next(steps) == SENDING
        roll_back_again(world, old, hosts)
        at_once(steps, order.release.digest)
        return call.reply.outcome(call.reply.answer)

    monkeypatch.setattr(world.fleet, "prepare", overtaken)
    _, new = fix(world, bad)
    assert world.settle().state is RolloutState.DONE
    assert (row_of(world, new).state, row_of(world, new).attempt) == (HostState.DONE, 2)


def test_put_back_of_a_host_with_a_debt_is_resumed(tmp_path, monkeypatch):
    """It reboots on its way back to where an older rollout owes it to be: whoever reads it then goes on."""
    world = World(tmp_path, monkeypatch, hosts=6, fan_out="max_failed = 2")
    good, bad, _ = owes_a_rollback(world)
    host = world.fleet.hosts[SLOW]

    def reboot(go):
        go()
        host.journal[-1:] = []
        raise OutcomeUnknown("rebooted between the way back's rename and its restart")

    interrupts(world, monkeypatch, SLOW, on_the_way_back=reboot)
    _, new = fix(world, bad)
    world.settle()
    world.run(until=lambda: row_of(world, new).state is HostState.FAILED, seconds=100)
    assert (row_of(world, new).state, host.current) == (HostState.FAILED, good)
    assert row_of(world, new).error == f"{SLOW}: was interrupted (reboot or kill); put back"
    assert not host.last.open


def behind_its_switch(world, monkeypatch, befalls):
    """`befalls` says which hosts are cut off behind the answer to their switch, and does to them what it likes."""
    true = world.fleet._switch

    def switch(verb, target, order, permit, on_switch=None):
        outcome = true(verb, target, order, permit)
        if verb == "activate" and befalls(world.fleet.hosts[target.name], target.name, order):
            raise OutcomeUnknown(f"{target.name}: gone")
        return outcome

    monkeypatch.setattr(world.fleet, "_switch", switch)


def test_two_interrupted_canaries_that_a_person_excludes_leave_a_way_on(world, monkeypatch):
    """Two broken machines are no reason to bar a good commit: excluding them is a person's word for it."""

    def reboots(host, name, order):
        host.journal[:] = [
            one
            for one in host.journal
            if name not in {"web01", "web02"} or (one.operation, one.what) != (order.operation, "done")
        ]
        return name in {"web01", "web02"}

    behind_its_switch(world, monkeypatch, reboots)
    world.push()
    halted = world.settle()
    assert (halted.state, "web02 went the way of web01" in halted.reason) == (RolloutState.HALTED, True)
    halts.exclude("shop", ["web01", "web02"], world.deps, who="me", why="their power supplies are broken")
    halts.resume(halted.id, world.deps, who="me", accept_failed=True, why="hardware")
    assert world.settle().state is RolloutState.DONE


def test_guilt_that_is_read_late_still_fails_the_canary(world, monkeypatch):
    """web01 was unreadable and made way; then its own journal says that the release was unhealthy there."""
    host = world.fleet.hosts["web01"]

    def loses_its_network(_host, name, _order):
        host.unreachable = host.unreachable or name == "web01"
        return name == "web01"

    behind_its_switch(world, monkeypatch, loses_its_network)
    before = world.newest().id
    sha = world.push()
    host.unhealthy.add(sha)
    world.run(until=lambda: world.newest().id > before and of(world, "web01").unreadable, seconds=400)
    host.unreachable = False
    world.settle()
    assert state_of(world, sha) is CommitState.BARRED
    assert world.newest().canary_reason.startswith("canary web01 failed: web01: was unhealthy and put back")


def test_reboot_on_the_way_back_from_an_unhealthy_release_takes_nothing_from_its_guilt(world, monkeypatch):
    """host.sh had written that it puts the host back; the power was cut before its end."""

    def power_cut(host, name, _order):
        if name == "web01":
            assert [one.what for one in host.journal[-2:]] == ["back", "failed"]
            host.journal[-1:] = []
        return name == "web01"

    behind_its_switch(world, monkeypatch, power_cut)
    sha = world.push()
    world.fleet.hosts["web01"].unhealthy.add(sha)
    world.settle()
    assert state_of(world, sha) is CommitState.BARRED
    told = "canary web01 failed: web01: was unhealthy, then interrupted (reboot or kill); put back"
    assert world.newest().canary_reason == told


def test_a_failure_that_a_person_accepts_convicts_nobody(world, monkeypatch):
    """The late guilt is known when he says so: the rollout goes on with the canary that took the place, as he was told."""
    host = world.fleet.hosts["web01"]

    def loses_its_network(_host, name, _order):
        host.unreachable = host.unreachable or name == "web01"
        return name == "web01"

    behind_its_switch(world, monkeypatch, loses_its_network)
    before = world.newest().id
    sha = world.push()
    host.unhealthy.add(sha)
    world.metrics.rate = 0
    world.run(
        until=lambda: world.newest().id > before and world.newest().state is RolloutState.HALTED, seconds=3000
    )
    host.unreachable = False
    world.run(until=lambda: of(world, "web01").state is HostState.FAILED, seconds=60)
    halts.resume(world.newest().id, world.deps, who="me", why="web01 has a broken disk", accept_failed=True)
    world.metrics.rate = 100
    assert world.settle().state is RolloutState.DONE
