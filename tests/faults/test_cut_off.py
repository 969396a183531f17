"""A worker is cut off while a host waits for its permission; a stop is given elsewhere; then what was held back arrives.

The real host.sh behind the real sshd, and PostgreSQL; the worker is a thread whose connections go through proxies.
"""

import hashlib
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from sqlalchemy.engine import make_url

from rollout.config import deploy_file
from rollout.config.settings import Settings
from rollout.domain.model import AppName, Release, Role
from rollout.domain.states import HostState, RolloutEvent, RolloutState
from rollout.errors import RolloutError
from rollout.fleet import inventory
from rollout.fleet.ssh import SshFleet
from rollout.services import hosts, stopping
from rollout.services.leases import LeaseKeeper
from rollout.services.ports import Deps
from rollout.store import postgresql
from rollout.store.rollouts import Planned
from rollout.store.store import Store
from tests.support.checker import read
from tests.support.fakes import RecordingBell
from tests.support.processes import marked, until
from tests.support.proxy import proxy
from tests.support.sshd import running_sshd

pytestmark = pytest.mark.needs("sshd", "ssh-keygen", "flock", "postgresql")

TOML = """\
[apps.shop]
repository = "shop.git"
[apps.shop.release]
path = "{{root}}/srv/shop"
[apps.shop.canary]
log = "{{root}}/access.log"
{fleet}"""
DOOR = """\
case $SSH_ORIGINAL_COMMAND in
*activate*) : > knocked; while test ! -e open; do sleep 0.05; done ;;
esac
"""
RE = RolloutEvent


class Detour(SshFleet):
    """Reaches the host by another address."""

    def __init__(self, address, port):
        super().__init__()
        self._detour = {"address": address, "port": port}

    def _host(self, target, timeout_s):
        return super()._host(replace(target, **self._detour), timeout_s)


@dataclass
class Scene:
    """One host, whose activation by the worker waits at its door."""

    sshd: object
    worker: Deps
    operator: Deps
    links: dict
    rollout: int
    thread: Thread

    @property
    def root(self):
        return self.sshd.hosts[0].root

    def touched(self):
        """The worker has it in writing that the host may be switched."""
        with self.operator.store.reading() as tx:
            return all(host.touched for host in tx.hosts.of(self.rollout))

    def intents(self):
        """Switches in the host's journal."""
        found = read.disk(Path(self.sshd.hosts[0].path)).records
        return [record for record in found if record.what == "intent" and record.verb == "activate"]


def _release(folder):
    (folder / "name").write_text("one")
    archive = folder / "one.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "name", "./name")
    line = f"{hashlib.sha256(b'one').hexdigest()}  ./name"
    digest = hashlib.sha256(f"files\n{line}\nexecutables\nlinks\n".encode()).hexdigest()
    return Release(hashlib.sha1(b"one").hexdigest(), digest, str(archive), archive.stat().st_size)


def _deps(config, store, fleet, name):
    settings = Settings()
    return Deps(
        config=config,
        settings=settings,
        store=store,
        fleet=fleet,
        workshop=SimpleNamespace(),
        metrics={},
        bell=RecordingBell(),
        notifier=SimpleNamespace(),
        leases=LeaseKeeper(store, name, settings.lease_s),
        worker=name,
    )


def _plan(deps, release):
    """A rollout at its canary, whose only host is not prepared yet."""
    app = deps.config.app("shop")
    with deps.store.transaction() as tx:
        tx.commits.add(AppName("shop"), release.commit, who="test", why="test")
        tx.commits.add_release(AppName("shop"), release)
        fleet = [(member, Role.CANARY) for member in inventory.members(app)]
        rollout = tx.rollouts.add(
            Planned(
                app="shop",
                commit=release.commit,
                commits=[release.commit],
                previous=None,
                digest=release.digest,
                requested_by="test",
                policy=app.policy(),
                max_failed=1,
                mode="ramp",
                concurrency=10,
                worst_case=2,
                fleet=fleet,
            ),
            why="test",
        )
        tx.rollouts.change(rollout, RE.START, who="test")
    with deps.store.reading() as tx:
        return rollout.id, tx.hosts.of(rollout.id)[0].id


@pytest.fixture
def scene(tmp_path, postgres, monkeypatch):
    """The worker's thread has claimed the host, sent its command, and waits for the greeting."""
    near = make_url(postgres.prepared())
    with running_sshd(tmp_path / "sshd", 1) as sshd:
        target = sshd.target()
        with proxy((near.host, near.port)) as database, proxy((target.address, target.port)) as host:
            sshd.know(host.address, host.port)
            (tmp_path / "rollout.toml").write_text(TOML.format(fleet=sshd.fleet_toml()))
            config = deploy_file.load(tmp_path / "rollout.toml", {})
            stores = [
                Store(url.render_as_string(hide_password=False))
                for url in (near, near.set(port=database.port))
            ]
            stores[0].prepare()
            operator = _deps(config, stores[0], SshFleet(), "operator")
            worker = _deps(config, stores[1], Detour(host.address, host.port), "worker")
            number, host_id = _plan(operator, _release(tmp_path))
            # The worker's connections, which do not exist yet, are given up sooner than others, so that the test is short.
            options = postgresql._CONNECT["options"].replace(
                f"session_timeout={postgresql.IDLE_S}000 ", "session_timeout=1000 "
            )
            monkeypatch.setitem(postgresql._CONNECT, "options", options)
            hosts.prepare(number, host_id, worker)
            sshd.hosts[0].login(DOOR)

            def work():
                try:
                    hosts.deploy(number, host_id, worker)
                except RolloutError as error:
                    print(f"the worker gave up: {error}")

            thread = Thread(target=work)
            made = Scene(sshd, worker, operator, {"database": database, "host": host}, number, thread)
            thread.start()
            try:
                until((made.root / "knocked").exists, what="the worker is at the door")
                yield made
            finally:
                (made.root / "open").touch()
                for link in made.links.values():
                    link.heal()
                    link.cut()
                thread.join(60)
                for deps in (worker, operator):
                    deps.fleet.close()
                    deps.store.close()


@pytest.mark.parametrize(
    ("link", "way", "permitted"),
    [
        ("host", "up", True),
        ("database", "down", False),
        pytest.param("host", "down", False, marks=pytest.mark.faults),
        pytest.param("database", "up", False, marks=pytest.mark.faults),
    ],
)
def test_what_arrives_after_the_acknowledgement_switches_nothing(scene, link, way, permitted):
    """A permission, a greeting, a question or its answer that was held back until after a stop is worth nothing; only who has the permission is sealed."""
    scene.links[link].stall(way)
    (scene.root / "open").touch()
    if permitted:
        until(scene.touched, what="the permission is on its way")
    accepted = stopping.stop(scene.rollout, scene.operator, who="me", why="test")
    assert accepted.leased == (("web001",) if permitted else ())
    until(lambda: stopping.drive(scene.rollout, scene.operator), what="acknowledged", timeout_s=60)
    with scene.operator.store.reading() as tx:
        assert tx.rollouts.get(scene.rollout).unconfirmed == ()
    scene.links[link].heal()
    scene.thread.join(60)
    assert not scene.thread.is_alive()
    until(lambda: not marked(f"SSHD_FOLDER={scene.sshd.folder}"), what="nothing is on its way", timeout_s=70)
    assert scene.intents() == []
    with scene.operator.store.reading() as tx:
        assert tx.rollouts.get(scene.rollout).state in {RolloutState.STOPPED, RolloutState.ROLLING_BACK}


def test_without_a_cut_the_host_is_switched(scene):
    """The scene itself is no reason for a host not to be switched."""
    (scene.root / "open").touch()
    scene.thread.join(60)
    with scene.operator.store.reading() as tx:
        assert [host.state for host in tx.hosts.of(scene.rollout)] == [HostState.DONE]
    assert len(scene.intents()) == 1
