"""What is measured: the whole system as `rollout up` starts it, and one real sshd that stands for the fleet."""

import contextlib
import json
import random
import re
import subprocess
import time
import urllib.request
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

from rollout.domain.model import AppName
from rollout.fleet.commands import host_program
from rollout.store.store import Store
from tests.bench import processes
from tests.support.postgres import Postgres
from tests.support.system import TOKEN, System, Traffic, wait_for

READ = 5  # the canary and its baseline: who else serves requests is no matter here
MORE = 3  # times the usual traffic: the judge soon has what it wants to see
FILES, FILE_BYTES = 48, 2048  # about 100 KB that do not compress
BY_ITSELF = 3  # commits that automation ships together; with more a person has to say so
TROUBLE = {"halted", "stopping", "rolling_back", "rolled_back", "stopped", "error"}
TROUBLE_BACK = {"halted", "stopped", "error"}


class Installation(System):
    """As the end-to-end tests have it, with a release of 100 KB, a trivial restart and health, and a fleet to hang up."""

    def __init__(
        self,
        hosts,
        *,
        bake_s=8,
        concurrency=40,
        slots=40,
        max_failed='"1%"',
        restart="true",
        database="sqlite",
        baseline=4,
    ):
        self.postgres = None
        self.restart = restart
        environment = {"ROLLOUT_SLOTS": str(slots)}
        if database == "postgresql":
            self.postgres = Postgres(safe=True)
            try:
                environment["ROLLOUT_DATABASE"] = self.postgres.start().database()
            except BaseException:
                self.postgres.remove()
                raise
        super().__init__(
            hosts=hosts,
            fan_out=f'max_failed = {max_failed}\nmode = "ramp"\nconcurrency = {concurrency}',
            canary=f"hosts = 1\nbaseline = {baseline}",
            bake=f"{bake_s}s",
            deadline=f"{bake_s + 60}s",
            environment=environment,
        )
        self.sshd.options["Subsystem"] = "sftp /usr/lib/openssh/sftp-server"  # some peers upload by it
        self.releases = []  # commits that were shipped and brought back

    def __enter__(self):
        super().__enter__()
        self.traffic.stop()
        read = SimpleNamespace(hosts=self.sshd.hosts[:READ])
        self.traffic = Traffic(read)
        self.more_traffic = [Traffic(read) for _ in range(MORE)]
        self.store = Store(self.database)
        self.workers_are_there()
        return self

    def __exit__(self, *exc):
        if hasattr(self, "store"):
            self.store.close()
        for traffic in [self.traffic, *self.more_traffic] if hasattr(self, "more_traffic") else []:
            traffic.stop()
        try:
            self.stop()
            self.sshd.stop()
            # Half a million files after some rounds: Python would take a minute.
            subprocess.run(["rm", "-rf", str(self.sshd.folder / "hosts")], check=False)
            super().__exit__(*exc)
        finally:
            if self.postgres is not None:
                self.postgres.remove()

    def _make_repository(self):
        super()._make_repository()
        noise = random.Random(2)
        (self.work / "site").mkdir()
        for number in range(FILES):
            (self.work / "site" / f"page{number:02}").write_bytes(noise.randbytes(FILE_BYTES))

    def _configure(self):
        super()._configure()
        text = re.sub(
            r"^restart = .*$", f"restart = '{self.restart}'", self.config.read_text(), flags=re.MULTILINE
        )
        text = re.sub(r"^health = .*$", 'health = "true"', text, flags=re.MULTILINE)
        self.config.write_text(text)

    # -- as a developer and an operator --------------------------------------------------------------------------------

    def release_everywhere(self, message="A release"):
        """A push that reaches every host; its commit and its rollout."""
        sha = self.push_release(message)
        return sha, self.ends(sha, "done")

    def push_release(self, message):
        """A push that is shipped, although others before it were brought back."""
        barred = "".join(f"Rollout-Fixes: {sha}\n" for sha in self.releases)
        sha = self.push(f"{message}\n\n{barred}")
        if len(self.releases) >= BY_ITSELF:
            wait_for(lambda: self._passed(sha), seconds=60, why=f"{sha[:8]} to have passed its tests")
            code, answer = self.rollout("deploy", sha, "--now", "--reason", "measured")
            assert code == 0, answer
        return sha

    def _passed(self, sha):
        with self.store.reading() as tx:
            commit = tx.commits.get(AppName("shop"), sha)
        return commit is not None and commit.state == "passed"

    def stop_over_the_api(self, rollout):
        """`rollout stop` as the page says it; when it was said, and when it was answered (seconds since 1970)."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.web}/api/rollouts/{rollout}/stop",
            data=json.dumps({"reason": "measured"}).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        began = time.time()
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
        return began, time.time()

    def bring_back(self, sha):
        """`rollout rollback`, until every host is back."""
        code, answer = self.rollout("rollback", "--reason", "measured")
        assert code == 0, answer
        self.releases.append(sha)
        return self.ends(sha, "rolled_back")

    # -- asking the store, which costs the system less than a command does ---------------------------------------------

    def rollout_row(self, sha):
        """The newest rollout of this commit, or None."""
        with self.store.reading() as tx:
            found = tx.rollouts.of_commit(AppName("shop"), sha)
        return found[-1] if found else None

    def ends(self, sha, state, seconds=300):
        """Wait until the rollout of `sha` is `state`; what else it may have become is a failure of the measurement."""
        trouble = TROUBLE if state in {"done", "fanning_out"} else TROUBLE_BACK

        def over():
            row = self.rollout_row(sha)
            return row if row is not None and row.state in {state, *trouble} else None

        try:
            row = wait_for(over, seconds=seconds, every=0.1, why=f"{sha[:8]} to be {state}")
        except AssertionError as error:
            raise AssertionError(f"{error}; {self._where_it_is(sha)}") from None
        assert row.state == state, (
            f"rollout {row.id} is {row.state}, not {state}: {row.reason}; {self._errors(row.id)}"
        )
        return row

    def _errors(self, rollout):
        """What its hosts complain of, each error once."""
        with self.store.reading() as tx:
            return "; ".join(
                {str(host.error).partition(": ")[2] for host in tx.hosts.of(rollout) if host.error}
            )

    def counts(self, rollout):
        """How many hosts of a rollout are in which state."""
        with self.store.reading() as tx:
            found = tx.rollouts.host_counts([rollout])[rollout]
        return {str(state): amount for state, amount in found.items() if amount}

    def _where_it_is(self, sha):
        row = self.rollout_row(sha)
        if row is None:
            with self.store.reading() as tx:
                return f"no rollout; its commit: {tx.commits.get(AppName('shop'), sha)}"
        return f"{row.state}, {self.counts(row.id)}, {row.canary_reason}"

    def release(self, sha):
        """What hosts get for this commit; its archive is a copy that nobody tidies away."""
        with self.store.reading() as tx:
            found = tx.commits.release(AppName("shop"), sha)
        archive = self.folder / f"{sha}.tar.gz"
        archive.write_bytes(Path(found.archive).read_bytes())
        return replace(found, archive=str(archive))

    def events(self, rollout):
        """The rollout's events, in order."""
        with self.store.reading() as tx:
            return tx.events.of_rollout(rollout)

    # -- the fleet -----------------------------------------------------------------------------------------------------

    def install_host_program(self, path_of=lambda host: host.path):
        """Put host.sh where both sides look for it: installing it is measured on neither."""
        program = host_program()
        for host in self.sshd.hosts:
            folder = Path(path_of(host)) / ".rollout" / "bin"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / program.digest).write_text(program.text)

    def go_cold(self):
        """Kill every connection, and wait until both ends know it."""
        self.sshd.hang_up()
        wait_for(
            lambda: processes.established(self.sshd.port) == 0,
            seconds=60,
            every=0.1,
            why="no connection is left",
        )
        settle()

    # -- the processes -------------------------------------------------------------------------------------------------

    def parts(self):
        """The processes of `rollout up` and of the database: pid → name."""
        return {pid: name for root in self.roots() for pid, name in processes.parts(root).items()}

    def roots(self):
        """Where our processes begin."""
        return [self.up.pid, *([self.postgres.pid()] if self.postgres else [])]

    def pid_of(self, name):
        """The process of one part; of several, the oldest."""
        return min(pid for pid, found in self.parts().items() if found == name)

    def workers_are_there(self):
        """Every worker has begun to listen; only then is it fair to start the clock."""
        wanted = {"control", "tests", "hosts"}
        wait_for(lambda: wanted <= set(self.parts().values()), seconds=60, why="three workers")


def moment(at: datetime) -> float:
    """An event's time as seconds since 1970."""
    return at.timestamp()


def moments(events) -> dict[str, list[float]]:
    """When hosts took up which state, and the rollout as "rollout …"."""
    found: dict[str, list[float]] = {}
    for event in events:
        if event.after is None or (event.after == "prepared" and event.before != "preparing"):
            continue
        of_a_host = event.subject.startswith("host ")
        found.setdefault(event.after if of_a_host else f"rollout {event.after}", []).append(moment(event.at))
    return found


def settle(seconds: float = 0.5) -> None:
    """Let what was killed or begun come to rest."""
    time.sleep(seconds)


@contextlib.contextmanager
def running(hosts, **options):
    """A started installation with host.sh on every host, gone at the end."""
    with Installation(hosts, **options) as system:
        system.install_host_program()
        yield system
