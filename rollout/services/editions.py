"""Commands read rollout.toml each time, processes that stay when they begin: whoever asks what comes next is told when those differ."""

import os
import socket
from pathlib import Path

from rollout.config.deploy_file import Config
from rollout.services.ports import Deps
from rollout.store.editions import Edition, Editions
from rollout.store.store import Transaction

TOLD_EVERY_S = 60.0
SILENT_S = 3 * TOLD_EVERY_S  # then nobody goes by anything
OTHER = (
    "automation goes by another rollout.toml than this one, as it was when `rollout up` (or its services) began:"
    " an edit takes effect when that is started again"
)


def tell(deps: Deps) -> None:
    """What this process goes by: for the worker that reads branches, at its beginning and on."""
    with deps.store.transaction() as tx:
        Editions(tx).put(deps.config.digest(), f"{socket.gethostname()} {os.getpid()}")


def other(tx: Transaction, config: Config) -> str | None:
    """That automation goes by another configuration than this one; None too when nothing runs, or has said by what it goes."""
    last = Editions(tx).last()
    if last is None or not 0 <= last.ago_s < SILENT_S or _is_over(last):
        return None
    return None if last.digest == config.digest() else OTHER


def _is_over(last: Edition) -> bool:
    """Who said so was a process of this machine, and is none any more."""
    host, _, process = last.process.partition(" ")
    return host == socket.gethostname() and not Path("/proc", process).exists()
