"""docker-compose.yml: all parts are there, wired as `rollout up` wires them; and it runs where an engine is."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support.processes import until

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = ("web", "control", "tests", "hosts", "beat", "flower")


def _procfile() -> dict[str, list[str]]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {name: command.split() for name, _, command in (line.partition(":") for line in lines)}


def test_it_starts_what_the_procfile_starts() -> None:
    """Each line of the Procfile is a service with the same name and command."""
    assert {name: SERVICES[name]["command"] for name in OURS} == _procfile()


def test_neighbours_and_hosts_are_there() -> None:
    """PostgreSQL, Redis and three hosts to deploy to are services too, each with a health check."""
    for name in ("postgres", "redis", "web", "host1", "host2", "host3"):
        assert SERVICES[name]["healthcheck"]["test"], name


def test_every_part_waits_for_its_neighbours() -> None:
    """Our parts start when keys, database and broker are there, and reach both by the names of their services."""
    for name in OURS:
        needs = {need: how["condition"] for need, how in SERVICES[name]["depends_on"].items()}
        assert needs == {
            "prepare": "service_completed_successfully",
            "postgres": "service_healthy",
            "redis": "service_healthy",
        }
        environment = SERVICES[name]["environment"]
        assert "@postgres/" in environment["ROLLOUT_DATABASE"]
        assert environment["ROLLOUT_BROKER"].startswith("redis://redis:")


def test_nothing_listens_beyond_this_machine() -> None:
    """Published ports are bound to the loopback address, and only web's and Flower's are published."""
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(ports) == {"web", "flower"}
    assert all(port.startswith("127.0.0.1:") for each in ports.values() for port in each)


def test_no_password_is_in_the_file() -> None:
    """The database's password comes from the environment, and is asked for when it is missing."""
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"\$\{POSTGRES_PASSWORD(.)", text)) == {":"}
    assert SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")


def test_every_volume_and_file_that_is_named_exists() -> None:
    """Each volume is declared, each Dockerfile is there, and each base image is an argument."""
    mounts = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())}
    assert mounts == set(COMPOSE["volumes"])
    for service in SERVICES.values():
        if build := service.get("build"):
            dockerfile = (ROOT / build.get("dockerfile", "Dockerfile")).read_text()
            assert "BASE" in build["args"]
            assert re.search(r"^ARG BASE=.+\nFROM \$\{BASE\}$", dockerfile, re.MULTILINE)


def test_its_configuration_names_its_hosts() -> None:
    """The configuration in the image deploys to the three hosts of the file."""
    config = tomllib.loads((ROOT / "deploy" / "rollout.toml").read_text())
    assert config["apps"]["shop"]["fleet"]["hosts"] == ["host1", "host2", "host3"]


def test_its_configuration_is_accepted(tmp_path) -> None:
    """rollout.toml of the image is read without a complaint."""
    from rollout.config.deploy_file import load

    text = (ROOT / "deploy" / "rollout.toml").read_text().replace('"/state', f'"{tmp_path}')
    (tmp_path / "webhook.secret").write_text("secret")
    (tmp_path / "rollout.toml").write_text(text)
    environ = {
        "ROLLOUT_DATABASE": "postgresql+psycopg://u@postgres/r",
        "ROLLOUT_BROKER": "redis://redis:6379/0",
    }
    assert load(tmp_path / "rollout.toml", environ).server.broker_url == "redis://redis:6379/0"


def _program() -> list[str]:
    """Compose as a plugin of docker, or as Debian 12 has it; empty without an engine behind it."""
    for words in (["docker", "compose"], ["docker-compose"]):
        try:
            asked = subprocess.run([*words, "version"], capture_output=True, timeout=20)
            engine = subprocess.run(["docker", "info"], capture_output=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if asked.returncode == engine.returncode == 0:
            return words
    return []


def _compose(*words: str, timeout_s: float = 60) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*_program(), "-p", "rollout-test", *words],
        cwd=ROOT,
        env={**os.environ, "POSTGRES_PASSWORD": "only-for-this-test"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def _in(service: str, *words: str) -> str:
    return _compose("exec", "-T", service, *words).stdout.strip()


def _everywhere(sha: str) -> bool:
    return all(
        _in(host, "readlink", "/srv/shop/current").endswith(sha) for host in ("host1", "host2", "host3")
    )


COMMIT = """
set -e
git clone -q /git/shop.git /tmp/w && cd /tmp/w
git -c user.email=a@example.com -c user.name=A commit -q --allow-empty -m second
git push -q origin HEAD:main
git rev-parse HEAD
"""


@pytest.mark.needs("docker")
@pytest.mark.timeout(2400)
def test_it_deploys_what_is_pushed_and_goes_back() -> None:
    """With a Docker engine: the first commit and a second one arrive on all three hosts' disks, and a rollback too."""
    if not _program():
        pytest.skip("there is a docker command, and no engine with compose behind it")
    try:
        up = _compose("up", "--build", "--detach", timeout_s=1800)
        assert up.returncode == 0, up.stderr[-4000:]
        first = _in("web", "git", "-C", "/git/shop.git", "rev-parse", "main")
        until(lambda: first and _everywhere(first), what="the first commit on every host", timeout_s=240)
        pushed = _compose("run", "--rm", "-T", "--entrypoint", "sh", "prepare", "-c", COMMIT)
        second = pushed.stdout.split()[-1]
        until(lambda: _everywhere(second), what="the second commit on every host", timeout_s=240)
        until(
            lambda: second in _in("web", "rollout", "history", "--json"),
            what="the second rollout to be done",
            timeout_s=60,
        )
        back = _compose("exec", "-T", "web", "rollout", "rollback", "--reason", "a test", "--wait")
        assert back.returncode == 0, back.stdout + back.stderr
        assert _everywhere(first)
    finally:
        _compose("down", "--volumes", "--timeout", "5", timeout_s=120)
