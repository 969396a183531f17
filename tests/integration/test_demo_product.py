"""How the demo drives the product: its configuration is accepted, its webhook is signed, its evidence is the hosts' own."""

import subprocess
import sys

import pytest

from rollout.cli.demo import evidence
from rollout.cli.demo.product import Product
from rollout.cli.demo.repository import Repository
from rollout.cli.demo.world import read_world
from rollout.config import deploy_file
from rollout.config.members import configured
from tests.support.processes import until


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A world of its own, whose folder has a blank and a quote in its name."""
    folder = tmp_path_factory.mktemp("demo 'world'")
    process = subprocess.Popen(
        [sys.executable, "-m", "rollout.cli.demo.world", str(folder)], stdin=subprocess.PIPE
    )
    until(lambda: process.poll() is not None or read_world(folder), what="the world is there")
    yield read_world(folder)
    process.stdin.close()
    assert process.wait(20) == 0


@pytest.fixture
def plain_world(tmp_path):
    """A world in a folder whose name may be in a host's variables; nothing of it runs."""
    (tmp_path / "world.json").write_text(
        '{"hosts": [["shop01", "127.1.1.1", "/tmp/a"], ["shop02", "127.1.1.2", "/tmp/b"]], "ssh_port": 22, "http_port": 80}'
    )
    return read_world(tmp_path)


def test_its_configuration_is_accepted(plain_world, tmp_path) -> None:
    """The rollout.toml that the demo writes is read, and every host gets its own path from its own root."""
    product = Product(tmp_path, plain_world, Repository(tmp_path))
    app = deploy_file.load(product.config, {}).app(None)
    assert [member.path for member in configured(app)] == ["/tmp/a/srv/shop", "/tmp/b/srv/shop"]
    assert [member.address for member in configured(app)] == ["127.1.1.1", "127.1.1.2"]
    assert sys.executable in app.release.restart


def test_nothing_of_the_user_s_environment_changes_the_demo(plain_world, tmp_path, monkeypatch) -> None:
    """ROLLOUT_… variables of whoever plays the demo do not reach it."""
    monkeypatch.setenv("ROLLOUT_DATABASE", "postgresql://elsewhere/production")
    product = Product(tmp_path, plain_world, Repository(tmp_path))
    assert not [name for name in product._environment if name.startswith("ROLLOUT_")]


def test_evidence_is_what_the_hosts_say(world) -> None:
    """Disks are read over SSH: a link is its release, no link is nothing, and no service is no answer."""
    commit = "ab" * 20
    shop = world.hosts[0].root / "srv" / "shop"
    (shop / "releases" / commit).mkdir(parents=True)
    (shop / "current").symlink_to(f"releases/{commit}")
    found = evidence.look(world)
    assert found["shop01"] == evidence.Found(commit, "")
    assert found["shop12"] == evidence.Found("", "")


def test_journals_tell_where_a_commit_ever_ran(world) -> None:
    """A host whose journal has an intent to activate the commit was switched to it, whatever it runs now."""
    commit = "cd" * 20
    folder = world.hosts[3].root / "srv" / "shop" / ".rollout"
    folder.mkdir(parents=True)
    lines = [
        f"op=7 epoch=7 verb=activate what=intent commit={commit} from=none clock=1 boot=b host=shop04",
        f"op=8 epoch=8 verb=rollback what=intent commit={'0' * 40} from={commit} clock=2 boot=b host=shop04",
    ]
    (folder / "journal").write_text("\n".join(lines) + "\n")
    assert evidence.ever_switched_to(world, commit) == ["shop04"]
    assert evidence.ever_switched_to(world, "0" * 40) == []
