"""`[server]`: where this machine keeps its things and where it listens."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field, StrictStr

from rollout.config.fields import LATER, FilePath, OptionalFilePath
from rollout.config.places import API_TOKEN_FILE, DATABASE, STATE_DIR
from rollout.config.table import Table
from rollout.errors import ConfigError

SOCKET_LIMIT = 107  # bytes of a Unix socket's path, with its final zero (sun_path is 108)
LISTEN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
POSTGRESQL = ("postgresql", "postgresql+psycopg", "postgres")
REDIS = ("redis", "rediss", "redis+socket")
BROKERS_LATER = ("amqp", "amqps", "sentinel")


def _database(given: str) -> str:
    if given == "sqlite" or urlsplit(given).scheme in POSTGRESQL:
        return given
    raise ValueError('"sqlite" or postgresql+psycopg://user@host/name')


def _broker(given: str) -> str:
    scheme = urlsplit(given).scheme
    if scheme in BROKERS_LATER:
        raise ValueError(f"{LATER} (use redis:// or rediss://)")
    if given == "embedded" or scheme in REDIS:
        return given
    raise ValueError('"embedded", redis://… rediss://… or redis+socket://…')


def _listen(given: str) -> str:
    found = LISTEN.fullmatch(given)
    if not found or not 0 < int(found[2]) <= 65535:
        raise ValueError('an address and a port, such as "127.0.0.1:8300"')
    return given


def _listen_or_off(given: str) -> str:
    return given and _listen(given)


def split(address: str) -> tuple[str, int]:
    """Host, without brackets, and port; ("", 0) for "" = off."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port or 0)


def is_loopback(host: str) -> bool:
    """Only processes of this machine can connect there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ServerConfig(Table):
    """The `[server]` table."""

    state_dir: FilePath = Field(default=Path(STATE_DIR), validate_default=True)
    database: Annotated[StrictStr, AfterValidator(_database)] = Field(default=DATABASE, repr=False)
    broker: Annotated[StrictStr, AfterValidator(_broker)] = Field(default="embedded", repr=False)
    listen: Annotated[StrictStr, AfterValidator(_listen)] = "127.0.0.1:8300"
    flower: Annotated[StrictStr, AfterValidator(_listen_or_off)] = "127.0.0.1:5555"
    webhook_secret_file: OptionalFilePath = Field(default=Path("webhook.secret"), validate_default=True)
    api_token_file: FilePath = Field(default=Path(API_TOKEN_FILE), validate_default=True)

    @property
    def database_url(self) -> str:
        """The address for SQLAlchemy; may hold a password, so it is for no log and no message."""
        if self.database == "sqlite":
            return f"sqlite:///{quote(str(self.state_dir / 'rollout.db'))}"
        return "postgresql+psycopg:" + self.database.partition(":")[2]

    @property
    def socket(self) -> Path:
        """The embedded broker's socket."""
        return self.state_dir / "broker.sock"

    @property
    def broker_url(self) -> str:
        """The address for Celery; may hold a password. ConfigError when the socket's path is too long."""
        if self.broker != "embedded":
            return self.broker
        if len(bytes(self.socket)) >= SOCKET_LIMIT:
            raise ConfigError(
                f"server.state_dir: the broker's socket {self.socket} has {len(bytes(self.socket))} bytes, "
                f"and the system allows {SOCKET_LIMIT - 1}",
                remedy="choose a shorter server.state_dir",
            )
        return f"redis+socket://{quote(str(self.socket))}"

    @property
    def listen_host(self) -> str:
        """Where the HTTP service listens."""
        return split(self.listen)[0]

    @property
    def listen_port(self) -> int:
        """Where the HTTP service listens."""
        return split(self.listen)[1]

    @property
    def flower_host(self) -> str:
        """Where Flower listens; "" when it is off."""
        return split(self.flower)[0]

    @property
    def flower_port(self) -> int:
        """Where Flower listens; 0 when it is off."""
        return split(self.flower)[1]
