"""A TCP proxy that misbehaves on purpose, between a client and a real server on loopback."""

import contextlib
import socket
import threading
from collections.abc import Iterator

_UP, _DOWN = "up", "down"  # to the server, to the client


class Proxy:
    """Forwards until it is told otherwise. `port` is where it listens, on 127.0.0.1."""

    def __init__(
        self,
        upstream: tuple[str, int],
        *,
        mute: bool = False,
        drop_first: int = 0,
        freeze_up_after: int | None = None,
        freeze_down_after: int | None = None,
        cut_up_after: int | None = None,
    ) -> None:
        """`mute` accepts and says nothing; the numbers are bytes of one connection, or connections."""
        self._upstream = upstream
        self.mute = mute
        self._drop = drop_first
        self.freeze_after = {_UP: freeze_up_after, _DOWN: freeze_down_after}
        self.cut_up_after = cut_up_after
        self.accepted = 0
        self.passed = 0  # bytes, both ways, of all connections
        self._freezes: list[threading.Event] = []  # one a connection
        self._open = {_UP: threading.Event(), _DOWN: threading.Event()}
        self.heal()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address, self.port = self._listener.getsockname()
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Nothing passes any more on the open connections, in either direction, and nothing is closed."""
        for frozen in self._freezes:
            frozen.set()

    def stall(self, way: str) -> None:
        """What goes `up` to the server, or `down` to the client, is held back until `heal`, and then comes late."""
        self._open[way].clear()

    def heal(self) -> None:
        """Let everything through that was stalled."""
        for way in self._open.values():
            way.set()

    def silence(self) -> None:
        """As `freeze`, and new connections are accepted and hear nothing, until `mute` is False again."""
        self.mute = True
        self.freeze()

    def cut(self) -> None:
        """Close every connection now; new ones are forwarded again."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for sock in sockets:
            _end(sock)

    def close(self) -> None:
        """Stop listening and close everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self.heal()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self.accepted <= self._drop:
                client.close()
                continue
            self._keep(client)
            if self.mute:
                continue
            try:
                server = socket.create_connection(self._upstream, 5)
            except OSError:
                _end(client)
                continue
            server.settimeout(None)
            self._keep(server)
            frozen = threading.Event()
            self._freezes.append(frozen)
            for way, source, sink in ((_UP, client, server), (_DOWN, server, client)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pump, args=(way, source, sink, frozen), daemon=True).start()

    def _pump(self, way: str, source: socket.socket, sink: socket.socket, frozen: threading.Event) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.cut_up_after is not None and way == _UP and passed + len(data) > self.cut_up_after:
                    self.cut()
                    return
                limit = self.freeze_after[way]
                if limit is not None and passed + len(data) > limit and not frozen.is_set():
                    sink.sendall(data[: limit - passed])  # however much came at once
                    frozen.set()
                if frozen.is_set():
                    return  # the sockets stay open and nobody reads them
                self._open[way].wait()
                with self._lock:
                    self.passed += len(data)
                sink.sendall(data)
                passed += len(data)
        if not frozen.is_set():
            _end(source)
            _end(sink)

    def _keep(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.append(sock)


@contextlib.contextmanager
def proxy(upstream: tuple[str, int], **faults) -> Iterator[Proxy]:
    """A proxy that is gone at the end."""
    running = Proxy(upstream, **faults)
    try:
        yield running
    finally:
        running.close()


@contextlib.contextmanager
def deaf_port() -> Iterator[tuple[str, int]]:
    """An address where a connect hangs: the accept queue is full and nobody accepts."""
    with socket.socket() as listener, contextlib.ExitStack() as held:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            sock = held.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
