"""Every foreign error, and which of ours it is. One table; whether trying again makes sense is in our class."""

import errno
import socket
from dataclasses import dataclass

import fabric.exceptions
import invoke.exceptions
import paramiko.ssh_exception as ssh

from rollout.domain.model import Target
from rollout.errors import AuthRefused, HostError, HostKeyRefused, StepFailed, Unreachable

TABLE: tuple[tuple[type[BaseException], type[HostError], str], ...] = (
    # The first row that fits counts, so children stand before their parents.
    (ssh.BadHostKeyException, HostKeyRefused, "its host key is not the known one"),
    (
        ssh.MessageOrderError,
        HostKeyRefused,
        "messages out of order during the key exchange, as an attacker would send them",
    ),
    (ssh.PasswordRequiredException, AuthRefused, "the private key needs a passphrase"),
    (ssh.BadAuthenticationType, AuthRefused, "it does not accept logins by key"),
    (ssh.PartialAuthentication, AuthRefused, "it wants a second factor after the key"),
    (ssh.UnableToAuthenticate, AuthRefused, "it refused our key"),
    (ssh.AuthenticationException, AuthRefused, "it refused our key"),
    (ssh.IncompatiblePeer, AuthRefused, "we and its SSH server have no algorithm in common"),
    (ssh.ChannelException, Unreachable, "it refuses another session"),
    (ssh.ProxyCommandFailure, Unreachable, "the proxy command failed"),
    (ssh.NoValidConnectionsError, Unreachable, "none of its addresses answers"),
    (ssh.CouldNotCanonicalize, Unreachable, "its name cannot be resolved"),
    (ssh.ConfigParseError, Unreachable, "the SSH configuration cannot be read"),
    (ssh.SSHException, Unreachable, "the SSH session failed"),
    (invoke.exceptions.CommandTimedOut, Unreachable, "it did not answer in time"),
    (invoke.exceptions.Failure, StepFailed, "the command failed"),
    (invoke.exceptions.ThreadException, Unreachable, "the connection's threads failed"),
    (fabric.exceptions.GroupException, Unreachable, "the connection failed"),
    (fabric.exceptions.NothingToDo, StepFailed, "there was no command"),
    (socket.gaierror, Unreachable, "its name cannot be resolved"),
    (ConnectionRefusedError, Unreachable, "it refuses the connection: no SSH server on this port"),
    (ConnectionError, Unreachable, "it closed the connection"),
    (TimeoutError, Unreachable, "it does not answer"),
    (EOFError, Unreachable, "it closed the connection"),
    (OSError, Unreachable, "the connection failed"),
    (RuntimeError, Unreachable, "this worker cannot start another thread"),
    (ValueError, Unreachable, "the SSH library refuses to work with it"),
)
FOREIGN = (
    ssh.SSHException,
    invoke.exceptions.Failure,
    invoke.exceptions.ThreadException,
    fabric.exceptions.GroupException,
    fabric.exceptions.NothingToDo,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
)
"""What to catch at the door. Anything else is a mistake of ours and must be seen as one."""

_OURS = {
    errno.EMFILE: "this worker has no free file descriptor: raise its limit (ulimit -n)",
    errno.ENFILE: "this machine has no free file descriptor",
    errno.EADDRNOTAVAIL: "this machine has no free port",
    errno.ENOBUFS: "this machine has no free network buffer",
    errno.ENOMEM: "this machine has no free memory",
}


def worker_is_short(exc: BaseException) -> bool:
    """Whether it is this machine that has run out of something, and no file or host is to blame."""
    return isinstance(exc, OSError) and exc.errno in _OURS


@dataclass(frozen=True, slots=True)
class Where:
    """A host as an error names it."""

    name: str
    address: str
    port: int
    user: str

    @classmethod
    def of(cls, target: Target) -> "Where":
        """The host behind this target."""
        return cls(target.name, target.address, target.port, target.user)

    def __str__(self) -> str:
        return f"{self.name} ({self.user}@{self.address}:{self.port})"

    @property
    def by_hand(self) -> str:
        """What a person types to look for himself."""
        return f"try it by hand: ssh -p {self.port} {self.user}@{self.address}"


def translate(exc: BaseException, where: Where, *, cut: str = "", lost: bool = False) -> HostError:
    """Our error for a foreign one.

    `cut` says which of our deadlines ended the connection, since what the library raised is then only a consequence.
    `lost` tells that the connection ended while it logged in: the library calls that a refusal, and it is none.
    """
    if isinstance(exc, HostError):
        return exc
    if cut:
        return Unreachable(f"{where}: {cut}", remedy=where.by_hand)
    if isinstance(exc, OSError) and exc.errno in _OURS:
        return Unreachable(f"{where}: {_OURS[exc.errno]}", remedy="lower the concurrency or raise the limit")
    ours, words = _row(exc)
    if lost and ours is AuthRefused:
        ours, words = Unreachable, "it closed the connection during the login"
    detail = str(exc).strip()
    return ours(f"{where}: {words}" + (f" ({detail})" if detail else ""), remedy=_remedy(ours, where))


def _row(exc: BaseException) -> tuple[type[HostError], str]:
    for foreign, ours, words in TABLE:
        if isinstance(exc, foreign):
            return ours, words
    return Unreachable, f"{type(exc).__name__} from the SSH library"


def _remedy(ours: type[HostError], where: Where) -> str:
    if ours is AuthRefused:
        return f"put the public half of identity_file into ~{where.user}/.ssh/authorized_keys there; {where.by_hand}"
    if ours is HostKeyRefused:
        return f"find out why the key differs before anything else; {where.by_hand}"
    return where.by_hand
