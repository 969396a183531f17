"""What must hold between the tables of rollout.toml, and what a person should be warned of."""

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from rollout.config import members
from rollout.config.app import AppConfig
from rollout.config.problems import Problem, wrong
from rollout.config.server import ServerConfig, is_loopback
from rollout.domain.model import Member
from rollout.errors import ConfigError

OTHERS_READ = stat.S_IRGRP | stat.S_IROTH


def of_server(server: ServerConfig, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Everything that is wrong with what all apps share although its table is right by itself."""
    try:
        _ = server.broker_url
    except ConfigError as error:
        yield Problem("server.state_dir", str(error).removeprefix("server.state_dir: "))
    secret = environ.get("ROLLOUT_WEBHOOK_SECRET", "").strip() or has_file(server.webhook_secret_file)
    if not is_loopback(server.listen_host) and not secret:
        yield wrong(
            "server.webhook_secret_file",
            None,
            f"a file with a secret, as {server.listen} can be reached from other machines (or ROLLOUT_WEBHOOK_SECRET)",
        )


def of_apps(apps: Mapping[str, AppConfig]) -> Iterator[tuple[str, Problem]]:
    """As `of_server`, of each app; a host that two of them claim is wrong with both."""
    fleets: dict[str, list[Member]] = {}
    for name, app in apps.items():
        try:
            fleets[name] = members.configured(app)
        except ConfigError as error:
            yield name, Problem(f"apps.{name}.fleet.hosts", str(error))
            continue
        yield from ((name, problem) for problem in _fleet(app, fleets[name]))
    for name, other, text in members.collisions(fleets):
        for one in {name, other}:
            yield one, Problem(f"apps.{name}.fleet.hosts", text)


def warnings(
    server: ServerConfig, apps: Mapping[str, AppConfig], file: Path, environ: Mapping[str, str]
) -> Iterator[str]:
    """What works and should not stay so."""
    for secret in (server.webhook_secret_file, server.api_token_file):
        if secret and _mode(secret) & OTHERS_READ:
            yield f"{secret} can be read by others: chmod 600 {secret}"
    if not (environ.get("ROLLOUT_WEBHOOK_SECRET") or has_file(server.webhook_secret_file)):
        yield "there is no webhook secret, so every webhook is refused: set server.webhook_secret_file or ROLLOUT_WEBHOOK_SECRET"
    yield from _unknown_hosts(apps)
    in_file = [
        key
        for key in ("database", "broker")
        if _has_password(getattr(server, key)) and not environ.get(f"ROLLOUT_{key.upper()}")
    ]
    if in_file and _mode(file) & OTHERS_READ:
        yield f"{file} has a password in server.{in_file[0]} and can be read by others: use ROLLOUT_{in_file[0].upper()}, or chmod 600 {file}"


def has_file(path: Path | None) -> bool:
    """Something is there, whether or not it can be read."""
    return path is not None and bool(_mode(path))


def _fleet(app: AppConfig, hosts: list[Member]) -> Iterator[Problem]:
    at = f"apps.{app.name}"
    if app.fleet.inventory:
        return  # asked when the fleet is needed, not whenever the file is read
    for text in members.clashes(hosts):
        yield Problem(f"{at}.fleet.hosts", text)
    for text in members.canary_clashes(app, hosts):
        yield Problem(f"{at}.canary.hosts", text)


def _unknown_hosts(apps: Mapping[str, AppConfig]) -> Iterator[str]:
    for path in sorted({app.fleet.known_hosts for app in apps.values()}):
        if not _mode(path):
            yield f"there is no {path}, so no host's key is known and every host is refused: ssh-keyscan HOST >> {path}"


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _has_password(address: str) -> bool:
    try:
        return bool(urlsplit(address).password)
    except ValueError:
        return False
