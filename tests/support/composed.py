"""docker-compose.yml running for real: start it, push to it, ask it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.support.processes import until

ROOT = Path(__file__).parents[2]
HOSTS = ("host1", "host2", "host3")
# Each worker of the tests starts one of its own.
PROJECT = f"rollout-test-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
ENVIRON = {"POSTGRES_PASSWORD": "only-for-this-test", "WEB_PORT": "0", "FLOWER_PORT": "0"}  # 0: any free port
# A stop or a rollback bars the commit before, and all that comes after it but a commit that says this.
PUSH = """cd /git/shop
git -c user.name=Test -c user.email=test@example.com commit --quiet --allow-empty \\
    -m "Next" -m "This reverts commit $(git rev-parse HEAD)."
git push --quiet origin main
git rev-parse HEAD
"""
PAGE = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/', timeout=3).read().decode())"
STATE = (
    '{{index .Config.Labels "com.docker.compose.service"}} {{.State.Status}} {{.State.ExitCode}} '
    "{{.RestartCount}} {{with .State.Health}}{{.Status}}{{end}}"
)


def engine() -> bool:
    """Whether there is an engine with `docker compose` behind the docker command."""
    try:
        asked = [
            subprocess.run(["docker", *words], capture_output=True, timeout=20)
            for words in (("compose", "version"), ("info",))
        ]
    except (OSError, subprocess.TimeoutExpired):
        return False
    return all(one.returncode == 0 for one in asked)


def _docker(*words: str, timeout_s: float = 60) -> str:
    done = subprocess.run(
        ["docker", *words],
        cwd=ROOT,
        env={**os.environ, **ENVIRON},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout.strip()


class Composed:
    """All of docker-compose.yml, from its start until `down`."""

    first: str

    def compose(self, *words: str, timeout_s: float = 60) -> str:
        """What `docker compose …` prints; AssertionError when it fails."""
        return _docker("compose", "-p", PROJECT, *words, timeout_s=timeout_s)

    def up(self) -> None:
        """Build and start everything; return when it is healthy and the first commit, which nobody pushed, is done.

        A push before that could take the first commit along in its own rollout.
        """
        self.compose("up", "--build", "--detach", "--wait", timeout_s=1200)
        words = ("git", "-C", "/git/shop.git", "rev-parse", "main")
        self.first = self.compose("exec", "-T", "web", *words)
        self.done(self.first)

    def down(self) -> None:
        """End and remove everything. A test that failed shows the logs that are printed here."""
        try:
            print(self.compose("logs", "--no-color", "--tail", "40"))
        finally:
            self.compose("down", "--volumes", "--remove-orphans", timeout_s=180)

    def rollout(self, *words: str, timeout_s: float = 60) -> Any:
        """What `rollout … --json` answers."""
        return json.loads(self.compose("exec", "-T", "web", "rollout", *words, "--json", timeout_s=timeout_s))

    def push(self) -> str:
        """Push one more commit, as the head of docker-compose.yml says; its hash."""
        return self.compose("run", "--rm", "-T", "prepare", "sh", "-euc", PUSH)

    def under_way(self, commit: str, state: str) -> None:
        """Wait until the rollout of this commit is in this state, before its end."""
        until(
            lambda: (commit, state) in [(one["commit"], one["state"]) for one in self.rollout("status")],
            what=f"{commit[:12]} in {state}",
            timeout_s=120,
        )

    def done(self, commit: str) -> None:
        """Wait until a rollout of this commit has ended well."""
        until(
            lambda: (commit, "done") in [(one["commit"], one["state"]) for one in self.rollout("history")],
            what=f"{commit[:12]} done",
            timeout_s=240,
        )

    def disks(self) -> set[str]:
        """The commits on the hosts' disks, without asking rollout."""
        return {
            self.compose("exec", "-T", host, "readlink", "/srv/shop/current").rpartition("/")[2]
            for host in HOSTS
        }

    def pages(self) -> list[str]:
        """What the app on each host answers."""
        return [self.compose("exec", "-T", host, "python3", "-c", PAGE) for host in HOSTS]

    def containers(self) -> dict[str, list[str]]:
        """By service: status, exit code, how often it was restarted, and its health if that is checked."""
        mine = _docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}")
        lines = _docker("inspect", "--format", STATE, *mine.split()).splitlines()
        return {service: state for service, *state in map(str.split, lines)}
