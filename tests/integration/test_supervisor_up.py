"""`rollout up`, the whole embedded system in one process tree: it starts, heals, and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import redis

from rollout.config import deploy_file
from rollout.dispatch import celery_app
from rollout.supervisor import flower
from rollout.supervisor.broker import Broker
from rollout.supervisor.descendants import descendants
from tests.support.processes import alive, marked, until

ROOT = Path(__file__).parents[2]
CONFIG = """
[server]
state_dir = "state"
listen = "127.0.0.1:{web}"
flower = "127.0.0.1:{flower}"

[apps.shop]
repository = "shop.git"
release = {{path = "/srv/shop"}}
canary = {{log = "/srv/shop/log"}}
fleet = {{hosts = ["web1", "web2"]}}
"""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Up:
    """A running `rollout up`, and how to find its processes again: all of them know its folder."""

    def __init__(self, folder: Path) -> None:
        (folder / "rollout.toml").write_text(CONFIG.format(web=_free_port(), flower=_free_port()))
        (folder / "webhook.secret").write_text("hush-hush")
        self.folder = folder
        self.config = deploy_file.load(folder / "rollout.toml")
        self.said = folder / "said"
        with self.said.open("wb") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "ROLLOUT_TEST_MARK": str(folder)},
            )

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "rollout", "up", "--config", str(self.folder / "rollout.toml")]

    @property
    def socket(self) -> str:
        return str(self.config.server.socket)

    def ready(self) -> None:
        def so() -> bool:
            assert self.process.poll() is None, self.said.read_text()
            return "everything runs" in self.said.read_text()

        until(so, what="everything runs", timeout_s=90)
        until(lambda: len(self.workers()) == 3, what="three workers", timeout_s=90)

    def workers(self) -> list[str]:
        with celery_app(self.config.server.broker_url) as app:
            return [host for answer in app.control.ping(timeout=1) for host in answer]

    def pids(self) -> list[int]:
        return marked(str(self.folder))

    def kill_what_is_left(self) -> None:
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """The embedded system, for several tests; Ctrl-C ends it."""
    running = Up(tmp_path_factory.mktemp("up"))
    try:
        running.ready()
        yield running
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 0
        assert running.said.read_text().splitlines()[-1] == "ended"
        assert running.pids() == []
    finally:
        running.kill_what_is_left()


def test_everything_answers(up) -> None:
    """Web, broker and Flower answer, Flower to the password that `up` printed."""
    server = up.config.server
    assert httpx.get(f"http://{server.listen}/readyz", timeout=10).status_code == 200
    with redis.Redis(unix_socket_path=up.socket) as client:
        assert client.ping()
    secret = flower.password(server.state_dir)
    assert f"(user {flower.USER}, password {secret})" in up.said.read_text()
    page = httpx.get(f"http://{server.flower}/tasks", auth=(flower.USER, secret), timeout=10)
    assert page.status_code == 200


def test_no_secret_is_in_a_process_list(up) -> None:
    """No command line of the tree has the webhook's secret, the API's token or Flower's password."""
    secrets = [(up.folder / name).read_text().strip() for name in ("webhook.secret", "api.token")]
    secrets.append(flower.password(up.config.server.state_dir))
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in up.pids()]
    assert len(commands) >= 9
    assert not [command for command in commands for secret in secrets if secret in command]


def test_builds_come_after_who_waits_for_an_answer(up) -> None:
    """The worker of tests, which clones and packs, has a lower priority than all other parts; they have ours."""
    priorities: dict[bool, set[int]] = {True: set(), False: set()}
    for pid in up.pids():
        builds = b"tests@" in Path(f"/proc/{pid}/cmdline").read_bytes()
        priorities[builds].add(os.getpriority(os.PRIO_PROCESS, pid))
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert priorities == {True: {min(ours + 10, 19)}, False: {ours}}


def test_a_second_one_on_the_same_state_directory_is_refused(up) -> None:
    """The second `up` ends at once with exit code 4, names the first one's process, and hurts nothing."""
    second = subprocess.run(up.command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert second.returncode == 4
    assert f"process {up.process.pid}" in second.stderr
    assert httpx.get(f"http://{up.config.server.listen}/healthz", timeout=10).status_code == 200


def test_the_broker_s_death_is_healed(up) -> None:
    """A killed broker is back by itself, and the parts that lived on are not restarted for it."""
    everything = set(descendants(up.process.pid))
    broker = next(pid for pid in everything if Path(f"/proc/{pid}/exe").readlink().name.endswith("-server"))
    os.kill(broker, signal.SIGKILL)
    until(lambda: Broker(up.config.server.state_dir).answers(), what="the broker answers again")
    assert "broker ended (killed by SIGKILL); it starts again in 1 s" in up.said.read_text()
    assert all(alive(pid) for pid in everything - {broker})


@pytest.mark.faults  # a tree of small programs that is killed so is test_supervisor_tree's
def test_kill_9_leaves_nothing(tmp_path) -> None:
    """After kill -9 of the supervisor no process is left: no broker, no prefork child."""
    running = Up(tmp_path)
    try:
        running.ready()
        everything = descendants(running.process.pid)
        assert set(everything) <= set(running.pids())
        os.kill(everything[0], signal.SIGKILL)
        until(lambda: not running.pids(), what="every process has ended", timeout_s=30)
        assert not [pid for pid in everything if alive(pid)]
    finally:
        running.kill_what_is_left()
