"""rollout.toml, read and checked as a whole; what is wrong with the table of one app is no other app's trouble."""

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from rollout.config import rules
from rollout.config.app import AppConfig, CanaryConfig, FanOutConfig, QueueConfig, ReleaseConfig, TestsConfig
from rollout.config.fleet import FleetConfig
from rollout.config.notify import NotifyConfig
from rollout.config.places import find
from rollout.config.problems import Problem, from_validation, listed, refuse, unknown_key, wrong
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
    "usable",
]

TABLES = ("server", "apps", "notify")
NEEDED: Mapping[str, Mapping[str, object]] = {"release": {}, "canary": {}, "fleet": {}}  # each lacks a key
MOST_BYTES = 1 << 20
OF_A_MACHINE = {"fleet": {"inventory", "identity_file", "known_hosts"}}
T = TypeVar("T", bound=Table)


@dataclass(frozen=True)  # without slots, for what is cached
class Config:
    """The whole file."""

    server: ServerConfig
    apps: Mapping[str, AppConfig]
    notify: NotifyConfig
    path: Path
    warnings: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)  # apps whose tables are wrong, and what is

    @property
    def names(self) -> list[str]:
        """Of all apps of the file: one that is left out is not one that was taken out."""
        return [*self.apps, *self.left_out]

    def app(self, name: str | None) -> AppConfig:
        """The app of this name; None is the only one. UnknownName; ConfigError when None could be several, or its table is wrong."""
        if name is not None:
            if name in self.left_out:
                raise ConfigError(self.left_out[name], remedy=f"edit {self.path}")
            if name not in self.apps:
                raise UnknownName("app", name, self.names)
            return self.apps[name]
        if len(self.names) > 1:
            names = ", ".join(sorted(self.names))
            raise ConfigError(f"several apps are configured: {names}", remedy="say which one with --app NAME")
        return next(iter(self.apps.values()))

    @cached_property
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
    config, problems = _read(path, environ)
    refuse(config.path, problems)
    return config


def usable(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """As `load`, without the apps whose tables are wrong: they are `left_out`. ConfigError when anything else is wrong, or none is right."""
    return _read(path, environ)[0]


def _read(path: Path | None, environ: Mapping[str, str]) -> tuple[Config, list[Problem]]:
    """What can be gone by, and what is wrong with the apps that are left out."""
    file = find(path, environ)
    raw = _overridden(_parsed(file), environ)
    problems = [unknown_key(key, key, TABLES) for key in raw if key not in TABLES]
    server = _table(ServerConfig, raw.get("server", {}), "server", file, problems)
    notify = _table(NotifyConfig, raw.get("notify", {}), "notify", file, problems)
    problems += rules.of_server(server, environ) if server else ()
    apps, its = _apps(raw.get("apps"), file, problems)
    of_apps = list(dict.fromkeys(problem for found in its.values() for problem in found))
    if problems or not apps:
        refuse(file, [*problems, *of_apps])
    if server is None or notify is None:
        raise AssertionError("a table without problems is there")
    warnings = tuple(rules.warnings(server, apps, file, environ))
    left_out = {name: listed(file, found) for name, found in its.items()}
    return Config(server, apps, notify, file, warnings, left_out), of_apps


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


def _apps(
    given: object, file: Path, problems: list[Problem]
) -> tuple[dict[str, AppConfig], dict[str, list[Problem]]]:
    """Those with nothing wrong; and what is, of the others."""
    if not isinstance(given, dict) or not given:
        problems.append(wrong("apps", given, "a table for each app: [apps.NAME]"))
        return {}, {}
    its: dict[str, list[Problem]] = {name: [] for name in given}
    read = {name: _app(name, table, file, its[name]) for name, table in given.items()}
    for name, problem in rules.of_apps({name: app for name, app in read.items() if app}):
        its[name].append(problem)
    right = {name: app for name, app in read.items() if app and not its[name]}
    return right, {name: found for name, found in its.items() if found}


def _app(name: str, given: object, file: Path, problems: list[Problem]) -> AppConfig | None:
    at = f"apps.{name}"
    if not isinstance(given, dict):
        problems.append(wrong(at, given, "a table"))
        return None
    if "name" in given:
        problems.append(Problem(f"{at}.name", "unknown key; the name is the one in [apps.NAME]"))
    return _table(AppConfig, {**NEEDED, **given, "name": name}, at, file, problems)
