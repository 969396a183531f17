"""Files with secrets: one a line, several are all valid, so that they can be exchanged without a gap."""

import os
import secrets
import time
from pathlib import Path

import structlog

from rollout.errors import ConfigError

log = structlog.get_logger()
READ_AGAIN_S = 1.0
MOST_BYTES = 1 << 16
MOST_LINES = 20


def lines(text: str) -> list[str]:
    """The secrets in a text: its lines without the space around them, empty ones left out."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def read(path: Path | None) -> list[str]:
    """The secrets of a file; none when it is not there. ConfigError when it is there and holds none, or is unreadable."""
    if path is None:
        return []
    try:
        with path.open("rb") as file:
            found = lines(file.read(MOST_BYTES).decode("utf-8-sig"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", remedy="check who may read it"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8", remedy="write the secret as text, one a line") from error
    if not 1 <= len(found) <= MOST_LINES:
        raise ConfigError(
            f"{path} holds {len(found)} secrets, expected 1 to {MOST_LINES}, one a line",
            remedy=f"write a secret to it (openssl rand -hex 32 > {path}), or remove the file",
        )
    return found


class Watched:
    """The secrets of a file that are exchanged while they are in use: at most a second old.

    A file that is gone, empty or unreadable (it may be in the middle of being written) changes nothing, and the log says so.
    """

    def __init__(self, path: Path, found: tuple[str, ...]) -> None:
        self._path, self._found = path, found
        self._read_at, self._trouble = time.monotonic(), ""

    def lines(self) -> tuple[str, ...]:
        """As the file is now."""
        if time.monotonic() - self._read_at >= READ_AGAIN_S:
            self._read_at = time.monotonic()
            self._read()
        return self._found

    def _read(self) -> None:
        try:
            found, trouble = tuple(read(self._path)), ""
        except ConfigError as error:
            found, trouble = (), str(error)
        if not found:
            trouble = trouble or f"{self._path} is gone"
            if trouble != self._trouble:
                log.warning(
                    "webhook_secrets_kept", why=trouble, what="those that were read last are taken still"
                )
        elif found != self._found:
            self._found = found
            log.info("webhook_secrets_read", file=str(self._path), secrets=len(found))
        self._trouble = trouble


def create(path: Path) -> Path | None:
    """Write a new random secret that only the owner can read; None when something is there already."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", remedy="check who may write there"
        ) from error
    with os.fdopen(file, "w") as stream:
        stream.write(secrets.token_hex(32) + "\n")
    return path
