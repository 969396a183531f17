"""Each line of the Procfile, started by itself as a process manager starts it, with a broker beside it."""

import os
import shlex
import shutil
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
from tests.support.processes import marked, until

ROOT = Path(__file__).parents[2]
LINES = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
CONFIG = """
[server]
state_dir = "state"
listen = "127.0.0.1:{web}"
flower = "127.0.0.1:{flower}"

[apps.shop]
repository = "shop.git"

[apps.shop.release]
path = "/srv/shop"

[apps.shop.canary]
log = "/srv/shop/shared/access.log"

[apps.shop.fleet]
hosts = ["web[1:3]"]
"""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def place(tmp_path):
    """A folder with a configuration, a running broker, and `rollout` on the PATH."""
    (tmp_path / "rollout.toml").write_text(CONFIG.format(web=_free_port(), flower=_free_port()))
    (tmp_path / "webhook.secret").write_text("secret")
    (tmp_path / "api.token").write_text("token")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "rollout"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m rollout "$@"\n')
    program.chmod(0o755)
    broker = Broker(tmp_path / "state")
    broker.prepare()
    process = subprocess.Popen(broker.command(), stdout=subprocess.DEVNULL)
    broker.wait()
    yield tmp_path
    process.terminate()
    process.wait(10)
    shutil.rmtree(tmp_path, ignore_errors=True)


class Started:
    """One line of the Procfile, running in the place."""

    def __init__(self, place: Path, line: str) -> None:
        self.place = place
        self.config = deploy_file.load(place / "rollout.toml")
        self.log = place / "output.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {LINES[line]}"],
                cwd=place,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
            )

    def until(self, truth, *, what: str) -> None:
        def so() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return bool(truth())

        until(so, what=f"{what}\n{self.log.read_text()[-2000:]}", timeout_s=40)

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


@pytest.fixture
def start(place):
    """Starts a line; ends it, and looks that it left nothing."""
    started = []

    def run(line: str) -> Started:
        started.append(Started(place, line))
        return started[-1]

    yield run
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
    until(lambda: not [pid for pid in marked(f"{place}/bin") if pid != os.getpid()], what="nothing is left")


def test_web(start) -> None:
    """The web line answers /healthz and /readyz, and ends at TERM."""
    web = start("web")
    address = f"http://{web.config.server.listen}"

    def ready() -> bool:
        try:
            return httpx.get(f"{address}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    web.until(ready, what="/readyz says 200")
    assert httpx.get(f"{address}/healthz", timeout=5).status_code == 200
    assert web.end() in {0, -15}  # uvicorn ends cleanly, then by the signal itself


@pytest.mark.parametrize("name", ["control", "tests", "hosts"])
def test_workers(start, name) -> None:
    """Each worker line answers under its own name, consumes its own queue, and ends at TERM."""
    worker = start(name)
    app = celery_app(worker.config.server.broker_url)

    def queues() -> dict[str, list[str]]:
        answers = app.control.inspect(timeout=2).active_queues() or {}
        return {host: [queue["name"] for queue in answer] for host, answer in answers.items()}

    found: dict[str, list[str]] = {}
    worker.until(lambda: found.update(queues()) or found, what="an answer from the worker")
    ((host, consumed),) = found.items()
    assert host.startswith(f"{name}@")
    assert consumed == [name]
    assert worker.end() == 0
    app.close()


def test_beat(start) -> None:
    """The beat line puts its bells on the control queue, and ends at TERM (with whatever status Celery gives it)."""
    beat = start("beat")
    with redis.Redis(unix_socket_path=str(beat.config.server.socket)) as client:
        beat.until(lambda: client.keys("control*"), what="a message on the control queue")
    beat.end()


def test_flower(start) -> None:
    """The Flower line shows its pages to who knows the password from the state directory, which no command line has."""
    site = start("flower")
    server = site.config.server
    page = f"http://{server.flower}/tasks"

    def shown() -> bool:
        try:
            return httpx.get(page, auth=(flower.USER, flower.password(server.state_dir))).status_code == 200
        except httpx.TransportError:
            return False

    site.until(shown, what="Flower's page of tasks")
    assert httpx.get(page).status_code == 401
    command = Path(f"/proc/{site.process.pid}/cmdline").read_bytes()
    assert flower.password(server.state_dir).encode() not in command
    assert site.end() == 0


def test_every_line_is_tested() -> None:
    """There is no line beside those started above."""
    assert set(LINES) == {"web", "control", "tests", "hosts", "beat", "flower"}
