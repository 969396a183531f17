"""What the shell may complete: apps, rollouts, hosts. Whatever goes wrong, nothing is offered and nothing is said."""

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rollout.domain.model import AppName
from rollout.errors import RolloutError

if TYPE_CHECKING:
    from rollout.config.deploy_file import Config
    from rollout.store.store import Transaction

Found = Iterable[tuple[str, str]]  # value, help
RECENT = 20


def apps(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Names of the configured apps."""
    return _offer(
        context, incomplete, lambda config: ((name, app.branch) for name, app in config.apps.items())
    )


def rollouts(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Rollouts: the unfinished ones and the newest finished ones."""
    return _offer(context, incomplete, lambda config: _from_store(config, _rollouts))


def hosts(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Hosts that the store knows."""
    return _offer(context, incomplete, lambda config: _from_store(config, lambda tx: _hosts(config, tx)))


def _offer(
    context: typer.Context, incomplete: str, look: "Callable[[Config], Found]"
) -> list[tuple[str, str]]:
    from rollout.config import deploy_file

    try:
        found = list(look(deploy_file.usable(_path(context))))
    except (RolloutError, OSError):
        return []
    return [(value, told) for value, told in found if value.startswith(incomplete)]


def _path(context: typer.Context) -> Path | None:
    """`--config`, whether it stands behind the command or before it."""
    before = context.parent.params if context.parent else {}
    named = context.params.get("config") or before.get("config")
    return Path(str(named)) if named else None


def _from_store(config: "Config", look: "Callable[[Transaction], Found]") -> list[tuple[str, str]]:
    from rollout.store.store import Store

    if config.server.database == "sqlite" and not (config.server.state_dir / "rollout.db").exists():
        return []
    with closing(Store(config.server.database_url)) as store:
        if not store.ready():
            return []
        with store.reading() as tx:
            return list(look(tx))


def _rollouts(tx: "Transaction") -> Found:
    return [
        (str(one.id), f"{one.app} {one.commit[:12]} {one.state}")
        for one in [*reversed(tx.rollouts.unfinished()), *tx.rollouts.finished(None, RECENT)]
    ]


def _hosts(config: "Config", tx: "Transaction") -> Found:
    return [(host.name, name) for name in config.names for host in tx.fleet.hosts(AppName(name))]
