"""A running installation in which processes die at crashpoints, one cell after the other."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from rollout.supervisor.descendants import descendants
from tests.support.checker.check import check
from tests.support.checker.history import Deed
from tests.support.processes import alive, marked
from tests.support.system import System, wait_for

OVER = ("done", "halted", "rolled_back", "stopped", "error")
CAP = 3  # commits of one rollout
HEALED_S = 90.0  # I8: at most, after what died is back
QUICK = {"ROLLOUT_LEASE_S": "2", "ROLLOUT_RECONCILE_S": "0.5", "ROLLOUT_RING_AGAIN_S": "2"}
RESTART = 'mkdir -p ../../shared; echo "$COMMIT" >> ../../shared/restarts\n'


@dataclass
class Ended:
    """What became of a rollout after a death."""

    state: str
    recovery_s: float  # from the death to the end


class Rig(System):
    """Six hosts, fast leases, and a poller, since a webhook may die with the web."""

    def __init__(self, *, hosts=6, environment=None, **options):
        self.armed = Path(f"/dev/shm/rollout-cells-{os.getpid()}-{time.monotonic_ns()}")
        options = {"fan_out": "max_failed = 2\nconcurrency = 4", "bake": "2s", "poll": "5s"} | options
        environment = QUICK if environment is None else environment
        super().__init__(
            hosts=hosts, environment={**environment, "ROLLOUT_CRASHPOINTS": str(self.armed)}, **options
        )
        self.armed.mkdir(mode=0o700)
        self.number = 0
        self.barred = None  # the newest commit, when it was stopped
        self.bars = 0  # so many stopped commits in a row
        self.store = None
        self.sound = True  # nothing is armed, nothing under way, and the checker was content

    def __exit__(self, *error):
        super().__exit__(*error)
        shutil.rmtree(self.armed, ignore_errors=True)

    # -- crashpoints ---------------------------------------------------------------------------------------------------

    def arm(self, point, action="kill"):
        """Whoever reaches it next will do this, once."""
        self.sound = False
        for old in self.armed.glob(f"{point}.*"):
            old.unlink()
        new = self.armed / "new"
        new.write_text(action)
        new.rename(self.armed / str(point))

    def fired(self, point):
        """The process that was hit; None before that."""
        return next((int(file.suffix[1:]) for file in self.armed.glob(f"{point}.*")), None)

    def hit(self, point, *, seconds=60.0, meanwhile=lambda: None):
        """Wait for the death; the moment of it, and the process."""

        def there():
            meanwhile()
            return self.fired(point)

        victim = wait_for(there, seconds=seconds, every=0.05, why=f"somebody to reach {point}")
        return time.monotonic(), victim

    def disarm(self):
        """What was armed and not reached; nothing is armed afterwards."""
        left = [file for file in self.armed.iterdir() if file.suffix[1:].isdigit() is False]
        for file in left:
            file.unlink()
        return [file.name for file in left]

    # -- what happens --------------------------------------------------------------------------------------------------

    def change(self, *, slow=0.0, answer="200"):
        """Push a commit that will go out; its hash. `slow`: seconds that its restart takes."""
        self.number += 1
        words = f"change {self.number}"
        if self.barred:
            words += f"\n\nThis reverts commit {self.barred}."
        restart = RESTART + (f"sleep {slow}\n" if slow else "")
        wait_for(self.ready, why="the web to be there")
        sha = self.commit(words, answer=f"{answer}\n", restart_sh=restart)
        with contextlib.suppress(OSError):  # the web may die of it; then the poller finds the commit
            self.webhook(sha)
        return sha

    def state(self, sha):
        """The state of the commit's newest rollout, from the store itself; None when there is none."""
        found = self.ask('SELECT state FROM rollouts WHERE "commit" = :sha ORDER BY id DESC', sha=sha)
        return found[0][0] if found else None

    def ask(self, query, **values):
        """Rows of the store."""
        if self.store is None:
            self.store = create_engine(self.database, poolclass=NullPool)
        try:
            with self.store.connect() as connection:
                return connection.execute(text(query), values).fetchall()
        except DBAPIError:
            return []  # it is being restarted, or not made yet

    def ended(self, sha, since, *, seconds=HEALED_S):
        """How the commit's rollout ended, unattended."""
        state = wait_for(
            lambda: (one := self.state(sha)) in OVER and one,
            seconds=seconds,
            why=lambda: f"{sha[:8]} to end; it is {self.state(sha)}",
        )
        said = self.ask(
            'SELECT reason, canary_reason FROM rollouts WHERE "commit" = :sha ORDER BY id DESC', sha=sha
        )
        print(f"{sha[:8]} is {state}: {said[:1]}")  # for whoever expected another end
        self.barred = sha if state in {"rolled_back", "stopped"} else None
        self.bars = self.bars + 1 if self.barred else 0
        return Ended(state, time.monotonic() - since)

    def made_way(self):
        """A good commit is out when the next one and the barred ones before it would be more than go out at once."""
        if self.bars >= CAP - 1:
            self.ended(self.change(), 0.0)

    def switched(self, sha):
        """The hosts whose journals have a switch to this commit."""
        return [
            host.name
            for host in self.sshd.hosts
            if any(
                one.get("commit") == sha and one["verb"] == "activate" and one["what"] == "intent"
                for one in self.journal(host.name)
            )
        ]

    def command(self, *words, as_json=True):
        """Start a `rollout` command and let it go its way."""
        options = [*(["--json"] if as_json else []), "--config", str(self.config)]
        return subprocess.Popen(
            [sys.executable, "-m", "rollout", *map(str, words), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | self.environment,
            text=True,
        )

    def process(self, *words):
        """The process below `rollout up` whose command line has all of these words; None while there is none."""
        for pid in descendants(self.up.pid):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if all(word in line for word in words) and alive(pid):
                    return pid
        return None

    def at_rest(self):
        """Nothing of it is left to do: no host is locked by an operation, and the checker finds nothing."""
        for host in self.sshd.hosts:
            lock = Path(host.path) / ".rollout" / "lock"
            wait_for(
                lambda lock=lock: (
                    not lock.exists()
                    or subprocess.run(["flock", "-n", str(lock), "true"], check=False).returncode == 0
                ),
                seconds=30,
                why=f"{host.name} to let go of its lock",
            )
        found = check(self.history())
        assert found == [], "\n".join(map(str, found))
        self.sound = True

    def told_stopped(self, sha):
        """For the checker: from now on a client relies on the acknowledgement."""
        number = self.ask('SELECT id FROM rollouts WHERE "commit" = :sha ORDER BY id DESC', sha=sha)[0][0]
        self.deeds.append(Deed(datetime.now(UTC), "stop", {"rollout": number}, {"acknowledged": True}))

    def left_running(self):
        """Processes of this installation that outlived it."""
        return [pid for pid in marked(str(self.armed)) if alive(pid)]
