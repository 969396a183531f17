"""What is said to host.sh on each host by whoever is measured beside us: a command and its input, as files.

They are ours to the letter (headers, archive, `within=`), known beforehand; nobody who says them asks for leave or keeps books.
"""

from dataclasses import replace
from pathlib import Path

from rollout.domain.model import PrepareOrder, Release, SwitchOrder, Target
from rollout.fleet import protocol
from rollout.fleet.commands import host_program
from tests.support.sshd import Sshd, SshHost

# Hosts that share two cores may take their time for either, 200 at once.
WITHIN_MS = 60_000
HEALTH_TIMEOUT_S = 60


class Sayings:
    """A fleet of its own (other folders, same hosts, same server)."""

    def __init__(self, sshd: Sshd, folder: Path, name: str, *, restart: str = "true") -> None:
        self.sshd = sshd
        self.folder = folder
        self.name = name
        self._restart = restart
        self._program = host_program()
        self._operation = 0
        for kind in ("command", "input", "output"):
            (folder / kind).mkdir(parents=True)

    def path_of(self, host: SshHost) -> str:
        """Its release.path on this host."""
        return f"{host.root}/srv/{self.name}"

    def ship(self, release: Release, previous: Release | None) -> None:
        """Prepare and activate, in one command."""
        prepare = self._prepare(release, previous) + Path(release.archive).read_bytes()
        order = self._order(release)
        for host in self.sshd.hosts:
            program = f"{self.path_of(host)}/.rollout/bin/{self._program.digest}"
            command = f"exec sh -c 'test -f {program} && sh {program} prepare && exec sh {program} activate; exit 96'"
            self._write(host, command, prepare + switch(host, order))

    def switch(self, verb: str, release: Release) -> None:
        """Activate or roll back, on hosts that have the release."""
        order = self._order(release)
        for host in self.sshd.hosts:
            self._write(host, self._program.call(self.path_of(host), verb), switch(host, order))

    def check(self, commit: str, hosts: list[SshHost] | None = None) -> None:
        """Every host's disk says that it was done."""
        for host in self.sshd.hosts if hosts is None else hosts:
            current = (Path(self.path_of(host)) / "current").readlink().name
            assert current == commit, f"{self.name}: {host.name} runs {current}"

    def _write(self, host: SshHost, command: str, said: bytes) -> None:
        (self.folder / "command" / host.address).write_text(command + "\n")
        (self.folder / "input" / host.address).write_bytes(said)

    def _next(self) -> int:
        self._operation += 1
        return self._operation

    def _prepare(self, release: Release, previous: Release | None) -> bytes:
        number = self._next()
        spare = (previous.commit,) if previous else ()
        return protocol.prepare(
            PrepareOrder(epoch=number, operation=number, release=release, keep=5, spare=spare)
        )

    def _order(self, release: Release) -> SwitchOrder:
        return replace(trivial_switch(release, self._next()), restart=self._restart)


def trivial_switch(release: Release, number: int) -> SwitchOrder:
    """An order with the restart and the health check of the bench."""
    return SwitchOrder(
        epoch=number,
        operation=number,
        commit=release.commit,
        digest=release.digest,
        restart="true",
        health="true",
        restart_limit_s=60,
        health_timeout_s=HEALTH_TIMEOUT_S,
    )


def switch(host: SshHost, order: SwitchOrder) -> bytes:
    """All that a switch hears, its permission included."""
    target = Target(host.name, host.address, port=0, user="", path="", identity_file=None, known_hosts="")
    return protocol.switch(order, target) + protocol.within(WITHIN_MS)
