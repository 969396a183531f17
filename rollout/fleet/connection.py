"""One warm SSH connection: Fabric's, with the repairs that make it safe and fast.

Fabric as it comes accepts every host key, asks an agent, waits an hour for a channel and re-merges its configuration
for each host.
"""

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import fabric
import paramiko

from rollout.domain.model import Target
from rollout.errors import HostKeyRefused, Unreachable
from rollout.fleet.deadline import Alarm, Alarms, Deadline
from rollout.fleet.dial import Pacer, Wire, dial
from rollout.fleet.failures import FOREIGN, Where, translate
from rollout.fleet.identities import Identities
from rollout.fleet.known_hosts import KnownHosts, KnownHostsFiles, known_name, scan_remedy
from rollout.fleet.limits import Limits
from rollout.fleet.transport import Attendant, PatientTransport


class _NoSshConfig(paramiko.SSHConfig):
    """~/.ssh/config has no say here; asking paramiko's for nothing costs time and a user name."""

    def lookup(self, hostname: str) -> paramiko.SSHConfigDict:  # noqa: ARG002 -- paramiko's signature
        return paramiko.SSHConfigDict()


class _Config(fabric.Config):  # type: ignore[misc]  # Fabric has no types
    """Invoke asks for these two at each look into it, and where they are missing writes a list of all that there is: 1 ms."""

    _keypath: ClassVar[tuple[str, ...]] = ()

    @property
    def _root(self) -> "_Config":
        return self


# One for all: each connection would otherwise merge a configuration of its own.
_CONFIG = _Config(lazy=True, ssh_config=_NoSshConfig())

_PAUSE_S = 0.25  # before the second try to connect

# What goes wrong is raised as one of our errors; paramiko's own log repeats it with a traceback.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


class NoKeys(paramiko.HostKeys):
    """paramiko's own table, which stays empty; asked about a host it would make a new class, twice a connection: 2 ms."""

    def lookup(self, hostname: str) -> None:  # noqa: ARG002
        """It knows nobody: RejectUnknownKeys is asked."""
        return


class RejectUnknownKeys(paramiko.MissingHostKeyPolicy):
    """Accepts the keys in known_hosts and no others. paramiko asks it for every host: its own table stays empty."""

    def __init__(self, known: KnownHosts, where: Where, accepted: Callable[[], None]) -> None:
        self._known = known
        self._where = where
        self._accepted = accepted

    def missing_host_key(self, client: object, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002 -- paramiko's signature
        """Return when it is one of the known keys; HostKeyRefused."""
        keys = self._known.keys(hostname)
        if (key.get_name(), key.asbytes()) in keys:
            self._accepted()
            return
        found = f"{key.get_name()} {key.fingerprint}"
        if keys:
            problem = f"its host key has changed: it shows {found}, which is not in {self._known.path} for {hostname}"
            first = "somebody may be in between, or the host was reinstalled: "
        else:
            problem = (
                f"its host key is unknown: {self._known.path} has no line for {hostname} (it shows {found})"
            )
            first = ""
        raise HostKeyRefused(
            f"{self._where}: {problem}",
            remedy=first + scan_remedy(self._known.path, self._where.address, self._where.port),
        )


@dataclass(frozen=True, slots=True)
class Engine:
    """What all connections of a process share: each file is read once, each limit is the same."""

    limits: Limits
    alarms: Alarms
    attendant: Attendant
    pacer: Pacer
    known_hosts: KnownHostsFiles
    identities: Identities

    @classmethod
    def of(cls, limits: Limits) -> "Engine":
        """One for these limits."""
        pacer = Pacer(limits.connect_burst, limits.connects_per_s)
        alarms = Alarms()
        return cls(limits, alarms, Attendant(alarms), pacer, KnownHostsFiles(), Identities())

    def close(self) -> None:
        """End its threads and let waiting connects go."""
        self.pacer.close()
        self.attendant.close()
        self.alarms.close()


class HostConnection(fabric.Connection):  # type: ignore[misc]  # Fabric has no types
    """A connection to one host. Open it once; any number of commands run over it, several at a time."""

    # Fabric looks through all names for each attribute that it sets, and writes what is none into the shared
    # configuration: slow, and a race.
    __setattr__ = object.__setattr__
    where: Where
    _login: dict[str, Any]
    _engine: Engine
    _kinds: list[str]
    _wire: Wire | None = None
    _alarm: Alarm | None = None
    _patience = Deadline(0)
    _cut = ""
    _key_accepted = False

    def __init__(self, target: Target, engine: Engine) -> None:
        super().__init__(
            target.address,
            user=target.user,
            port=target.port,
            config=_CONFIG,
            connect_kwargs={},
            inline_ssh_env=False,
        )
        known = engine.known_hosts.of(target.known_hosts)
        kinds = [kind for kind, _ in known.keys(known_name(target.address, target.port))]
        self.where, self._engine, self._kinds = Where.of(target), engine, kinds
        self._login = _login(target, engine.identities)
        self.client._system_host_keys = self.client._host_keys = NoKeys()  # noqa: SLF001
        me = weakref.proxy(self)  # or it would wait for the garbage collector when it is over
        policy = RejectUnknownKeys(known, self.where, lambda: me.on_key_accepted())  # noqa: PLW0108 -- its method would hold it
        self.client.set_missing_host_key_policy(policy)

    def open_within(self, deadline: Deadline) -> None:
        """Connect and log in; HostError. What fails at once and before the login is tried once more."""
        try:
            self._open(deadline)
        except Unreachable:
            if self._cut or self._key_accepted or deadline.left() < _PAUSE_S:
                raise
            threading.Event().wait(_PAUSE_S)
            self._open(deadline)

    def session(self, deadline: Deadline) -> paramiko.Channel:
        """A new channel, whose user reads the connection until `let_go`, unless another does; HostError."""
        try:
            with self.cut_at(deadline, "it opens no session in time"):
                channel: paramiko.Channel = self.transport.session()
        except FOREIGN as exc:
            raise translate(exc, self.where, cut=self._cut) from exc
        return channel

    def let_go(self) -> None:
        """This thread waits for nothing more of it."""
        self.transport.let_go()

    @contextlib.contextmanager
    def cut_at(self, deadline: Deadline, words: str) -> Iterator[None]:
        """Cut the whole connection if the block is not done by then: the last resort against a stalled send."""
        with self._engine.alarms.at(deadline, lambda: self._end(words)):
            yield

    def close(self) -> None:
        """Close it at once, whatever it is doing."""
        if self._wire is not None:
            self._wire.hang_up()
        self.client.close()
        if self._wire is not None:
            self._wire.close()

    @property
    def cut(self) -> str:
        """Which of our deadlines ended it; empty when none did."""
        return self._cut

    def _open(self, deadline: Deadline) -> None:
        limits = self._engine.limits
        self._engine.pacer.wait(deadline)
        self._wire = self._dial(deadline.within(limits.connect_s), limits.connect_s)
        self.connect_kwargs = self._login | {"sock": self._wire, "transport_factory": self._transport}
        self._arm(deadline.within(limits.banner_s), self._on_silent_handshake)
        self._patience = deadline
        try:
            super().open()
        except FOREIGN as exc:
            lost = (
                isinstance(exc, paramiko.AuthenticationException)
                and not self.client.get_transport().is_active()
            )
            raise translate(exc, self.where, cut=self._cut, lost=lost) from exc
        finally:
            self._disarm()
            self.connect_kwargs = {}
            if not self.is_connected:
                self.close()

    def _dial(self, deadline: Deadline, seconds: float) -> Wire:
        try:
            return dial(self.host, self.port, deadline)
        except FOREIGN as exc:
            if deadline.passed:
                self._cut = f"no connection within {seconds:g} s"
            raise translate(exc, self.where, cut=self._cut) from exc

    def _transport(self, wire: Wire, **options: Any) -> PatientTransport:
        transport = PatientTransport(wire, self._engine.attendant, **options)
        transport.prefer(self._kinds)
        return transport

    def _arm(self, deadline: Deadline, action: Callable[[], None]) -> None:
        self._alarm = self._engine.alarms.at(deadline, action)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _end(self, words: str) -> None:
        self._cut = words
        if self._wire is not None:
            self._wire.hang_up()

    def _on_silent_handshake(self) -> None:
        transport = self.client.get_transport()
        what = (
            "key exchange not finished"
            if transport is not None and transport.remote_version
            else "no SSH banner"
        )
        self._end(f"{what} within {self._engine.limits.banner_s:g} s")

    def on_key_accepted(self) -> None:
        """The host is who it should be: now the login has its time."""
        limit = self._engine.limits.auth_s
        self._key_accepted = True
        self._disarm()
        self._arm(
            self._patience.within(limit), lambda: self._end(f"no answer to the login within {limit:g} s")
        )


def _login(target: Target, identities: Identities) -> dict[str, Any]:
    """How to prove who we are. The usual key files are tried only when none is configured."""
    identity = target.identity_file
    return {
        "allow_agent": False,
        "look_for_keys": identity is None,
        "pkey": None if identity is None else identities.of(identity),
    }
