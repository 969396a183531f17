"""Worlds that go on from where most tests begin: with a first release on every host.

It goes out once for each kind of world; from then on its rows and its hosts are copied.
"""

import atexit
import shutil
import tempfile
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest

from rollout.domain.states import RolloutState
from tests.support.world import World


def released(folder, monkeypatch, **given):
    """A new world with its first release."""
    world = World(folder, monkeypatch, **given)
    first_release(world)
    return world


def first_release(world):
    """What `push` and `settle` make of a new world that nobody has touched; the commit."""
    if world.given is None:
        _ship(world)
    else:
        _copy(_shipped(tuple(world.given.items())), world)
    return world.workshop.commits[0].sha


def _ship(world):
    world.push()
    assert world.settle().state is RolloutState.DONE


@cache
def _shipped(given):
    folder = Path(tempfile.mkdtemp(prefix="rollout-world-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        world = World(folder, patch, **dict(given))
        _ship(world)
        world.store.close()  # then all is in the one file
    return world


def _copy(first, world):
    assert not world.workshop.commits
    there, here = first.deps.state_dir, world.deps.state_dir
    world.store.close()
    for beside in ("-wal", "-shm"):
        (here / f"rollout.db{beside}").unlink(missing_ok=True)
    shutil.copyfile(there / "rollout.db", here / "rollout.db")
    with world.store.transaction() as tx:  # a plan names places
        tx.connection.exec_driver_sql(
            "UPDATE rollouts SET policy = replace(policy, ?, ?)", (str(there), str(here))
        )
    world.seconds = first.seconds
    world.fleet.hosts = deepcopy(first.fleet.hosts)
    for host in world.fleet.hosts.values():
        host.clock = world.metrics.clock
    vars(world.workshop).update(deepcopy(vars(first.workshop)))
    world.bell.queue, world.bell.revoked = list(first.bell.queue), list(first.bell.revoked)
    world.notifier.sent = list(first.notifier.sent)
