"""Moments in which a guess would be tempting: no seal, no answer, another digest."""

import time
from dataclasses import replace

import pytest

from rollout.domain.model import Release
from rollout.domain.states import HostState, RolloutState
from rollout.errors import Unreachable
from rollout.services import hosts, stopping
from tests.support.released import first_release
from tests.support.world import World


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch, hosts=3, fan_out="max_failed = 1")


def host_of(world, name):
    return next(host for host in world.rollout_hosts() if host.name == name)


def lose(world, name):
    """Run until the answer of this host's switch is lost; the host, unreachable from then on."""
    host = world.fleet.hosts[name]

    def vanish(greeted):
        if greeted == name:
            host.loses_answer = 1

    world.fleet.before_permit = vanish
    before = len(host.journal)
    world.run(until=lambda: len(host.journal) > before)
    world.fleet.before_permit = lambda _name: None
    host.unreachable = True
    assert host_of(world, name).state is HostState.UNKNOWN
    return host


def test_a_stop_is_not_acknowledged_before_the_longest_time_of_a_silent_host(world):
    """I2: a host that cannot be sealed holds the acknowledgement up for as long as it may still be acting."""
    world.push()
    lose(world, "web02")
    number = world.newest().id
    accepted = stopping.stop(number, world.deps, who="me", why="stop")
    assert accepted.leased == ("web02",)
    silent = world.seconds + accepted.longest_s - stopping.ROUNDS_S
    while world.seconds < silent - 1:
        assert not stopping.drive(number, world.deps)
        assert world.newest().state is RolloutState.STOPPING
        world.seconds += 10
    world.seconds = silent + 1
    assert stopping.drive(number, world.deps)
    assert world.newest().unconfirmed == ("web02",)


def test_the_last_look_at_a_silent_host_is_a_short_one(world):
    """The longest time that a stop prints is kept although a host that does not answer costs its whole deadline."""
    world.push()
    lose(world, "web02")
    number = world.newest().id
    accepted = stopping.stop(number, world.deps, who="me", why="stop")
    silent = world.seconds + accepted.longest_s - stopping.ROUNDS_S
    status, asked = world.fleet.status, []

    def look(*args, **more):
        asked.append(more["timeout_s"])
        return status(*args, **more)

    world.fleet.status = look
    for left in (60, 4, 0.1):
        world.seconds = silent - left
        assert not stopping.drive(number, world.deps)
    assert asked[0] == stopping.SEAL_TIMEOUT_S
    assert 4 < asked[1] <= 4 + stopping.LAST_LOOK_S
    assert 0 < asked[2] <= 0.1 + stopping.LAST_LOOK_S


def test_thousands_of_silent_hosts_share_one_last_look(world, monkeypatch):
    """When their time is up the stop is acknowledged after one short look: those whose turn has not come are named too."""
    monkeypatch.setattr(stopping, "SEALERS", 2)
    monkeypatch.setattr(stopping, "LAST_LOOK_S", 0.05)
    world.push()
    host, asked = lose(world, "web02"), []

    def silent(*_, timeout_s, **__):
        asked.append(timeout_s)
        time.sleep(timeout_s)
        raise Unreachable("no answer")

    world.fleet.status = silent
    row = host_of(world, host.name)
    stopping._seal_all([row] * 1000, world.newest(), 1, time.monotonic(), world.deps)
    assert 1 <= len(asked) <= 4


def test_a_reading_without_a_seal_settles_nothing(world):
    """What was sent may still act: the host stays unknown, whatever its disk says now."""
    world.push()
    host = lose(world, "web02")
    host.unreachable = False
    status = world.fleet.status
    world.fleet.status = lambda *args, **more: replace(status(*args, **more), sealed=False)
    hosts.deploy(host_of(world, "web02").rollout, host_of(world, "web02").id, world.deps)
    assert host_of(world, "web02").state is HostState.UNKNOWN
    world.fleet.status = status
    hosts.deploy(host_of(world, "web02").rollout, host_of(world, "web02").id, world.deps)
    assert host_of(world, "web02").state is HostState.DONE


def test_a_host_killed_after_its_switch_is_put_back_and_never_called_done(world):
    """Intent, no outcome, the new release in use: nobody knows whether it was restarted."""
    first_release(world)
    good = world.newest().commit
    world.push()
    host = lose(world, "web02")
    host.journal = [entry for entry in host.journal if entry[0] != "done" or entry[4] == good]
    host.unreachable = False
    hosts.deploy(host_of(world, "web02").rollout, host_of(world, "web02").id, world.deps)
    row = host_of(world, "web02")
    assert (row.state, row.release, host.current) == (HostState.FAILED, good, good)
    assert "put back" in row.error


def test_a_release_built_anew_with_other_bytes_is_not_put_on_hosts(world):
    """I9: the rollout carries the digest of what was tested; another one is refused before it is sent."""
    sha = world.push()
    world.run(until=lambda: world.newest() is not None)
    with world.store.transaction() as tx:
        tx.commits.add_release("shop", Release(sha, "f" * 64, "/other.tar.gz", 1))
    world.settle()
    assert all(not host.prepared for host in world.fleet.hosts.values())
    assert any("no longer the one that was tested" in (host.error or "") for host in world.rollout_hosts())
