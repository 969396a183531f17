"""The same with the parts of a production: PostgreSQL, and a Redis server of its own."""

import subprocess

import pytest

from tests.support.system import System, free_port

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.needs("sshd", "git", "postgresql", "redis-server"),
    pytest.mark.timeout(300),
]


@pytest.fixture
def redis_server(tmp_path):
    """A Redis of our own on a free port, with a password."""
    port = free_port()
    process = subprocess.Popen(
        [
            "redis-server",
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--requirepass",
            "hunter2",
            "--dir",
            str(tmp_path),
        ],
        stdout=subprocess.DEVNULL,
    )
    yield f"redis://:hunter2@127.0.0.1:{port}/0"
    process.terminate()
    process.wait(10)


def test_a_push_reaches_every_host_with_postgresql_and_redis(postgres, redis_server):
    """Nothing depends on SQLite or on the embedded broker; passwords come from the environment and show nowhere."""
    environment = {"ROLLOUT_DATABASE": postgres.database(), "ROLLOUT_BROKER": redis_server}
    with System(hosts=4, server="", environment=environment) as system:
        sha = system.push("first")
        system.reaches(sha, "done")
        assert set(system.disks().values()) == {sha}
        listed = subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout
        ours = [line for line in listed.splitlines() if "redis-server" not in line]
        assert "hunter2" not in "\n".join(ours)
        logs = "".join(
            file.read_text(errors="replace") for file in (system.folder / "state" / "log").glob("*")
        )
        assert "hunter2" not in logs
