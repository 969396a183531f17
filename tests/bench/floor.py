"""The floor: plain OpenSSH under `xargs -P 32`, saying to the same host.sh on the same server exactly what we say.

With the same key exchange as ours. It knows everything beforehand (headers, the archive, that the host will say `send=yes`), keeps no books, asks nobody
for leave, and looks at the answers afterwards. So it is what the hosts, sshd and ssh cost.
"""

import contextlib
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from rollout.domain.model import PrepareOrder, Release, SwitchOrder, Target
from rollout.fleet import protocol
from rollout.fleet.commands import host_program
from tests.bench import processes
from tests.support.sshd import Sshd, SshHost
from tests.support.system import wait_for

AT_ONCE = 32
WITHIN_MS = 14_000
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
    """A fleet of its own (other folders, same hosts, same server)."""

    def __init__(self, sshd: Sshd, folder: Path, name: str, *, kex: str | None = SAME_KEX) -> None:
        self._sshd = sshd
        self._name = name
        self._folder = folder
        self._program = host_program()
        self._operation = 0
        self._masters: list[subprocess.Popen[bytes]] = []
        for kind in ("command", "input", "output", "master"):
            (folder / kind).mkdir(parents=True)
        (folder / "ssh_config").write_text(
            _CONFIG.format(
                user=sshd.user,
                port=sshd.port,
                identity=sshd.identity_file,
                known_hosts=sshd.known_hosts,
                folder=folder,
                kex=f"KexAlgorithms {kex}" if kex else "",
            )
        )
        self._one = folder / "one"
        self._one.write_text(_ONE.format(folder=folder))
        self._one.chmod(0o755)

    def path_of(self, host: SshHost) -> str:
        """Its release.path on this host."""
        return f"{host.root}/srv/{self._name}"

    def ship(self, release: Release, previous: Release | None) -> Run:
        """Prepare and activate, both through one cold ssh for each host."""
        self._say_in_one(release, previous)
        return self._pass(release.commit)

    def ship_in_two(self, release: Release, previous: Release | None) -> Run:
        """Prepare the whole fleet, then activate it: two cold ssh for each host, as a shell script would."""
        self._say("prepare", self._prepare(release, previous), Path(release.archive).read_bytes())
        first = self._pass(None)
        self._say_switch("activate", release)
        second = self._pass(release.commit)
        return Run(first.seconds + second.seconds, first.cpu_s + second.cpu_s)

    def roll_back(self, to: Release) -> Run:
        """Over the connections of `warm`."""
        self._say_switch("rollback", to)
        before = sum(processes.cpu_s(master.pid) for master in self._masters)
        run = self._pass(to.commit)
        return Run(
            run.seconds, run.cpu_s + sum(processes.cpu_s(master.pid) for master in self._masters) - before
        )

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

    # -- what is said --------------------------------------------------------------------------------------------------

    def _next(self) -> int:
        self._operation += 1
        return self._operation

    def _say_in_one(self, release: Release, previous: Release | None) -> None:
        archive = Path(release.archive).read_bytes()
        prepare = self._prepare(release, previous) + archive
        order = self._order(release)
        for host in self._sshd.hosts:
            program = f"{self.path_of(host)}/.rollout/bin/{self._program.digest}"
            command = f"exec sh -c 'test -f {program} && sh {program} prepare && exec sh {program} activate; exit 96'"
            self._write(host, command, prepare + self._switch(host, order))

    def _say(self, verb: str, header: bytes, rest: bytes) -> None:
        for host in self._sshd.hosts:
            self._write(host, self._program.call(self.path_of(host), verb), header + rest)

    def _say_switch(self, verb: str, release: Release) -> None:
        order = self._order(release)
        for host in self._sshd.hosts:
            self._write(host, self._program.call(self.path_of(host), verb), self._switch(host, order))

    def _write(self, host: SshHost, command: str, said: bytes) -> None:
        (self._folder / "command" / host.address).write_text(command + "\n")
        (self._folder / "input" / host.address).write_bytes(said)

    def _prepare(self, release: Release, previous: Release | None) -> bytes:
        number = self._next()
        spare = (previous.commit,) if previous else ()
        return protocol.prepare(
            PrepareOrder(epoch=number, operation=number, release=release, keep=5, spare=spare)
        )

    def _order(self, release: Release) -> SwitchOrder:
        number = self._next()
        return SwitchOrder(
            epoch=number,
            operation=number,
            commit=release.commit,
            digest=release.digest,
            restart="true",
            health="true",
            restart_limit_s=60,
            health_timeout_s=3,
        )

    @staticmethod
    def _switch(host: SshHost, order: SwitchOrder) -> bytes:
        target = Target(host.name, host.address, port=0, user="", path="", identity_file=None, known_hosts="")
        return protocol.switch(order, target) + protocol.within(WITHIN_MS)

    # -- saying it -----------------------------------------------------------------------------------------------------

    def _pass(self, commit: str | None) -> Run:
        """Once over the fleet; every host must have done it, by its answer and by its disk."""
        names = "".join(f"{host.address}\n" for host in self._sshd.hosts)
        spent, began = _children_cpu_s(), time.monotonic()
        subprocess.run(
            ["xargs", "-P", str(AT_ONCE), "-n", "1", str(self._one)], input=names, text=True, check=True
        )
        run = Run(time.monotonic() - began, _children_cpu_s() - spent)
        for host in self._sshd.hosts:
            answer = (self._folder / "output" / host.address).read_text(errors="replace")
            assert answer.endswith("end=0\n"), f"the floor's {host.name} answered: {answer[-500:]}"
            if commit is not None:
                current = (Path(self.path_of(host)) / "current").readlink().name
                assert current == commit, f"the floor's {host.name} runs {current}"
        return run


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
