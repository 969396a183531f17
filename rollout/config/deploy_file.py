"""rollout.toml, read and checked as a whole: every problem is in the one ConfigError."""

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from rollout.config import rules
from rollout.config.app import AppConfig, CanaryConfig, FanOutConfig, QueueConfig, ReleaseConfig, TestsConfig
from rollout.config.fleet import FleetConfig
from rollout.config.notify import NotifyConfig
from rollout.config.places import find
from rollout.config.problems import Problem, from_validation, refuse, unknown_key, wrong
from rollout.config.server import ServerConfig
from rollout.config.table import Table
from rollout.errors import ConfigError, UnknownName

__all__ = [
    "AppConfig",
    "CanaryConfig",
    "Config",
    "FanOutConfig",
    "FleetConfig",
    "NotifyConfig",
    "QueueConfig",
    "ReleaseConfig",
    "ServerConfig",
    "TestsConfig",
    "load",
]

TABLES = ("server", "apps", "notify")
NEEDED: Mapping[str, Mapping[str, object]] = {"release": {}, "canary": {}, "fleet": {}}  # each lacks a key
MOST_BYTES = 1 << 20
OF_A_MACHINE = {"fleet": {"inventory", "identity_file", "known_hosts"}}
T = TypeVar("T", bound=Table)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file."""

    server: ServerConfig
    apps: Mapping[str, AppConfig]
    notify: NotifyConfig
    path: Path
    warnings: tuple[str, ...] = ()

    def app(self, name: str | None) -> AppConfig:
        """The app of this name; None is the only one. UnknownName; ConfigError when None could be several."""
        if name is not None:
            if name not in self.apps:
                raise UnknownName("app", name, list(self.apps))
            return self.apps[name]
        if len(self.apps) > 1:
            names = ", ".join(sorted(self.apps))
            raise ConfigError(f"several apps are configured: {names}", remedy="say which one with --app NAME")
        return next(iter(self.apps.values()))

    def digest(self) -> str:
        """Another one when an app's table says something else.

        The same for a value that is the default, whether or not it is written down. Places of files, which are each machine's
        own, and what may hold passwords are left out.
        """
        said = {
            name: app.model_dump(mode="json", exclude_defaults=True, exclude=OF_A_MACHINE)
            for name, app in self.apps.items()
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration; ConfigError lists everything that is wrong with it.

    ROLLOUT_DATABASE and ROLLOUT_BROKER replace `server.database` and `server.broker`, and the lines of
    ROLLOUT_NOTIFY_URLS `notify.urls`: they may hold passwords, which then need not be in the file.
    """
    file = find(path, environ)
    raw = _overridden(_parsed(file), environ)
    problems = [unknown_key(key, key, TABLES) for key in raw if key not in TABLES]
    server = _table(ServerConfig, raw.get("server", {}), "server", file, problems)
    notify = _table(NotifyConfig, raw.get("notify", {}), "notify", file, problems)
    apps = _apps(raw.get("apps"), file, problems)
    problems += rules.problems(server, apps, environ)
    refuse(file, problems)
    if server is None or notify is None:
        raise AssertionError("a table without problems is there")
    return Config(server, apps, notify, file, tuple(rules.warnings(server, apps, file, environ)))


def _parsed(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            text = stream.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ConfigError(
                f"{file}: larger than {MOST_BYTES >> 20} MiB", remedy="this is hardly a rollout.toml"
            )
        return tomllib.loads(text.decode())
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}", remedy="check who may read it"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is not UTF-8", remedy="save it as UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{file} is not TOML: {error}", remedy=f"edit {file}") from error


def _overridden(raw: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    server = {
        key: environ[name]
        for key, name in (("database", "ROLLOUT_DATABASE"), ("broker", "ROLLOUT_BROKER"))
        if environ.get(name)
    }
    if server and isinstance(raw.setdefault("server", {}), dict):
        raw["server"] |= server
    urls = environ.get("ROLLOUT_NOTIFY_URLS", "").split()
    if urls and isinstance(raw.setdefault("notify", {}), dict):
        raw["notify"]["urls"] = urls
    return raw


def _table(model: type[T], given: object, at: str, file: Path, problems: list[Problem]) -> T | None:
    if not isinstance(given, dict):
        problems.append(wrong(at, given, "a table"))
        return None
    try:
        return model.model_validate(given, context={"base": file.parent})
    except ValidationError as error:
        problems.extend(from_validation(error, model, at))
        return None


def _apps(given: object, file: Path, problems: list[Problem]) -> dict[str, AppConfig]:
    if not isinstance(given, dict) or not given:
        problems.append(wrong("apps", given, "a table for each app: [apps.NAME]"))
        return {}
    apps = {}
    for name, table in given.items():
        app = _app(name, table, file, problems)
        if app:
            apps[name] = app
    return apps


def _app(name: str, given: object, file: Path, problems: list[Problem]) -> AppConfig | None:
    at = f"apps.{name}"
    if not isinstance(given, dict):
        problems.append(wrong(at, given, "a table"))
        return None
    if "name" in given:
        problems.append(Problem(f"{at}.name", "unknown key; the name is the one in [apps.NAME]"))
    return _table(AppConfig, {**NEEDED, **given, "name": name}, at, file, problems)
