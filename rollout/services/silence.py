"""Of which commits CI servers say no more: a run of theirs was cancelled, or it ran for a newer one of the same push only."""

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from rollout.config.deploy_file import AppConfig
from rollout.domain import checks
from rollout.domain.model import AppName, Commit
from rollout.domain.states import CommitState
from rollout.store.store import Transaction

if TYPE_CHECKING:
    from datetime import datetime


def silent_from_s(tx: Transaction, app: AppConfig, queue: Sequence[Commit]) -> list[float]:
    """From which age on nobody is waited for who could say more of each of these, oldest first; inf where somebody is."""
    waits = [commit.state is CommitState.RECEIVED and not commit.is_built_again for commit in queue]
    found = [inf] * len(queue)
    if not any(waits):
        return found
    said = tx.checks.of_each(AppName(app.name), [commit.sha for commit in queue[waits.index(True) :]])
    newer: dict[str, datetime] = {}
    for place in range(len(queue) - 1, waits.index(True) - 1, -1):
        reported, came_at = said.get(queue[place].sha, []), queue[place].received_at
        if waits[place]:
            found[place] = checks.silent_from_s(app.tests.required, reported, came_at, newer)
        for name, at in checks.answered(app.tests.required, reported).items():
            newer[name] = min(at, newer.get(name, at))
    return found
