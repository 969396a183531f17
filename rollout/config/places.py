"""Where things are that a command looks for before it reads the whole configuration: this module loads at once."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from rollout.errors import ConfigError

STATE_DIR, API_TOKEN_FILE, DATABASE = ".rollout", "api.token", "sqlite"  # the files beside rollout.toml


def find(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The file that is meant: `path`, else $ROLLOUT_CONFIG, else ./rollout.toml; absolute, and a file."""
    named = path or Path(environ.get("ROLLOUT_CONFIG") or "rollout.toml")
    full = named.expanduser().absolute()
    if not full.is_file():
        raise ConfigError(
            f"there is no file {full}",
            remedy="run `rollout init` here, or name the file with --config FILE or ROLLOUT_CONFIG",
        )
    return full


def door(state_dir: Path, database: str) -> Path:
    """The Unix socket where the web process listens for this machine's commands: one for each database, whose numbers they mean."""
    return state_dir / f"web-{hashlib.sha256(database.encode()).hexdigest()[:8]}.sock"
