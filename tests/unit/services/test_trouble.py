"""Hosts that cannot be reached, lose their answer, or are lost themselves; and workers that go silent."""

import pytest

from rollout.domain.states import HostState, RolloutState
from rollout.errors import Conflict
from rollout.services import hosts, reconcile, stopping
from tests.support.released import first_release
from tests.support.world import World


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch, hosts=10, fan_out="max_failed = 2")


def host_of(world, name):
    return next(host for host in world.rollout_hosts() if host.name == name)


def test_a_lost_answer_is_read_from_the_host_not_guessed(world):
    """A switch whose answer was lost is found done by reading the journal; it is not done again."""
    world.fleet.hosts["web05"].loses_answer = 1
    sha = world.push()
    assert world.settle().state is RolloutState.DONE
    assert world.fleet.hosts["web05"].activations == [sha]
    assert host_of(world, "web05").state is HostState.DONE


def test_trouble_with_one_silent_host_is_not_the_others(world, monkeypatch):
    """A row that cannot be settled waits for the next sweep; those behind it are settled in this one."""
    settle = reconcile._settled

    def die():
        raise KeyboardInterrupt

    for name in ("web05", "web06"):
        world.fleet.hosts[name].before_act = die
    world.push()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            world.settle()
    assert [host_of(world, name).state for name in ("web05", "web06")] == [HostState.ACTIVATING] * 2

    def trouble(tx, host, deps):
        if host.name == "web05":
            raise Conflict("a row like no other")
        return settle(tx, host, deps)

    monkeypatch.setattr(reconcile, "_settled", trouble)
    world.seconds += 10 * world.deps.settings.lease_s
    reconcile.sweep(world.deps)
    assert host_of(world, "web05").state is HostState.ACTIVATING
    assert host_of(world, "web06").state is HostState.UNKNOWN


def test_an_unreachable_host_is_tried_again_then_fails(world):
    """A host that never answers fails after its retries, within the budget, and the rest goes on."""
    world.fleet.hosts["web05"].unreachable = True
    sha = world.push()
    assert world.settle().state is RolloutState.DONE
    assert host_of(world, "web05").state is HostState.FAILED
    assert host_of(world, "web05").attempt == 2
    assert sum(current == sha for current in world.runs().values()) == 9


def test_many_failing_prepares_never_exceed_the_bound(tmp_path, monkeypatch):
    """Prepares fail many at once; failed hosts still never exceed K+1 before the canary passed."""
    world = World(tmp_path, monkeypatch, hosts=30, fan_out="max_failed = 2")
    for name, host in world.fleet.hosts.items():
        host.no_room = name != "web01"
    world.push()
    halted = world.settle()
    assert halted.state is RolloutState.HALTED
    assert sum(host.state is HostState.FAILED for host in world.rollout_hosts()) == 3


def test_another_host_takes_the_place_of_an_unreachable_canary(world):
    """With a count, the next host becomes the canary; the unreachable one is not the commit's fault."""
    world.fleet.hosts["web01"].unreachable = True
    sha = world.push()
    assert world.settle().state is RolloutState.DONE
    assert world.runs()["web02"] == sha
    assert host_of(world, "web02").role == "canary"


def test_a_named_canary_that_cannot_be_reached_halts(tmp_path, monkeypatch):
    """A named canary has no substitute."""
    world = World(tmp_path, monkeypatch, fan_out="max_failed = 2", canary='hosts = ["web03"]')
    world.fleet.hosts["web03"].unreachable = True
    world.push()
    halted = world.settle()
    assert halted.state is RolloutState.HALTED
    assert "web03" in halted.reason


def test_a_canary_that_fails_its_health_check_fails_the_commit(world):
    """An unhealthy canary is a FAIL: back, and barred."""
    sha = world.workshop.push()
    world.fleet.hosts["web01"].unhealthy.add(sha)
    world.push()
    world.run(until=lambda: world.newest() is not None and world.newest().state is RolloutState.ROLLED_BACK)
    assert world.newest().state is RolloutState.ROLLED_BACK or world.newest().commit != sha
    assert sha not in world.runs().values()


def test_a_worker_that_goes_silent_leaves_the_host_unknown_until_it_is_read(world, monkeypatch):
    """Its lease runs out, the host is read with a seal, and the same attempt goes on; never a second switch."""

    class Killed(BaseException):
        pass

    def die(name):
        if name == "web05":
            raise Killed

    world.fleet.before_permit = die
    sha = world.push()
    with pytest.raises(Killed):
        world.settle()
    world.fleet.before_permit = lambda _name: None
    assert world.settle().state is RolloutState.DONE
    assert world.fleet.hosts["web05"].activations == [sha]
    assert any(entry[0] == "seal" for entry in world.fleet.hosts["web05"].journal)


def test_a_host_that_stays_unreadable_counts_as_failed(tmp_path, monkeypatch):
    """An unknown host that cannot be read for host_timeout halts a rollout that allows no failure."""
    world = World(tmp_path, monkeypatch, fan_out="max_failed = 0")
    lost = world.fleet.hosts["web05"]
    world.push()

    def vanish(name):
        if name == "web05":
            lost.loses_answer = 1

    world.fleet.before_permit = vanish
    world.run(until=lambda: host_of(world, "web05").state is HostState.UNKNOWN if world.newest() else False)
    lost.unreachable = True
    halted = world.settle()
    assert halted.state is RolloutState.HALTED
    assert host_of(world, "web05").unreadable
    assert "web05" in halted.reason


def test_a_stop_while_a_worker_holds_a_host_lets_it_have_no_permit(world):
    """The worker that was between claim and greeting gets no permit, and the host is never switched."""
    good = first_release(world)
    bad = world.push()

    def stop_now(name):
        if name == "web05":
            stopping.stop(world.newest().id, world.deps, who="me", why="stop!")

    world.fleet.before_permit = stop_now
    assert world.settle().state is RolloutState.ROLLED_BACK
    assert set(world.runs().values()) == {good}
    assert bad not in world.fleet.hosts["web05"].activations


def test_a_stop_names_hosts_that_it_could_not_read(world):
    """A permitted host that does not answer is named unconfirmed after its longest time, never counted as stopped."""
    first_release(world)
    world.fleet.cuts.add("web05")
    world.push()
    world.run(until=lambda: "web05" in world.fleet.in_hand)
    world.fleet.hosts["web05"].unreachable = True
    stopping.stop(world.newest().id, world.deps, who="me", why="stop!")
    assert world.settle().unconfirmed == ("web05",)


def test_a_late_message_for_a_finished_rollout_does_nothing(world):
    """Every message delivered again after the end finds nothing to do."""
    first_release(world)
    before = {name: list(host.journal) for name, host in world.fleet.hosts.items()}
    for host in world.rollout_hosts():
        hosts.prepare(host.rollout, host.id, world.deps)
        hosts.deploy(host.rollout, host.id, world.deps)
        hosts.roll_back(host.rollout, host.id, world.deps)
    assert {name: host.journal for name, host in world.fleet.hosts.items()} == before
