"""The private keys that we log in with, each loaded once."""

import threading
from pathlib import Path

import paramiko

from rollout.errors import AuthRefused
from rollout.fleet.failures import worker_is_short


class Identities:
    """Private keys by file, read again when the file changes. There is no agent here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[str, tuple[int, paramiko.PKey]] = {}

    def of(self, path: str) -> paramiko.PKey:
        """The key in this file; AuthRefused when it cannot be used."""
        file = Path(path).expanduser()
        try:
            stamp = file.stat().st_mtime_ns
            with self._lock:
                cached = self._keys.get(path)
                if cached is None or cached[0] != stamp:
                    cached = self._keys[path] = (stamp, paramiko.PKey.from_path(file))
        except OSError as exc:
            if worker_is_short(exc):
                raise
            raise AuthRefused(
                f"identity_file {file}: {exc.strerror or exc}",
                remedy="set identity_file in rollout.toml to a private key that this user may read",
            ) from exc
        except (paramiko.SSHException, ValueError, TypeError, paramiko.pkey.UnknownKeyType) as exc:
            raise AuthRefused(
                f"identity_file {file} cannot be used: {exc or type(exc).__name__}",
                remedy="use a private key without a passphrase (ssh-keygen -t ed25519 -N ''), readable by this user only",
            ) from exc
        return cached[1]
