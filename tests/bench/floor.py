"""The floor: plain OpenSSH under `xargs -P 32`, saying to the same host.sh on the same server exactly what we say.

With the same key exchange as ours. It knows everything beforehand (headers, the archive, that the host will say `send=yes`), keeps no books, asks nobody
for leave, and looks at the answers afterwards. So it is what the hosts, sshd and ssh cost.
"""

import contextlib
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from rollout.domain.model import Release
from tests.bench import processes
from tests.bench.sayings import Sayings
from tests.support.sshd import Sshd, SshHost
from tests.support.system import wait_for

AT_ONCE = 32
SAME_KEX = "curve25519-sha256"  # what paramiko and this sshd agree on; OpenSSH's own choice costs its client far more
_CONFIG = """\
Host *
  User {user}
  Port {port}
  IdentityFile {identity}
  IdentitiesOnly yes
  UserKnownHostsFile {known_hosts}
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  LogLevel ERROR
  ControlPath {folder}/master/%h
  {kex}
"""
_ONE = """\
#!/bin/sh
read -r command <{folder}/command/$1
exec ssh -F {folder}/ssh_config "$1" "$command" <{folder}/input/$1 >{folder}/output/$1 2>&1
"""


@dataclass(frozen=True)
class Run:
    """What one pass over the fleet took."""

    seconds: float
    cpu_s: float


class Floor:
    """A fleet of its own, spoken to by ssh."""

    def __init__(
        self,
        sshd: Sshd,
        folder: Path,
        name: str,
        *,
        kex: str | None = SAME_KEX,
        port: int | None = None,  # of a proxy before the server
        at_once: int = AT_ONCE,
        restart: str = "true",
    ) -> None:
        self.sayings = Sayings(sshd, folder, name, restart=restart)
        self._sshd = sshd
        self._folder = folder
        self._at_once = at_once
        self._masters: list[subprocess.Popen[bytes]] = []
        (folder / "master").mkdir()
        (folder / "ssh_config").write_text(
            _CONFIG.format(
                user=sshd.user,
                port=port or sshd.port,
                identity=sshd.identity_file,
                known_hosts=sshd.known_hosts,
                folder=folder,
                kex=f"KexAlgorithms {kex}" if kex else "",
            )
        )
        self._one = folder / "one"
        self._one.write_text(_ONE.format(folder=folder))
        self._one.chmod(0o755)

    def ship(self, release: Release, previous: Release | None) -> Run:
        """Prepare and activate, both through one cold ssh for each host."""
        self.sayings.ship(release, previous)
        return self._pass(release.commit)

    def switch(self, verb: str, release: Release) -> Run:
        """Activate or roll back: over the connections of `warm`, or cold."""
        self.sayings.switch(verb, release)
        before = self._masters_cpu_s()
        run = self._pass(release.commit)
        return Run(run.seconds, run.cpu_s + self._masters_cpu_s() - before)

    @contextlib.contextmanager
    def warm(self):
        """A control master for every host, as ControlPersist leaves it behind."""
        try:
            for first in range(0, len(self._sshd.hosts), AT_ONCE):
                some = self._sshd.hosts[first : first + AT_ONCE]
                self._masters += [self._master(host) for host in some]
                sockets = [self._folder / "master" / host.address for host in some]
                wait_for(
                    lambda them=sockets: all(one.exists() for one in them), every=0.02, why="control masters"
                )
            yield
        finally:
            for master in self._masters:
                master.terminate()
            for master in self._masters:
                master.wait()
            self._masters.clear()

    def _master(self, host: SshHost) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            ["ssh", "-F", str(self._folder / "ssh_config"), "-M", "-N", host.address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def _masters_cpu_s(self) -> float:
        return sum(processes.cpu_s(master.pid) for master in self._masters)

    def _pass(self, commit: str) -> Run:
        """Once over the fleet; every host must have done it, by its answer and by its disk."""
        names = "".join(f"{host.address}\n" for host in self._sshd.hosts)
        spent, began = processes.children_cpu_s(), time.monotonic()
        # Whether they did it is asked below, host by host: an exit status of xargs names none.
        subprocess.run(
            ["xargs", "-P", str(self._at_once), "-n", "1", str(self._one)],
            input=names,
            text=True,
            check=False,
        )
        run = Run(time.monotonic() - began, processes.children_cpu_s() - spent)
        for host in self._sshd.hosts:
            answer = (self._folder / "output" / host.address).read_text(errors="replace")
            assert answer.endswith("end=0\n"), f"the floor's {host.name} answered: {answer[-500:]}"
        self.sayings.check(commit)
        return run
