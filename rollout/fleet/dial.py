"""From an address to a connected socket: resolved, paced, without TCP's delays, within a deadline."""

import contextlib
import ipaddress
import queue
import select
import socket
import threading
import time
from typing import Any

from rollout.fleet.deadline import Deadline

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # Linux
_AT_ONCE = 16_384  # bytes
_MOST_AHEAD = 256 * 1024  # bytes; no packet is so long
_LONG_S = 1e6
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Wire(socket.socket):
    """A TCP socket for small questions and answers: Nagle and delayed ACK cost 100 of the 140 ms of a cold deploy."""

    def tune(self) -> None:
        """Set it up: no Nagle, and the kernel notices a peer that has vanished."""
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                self.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    _ahead = b""

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive what has come, for one thread: paramiko asks twice a packet, and each time its thread would sleep and wake.

        It is acknowledged at once: Linux forgets the wish after each time.
        """
        if not self._ahead:
            if _QUICKACK is not None:
                with contextlib.suppress(OSError):
                    self.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            self._ahead = super().recv(max(bufsize, _AT_ONCE), flags)
        piece, self._ahead = self._ahead[:bufsize], self._ahead[bufsize:]
        return piece

    def has_packet(self, tail: int | None) -> bool:
        """Whether a whole packet has been read ahead: its length, itself and `tail` bytes. None: whether anything has."""
        if tail is None:
            return bool(self._ahead)
        return len(self._ahead) >= 4 + tail + int.from_bytes(self._ahead[:4], "big")

    def readable(self, limit: Deadline) -> bool:
        """Whether something comes, or the end, before the limit."""
        number = self.fileno()
        if number < 0:
            return True
        poll = select.poll()
        poll.register(number, select.POLLIN)
        return bool(poll.poll(min(limit.left(), _LONG_S) * 1000))

    def gather(self) -> None:
        """Read ahead what has come, once `readable` said so; EOFError at the end, OSError."""
        data = super().recv(_AT_ONCE)
        if not data:
            raise EOFError
        self._ahead += data
        if len(self._ahead) > _MOST_AHEAD:
            raise OSError("it sends a packet that is longer than any may be")

    def hang_up(self) -> None:
        """End it from any thread: whoever waits in recv or send returns at once."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)


class Pacer:
    """Spreads connects: a burst at once, the rest at a steady rate. A host that hangs holds up nobody."""

    def __init__(self, burst: int, per_s: float) -> None:
        self._gap = 1 / per_s
        self._room = (burst - 1) * self._gap
        self._next = float("-inf")
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def wait(self, deadline: Deadline) -> None:
        """Wait for this connect's turn, at most until the deadline."""
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next + self._gap, now - self._room)
            pause = self._next - now
        if pause > 0:
            self._closing.wait(min(pause, deadline.left()))

    def close(self) -> None:
        """Let everybody go."""
        self._closing.set()


def dial(address: str, port: int, deadline: Deadline) -> Wire:
    """A connected socket; OSError when none of the address's resolutions answers in time."""
    found = resolve(address, port, deadline)
    failure: OSError = OSError(f"{address} has no address")
    for left, (family, sockaddr) in zip(range(len(found), 0, -1), found, strict=True):
        wire = Wire(family, socket.SOCK_STREAM)
        try:
            wire.settimeout(max(0.001, deadline.left() / left))
            wire.connect(sockaddr)
            wire.tune()
        except OSError as exc:
            wire.close()
            failure = exc
        else:
            return wire
    raise failure


def resolve(address: str, port: int, deadline: Deadline) -> list[tuple[int, Any]]:
    """Families and socket addresses. The system's resolver has no deadline, so a name is asked in a thread."""
    if _is_number(address):
        return _ask(address, port, socket.AI_NUMERICHOST)
    answer: queue.SimpleQueue[list[tuple[int, Any]] | OSError] = queue.SimpleQueue()
    threading.Thread(target=_ask_into, args=(answer, address, port), name="resolve", daemon=True).start()
    try:
        found = answer.get(timeout=max(0.001, deadline.left()))
    except queue.Empty:
        raise TimeoutError(f"the name {address} was not resolved in time") from None
    if isinstance(found, OSError):
        raise found
    return found


def _is_number(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _ask(address: str, port: int, flags: int) -> list[tuple[int, Any]]:
    answers = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, sockaddr) for family, _, _, _, sockaddr in answers]


def _ask_into(answer: "queue.SimpleQueue[list[tuple[int, Any]] | OSError]", address: str, port: int) -> None:
    try:
        answer.put(_ask(address, port, 0))
    except OSError as exc:
        answer.put(exc)
    except UnicodeError as exc:  # a label that is too long or empty
        answer.put(OSError(f"{address}: {exc}"))
