"""What is measured: the whole system as `rollout up` starts it, and one real sshd that stands for the fleet."""

import random
import re
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

from rollout.config import deploy_file
from rollout.domain.model import AppName
from rollout.store.store import Store
from tests.bench import processes
from tests.support.system import System, Traffic, wait_for

BAKE = "8s"
CONCURRENCY = 40
FILES, FILE_BYTES = 48, 2048  # about 100 KB that do not compress
TROUBLE = {"halted", "stopping", "rolling_back", "stopped", "error"}
TROUBLE_BACK = {"stopped", "error"}


class Installation(System):
    """As the end-to-end tests have it, with a release of 100 KB, a trivial restart and health, and a fleet to hang up."""

    def __init__(self, hosts):
        super().__init__(
            hosts=hosts,
            fan_out=f'max_failed = "1%"\nmode = "ramp"\nconcurrency = {CONCURRENCY}',
            canary="hosts = 1",
            bake=BAKE,
            deadline="60s",
        )

    def __enter__(self):
        super().__enter__()
        self.traffic.stop()
        canary = SimpleNamespace(hosts=self.sshd.hosts[:1])  # nobody reads the others' access logs
        self.traffic = Traffic(canary)
        self.server = deploy_file.load(self.config).server
        self.store = Store(self.server.database_url)
        return self

    def __exit__(self, *exc):
        if hasattr(self, "store"):
            self.store.close()
        super().__exit__(*exc)

    def _make_repository(self):
        super()._make_repository()
        noise = random.Random(2)
        (self.work / "site").mkdir()
        for number in range(FILES):
            (self.work / "site" / f"page{number:02}").write_bytes(noise.randbytes(FILE_BYTES))

    def _configure(self):
        super()._configure()
        text = re.sub(r"^(restart|health) = .*$", r'\1 = "true"', self.config.read_text(), flags=re.MULTILINE)
        self.config.write_text(text)

    # -- asking the store, which costs the system less than a command does ---------------------------------------------

    def rollout_row(self, sha):
        """The newest rollout of this commit, or None."""
        with self.store.reading() as tx:
            found = tx.rollouts.of_commit(AppName("shop"), sha)
        return found[-1] if found else None

    def ends(self, sha, state, seconds=180):
        """Wait until the rollout of `sha` is `state`; what else it may have become is a failure of the measurement."""
        trouble = TROUBLE if state == "done" else TROUBLE_BACK

        def over():
            row = self.rollout_row(sha)
            return row if row is not None and row.state in {state, *trouble} else None

        try:
            row = wait_for(over, seconds=seconds, every=0.1, why=f"{sha[:8]} to be {state}")
        except AssertionError as error:
            raise AssertionError(f"{error}; {self._where_it_is(sha)}") from None
        assert row.state == state, f"rollout {row.id} is {row.state}, not {state}: {row.reason}"
        return row

    def _where_it_is(self, sha):
        row = self.rollout_row(sha)
        if row is None:
            with self.store.reading() as tx:
                return f"no rollout; its commit: {tx.commits.get(AppName('shop'), sha)}"
        with self.store.reading() as tx:
            counts = tx.rollouts.host_counts([row.id])[row.id]
        return f"{row.state}, { ({str(state): amount for state, amount in counts.items() if amount}) }, {row.canary_reason}"

    def release(self, sha):
        """What hosts get for this commit."""
        with self.store.reading() as tx:
            return tx.commits.release(AppName("shop"), sha)

    def events(self, rollout):
        """The rollout's events, in order."""
        with self.store.reading() as tx:
            return tx.events.of_rollout(rollout)

    # -- the fleet -----------------------------------------------------------------------------------------------------

    def install_host_program(self, path_of):
        """Put host.sh where both sides look for it: installing it is measured on neither."""
        from rollout.fleet.commands import host_program

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
            seconds=20,
            every=0.05,
            why="no connection is left",
        )

    def parts(self):
        """The processes of `rollout up`: pid → name."""
        return processes.parts(self.up.pid)

    def workers_are_there(self):
        """Every worker has begun to listen; only then is it fair to start the clock."""
        wanted = {"control", "tests", "hosts"}
        wait_for(lambda: wanted <= set(self.parts().values()), seconds=30, why="three workers")


def moment(at: datetime) -> float:
    """An event's time as seconds since 1970."""
    return at.timestamp()


def settle(seconds: float) -> None:
    """Let what was killed or begun come to rest."""
    time.sleep(seconds)
