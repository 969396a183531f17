"""The whole system as a user has it: a git repository, a fleet behind a real sshd, `rollout up`, webhooks, commands.

What came of it is read from the hosts' disks, not from the program's word.
"""

import contextlib
import hashlib
import hmac
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.checker import read
from tests.support.checker.history import Deed, History
from tests.support.processes import busy, moments
from tests.support.sshd import Sshd

SECRET = "e2e-secret-of-the-webhook"
TOKEN = "e2e-token-of-the-api"

TOML = """\
[server]
state_dir = "state"
{server}
listen = "127.0.0.1:{web}"
flower = "{flower}"
webhook_secret_file = "webhook.secret"
api_token_file = "api.token"

{apps}
[notify]
urls = [{urls}]
"""
APP = """\
[apps.{app}]
repository = "{folder}/{app}.git"
poll = "{poll}"

[apps.{app}.tests]
command = "sh tests.sh"
timeout = "60s"

[apps.{app}.release]
path = "{{root}}/srv/shop"
restart = "sh restart.sh"
health = "sh health.sh {{name}}"
health_timeout = "{health_timeout}"

[apps.{app}.canary]
log = "{{root}}/srv/shop/shared/access.log"
bake = "{bake}"
deadline = "{deadline}"
{canary}

[apps.{app}.fan_out]
{fan_out}

{fleet}
"""


def wait_for(what, *, seconds=60.0, every=0.1, why=""):
    """The first true answer of `what`; fails after the deadline, which is later on a busy machine. `why`: or who says it then."""
    for _ in moments(seconds, every):
        if answer := what():
            return answer
    raise AssertionError(f"still not so after {seconds} s: {why() if callable(why) else why or what}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Traffic:
    """Appends to each host's access log what its current release answers, 400 requests a second: enough for a word in 4 s.

    The release's file `answer` says what: a status, or a status and how many of a hundred answers it is; "none": nothing.
    """

    def __init__(self, sshd):
        self._sshd, self._ended = sshd, threading.Event()
        self.offset = 0  # of the hosts' clocks, in seconds
        self.errors = 0.0  # share of answers that are errors whatever the release does
        self._chance = random.Random(1)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        before = time.monotonic()
        while not self._ended.wait(0.25):
            # On a busy machine a quarter of a second is long, and a canary without requests gets no word.
            since, before = time.monotonic() - before, time.monotonic()
            for host in self._sshd.hosts:
                with contextlib.suppress(OSError):
                    answer = (Path(host.path) / "current" / "answer").read_text().split()
                    if answer != ["none"]:
                        self._serve(Path(host.path) / "shared", round(400 * since), *answer)

    def _serve(self, shared, requests, status, share="100"):
        now = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(time.time() + self.offset))
        shared.mkdir(exist_ok=True)
        with (shared / "access.log").open("a") as log:
            for _ in range(requests):
                told = status if self._chance.random() * 100 < int(share) else "200"
                told = "503" if self._chance.random() < self.errors else told
                log.write(f'10.0.0.1 - - [{now}] "GET / HTTP/1.1" {told} 12 "-" "Mozilla/5.0"\n')

    def stop(self):
        self._ended.set()
        self._thread.join()


class System:
    """One installation. `with System(...) as system:` starts it and leaves nothing behind."""

    def __init__(
        self,
        *,
        hosts=20,
        fan_out="max_failed = 1",
        canary="",
        server='database = "sqlite"',
        poll="0s",
        bake="3s",
        deadline="12s",
        health_timeout="3s",
        flower=False,
        urls="",
        environment=None,
        network="127.1",
        more_apps=0,
    ):
        """`more_apps` beside `shop`, which has `hosts`: each has a repository and a host of its own, and is else the same."""
        # Not pytest's folder: the broker's socket must stay below 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="rollout-e2e-"))
        self.sshd = Sshd(self.folder / "sshd", hosts + more_apps, network=network)
        self.apps = {"shop": self.sshd.hosts[:hosts]}
        self.apps |= {f"app{n + 1:02d}": [host] for n, host in enumerate(self.sshd.hosts[hosts:])}
        self.web, self.flower = free_port(), free_port()
        self.options = {
            "fan_out": fan_out,
            "canary": canary,
            "server": server,
            "poll": poll,
            "bake": bake,
            "deadline": deadline,
            "health_timeout": health_timeout,
            "urls": urls,
            "flower": f"127.0.0.1:{self.flower}" if flower else "",
        }
        self.environment = environment or {}
        self.database = self.environment.get("ROLLOUT_DATABASE", f"sqlite:///{self.folder}/state/rollout.db")
        self.up = self.stopping = None
        self.deliveries = 0
        self.deeds = []  # what clients did and were told, for the checker

    def __enter__(self):
        try:
            self.sshd.start()
            self._make_repository()
            self._configure()
            self.start()
            self.traffic = Traffic(self.sshd)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if hasattr(self, "traffic"):
            self.traffic.stop()
        if self.stopping is not None:
            self.stopping.kill()
            self.stopping.wait()
        self.stop()
        self.sshd.stop()
        if os.environ.get("KEEP_E2E"):
            print(f"kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- the installation ----------------------------------------------------------------------------------------------

    def _make_repository(self):
        self.work = self.folder / "work"
        self._git("init", "-q", "-b", "main", str(self.work), cwd=self.folder)
        for app in self.apps:
            self._git("init", "-q", "--bare", "-b", "main", str(self.folder / f"{app}.git"), cwd=self.folder)
        self._git("remote", "add", "origin", str(self.folder / "shop.git"))
        self.write(
            {
                "answer": "200\n",
                "tests.sh": "exit 0\n",
                "restart.sh": 'mkdir -p ../../shared; echo "$COMMIT" >> ../../shared/restarts\n',
                "health.sh": 'test ! -e broken || ! grep -qx "$1" broken\n',
            }
        )

    def _configure(self):
        self.config = self.folder / "rollout.toml"
        apps = "\n".join(
            APP.format(app=app, folder=self.folder, fleet=self.sshd.fleet_toml(app, hosts), **self.options)
            for app, hosts in self.apps.items()
        )
        self.config.write_text(TOML.format(web=self.web, apps=apps, **self.options))
        for name, secret in (("webhook.secret", SECRET), ("api.token", TOKEN)):
            (self.folder / name).write_text(secret + "\n")
            (self.folder / name).chmod(0o600)

    def start(self):
        """`rollout up`, until it is ready."""
        with (self.folder / "up.log").open("ab") as log:
            self.up = subprocess.Popen(
                [sys.executable, "-m", "rollout", "up", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | self.environment,
                start_new_session=True,
            )
        wait_for(self.ready, seconds=60, why=f"up to be ready, see {self.folder}/up.log")

    def ready(self):
        """The web says that store and broker answer; its workers are asked for by the first message."""
        assert self.up.poll() is None, (self.folder / "up.log").read_text()[-3000:]
        with contextlib.suppress(OSError, urllib.error.URLError):
            return urllib.request.urlopen(f"http://127.0.0.1:{self.web}/readyz", timeout=2).status == 200
        return False

    def stop(self):
        """Ctrl-C."""
        if self.up is not None and self.up.poll() is None:
            self.up.send_signal(signal.SIGINT)
            try:
                self.up.wait(30)
            except subprocess.TimeoutExpired:
                self.up.kill()
                self.up.wait()

    # -- as a developer ------------------------------------------------------------------------------------------------

    def _git(self, *words, cwd=None):
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "GIT_CONFIG_NOSYSTEM": "1"}
        environment |= {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "Ann"), ("EMAIL", "ann@example.com"))
        }
        done = subprocess.run(
            ["git", *words], cwd=cwd or self.work, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def write(self, files):
        for name, text in files.items():
            (self.work / name).write_text(text)

    def commit(self, message, **files):
        """A commit, pushed to the repository; its hash. Files are given as answer="500"; `_` stands for a dot."""
        # Bytes of its own: one with those of a commit that was barred would not ship.
        files = {"change": f"{secrets.token_hex(8)}\n", **files}
        self.write({name.replace("_", "."): text for name, text in files.items()})
        self._git("add", "-A")
        self._git("commit", "-q", "--allow-empty", "-m", message)
        self._git("push", "-q", "origin", "main")
        return self._git("rev-parse", "HEAD")

    def push(self, message, **files):
        """A commit, and the signed webhook that tells of it."""
        sha = self.commit(message, **files)
        assert self.webhook(sha) == 202
        return sha

    def webhook(self, sha, *, secret=SECRET):
        """GitHub's push event; the status of the answer."""
        self.deliveries += 1
        body = json.dumps(
            {
                "ref": "refs/heads/main",
                "after": sha,
                "deleted": False,
                "repository": {
                    "full_name": "acme/shop",
                    "clone_url": f"{self.folder}/shop.git",
                    "ssh_url": "git@git.example.com:acme/shop.git",
                    "git_url": "git://git.example.com/acme/shop.git",
                    "html_url": "https://git.example.com/acme/shop",
                },
            }
        ).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.web}/webhooks/github",
            data=body,
            headers={
                "Content-Type": "application/json",
                "X-GitHub-Event": "push",
                "X-GitHub-Delivery": f"delivery-{self.deliveries}",
                "X-Hub-Signature-256": "sha256="
                + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                told = json.loads(answer.read()) | {"status": answer.status}
        except urllib.error.HTTPError as error:
            return error.code
        self.deeds.append(Deed(datetime.now(UTC), "webhook", {}, told))
        return told["status"]

    # -- as an operator ------------------------------------------------------------------------------------------------

    def rollout(self, *words, timeout=120):
        """A command with --json: its exit status, and the document it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "rollout", *map(str, words), "--json", "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=timeout * busy(),
            env=os.environ | self.environment,
        )
        try:
            return done.returncode, json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}") from None

    def start_stop(self, number):
        """`rollout stop` without waiting for what comes of it."""
        words = [sys.executable, "-m", "rollout", "stop", str(number), "--reason", "enough"]
        with (self.folder / "stop.log").open("ab") as log:
            self.stopping = subprocess.Popen(
                [*words, "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.environment,
            )

    def rollouts(self):
        """The unfinished ones, oldest first, and past ones, newest first, as the API has them; none while the web is away."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.web}/api/rollouts?finished=1",
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.loads(answer.read())
        except OSError:
            return []

    def newest(self):
        """The newest rollout of all, or None."""
        return max(self.rollouts(), key=lambda one: one["id"], default=None)

    def rollout_of(self, sha):
        """The newest rollout of this commit, or None."""
        of = [one for one in self.rollouts() if one["commit"] == sha]
        return max(of, key=lambda one: one["id"], default=None)

    def reaches(self, sha, *states, seconds=90):
        """Wait until the rollout of `sha` is in one of the states; it."""

        def there():
            one = self.rollout_of(sha)
            return one if one and one["state"] in states else None

        return wait_for(
            there, seconds=seconds, every=0.3, why=lambda: f"{sha[:8]} to be {states}; {self.rollout_of(sha)}"
        )

    # -- on the hosts' disks -------------------------------------------------------------------------------------------

    def disks(self):
        """What `current` points to on each host's disk: a commit, or None."""
        found = {}
        for host in self.sshd.hosts:
            with contextlib.suppress(OSError):
                found[host.name] = Path(f"{host.path}/current").readlink().name
            found.setdefault(host.name, None)
        return found

    def journal(self, name):
        """The records of the host's journal, each a dictionary."""
        host = next(host for host in self.sshd.hosts if host.name == name)
        file = Path(host.path) / ".rollout" / "journal"
        lines = file.read_text().splitlines() if file.exists() else []
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines if line]

    def history(self, *, at_rest=True):
        """Everything for the checker: journals and disks, the store, what clients were told, and the log."""
        booted = read.boot_time()
        return History(
            disks={host.name: read.disk(Path(host.path), booted) for host in self.sshd.hosts},
            tables=read.store(self.database),
            deeds=self.deeds,
            at_rest=at_rest,
            secrets=(SECRET, TOKEN),
            texts={"up.log": (self.folder / "up.log").read_text(errors="replace")},
            slack=timedelta(milliseconds=50),  # a host's clock ticks every 10 ms
        )

    def restarts(self, name):
        host = next(host for host in self.sshd.hosts if host.name == name)
        file = Path(host.path) / "shared" / "restarts"
        return file.read_text().split() if file.exists() else []
