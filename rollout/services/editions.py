"""Which rollout.toml counts: processes that stay read it when they begin, commands each time.

Automation goes by one: that of the control worker which began last. Who goes by another plans and begins nothing, since
else one would plan what the other sets aside, without end; and whoever asks what comes next is told.
"""

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

ASTRAY = (
    "another rollout.toml than this one was read by the {}:"
    " until that is started again (or all of `rollout up`) what comes next is left to the others"
)


def tell(deps: Deps, *, begins: bool = False) -> None:
    """What this control worker goes by: when it `begins`, and on, unless one with another file has begun since."""
    with deps.store.transaction() as tx:
        if begins:
            Editions(tx).forget_astray()  # who still is says so again
        if begins or not is_astray(tx, deps.config):
            Editions(tx).put(deps.config.digest, _process())
            return
    tell_astray("control worker", deps)


def tell_astray(part: str, deps: Deps) -> None:
    """That this part goes by another file than automation, if it does."""
    with deps.store.reading() as tx:
        if not is_astray(tx, deps.config):
            return
    with deps.store.transaction() as tx:
        Editions(tx).put_astray(part, deps.config.digest, _process())


def is_astray(tx: Transaction, config: Config) -> bool:
    """Automation goes by another configuration than this one; False too when nothing runs, or has said by what it goes."""
    last = Editions(tx).last()
    return last is not None and _counts(last) and last.digest != config.digest


def other(tx: Transaction, config: Config) -> str | None:
    """For whoever asks what comes next by this configuration: that automation, or a part of it, goes by another one."""
    if is_astray(tx, config):
        return OTHER
    parts = [
        f"{part} ({word.process.replace(' ', ', process ')})"
        for part, word in Editions(tx).astray().items()
        if _counts(word) and word.digest != config.digest
    ]
    return ASTRAY.format(" and the ".join(parts)) if parts else None


def _process() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _counts(word: Edition) -> bool:
    return 0 <= word.ago_s < SILENT_S and not _is_over(word)


def _is_over(last: Edition) -> bool:
    """Who said so was a process of this machine, and is none any more."""
    host, _, process = last.process.partition(" ")
    return host == socket.gethostname() and not Path("/proc", process).exists()
