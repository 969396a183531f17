"""paramiko's transport, read by the thread that waits for what it brings.

paramiko gives each connection a thread that reads: every message of a host then wakes two threads, and a thousand idle
connections keep a thousand of them. Here whoever waits for an answer reads it, and on the way what comes for others on
the same connection; while nobody waits, one thread looks after all connections of the process (`Attendant`).
"""

import contextlib
import functools
import os
import select
import threading
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import paramiko
from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_FAILURE,
    MSG_DEBUG,
    MSG_DISCONNECT,
    MSG_IGNORE,
    MSG_KEXINIT,
    MSG_UNIMPLEMENTED,
    cMSG_CHANNEL_OPEN,
    cMSG_UNIMPLEMENTED,
)
from paramiko.message import Message
from paramiko.packet import NeedRekeyException, Packetizer
from paramiko.ssh_exception import MessageOrderError

from rollout.fleet.deadline import Alarms, Deadline
from rollout.fleet.dial import Wire

T = TypeVar("T")
_NEVER_S = 1e9
_NEVER, _NOW = Deadline(float("inf")), Deadline(0)
_READER_ENDS_S = 1
_ANSWER_S = 5  # to a host whose connection nobody uses
_KEX_MESSAGES = range(30, 42)  # what they mean depends on the key exchange that was agreed on


class PatientPacketizer(Packetizer):
    """Without paramiko's timer thread per handshake: our deadline covers it."""

    tail: int | None = None  # bytes behind a packet; None when its length is encrypted too

    def start_handshake(self, timeout: float) -> None:
        """Do nothing."""

    def set_inbound_cipher(self, *args: Any, **options: Any) -> None:
        """As paramiko's; notes whether a packet's length can be read before it is decrypted."""
        super().set_inbound_cipher(*args, **options)
        self.tail = options["mac_size"] if options["aead"] or options["etm"] else None


def _host_is_done(channel: paramiko.Channel, message: object) -> None:  # noqa: ARG001 -- paramiko's signature
    """The host has closed the channel, or refused its command: end our reading, and no more.

    paramiko answers with its own close at once, from the thread that reads. Whatever another thread was just about to
    send on the channel then comes after that close, and OpenSSH ends the whole connection for it, neighbours included.
    Here the thread that uses a channel is the only one that sends on it, and closes it last.
    """
    with channel.lock:
        channel.eof_received = True
        channel.in_buffer.close()
        channel.in_stderr_buffer.close()
        channel.out_buffer_cv.notify_all()
        channel.status_event.set()


class PatientTransport(paramiko.Transport):
    """Reads when somebody waits or something has come, and else sleeps.

    One thread at a time reads, the one that holds `_turn`; others who wait for something of this connection wait for
    their events, which it sets.
    """

    # What is private in paramiko, or has no types there.
    packetizer: PatientPacketizer
    kex_engine: Any
    auth_handler: Any
    completion_event: threading.Event
    _channels: Any
    _handler_table: dict[int, Callable[[Message], None]]
    _expected_packet: tuple[int, ...]
    agreed_on_strict_kex: bool
    _check_banner: Callable[[], None]
    _send_kex_init: Callable[[], None]
    _expect_packet: Callable[[int], None]
    _enforce_strict_kex: Callable[[int], None]
    _next_channel: Callable[[], int]
    _sanitize_window_size: Callable[[int | None], int]
    _sanitize_packet_size: Callable[[int | None], int]
    _send_message: Callable[[Message], None]

    _active_check_timeout = 20.0  # private in paramiko, so a test watches that it still works
    # First those that need no MAC: paramiko compares one byte by byte, in Python.
    _preferred_ciphers = tuple(
        sorted(paramiko.Transport._preferred_ciphers, key=lambda name: "gcm" not in name)  # type: ignore[attr-defined]  # noqa: SLF001
    )

    _channel_handler_table: ClassVar[dict[int, Callable[..., None]]] = {
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]  # noqa: SLF001 -- no other hook
        MSG_CHANNEL_CLOSE: _host_is_done,
        MSG_CHANNEL_FAILURE: _host_is_done,
    }

    # SHA-1 and CBC are out; what stays is in every OpenSSH since 6.5.
    disabled: ClassVar[dict[str, list[str]]] = {
        "ciphers": ["aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc"],
        "macs": ["hmac-sha1", "hmac-md5", "hmac-sha1-96", "hmac-md5-96"],
        "kex": [
            "diffie-hellman-group1-sha1",
            "diffie-hellman-group14-sha1",
            "diffie-hellman-group-exchange-sha1",
        ],
        "keys": ["ssh-rsa", "ssh-dss"],
        "pubkeys": ["ssh-rsa", "ssh-dss"],
    }

    def __init__(self, wire: Wire, attendant: "Attendant", **options: Any) -> None:
        options["disabled_algorithms"] = self.disabled
        super().__init__(wire, packetizer_class=PatientPacketizer, **options)
        self._wire = wire
        self._attendant = attendant
        self._turn = threading.Lock()
        self._reader = 0
        # paramiko's own limits go by the wall clock and are named wrong; ours are alarms.
        self.banner_timeout = self.auth_timeout = self.channel_timeout = _NEVER_S
        self.clear_to_send_timeout = _NEVER_S

    # -- what paramiko's client calls ------------------------------------------------------------------------------

    def start_client(self, event: object = None, timeout: object = None) -> None:  # noqa: ARG002 -- paramiko's signature
        """The key exchange, in the caller's thread, which reads on until `let_go`; SSHException, EOFError, OSError."""
        self.hold()
        self.active = True
        self.completion_event = threading.Event()
        try:
            self.packetizer.write_all(f"{self.local_version}\r\n".encode())
            self._check_banner()
            self._send_kex_init()
            self._expect_packet(MSG_KEXINIT)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is raised below
            self._lose(error)
        self.wait(self.completion_event, _NEVER)
        if not self.active:
            raise self.get_exception() or paramiko.SSHException("Negotiation failed.")

    def auth_publickey(self, username: str, key: paramiko.PKey, event: threading.Event | None = None) -> Any:
        """As paramiko's, reading meanwhile."""
        answered = event or threading.Event()
        super().auth_publickey(username, key, answered)
        if event is not None:
            return []
        self.wait(answered, _NEVER)
        return self.auth_handler.wait_for_response(answered)

    def auth_interactive_dumb(self, *_: object) -> list[str]:
        """The way of paramiko would be to ask on the terminal of a program that has none."""
        raise paramiko.AuthenticationException("the host wants more than a key")

    def session(self) -> Any:
        """A new channel, however long it takes, read by this thread until `let_go`; SSHException, EOFError, OSError."""
        if self._may_be_attended:
            self.hold()
        else:
            self.let_go()
        with self.lock:
            if not self.active:  # whoever ended it has told everybody who waited, and tells nobody again
                raise EOFError
            number = self._next_channel()
            channel: Any = paramiko.Channel(number)
            window, packet = self._sanitize_window_size(None), self._sanitize_packet_size(None)
            request = Message()
            request.add_byte(cMSG_CHANNEL_OPEN)
            request.add_string("session")
            for value in (number, window, packet):
                request.add_int(value)
            self._channels.put(number, channel)
            self.channel_events[number] = opened = threading.Event()
            self.channels_seen[number] = True
            channel._set_transport(self)  # noqa: SLF001 -- what open_session of paramiko does, without its polling wait
            channel._set_window(window, packet)  # noqa: SLF001
        self._send_user_message(request)
        self.wait(opened, _NEVER)
        if not self.active or self._channels.get(number) is not channel:
            raise self.get_exception() or paramiko.SSHException("Unable to open channel.")
        return channel

    def hang_up(self) -> None:
        """Shut the socket down, so that whoever reads or sends notices and ends. Never waits."""
        self._wire.hang_up()

    def close(self) -> None:
        """Hang up; then end it, if nobody did."""
        self.hang_up()
        mine = self._reader != threading.get_ident() and self._turn.acquire(timeout=_READER_ENDS_S)
        self._lose(None)
        if mine:
            self._turn.release()

    def run(self) -> None:
        """Read for ever: only where nobody can tell from outside whether a packet is whole."""
        self._turn.acquire()
        self._reader = threading.get_ident()
        self._read(threading.Event(), _NEVER)
        self.let_go()

    def prefer(self, kinds: list[str]) -> None:
        """Ask for a host key of a type that we know."""
        known = [
            x for kind in kinds for x in (("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,))
        ]
        options = self.get_security_options()
        ours = list(options.key_types)
        first = [kind for kind in known if kind in ours]
        options.key_types = first + [kind for kind in ours if kind not in first]

    # -- who reads -------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Read in this thread from now on, whenever it waits, unless another does already. Ends with `let_go`."""
        if self._reader == threading.get_ident():
            return
        if self._turn.acquire(blocking=False):
            self._reader = threading.get_ident()
            self._attendant.leave(self)

    def let_go(self) -> None:
        """Somebody else may read, if this thread did."""
        if self._reader != threading.get_ident():
            return
        self._read_whole()
        self._reader = 0
        self._turn.release()
        if not self.active:
            return
        if self._may_be_attended:
            self._attendant.watch(self)
        elif not self.is_alive():
            self.start()

    def wait(self, event: threading.Event, limit: Deadline) -> bool:
        """Until the event is set, or the connection has ended; False when the limit passes first."""
        if self._reader == threading.get_ident():
            return self._read(event, limit)
        return event.wait(min(limit.left(), threading.TIMEOUT_MAX))

    def aside(self, ask: Callable[[], T]) -> T:
        """Ask somebody else, who may take long: meanwhile others on this connection go on. Then read on."""
        self.let_go()
        answer = ask()
        if self._may_be_attended:
            self.hold()
        return answer

    def make_room(self, channel: paramiko.Channel, limit: Deadline) -> None:
        """Take what has come; while the channel takes and says nothing, wait for more. TimeoutError when the limit passes.

        Only in the thread that reads: for others paramiko waits.
        """
        if self._reader != threading.get_ident():
            return
        self._look(_NOW)
        while self.active and not (
            channel.out_window_size or channel.recv_ready() or channel.eof_received or channel.closed
        ):
            if limit.passed:
                raise TimeoutError
            self._look(limit)

    def attend(self) -> None:
        """Something has come, and perhaps nobody waits for it: take what is whole."""
        if self._turn.acquire(blocking=False):
            self._reader = threading.get_ident()
            self._look(_NOW)
            self.let_go()

    @property
    def number(self) -> int:
        """The socket's file descriptor; -1 when it is closed."""
        return self._wire.fileno()

    @property
    def _may_be_attended(self) -> bool:
        """A packet's length can be seen from outside, so one thread can look after many connections."""
        return self.packetizer.tail is not None and self._attendant.works

    def _look(self, limit: Deadline) -> None:
        """Take what is there whole, or comes before the limit."""
        self._read_whole()
        if not self._wire.readable(limit):
            return
        try:
            self._wire.gather()
        except (EOFError, OSError) as error:
            self._lose(error)
        self._read_whole()

    def _read_whole(self) -> None:
        while (
            self.active and self.packetizer.tail is not None and self._wire.has_packet(self.packetizer.tail)
        ):
            self._take()

    def _read(self, event: threading.Event, limit: Deadline) -> bool:
        while self.active and not event.is_set():
            if (
                limit is not _NEVER
                and not self._wire.has_packet(self.packetizer.tail)
                and not self._wire.readable(limit)
            ):
                return False
            self._take()
        return True

    def _take(self) -> None:
        """The next packet, waiting for all of it. What goes wrong ends the connection, as it does in paramiko."""
        try:
            self._handle_next()
        except Exception as error:  # noqa: BLE001 -- whoever uses the connection is told
            self._lose(error)
        except BaseException:
            self._lose(None)  # a packet may be half read
            raise

    def _handle_next(self) -> None:
        """What the loop of paramiko's `run` does once."""
        if self.packetizer.need_rekey() and not self.in_kex:
            self._send_kex_init()
        try:
            kind, message = self.packetizer.read_message()
        except NeedRekeyException:
            return
        if kind == MSG_DISCONNECT:
            self._lose(None)
        elif kind in {MSG_IGNORE, MSG_DEBUG}:
            self._enforce_strict_kex(kind)
        elif not self._is_of_key_exchange(kind, message):
            self._dispatch(kind, message)

    def _is_of_key_exchange(self, kind: int, message: Message) -> bool:
        """Whether that was its next message, which is handled then; SSHException when another one is due."""
        if not self._expected_packet:
            return False
        if kind not in self._expected_packet:
            wrong = MessageOrderError if self.agreed_on_strict_kex else paramiko.SSHException
            raise wrong(f"Expecting packet from {self._expected_packet!r}, got {kind}")
        self._expected_packet = ()
        if kind not in _KEX_MESSAGES:
            return False
        self.kex_engine.parse_next(kind, message)
        return True

    def _dispatch(self, kind: int, message: Message) -> None:
        if kind in self._handler_table:
            self._handler_table[kind](message)
        elif kind in self._channel_handler_table:
            number = message.get_int()
            channel = self._channels.get(number)
            if channel is not None:
                self._channel_handler_table[kind](channel, message)
            elif number not in self.channels_seen:
                raise paramiko.SSHException(f"Message for unknown channel {number}")
        elif self.auth_handler is not None and kind in self.auth_handler._handler_table:  # noqa: SLF001
            self.auth_handler._handler_table[kind](message)  # noqa: SLF001
        elif kind != MSG_UNIMPLEMENTED:
            answer = Message()
            answer.add_byte(cMSG_UNIMPLEMENTED)
            answer.add_int(message.seqno)
            self._send_message(answer)

    def _lose(self, error: Exception | None) -> None:
        """The connection is over: tell everybody who waits for something of it."""
        with self.lock:
            if not self.active:
                return
            self.saved_exception = error and error.with_traceback(None)  # which would keep all of this
            self.active = False
        for channel in list(self._channels.values()):
            channel._unlink()  # noqa: SLF001
        self._attendant.forget(self)
        self.packetizer.close()
        self.completion_event.set()
        self.clear_to_send.set()  # what is sent now is dropped
        if self.auth_handler is not None:
            self.auth_handler.abort()
        for event in list(self.channel_events.values()):
            event.set()
        self._wire.close()
        self._handler_table = {}  # of our own methods: a thousand of us should not wait for the garbage collector

    # -- what would cost, and brings nothing -----------------------------------------------------------------------

    def _send_user_message(self, data: Message) -> None:
        """As paramiko's; during a new key exchange, which this thread may have to read."""
        if not self.clear_to_send.is_set():
            self.wait(self.clear_to_send, _NEVER)
        super()._send_user_message(data)  # type: ignore[misc]  # has no types there

    def _log(self, level: int, msg: object, *args: object) -> None:
        """Nobody reads it: what goes wrong is raised as one of our errors."""

    def _filter_algorithm(self, type_: str) -> tuple[str, ...]:
        """As paramiko's, worked out once: a handshake asks thirty times."""
        return _allowed(type_, tuple(getattr(self, f"_preferred_{type_}")))


@functools.cache
def _allowed(kind: str, preferred: tuple[str, ...]) -> tuple[str, ...]:
    disabled = PatientTransport.disabled.get(kind, ())
    return tuple(name for name in preferred if name not in disabled)


class Attendant:
    """One thread for all connections that nobody waits at: it answers their hosts, and notices when one hangs up.

    It never waits for what one of them sends: it takes packets that are there whole, and leaves what is not. A host that
    asks and does not read the answers is hung up on: the others would wait meanwhile, and take us for gone.
    """

    works = hasattr(select, "epoll")  # elsewhere each connection has a thread, as paramiko has it

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._lock = threading.Lock()
        self._watched: dict[int, PatientTransport] = {}
        self._thread: threading.Thread | None = None
        self._epoll: Any = None
        self._bell: Any = None
        self._closed = False

    def watch(self, transport: PatientTransport) -> None:
        """Look after it until somebody reads it, or it is over."""
        with self._lock, contextlib.suppress(OSError):
            self._start()
            number = transport.number
            if number < 0 or self._closed or not transport.active:
                return
            self._watched[number] = transport
            try:
                self._epoll.modify(number, select.EPOLLIN | select.EPOLLONESHOT)
            except FileNotFoundError:
                self._epoll.register(number, select.EPOLLIN | select.EPOLLONESHOT)

    def leave(self, transport: PatientTransport) -> None:
        """Somebody reads it now."""
        with self._lock, contextlib.suppress(OSError):
            if self._watched.get(transport.number) is transport:
                self._epoll.modify(transport.number, select.EPOLLONESHOT)

    def forget(self, transport: PatientTransport) -> None:
        """It is over, and its number may be another's soon."""
        with self._lock, contextlib.suppress(OSError):
            if self._watched.get(transport.number) is transport:
                del self._watched[transport.number]
                self._epoll.unregister(transport.number)

    def close(self) -> None:
        """End the thread; nobody is looked after any more."""
        with self._lock:
            self._closed = True
            self._watched.clear()
            thread = self._thread
            if thread is not None and thread.is_alive():
                os.eventfd_write(self._bell, 1)
        if thread is not None:
            thread.join(timeout=5)

    def _start(self) -> None:
        """Begin late, and again in a forked child, where the parent's thread is not."""
        if self._closed or (self._thread is not None and self._thread.is_alive()):
            return
        self._watched.clear()
        self._epoll, self._bell = select.epoll(), os.eventfd(0)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._thread = threading.Thread(
            target=self._run, args=(self._epoll, self._bell), name="ssh-attendant", daemon=True
        )
        self._thread.start()

    def _run(self, epoll: Any, bell: int) -> None:
        ready: list[int] = []
        while bell not in ready:
            ready = [number for number, _ in epoll.poll()]
            for number in ready:
                self._attend(number)
        epoll.close()
        os.close(bell)

    def _attend(self, number: int) -> None:
        transport = self._watched.get(number)
        if transport is not None:
            with self._alarms.at(Deadline.after(_ANSWER_S), transport.hang_up):
                transport.attend()
