"""docker-compose.yml: all parts are there, wired as `rollout up` wires them; and it runs where an engine is."""

import re
import tomllib

import httpx
import pytest
import yaml

from tests.support.composed import HOSTS, ROOT, Composed, engine

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = ("web", "control", "tests", "hosts", "beat", "flower")


def with_engine(test):
    """Needs an engine; the first of these tests builds everything within its time."""
    return pytest.mark.needs("docker")(pytest.mark.timeout(1800)(test))


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


@pytest.fixture(scope="module")
def composed():
    """Everything, running; its first commit is done."""
    if not engine():
        pytest.skip("there is a docker command, and no engine with compose behind it")
    everything = Composed()
    try:
        everything.up()
        yield everything
    finally:
        everything.down()


@with_engine
def test_everything_becomes_healthy_and_stays(composed) -> None:
    """Every service runs without having been restarted, checked ones are healthy, and `prepare` has ended well."""
    healthy = {name: ["healthy"] if "healthcheck" in service else [] for name, service in SERVICES.items()}
    expected = {name: ["running", "0", "0", *health] for name, health in healthy.items()}
    assert composed.containers() == {**expected, "prepare": ["exited", "0", "0"]}


@with_engine
def test_web_and_flower_answer_on_this_machine(composed) -> None:
    """Through the published ports: web and Flower let in whoever has the token and the password from /state."""
    for service, port, file, page in (
        ("web", "8300", "api.token", "/"),
        ("flower", "5555", "flower.password", "/workers"),
    ):
        address = f"http://{composed.compose('port', service, port)}{page}"
        password = composed.compose("exec", "-T", "web", "cat", f"/state/{file}")
        assert httpx.get(address, timeout=10).status_code == 401
        assert httpx.get(address, auth=("rollout", password), timeout=10).status_code == 200


@with_engine
def test_the_first_commit_is_deployed_by_itself(composed) -> None:
    """Nobody asks for it, and the first rollout of the first commit ends as done on three hosts."""
    (rollout,) = [one for one in composed.rollout("history") if one["id"] == 1]
    assert (rollout["commit"], rollout["state"]) == (composed.first, "done")
    assert rollout["counts"]["done"] == 3
    assert rollout["canary"]["status"] == "pass"


@with_engine
def test_a_pushed_commit_reaches_every_host(composed) -> None:
    """A push alone brings a commit to the disks of all hosts, where it answers, and `hosts --verify` reads it there."""
    commit = composed.push()
    composed.done(commit)
    assert composed.disks() == {commit}
    assert all(f"release {commit}" in page for page in composed.pages())
    seen = composed.rollout("hosts", "--verify")
    assert [(one["name"], one["release"], one["drift"]) for one in seen] == [
        (host, commit, False) for host in HOSTS
    ]


@with_engine
def test_a_stop_brings_the_canary_back(composed) -> None:
    """A rollout that is stopped while its canary is watched ends as rolled back, with every host on what it ran before."""
    before = composed.push()
    composed.done(before)
    stopped = composed.push()
    composed.under_way(stopped, "evaluating_canary")
    ended = composed.rollout("stop", "--reason", "enough", "--wait", timeout_s=120)
    assert (ended["commit"], ended["state"]) == (stopped, "rolled_back")
    assert composed.disks() == {before}


@with_engine
def test_a_rollback_takes_every_host_back(composed) -> None:
    """After a rollback every host has on its disk, and answers with, what it ran before the newest done rollout."""
    before = composed.push()
    composed.done(before)
    composed.done(composed.push())
    composed.rollout("rollback", "--reason", "slow", "--wait", timeout_s=120)
    assert composed.disks() == {before}
    assert all(f"release {before}" in page for page in composed.pages())
