"""The table of foreign errors."""

import errno
import inspect
import socket

import fabric.exceptions
import invoke.exceptions
import paramiko
import pytest
from invoke.runners import Result
from paramiko import ssh_exception

from rollout.errors import AuthRefused, HostError, HostKeyRefused, StepFailed, Unreachable
from rollout.fleet.failures import FOREIGN, TABLE, Where, translate

WHERE = Where("web1", "10.0.0.1", 22, "deploy")
PARAMIKO = [
    kind for _, kind in inspect.getmembers(ssh_exception, inspect.isclass) if issubclass(kind, Exception)
]


def made(kind):
    """An instance, whatever its constructor wants."""
    key = paramiko.ECDSAKey.generate()
    special = {
        ssh_exception.BadAuthenticationType: lambda: kind("no", ["password"]),
        ssh_exception.PartialAuthentication: lambda: kind(["password"]),
        ssh_exception.ChannelException: lambda: kind(1, "no"),
        ssh_exception.BadHostKeyException: lambda: kind("web1", key, key),
        ssh_exception.ProxyCommandFailure: lambda: kind("nc", "no"),
        ssh_exception.NoValidConnectionsError: lambda: kind({("10.0.0.1", 22): OSError("no")}),
    }
    return special.get(kind, lambda: kind("no"))()


@pytest.mark.parametrize("kind", PARAMIKO, ids=lambda kind: kind.__name__)
def test_every_error_of_paramiko_has_a_row_of_its_own(kind):
    """Each class of paramiko's is in the table, is caught at the door, and becomes the class of its own row."""
    assert [row for row in TABLE if row[0] is kind]
    assert issubclass(kind, FOREIGN)
    row = next(row for row in TABLE if row[0] is kind)
    ours = translate(made(kind), WHERE)
    assert type(ours) is row[1]
    assert row[2] in str(ours)


def test_children_stand_before_their_parents():
    """No row is hidden behind an earlier row of its parent."""
    for position, (kind, _, _) in enumerate(TABLE):
        assert not [earlier for earlier, _, _ in TABLE[:position] if issubclass(kind, earlier)]


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        (ssh_exception.AuthenticationException("no"), AuthRefused),
        (ssh_exception.IncompatiblePeer("no"), AuthRefused),
        (ssh_exception.MessageOrderError("no"), HostKeyRefused),
        (socket.gaierror(-2, "unknown"), Unreachable),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Unreachable),
        (ConnectionResetError(), Unreachable),
        (TimeoutError(), Unreachable),
        (EOFError(), Unreachable),
        (OSError(errno.EHOSTUNREACH, "no route"), Unreachable),
        (RuntimeError("can't start new thread"), Unreachable),
        (invoke.exceptions.UnexpectedExit(Result()), StepFailed),
        (invoke.exceptions.CommandTimedOut(Result(), 5), Unreachable),
        (fabric.exceptions.NothingToDo(), StepFailed),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.__name__,
)
def test_what_becomes_of_what(foreign, ours):
    """Network troubles may be tried again; refusals are for a person."""
    translated = translate(foreign, WHERE)
    assert type(translated) is ours
    assert isinstance(foreign, FOREIGN)


def test_message_says_what_where_and_what_now():
    """The message names the host as it was reached; the remedy is a command."""
    error = translate(ConnectionRefusedError(111, "Connection refused"), WHERE)
    assert str(error).startswith("web1 (deploy@10.0.0.1:22): it refuses the connection")
    assert "ssh -p 22 deploy@10.0.0.1" in error.remedy


def test_our_own_deadline_is_what_is_told():
    """When we cut the connection, what the library raised is only a consequence."""
    error = translate(ssh_exception.AuthenticationException("EOF"), WHERE, cut="no SSH banner within 10 s")
    assert type(error) is Unreachable
    assert "no SSH banner within 10 s" in str(error)


def test_lost_login_is_no_refusal():
    """A connection that ended during the login is not a refused key."""
    assert type(translate(ssh_exception.AuthenticationException("EOF"), WHERE, lost=True)) is Unreachable


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL])
def test_what_this_machine_lacks_is_not_blamed_on_the_host(number):
    """A worker without descriptors or ports says so."""
    error = translate(OSError(number, "x"), WHERE)
    assert type(error) is Unreachable
    assert "this" in str(error)


def test_our_own_errors_pass():
    """An error of ours is handed on as it is."""
    error = HostKeyRefused("changed")
    assert translate(error, WHERE) is error


def test_only_host_errors_come_out():
    """Every row leads to a child of HostError."""
    assert all(issubclass(ours, HostError) for _, ours, _ in TABLE)
