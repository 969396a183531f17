"""One command on one host over a plain channel: bytes in, lines out, with a deadline, a cap and no pseudo-terminal.

Invoke's runner costs 2 ms a command and polls; paramiko's own waits are unbounded or go by the wall clock. Here a
waiting thread sleeps on one event that both of the channel's streams set.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import paramiko
from paramiko.common import cMSG_CHANNEL_REQUEST
from paramiko.message import Message

from rollout import crashpoints
from rollout.errors import HostError, StepFailed, Unreachable
from rollout.fleet.connection import HostConnection
from rollout.fleet.deadline import Deadline
from rollout.fleet.failures import FOREIGN, translate
from rollout.fleet.limits import Limits
from rollout.fleet.uploads import Source

T = TypeVar("T")
_CHUNK = 32 * 1024 - 64  # what paramiko puts into one packet of OpenSSH: 64 bytes more would be another
_LONGEST_LINE = 64 * 1024
_TICK_S = 0.1  # how often a transfer asks whether it may go on


class Conversation:
    """What goes back and forth with one command."""

    def __init__(
        self, connection: HostConnection, channel: paramiko.Channel, deadline: Deadline, limits: Limits
    ) -> None:
        self._connection = connection
        self._channel = channel
        self.deadline = deadline
        self._limits = limits
        self._arrived = threading.Event()
        self._buffer = bytearray()
        self._received = 0
        self._stderr = bytearray()
        self._noise: deque[str] = deque(maxlen=10)
        channel.settimeout(_TICK_S)
        channel.in_buffer.set_event(self._arrived)
        channel.in_stderr_buffer.set_event(self._arrived)

    def aside(self, ask: Callable[[], T]) -> T:
        """Ask somebody else, a database that may take long: meanwhile others use the connection."""
        return self._connection.transport.aside(ask)  # type: ignore[no-any-return]  # Fabric has no types

    def start(self, command: str) -> None:
        """Ask for the command without waiting for the host's yes: what it reads may follow at once."""
        request = Message()
        request.add_byte(cMSG_CHANNEL_REQUEST)
        request.add_int(self._channel.remote_chanid)
        request.add_string("exec")
        request.add_boolean(True)
        request.add_string(command)
        try:
            # What exec_command of paramiko does, without its endless wait.
            self._channel._event_pending()  # type: ignore[attr-defined]  # noqa: SLF001 -- as above
            self._connection.transport._send_user_message(request)  # noqa: SLF001 -- as above
        except FOREIGN as exc:
            raise self._translate(exc) from exc

    def send(self, data: bytes) -> None:
        """Send some bytes, whatever the host says meanwhile: its login shell may print; less when it has hung up, which reading will tell."""
        self._send(memoryview(data), _always, self._stall(), lambda: self._hung_up)

    def stream(self, source: Source, go_on: Callable[[], bool]) -> int:
        """Send all of it; how many bytes were sent: fewer when the host answered first or `go_on` said no."""
        size = left = source.size
        stall, asked = self._stall(), Deadline.after(_TICK_S)
        while left:
            if asked.passed:
                if not self.aside(go_on):
                    return size - left
                asked = Deadline.after(_TICK_S)
            data = source.read(size - left, min(_CHUNK, left))
            sent = self._send(memoryview(data), go_on, stall, lambda: self._answered)
            left -= sent
            crashpoints.reach("mid-upload")
            if sent < len(data) or not data:
                break
            stall = self._stall()
        return size - left

    def end_input(self) -> None:
        """Nothing more will be sent."""
        try:
            self._channel.shutdown_write()
        except FOREIGN as exc:
            raise self._translate(exc) from exc

    def line(self, limit: Deadline) -> str | None:
        """The next whole line; None when the host has said all. A last line without its end is not trusted."""
        start = 0
        while (end := self._buffer.find(b"\n", start)) < 0:
            start = len(self._buffer)
            if start > _LONGEST_LINE:
                self._buffer[:] = b"\0"  # what follows must not look like the beginning of a line
                start = 0
            data = self.receive(limit)
            if not data:
                self.noise(self._buffer.decode(errors="replace"))
                self._buffer.clear()
                return None
            self._buffer += data
        line = self._buffer[:end].decode(errors="replace").rstrip("\r")
        del self._buffer[: end + 1]
        return line

    def receive(self, limit: Deadline) -> bytes:
        """What has arrived, at least one byte; empty at the end. Unreachable when nothing comes in time."""
        while True:
            self._arrived.clear()
            self._drain_stderr()
            if self._answered:
                try:
                    data = self._channel.recv(_CHUNK)
                except TimeoutError:
                    continue
                except FOREIGN as exc:
                    raise self._translate(exc) from exc
                self._count(len(data))
                return data
            if not self._connection.transport.wait(self._arrived, limit):
                raise Unreachable(
                    f"{self._connection.where}: no answer in time", remedy=self._connection.where.by_hand
                )

    def everything(self) -> bytes:
        """All that the command still prints."""
        parts = [bytes(self._buffer)]
        self._buffer.clear()
        while data := self.receive(self.deadline):
            parts.append(data)
        return b"".join(parts)

    def exit_status(self) -> int | None:
        """The exit status; None when the connection ended or a signal ended the command. Read everything first."""
        limit = self.deadline.within(self._limits.exec_s)
        if not self._connection.transport.wait(self._channel.status_event, limit):
            raise Unreachable(
                f"{self._connection.where}: the command ended, and its exit status did not come in time"
            )
        self._drain_stderr()
        return None if self._channel.exit_status == -1 else self._channel.exit_status

    def noise(self, line: str) -> None:
        """Remember a line that was no answer; the last ones go into the error message."""
        if said := line.replace("\0", "").strip(" "):
            self._noise.append(said[:200])

    def said(self) -> str:
        """The last that the host said beside its answers, on one line."""
        lines = self._stderr.decode(errors="replace").replace("\0", "").split("\n")
        return " | ".join(line.strip()[:200] for line in [*self._noise, *lines[-5:]] if line.strip())

    @property
    def refused(self) -> bool:
        """Whether the host's SSH server said no to running a command at all."""
        return self._channel.exit_status == -1 and not self._channel.event_ready

    @property
    def lost(self) -> bool:
        """Whether the connection is gone, as opposed to the command."""
        return not self._connection.is_connected

    @property
    def where(self) -> str:
        """The host as an error names it."""
        return str(self._connection.where)

    @property
    def by_hand(self) -> str:
        """What a person types to look."""
        return self._connection.where.by_hand

    @property
    def cut(self) -> str:
        """Which of our deadlines ended the connection."""
        return self._connection.cut

    @property
    def _answered(self) -> bool:
        return bool(self._channel.recv_ready() or self._hung_up)

    @property
    def _hung_up(self) -> bool:
        return bool(self._channel.eof_received or self._channel.closed)

    def _stall(self) -> Deadline:
        return self.deadline.within(self._limits.stall_s)

    def _send(
        self, view: memoryview, go_on: Callable[[], bool], stall: Deadline, is_over: Callable[[], bool]
    ) -> int:
        """How many bytes the host's window took before it hung up, it `is_over`, or `go_on` said no."""
        sent = 0
        while sent < len(view):
            try:
                self._connection.transport.make_room(self._channel, Deadline.after(_TICK_S))
                if is_over():
                    break
                step = self._channel.send(bytes(view[sent:]))
            except TimeoutError:
                if stall.passed:
                    raise Unreachable(
                        f"{self.where}: it stopped taking what we send", remedy=self.by_hand
                    ) from None
                if not self.aside(go_on):
                    break
                continue
            except FOREIGN as exc:
                if self._channel.closed and self._connection.is_connected:
                    break  # the command ended: its answer says why
                raise self._translate(exc) from exc
            if not step:
                break
            sent += step
        return sent

    def _drain_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            data = self._channel.recv_stderr(_CHUNK)
            self._stderr += data
            del self._stderr[:-4096]
            self._count(len(data))

    def _count(self, size: int) -> None:
        self._received += size
        if self._received > self._limits.output_bytes:
            raise StepFailed(
                f"{self.where}: it printed more than {self._limits.output_bytes // 1024} KiB",
                remedy=f"look at the login shell's start-up files; {self.by_hand}",
            )

    def _translate(self, exc: BaseException) -> HostError:
        return translate(exc, self._connection.where, cut=self._connection.cut)


def _always() -> bool:
    return True
