"""The connections that stay open in this process: bounded, closed when idle, opened again silently when dead."""

import contextlib
import resource
import threading
from collections import OrderedDict
from collections.abc import Iterator

import paramiko

from rollout.domain.model import Target
from rollout.errors import Unreachable
from rollout.fleet.connection import Engine, HostConnection
from rollout.fleet.deadline import Deadline
from rollout.fleet.failures import Where, translate

_Key = tuple[str, int, str, str | None, str]


class _Entry:
    """A host's connection and who uses it. `opening` is held while somebody connects."""

    __slots__ = ("connection", "idle_since", "key", "opening", "retired", "users")

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.connection: HostConnection | None = None
        self.opening = threading.Lock()
        self.users = 0
        self.retired = False
        self.idle_since = Deadline.after(0)

    @property
    def warm(self) -> bool:
        return self.connection is not None and bool(self.connection.is_connected)


_Opened = tuple[_Entry, HostConnection, paramiko.Channel]


def _room_for(connections: int) -> int:
    """How many there may be: as many files again are left to others.

    A process comes with a limit of 1,024, for programs that use select(), and may have far more if it asks. With less room
    than hosts none of them is warm when its turn comes again.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    files = 2 * connections if hard == resource.RLIM_INFINITY else min(2 * connections, hard)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(1, min(connections, max(soft, files) // 2))


class Pool:
    """One connection a host, used by any number of threads, several at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._closed = False
        self._reaping = False
        self._size = _room_for(engine.limits.pool_size)

    def __len__(self) -> int:
        return len(self._entries)

    @contextlib.contextmanager
    def session(
        self, target: Target, deadline: Deadline
    ) -> Iterator[tuple[HostConnection, paramiko.Channel]]:
        """A fresh channel to the host; a warm connection that turns out dead is replaced before you see it."""
        entry, connection, channel = self._open(target, deadline)
        try:
            with connection.cut_at(deadline.later(_GRACE_S), "it did not take what we sent in time"):
                try:
                    yield connection, channel
                finally:
                    with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
                        channel.close()
        finally:
            connection.let_go()
            self._release(entry)

    def close(self) -> None:
        """Close every connection, whatever it is doing."""
        with self._lock:
            self._closed = True
            entries = list(self._entries.values())
            self._entries.clear()
        for entry in entries:
            entry.retired = True
            if entry.connection is not None:
                entry.connection.close()

    def _open(self, target: Target, deadline: Deadline, *, again: bool = True) -> _Opened:
        entry = self._acquire(target)
        try:
            connection, warm = self._connect(entry, target, deadline)
            try:
                return entry, connection, self._channel(connection, deadline, warm=warm)
            except BaseException as error:
                connection.let_go()
                if not isinstance(error, Unreachable):
                    raise
                self._retire(entry)
                if not (warm and again) or deadline.passed:
                    raise
        except BaseException:
            self._release(entry)
            raise
        self._release(entry)
        return self._open(target, deadline, again=False)

    def _channel(self, connection: HostConnection, deadline: Deadline, *, warm: bool) -> paramiko.Channel:
        limits = self._engine.limits
        limit = deadline.within(min(limits.warm_s, limits.channel_s) if warm else limits.channel_s)
        with connection.cut_at(deadline.within(limits.channel_s + _GRACE_S), "it opens no session in time"):
            return connection.session(limit)

    def _connect(self, entry: _Entry, target: Target, deadline: Deadline) -> tuple[HostConnection, bool]:
        """The entry's connection, and whether it was there already."""
        if not entry.opening.acquire(timeout=deadline.left()):
            raise Unreachable(f"{Where.of(target)}: another connect to this host is still under way")
        try:
            if entry.connection is not None and entry.warm:
                return entry.connection, True
            entry.connection = self._connected(target, deadline)
            return entry.connection, False
        finally:
            entry.opening.release()

    def _connected(self, target: Target, deadline: Deadline) -> HostConnection:
        try:
            connection = HostConnection(target, self._engine)
        except OSError as exc:
            raise translate(exc, Where.of(target)) from exc
        connection.open_within(deadline)
        return connection

    def _acquire(self, target: Target) -> _Entry:
        key = (target.address, target.port, target.user, target.identity_file, target.known_hosts)
        with self._lock:
            if self._closed:
                raise Unreachable(f"{Where.of(target)}: this process is closing its connections")
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = _Entry(key)
            self._entries.move_to_end(key)
            entry.users += 1
            surplus = self._surplus()
            first, self._reaping = not self._reaping, True
        if first:
            self._reap_later()
        _close(surplus)
        return entry

    def _release(self, entry: _Entry) -> None:
        with self._lock:
            entry.users -= 1
            entry.idle_since = Deadline.after(0)
            unused = entry.users == 0 and (entry.retired or not entry.warm)
            if unused:
                self._forget(entry)
        if unused:
            _close([entry])

    def _retire(self, entry: _Entry) -> None:
        """Give it to nobody else; it is closed when its last user is done."""
        with self._lock:
            entry.retired = True
            self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]

    def _surplus(self) -> list[_Entry]:
        """Take out the least recently used idle ones that are too many."""
        surplus: list[_Entry] = []
        if len(self._entries) <= self._size:
            return surplus
        for entry in list(self._entries.values()):
            if len(self._entries) <= self._size:
                break
            if entry.users == 0:
                self._forget(entry)
                surplus.append(entry)
        return surplus

    def _reap_later(self) -> None:
        self._engine.alarms.at(Deadline.after(self._engine.limits.idle_s / 4), self._reap)

    def _reap(self) -> None:
        idle_s = self._engine.limits.idle_s
        with self._lock:
            if self._closed:
                return
            old = [e for e in self._entries.values() if e.users == 0 and e.idle_since.later(idle_s).passed]
            for entry in old:
                self._forget(entry)
        _close(old)
        self._reap_later()


_GRACE_S = 0.5  # what waits by itself is done by then; only a send that is stuck is not


def _close(entries: list[_Entry]) -> None:
    for entry in entries:
        if entry.connection is not None:
            entry.connection.close()
