"""`rollout up`: what runs on this machine, and how to reach it."""

import http.client
import os
import secrets
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rollout.config.deploy_file import Config
from rollout.config.settings import Settings
from rollout.errors import ConfigError, Conflict
from rollout.supervisor import flower, lock
from rollout.supervisor.broker import Broker
from rollout.supervisor.guardian import guarded
from rollout.supervisor.part import Part
from rollout.supervisor.tree import Supervisor

WORKERS = ("control", "tests", "hosts")
Say = Callable[[str], None]


def up(config: Config, say: Say) -> int:
    """Run everything until Ctrl-C; the exit status when all of it has ended.

    Conflict when another `up` has the state directory or an address is taken; ConfigError without a broker to run.
    """
    state_dir = config.server.state_dir
    lock.hold(state_dir)
    tree = parts(config)
    for part in tree:
        if part.first:
            part.prepare()
    for address in ("listen", "flower"):
        _check_free(
            address, getattr(config.server, f"{address}_host"), getattr(config.server, f"{address}_port")
        )
    _check_secret(config)
    _write_token(config.server.api_token_file)
    lines = summary(config)
    log_folder = state_dir / "log"

    def supervise() -> int:
        say(f"starting {', '.join(part.name for part in tree)} (logs: {log_folder})")
        Supervisor(tree, log_folder, say, when_ready=lambda: _say_all(say, lines)).run()
        return 0

    return guarded(supervise)


def _check_secret(config: Config) -> None:
    if not Settings.load(config).webhook_secrets:
        raise ConfigError(
            f"there is no webhook secret: {config.server.webhook_secret_file or 'server.webhook_secret_file'} is missing",
            remedy="`rollout init` writes one; or set ROLLOUT_WEBHOOK_SECRET",
        )


def parts(config: Config) -> list[Part]:
    """What `up` starts. The command lines hold the path of the configuration and nothing else of it."""
    server = config.server
    tree = [
        *_broker(config),
        _rollout("web", config.path, ready=lambda: _healthy(_near(server.listen_host), server.listen_port)),
    ]
    tree += [_rollout(f"worker {name}", config.path) for name in WORKERS]
    tree.append(_rollout("beat", config.path))
    if server.flower:
        near = _near(server.flower_host)
        tree.append(_rollout("flower", config.path, ready=lambda: _connects(near, server.flower_port)))
    return tree


def summary(config: Config) -> list[str]:
    """What to tell when everything runs: addresses, and Flower's user and password."""
    server = config.server
    lines = [f"everything runs; the dashboard is http://{server.listen}/"]
    if server.flower:
        secret = flower.password(server.state_dir)
        lines.append(f"Flower is http://{server.flower}/ (user {flower.USER}, password {secret})")
    return [*lines, f"logs are in {server.state_dir / 'log'}; Ctrl-C ends it all"]


def _broker(config: Config) -> list[Part]:
    if config.server.broker != "embedded":
        return []
    broker = Broker(config.server.state_dir)
    return [
        Part(
            "broker",
            broker.command(),
            prepare=broker.prepare,
            ready=broker.answers,
            heal=broker.heal,
            first=True,
        )
    ]


def _rollout(name: str, config_file: Path, ready: Callable[[], bool] | None = None) -> Part:
    words = (*name.split(), "--config", str(config_file))
    return Part(name, (sys.executable, "-u", "-m", "rollout", *words), ready=ready)


def _near(host: str) -> str:
    """Where this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # a question, nothing is bound


def _healthy(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _connects(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def _check_free(key: str, host: str, port: int) -> None:
    if not host:
        return
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as exc:
        raise Conflict(
            f"server.{key}: {host}:{port} cannot be listened on: {exc.strerror or exc}",
            remedy=f"end the program that uses it, or set [server] {key} to another address",
        ) from exc


def _write_token(path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")


def _say_all(say: Say, lines: list[str]) -> None:
    for line in lines:
        say(line)
