"""The whole system on two machines: PostgreSQL, Redis, hosts, web and the operator here, the workers beyond a cable."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rollout.store.store import Store
from tests.support.cable import Cable
from tests.support.checker import read
from tests.support.checker.history import Deed, History
from tests.support.postgres import Postgres
from tests.support.processes import marked
from tests.support.system import SECRET, TOKEN, System, free_port, wait_for

WORKERS = ("control", "tests", "hosts")
# An activation waits at the host's door while `hold` exists, and everything while `silent` does; the canary and two
# others let everybody in.
DOOR = """\
while test -e "$SSHD_FOLDER/silent"; do sleep 0.1; done
case $SSH_ORIGINAL_COMMAND in
*activate*) echo x >> knocks; while test -e "$SSHD_FOLDER/hold"; do sleep 0.1; done ;;
esac
"""
OPEN_DOORS = 3
# Beyond the canary a restart lasts until a stop is acknowledged.
BUSY = 'case $HOST in web001) ;; *) while test -e "$SSHD_FOLDER/busy"; do sleep 0.1; done ;; esac\n'
PASSWORD = "only-for-this-test"


@dataclass(frozen=True)
class Stopped:
    """What `rollout stop` said, and when. Seconds."""

    code: int
    text: str
    took: float | None  # from accepted to acknowledged
    longest: float
    unconfirmed: tuple[str, ...]
    told: float  # CLOCK_BOOTTIME in ms when the acknowledgement was printed


class Apart(System):
    """`with Apart() as system:` starts everything, the workers beyond the cable alone."""

    def __init__(self, *, hosts=8, **options):
        self.cable = Cable()
        self.postgres = Postgres(also=self.cable.near)
        self._redis, self._parts, self.broker_port = None, {}, 0
        try:
            self.postgres.start()
            self.database = self.postgres.prepared().replace("127.0.0.1", self.cable.near)
            self._start_redis()
            environment = {
                "ROLLOUT_DATABASE": self.database,
                "ROLLOUT_BROKER": f"redis://:{PASSWORD}@{self.cable.near}:{self.broker_port}/0",
                "ROLLOUT_LEASE_S": "4",
                "ROLLOUT_RECONCILE_S": "1",
                "PYTHONUNBUFFERED": "1",
            }
            super().__init__(
                hosts=hosts,
                server="",
                environment=environment,
                network=self.cable.hosts,
                canary='hosts = ["web001"]\nbaseline = 1',
                fan_out="max_failed = 4",
                bake="2s",
                health_timeout="2s",
                **options,
            )
        except BaseException:
            self._remove()
            raise
        self.store = Store(self.database)

    def __exit__(self, *_):
        self.store.close()
        try:
            super().__exit__()
        finally:
            self._remove()

    # -- machines ------------------------------------------------------------------------------------------------------

    def start(self):
        """The web here, the workers beyond the cable."""
        for host in self.sshd.hosts[OPEN_DOORS:]:
            host.login(DOOR)
        self._part("web")
        for kind in WORKERS:
            self._part(f"worker {kind}", far=True)
        self.up = self._parts["web"]
        wait_for(self.ready, seconds=60, why=f"the web to be ready, see {self.folder}/up.log")

    def kill_workers(self):
        """All of them, at once."""
        for name in [name for name in self._parts if name.startswith("worker")]:
            self._end(self._parts.pop(name), signal.SIGKILL)

    def revive_workers(self):
        """Those beyond the cable."""
        for kind in WORKERS:
            self._part(f"worker {kind}", far=True)

    def kill_broker(self):
        """It keeps nothing."""
        self._redis.kill()
        self._redis.wait()

    def revive_broker(self):
        """An empty one at the same port."""
        self._start_redis()

    def second_worker(self):
        """Workers here, too."""
        for kind in WORKERS:
            self._part(f"worker {kind}")

    def end_second_worker(self):
        """Without a goodbye."""
        for kind in WORKERS:
            self._end(self._parts.pop(f"worker {kind} near"), signal.SIGKILL)

    def port_of(self, what):
        """The port here of database, broker or hosts: each is one link of the workers beyond the cable."""
        return {"database": self.postgres.port, "broker": self.broker_port, "hosts": self.sshd.port}[what]

    def stop(self):
        """End every part."""
        parts, self._parts = list(self._parts.values()), {}
        for part in parts:
            with contextlib.suppress(ProcessLookupError):
                part.terminate()
        deadline = time.monotonic() + 5
        for part in parts:
            with contextlib.suppress(subprocess.TimeoutExpired):
                part.wait(max(0.1, deadline - time.monotonic()))
            self._end(part, signal.SIGKILL)

    # -- what happens --------------------------------------------------------------------------------------------------

    def hold(self):
        """From now on activations wait at the doors, and restarts (BUSY) for their end."""
        (self.sshd.folder / "hold").touch()
        (self.sshd.folder / "busy").touch()
        for host in self.sshd.hosts:
            (host.root / "knocks").unlink(missing_ok=True)

    def let_in(self):
        """Open the doors."""
        (self.sshd.folder / "hold").unlink(missing_ok=True)

    def end_restarts(self):
        """Those that wait come to their end."""
        (self.sshd.folder / "busy").unlink(missing_ok=True)

    def fall_silent_once_switched(self, sha, names):
        """From the restart after the switch on these hosts answer nobody; the restart itself waits, too."""
        silent = self.sshd.folder / "silent"
        silent.touch()  # the doors are behind those that wait at them
        self.let_in()
        wait_for(lambda: names <= {host for host, _ in self.intents(sha)}, why=f"{names} to be switched")

    def speak(self):
        """They answer again."""
        (self.sshd.folder / "silent").unlink(missing_ok=True)

    def knocking(self):
        """The names of hosts at whose door an activation waits."""
        return [host.name for host in self.sshd.hosts if (host.root / "knocks").exists()]

    def late_ones(self):
        """Activations that are still on their way through a host, or wait for their permission there."""
        return [pid for pid in marked(f"SSHD_FOLDER={self.sshd.folder}") if "activate" in _words(pid)]

    def stop_from_here(self, number):
        """`rollout stop`, on this side of the cable, until it returns."""
        accepted = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-m", "rollout", "stop", str(number), "--config", str(self.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | self.environment | {"NO_COLOR": "1", "COLUMNS": "400"},
        ) as command:
            lines, told, took = [], 0.0, None
            for line in command.stdout:
                lines.append(line)
                if line.startswith("accepted"):
                    accepted = time.monotonic()
                if line.startswith("acknowledged"):
                    told = time.clock_gettime(time.CLOCK_BOOTTIME) * 1000
                    took = time.monotonic() - accepted
                    self.end_restarts()  # this very command may bring the hosts back
                    self.deeds.append(
                        Deed(datetime.now(UTC), "stop", {"rollout": number}, {"acknowledged": True})
                    )
        text = "".join(lines)
        longest = re.search(r"takes at most (\d+) s", text)
        unconfirmed = re.search(r"unconfirmed, as they could not be read: (.*)", text)
        return Stopped(
            code=command.returncode,
            text=text,
            took=took,
            longest=float(longest[1]) if longest else 2.0,
            unconfirmed=tuple(re.findall(r"web\d+", unconfirmed[1])) if unconfirmed else (),
            told=told,
        )

    def state_of(self, sha):
        """(id, state) of the newest rollout of this commit, from its row; None before it."""
        with self.store.reading() as tx:
            for found in [*tx.rollouts.unfinished("shop"), *tx.rollouts.finished("shop", 5)]:
                if found.commit == sha:
                    return found.id, str(found.state)
        return None

    def is_in(self, sha, *states, seconds=90):
        """Wait until the rollout of `sha` is in one of these states; its id."""

        def there():
            found = self.state_of(sha)
            return found[0] if found and found[1] in states else None

        return wait_for(there, seconds=seconds, why=f"{sha[:8]} to be {states}")

    def intents(self, sha):
        """(host, CLOCK_BOOTTIME in ms) of every switch to this commit."""
        return [
            (host.name, int(one["clock"]))
            for host in self.sshd.hosts
            for one in self.journal(host.name)
            if one.get("commit") == sha and one["verb"] == "activate" and one["what"] == "intent"
        ]

    def history(self, *, at_rest=True):
        """As `System.history`, from PostgreSQL and the logs of all parts."""
        booted = read.boot_time()
        return History(
            disks={host.name: read.disk(Path(host.path), booted) for host in self.sshd.hosts},
            tables=read.store(self.database),
            deeds=self.deeds,
            at_rest=at_rest,
            secrets=(SECRET, TOKEN, PASSWORD),
            texts={log.name: log.read_text(errors="replace") for log in self.folder.glob("*.log")},
            slack=timedelta(milliseconds=50),
        )

    # -- inside --------------------------------------------------------------------------------------------------------

    def _part(self, name, *, far=False):
        words = [sys.executable, "-m", "rollout", *name.split(), "--config", str(self.config)]
        place = "far" if far else "near"
        file = "up.log" if name == "web" else f"{name.replace(' ', '-')}-{place}.log"
        with (self.folder / file).open("ab") as log:
            self._parts[name if name == "web" else f"{name} {place}"] = subprocess.Popen(
                self.cable.inside(words) if far else words,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | self.environment,
                start_new_session=True,
            )

    def _start_redis(self):
        self.broker_port = self.broker_port or free_port()
        self._redis = subprocess.Popen(
            [
                "redis-server",
                "--port",
                str(self.broker_port),
                "--bind",
                "127.0.0.1",
                self.cable.near,
                "--requirepass",
                PASSWORD,
                "--save",
                "",
            ],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _remove(self):
        if self._redis is not None:
            self._redis.kill()
            self._redis.wait()
        self.postgres.remove()
        self.cable.remove()

    @staticmethod
    def _end(part, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(part.pid, number)
        part.wait()


def _words(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
