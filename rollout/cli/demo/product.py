"""The product as the demo uses it: `rollout up`, the signed webhook, and the `rollout` command. Nothing else."""

import hashlib
import hmac
import http.client
import json
import os
import secrets
import shlex
import socket
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from rollout.cli.demo.fleet import USER
from rollout.cli.demo.repository import Repository
from rollout.cli.demo.world import World
from rollout.errors import RolloutError, ServiceUnavailable

START_S = 60.0
END_S = 30.0
ASK_S = 120.0
FULL_NAME = "demo/shop"
NO_COMMIT = "0" * 40
CONFIG = """\
# The demo's rollout.toml, written by `rollout demo`.
[server]
state_dir = {state_dir}
listen    = "127.0.0.1:{web}"
flower    = "127.0.0.1:{flower}"

[apps.shop]
repository         = {repository}
webhook_repository = "{full_name}"

[apps.shop.tests]
command = {test}
timeout = "30s"

[apps.shop.release]
path    = "{{root}}/srv/shop"
restart = {restart}
health  = {health}
health_timeout = "15s"

[apps.shop.canary]
hosts    = ["shop01"]
log      = "{{root}}/srv/shop/shared/access.log"
bake     = "6s"
deadline = "12s"

[apps.shop.fan_out]
max_failed   = "10%"
host_timeout = "60s"

[apps.shop.fleet]
user  = "{user}"
port  = {ssh_port}
identity_file = {identity_file}
known_hosts   = {known_hosts}
hosts = [
{hosts}]
"""


class Product:
    """The whole system in one state directory, driven as a user drives it."""

    def __init__(self, folder: Path, world: World, repository: Repository) -> None:
        self.config = folder / "rollout.toml"
        self.state_dir = folder / "state"
        self.web = _free_port(8300)
        self.flower = _free_port(5555)
        self._secret = secrets.token_hex(24)
        self._log = folder / "up.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("ROLLOUT_")
        }
        (folder / "webhook.secret").touch(mode=0o600)
        (folder / "webhook.secret").write_text(self._secret)
        self.config.write_text(_configuration(self, world, repository))

    def start(self) -> None:
        """Run `rollout up` and return when it is ready; ServiceUnavailable with its last words when it is not."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command("up"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
        deadline = time.monotonic() + START_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServiceUnavailable(f"`rollout up` did not become ready:\n{self.last_words()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def push(self, before: str, after: str) -> None:
        """What GitHub sends after a push, signed as GitHub signs it."""
        payload = {
            "ref": "refs/heads/main",
            "before": before,
            "after": after,
            "repository": {"full_name": FULL_NAME, "clone_url": f"https://github.com/{FULL_NAME}.git"},
        }
        body = json.dumps(payload).encode()
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": str(uuid.uuid4()),
            "X-Hub-Signature-256": "sha256=" + hmac.digest(self._secret.encode(), body, hashlib.sha256).hex(),
        }
        status, answer = self._request("POST", "/webhooks/github", body, headers)
        if status != 202:
            raise RolloutError(f"the webhook was answered {status}: {answer}")

    def ask(self, *words: str) -> tuple[int, Any]:
        """Run a `rollout` command with --json: its exit status and its document."""
        done = subprocess.run(
            [*self._command(*words), "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ASK_S,
            env=self._environment,
            check=False,
        )
        try:
            return done.returncode, json.loads(done.stdout)
        except ValueError:
            said = (done.stdout + done.stderr).strip()
            raise RolloutError(
                f"`rollout {' '.join(words)} --json` printed no JSON:\n{said[-2000:]}"
            ) from None

    def rollout_of(self, commit: str) -> dict[str, Any] | None:
        """The newest rollout of this commit, with its hosts."""
        for command in ("status", "history"):
            for each in self.ask(command)[1]:
                if each["commit"] == commit:
                    return self.show(each["id"])
        return None

    def show(self, rollout: int) -> dict[str, Any]:
        """One rollout, with its hosts."""
        found: dict[str, Any] = self.ask("show", str(rollout))[1]
        return found

    def last_words(self) -> str:
        """The end of what `rollout up` said, and of its parts' logs."""
        texts = []
        for log in [self._log, *sorted((self.state_dir / "log").glob("*.log"))]:
            with suppress(OSError):
                texts.append(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}")
        return "\n".join(texts)

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "rollout", *words, "--config", str(self.config)]

    def _ready(self) -> bool:
        try:
            return self._request("GET", "/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.web, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read(2000).decode(errors="replace")
        finally:
            connection.close()


def _configuration(product: Product, world: World, repository: Repository) -> str:
    python = shlex.quote(sys.executable)
    serve = f"{python} -E -S serve.py"
    hosts = "".join(
        f'  {{name = "{host.name}", address = "{host.address}", vars = {{root = {_text(host.root)}}}}},\n'
        for host in world.hosts
    )
    return CONFIG.format(
        state_dir=_text(product.state_dir),
        web=product.web,
        flower=product.flower,
        repository=_text(repository.bare),
        full_name=FULL_NAME,
        test=_text("python3 -m unittest -q"),  # not this one: root's own may be out of a test's reach
        restart=_text(f"{serve} restart {{address}} {world.http_port} {{root}}/srv/shop/shared"),
        health=_text(f"{serve} health {{address}} {world.http_port}"),
        user=USER,
        ssh_port=world.ssh_port,
        identity_file=_text(world.identity_file),
        known_hosts=_text(world.known_hosts),
        hosts=hosts,
    )


def _text(value: object) -> str:
    """A TOML string; its escapes are JSON's."""
    return json.dumps(str(value))


def _free_port(wanted: int) -> int:
    """`wanted` when it is free, else any."""
    for port in (wanted, 0):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as server:
            found: int = server.getsockname()[1]
            return found
    raise ServiceUnavailable("no port is free on 127.0.0.1")
