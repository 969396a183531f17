"""A host of a rollout that is over is addressed by all that the inventory says of it now: address, port, user, variables, and the path that they fill in."""

from dataclasses import replace

import pytest

from rollout.config import deploy_file
from rollout.domain.model import UNREAD, Target
from rollout.domain.states import RolloutState
from rollout.services import catching_up, stopping, verifying
from tests.support import world as worlds
from tests.support.across import inventory_says, recorded, row_of, state_of
from tests.support.model_host import ModelHost
from tests.support.world import World

A, WHERE = "web04", ("127.9.9.9", "/new/srv/shop")


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Where the releases are, and what restarts them, a variable of the host says."""
    toml = worlds.TOML.replace('"/srv/shop"', '"{{root}}/srv/shop"').replace('"true"', '"start {{root}}"')
    hosts = 'hosts = [{{name = {patterns}, vars = {{root = "/old", zone = "eu"}}}}]'
    monkeypatch.setattr(worlds, "TOML", toml.replace("hosts = [{patterns}]", hosts))
    return World(tmp_path, monkeypatch, hosts=4, fan_out="max_failed = 2\nretries = 0")


def app(world):
    return world.config.app(None)


def ship(world, ends=RolloutState.DONE):
    sha = world.push()
    assert world.settle().state is ends
    return sha


def moves(world, monkeypatch):
    """A has another address, and with it other variables."""
    inventory_says(
        world, monkeypatch, A, address=WHERE[0], path=WHERE[1], variables={"root": "/new", "zone": "eu"}
    )


def file_says(world, tmp_path, path):
    """rollout.toml has the releases elsewhere, from the next rollout on."""
    file = tmp_path / "rollout.toml"
    file.write_text(file.read_text().replace('path = "{root}/srv/shop"', f'path = "{path}"'))
    world.config = deploy_file.load(file, {})
    world.deps = replace(world.deps, config=world.config)


def orders(world, monkeypatch):
    """Where each order to A goes, and with which command."""
    found, prepare, switch = [], world.fleet.prepare, world.fleet._switch

    def prepared(target, *rest, **more):
        found.append(("prepare", target, None))
        return prepare(target, *rest, **more)

    def switched(verb, target, order, *rest):
        found.append((verb, target, order.restart))
        return switch(verb, target, order, *rest)

    monkeypatch.setattr(world.fleet, "prepare", prepared)
    monkeypatch.setattr(world.fleet, "_switch", switched)
    return lambda: [(verb, its.address, its.path, then) for verb, its, then in found if its.name == A]


def test_a_replaced_machine_gets_the_release_where_the_inventory_has_it(world, monkeypatch):
    """What was filled in for the machine that had its name says nothing of this one."""
    sha = ship(world)
    moves(world, monkeypatch)
    world.fleet.hosts[A].lose_disk()
    sent = orders(world, monkeypatch)
    world.run(until=lambda: world.fleet.hosts[A].current == sha, seconds=700)
    assert sent() == [("prepare", *WHERE, None), ("activate", *WHERE, "start /new")]


def test_a_rollback_that_is_owed_goes_to_where_the_inventory_has_the_host(world, monkeypatch):
    """The order is filled in with what is said of the host now, as the address is."""
    good = ship(world)
    bad = world.push()
    world.run(until=lambda: world.runs()[A] == bad, seconds=300)
    world.fleet.hosts[A].unreachable = True
    stopping.stop(world.newest().id, world.deps, who="ann", why="bad")
    world.settle()
    moves(world, monkeypatch)
    world.run(until=lambda: row_of(world, 2, A).path == WHERE[1], seconds=400)
    sent = orders(world, monkeypatch)
    world.fleet.hosts[A].unreachable = False
    world.run(until=lambda: world.fleet.hosts[A].current == good, seconds=700)
    assert sent() == [("rollback", *WHERE, "start /new")]


def test_other_variables_alone_are_heard_too(world, monkeypatch):
    """A path that is another one by them may be another disk, which is read; what only a command mentions changes nothing else."""
    sha = ship(world)
    known = recorded(world, A).verified_at
    inventory_says(world, monkeypatch, A, variables={"root": "/old", "zone": "us"})
    catching_up.follow("shop", world.fleet.members(app(world)), world.deps)
    row, its = row_of(world, 1, A), recorded(world, A)
    assert (row.variables["zone"], row.path, its.release, its.verified_at) == (
        "us",
        "/old/srv/shop",
        sha,
        known,
    )
    inventory_says(world, monkeypatch, A, variables={"root": "/new"}, path=WHERE[1])
    catching_up.follow("shop", world.fleet.members(app(world)), world.deps)
    row = row_of(world, 1, A)
    assert (row.variables, row.path) == ({"root": "/new", "zone": "us"}, WHERE[1])
    assert recorded(world, A).release == UNREAD


def test_another_path_in_the_file_moves_nothing_that_is_out(world, monkeypatch, tmp_path):
    """A rollout's releases are where its plan has them, also on a host that moves or joins: a rollback finds them there."""
    older = ship(world)
    sha = ship(world)
    file_says(world, tmp_path, "{root}/srv/new")
    inventory_says(world, monkeypatch, A, address=WHERE[0], path="/new/srv/new", variables={"root": "/new"})
    world.run(until=lambda: row_of(world, 2, A).address == WHERE[0], seconds=400)
    assert [row_of(world, 2, name).path for name in ("web03", A)] == ["/old/srv/shop", WHERE[1]]
    world.run(until=lambda: recorded(world, A).release == sha, seconds=100)
    assert recorded(world, "web03").release == sha
    stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
    world.settle()
    assert set(world.runs().values()) == {older}


def test_a_reading_looks_where_the_releases_are_and_says_so(world, monkeypatch, tmp_path):
    """After another path in the file nothing is found there: all were taken for lost disks, and restarted."""
    sha = ship(world)
    assert verifying.verify("shop", world.deps).elsewhere is None
    file_says(world, tmp_path, "{root}/srv/new")
    status, seen = world.fleet.status, set()

    def read(target, **how):
        seen.add(target.path)
        found = status(target, **how)
        return found if target.path == "/old/srv/shop" else replace(found, current=None)

    monkeypatch.setattr(world.fleet, "status", read)
    told = verifying.verify("shop", world.deps)
    assert (told.unread, seen, recorded(world, A).found) == ({}, {"/old/srv/shop"}, sha)
    for words in ("is /old/srv/new on web01", "read in /old/srv/shop, where rollout 1", "3 more", "Next: "):
        assert words in told.elsewhere
    sent = orders(world, monkeypatch)
    world.run(seconds=700)
    assert sent() == []


class Disks(dict):
    """Hosts that have another disk for other paths."""

    def __init__(self, hosts):
        super().__init__(hosts)
        self.others = {name: ModelHost(name) for name in hosts}
        self.path = None
        for name, host in hosts.items():
            self.others[name].clock = host.clock

    def __getitem__(self, name):
        return super().__getitem__(name) if self.path == "/old/srv/shop" else self.others[name]

    def told(self, call):
        """The call of the fleet, which goes to the disk of the path that it names."""

        def there(*args, **how):
            self.path = next(one.path for one in args if isinstance(one, Target))
            return call(*args, **how)

        return there


def test_the_first_rollout_in_another_path_says_what_a_stop_leaves(world, monkeypatch, tmp_path):
    """`plan` before it begins, and the rollout when it is rolled back: nothing was there; then hosts are brought to what the fleet runs."""
    older = ship(world)
    world.fleet.hosts = disks = Disks(world.fleet.hosts)
    for verb in ("prepare", "_switch", "status"):
        monkeypatch.setattr(world.fleet, verb, disks.told(getattr(world.fleet, verb)))
    assert planned_elsewhere(world) is None
    file_says(world, tmp_path, "{root}/srv/new")
    assert "finds nothing in /old/srv/new to go back to (a stop leaves its hosts" in planned_elsewhere(world)
    newer = world.push()
    world.run(until=lambda: world.newest().id == 2 and world.newest().done > 1, seconds=300)
    stopping.stop(2, world.deps, who="ann", why="bad")
    world.run(until=lambda: state_of(world, 2) is RolloutState.ROLLED_BACK, seconds=100)
    with world.store.reading() as tx:
        told = tx.rollouts.get(2).reason
    assert told.startswith(
        "bad; without a release, as there was none in /old/srv/new before: web01, web02 (brought"
    )
    assert {host.current for host in disks.others.values()} == {None}
    world.run(until=lambda: recorded(world, "web02").release == older, seconds=100)
    assert {recorded(world, name).release for name in disks} == {older} != {newer}
    assert older in dict.__getitem__(disks, "web01").activations[1:]


def planned_elsewhere(world):
    """What `rollout plan` says of where the next rollout puts its release."""
    with world.store.reading() as tx:
        return verifying.elsewhere(tx, app(world), world.fleet.members(app(world)), world.deps)


def test_a_rollback_fills_in_what_its_hosts_later_rollout_was_told(world, monkeypatch, tmp_path):
    """By its own plan: the later one, which was taken back, may have had the releases elsewhere."""
    ship(world)
    ship(world)
    runs = world.newest().id
    file_says(world, tmp_path, "{root}/srv/new")
    inventory_says(
        world, monkeypatch, A, address=WHERE[0], path="/new/srv/new", variables={"root": "/new", "zone": "eu"}
    )
    monkeypatch.setattr(catching_up, "follow", lambda *_: None)  # nobody has looked for it since
    world.metrics.share = 0.2
    ship(world, RolloutState.ROLLED_BACK)
    sent = orders(world, monkeypatch)
    stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
    world.settle()
    assert (row_of(world, runs, A).path, sent()) == (WHERE[1], [("rollback", *WHERE, "start /new")])
    assert row_of(world, runs, "web03").path == "/old/srv/shop"
