"""The real application over the real services on a real SQLite store, with modelled hosts and a queue as the broker."""

import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.domain.states import RolloutState
from tests.support.web import Client, an_application
from tests.support.world import QueueBell, World


class WebBell(QueueBell):
    """A broker that can be gone."""

    def alive(self):
        return not self.deaf


def a_world(folder, monkeypatch):
    """One app, `shop`, on six hosts, of which one may fail."""
    return World(folder, monkeypatch, hosts=6, fan_out="max_failed = 1")


@pytest.fixture
def world(tmp_path, monkeypatch):
    """One app, `shop`, on six hosts; its webhooks say `acme/shop`."""
    world = a_world(tmp_path, monkeypatch)
    world.bell = WebBell()
    shop = world.config.app("shop").model_copy(update={"webhook_repository": "acme/shop"})
    config = replace(world.config, apps={"shop": shop})
    world.deps = replace(world.deps, bell=world.bell, config=config)
    yield world
    world.store.close()


@pytest.fixture
def serve():
    """Clients of applications built in a test; closed at its end."""
    clients = []

    def serve(deps, *limits, **settings):
        clients.append(Client(an_application(deps, *limits, **settings)))
        return clients[-1]

    yield serve
    for client in clients:
        client.close()


@pytest.fixture
def client(world, serve):
    """The application over `world`."""
    return serve(world.deps)


@pytest.fixture(scope="session")
def halted_world(tmp_path_factory):
    """A world whose second rollout broke two hosts of six, one more than may; made once, to be copied."""
    with pytest.MonkeyPatch.context() as patch:
        world = a_world(tmp_path_factory.mktemp("halted"), patch)
        world.push("the first")
        assert world.settle().state is RolloutState.DONE
        bad = world.push("the second")
        for name in ("web02", "web03"):
            world.fleet.hosts[name].unhealthy.add(bad)
        assert world.settle().state is RolloutState.HALTED
        world.store.close()
    return world  # its clock has ended with it: nobody else's stands still


@pytest.fixture
def halted(world, halted_world):
    """`world` as it is with that halted rollout; the rollout."""
    world.store.close()
    database = Path(world.config.server.state_dir) / "rollout.db"
    for beside in ("-wal", "-shm"):
        database.with_name(database.name + beside).unlink(missing_ok=True)
    shutil.copyfile(halted_world.config.server.state_dir / "rollout.db", database)
    world.seconds = halted_world.seconds
    world.fleet.hosts = deepcopy(halted_world.fleet.hosts)
    world.workshop.commits = list(halted_world.workshop.commits)
    world.bell.queue = list(halted_world.bell.queue)
    return world.newest()
