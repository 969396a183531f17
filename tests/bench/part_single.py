"""One host's latency: our engine, by the calls that the services make, against Fabric as it comes; cold and warm, in turn."""

import shlex
import subprocess
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median

import fabric

from rollout.domain.model import Answer, PrepareOrder, Release
from rollout.fleet.commands import host_program
from rollout.fleet.ssh import SshFleet
from tests.bench import sayings
from tests.bench.ask import Ask, say
from tests.bench.report import Figure, Found
from tests.support.host_sh import a_release
from tests.support.sshd import Sshd, running_sshd

TIMES = 15  # each way
LIMIT = 0.4


class OneHost:
    """A host with two releases that are switched between. Each call is an activation that must be done."""

    def __init__(self, sshd: Sshd, archive: Path) -> None:
        self._target = sshd.target()
        self._host = sshd.hosts[0]
        self._sshd = sshd
        self._number = 0
        self._program = host_program()
        made = [a_release(f"{number:040x}", {"page": "hello"}) for number in (1, 2)]
        archive.write_bytes(made[0].archive)
        self._releases = [Release(one.commit, one.digest, str(archive), len(made[0].archive)) for one in made]

    def prepare(self, fleet: SshFleet) -> None:
        """Both releases are there afterwards, and host.sh too."""
        for release in self._releases:
            order = PrepareOrder(epoch=1, operation=self._next(), release=release, keep=5, spare=())
            done = fleet.prepare(self._target, order, timeout_s=60, go_on=lambda: True)
            assert done.answer is Answer.DONE, done

    def ours(self, fleet: SshFleet) -> float:
        """Milliseconds of one activation."""
        order = self._order()
        began = time.perf_counter()
        done = fleet.activate(self._target, order, lambda _: sayings.WITHIN_MS, timeout_s=60)
        took = time.perf_counter() - began
        assert done.answer is Answer.DONE, done
        return took * 1000

    def connection(self) -> fabric.Connection:
        """As it comes."""
        return fabric.Connection(
            self._target.address,
            user=self._target.user,
            port=self._target.port,
            connect_kwargs={"key_filename": self._target.identity_file},
        )

    def fabric(self, connection: fabric.Connection) -> float:
        """Milliseconds of the same activation."""
        said = sayings.switch(self._host, self._order()).decode()
        command = f"printf %s {shlex.quote(said)} | {self._program.call(self._target.path, 'activate')}"
        began = time.perf_counter()
        done = connection.run(command, hide=True)
        took = time.perf_counter() - began
        assert done.stdout.endswith("end=0\n"), done.stdout
        return took * 1000

    def alone(self) -> float:
        """Milliseconds of the same on the host itself, without any ssh."""
        said = sayings.switch(self._host, self._order())
        command = ["sh", "-c", self._program.call(self._target.path, "activate")]
        began = time.perf_counter()
        done = subprocess.run(command, input=said, capture_output=True, cwd=self._host.root)
        took = time.perf_counter() - began
        assert done.stdout.endswith(b"end=0\n"), done
        return took * 1000

    def _order(self):
        number = self._next()
        return replace(sayings.trivial_switch(self._releases[number % 2], number), epoch=1)

    def _next(self) -> int:
        self._number += 1
        return self._number


def measure(ask: Ask) -> Found:
    """In turn, so that a crowd hits both."""
    say("single: one host, ours and Fabric in turn")
    took: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="rollout-bench-") as folder:
        with running_sshd(Path(folder) / "sshd", 1) as sshd:
            host = OneHost(sshd, Path(folder) / "release.tar.gz")
            fleet = SshFleet()
            host.prepare(fleet)
            fleet.close()
            for _ in range(TIMES):
                fleet = SshFleet()
                took["ours cold"].append(host.ours(fleet))
                took["ours warm"].append(host.ours(fleet))
                fleet.close()
                with host.connection() as connection:
                    took["Fabric cold"].append(host.fabric(connection))
                    took["Fabric warm"].append(host.fabric(connection))
                took["alone"].append(host.alone())
    figures = []
    middle = {name: median(found) for name, found in took.items()}
    for way in ("cold", "warm"):
        ours, its = middle[f"ours {way}"], middle[f"Fabric {way}"]
        title = f"one host, {way} activation, against Fabric as it comes"
        figures.append(Figure(title, "ms", ours, its, ours / its, at_most=LIMIT))
        mine, peers = ours - middle["alone"], its - middle["alone"]
        figures.append(
            Figure(f"  {way}, without what the host itself takes", "ms", mine, peers, mine / peers)
        )
    note = (
        f"medians of {TIMES}; the host's own part (host.sh, a trivial restart and health: {middle['alone']:.1f} ms) "
        "is in both"
    )
    return Found(figures, [note], dict(took))
