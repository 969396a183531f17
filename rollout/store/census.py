"""Counts over the whole store, for whoever watches it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Column, Table, func, not_, select

from rollout.domain.states import FINISHED, CommitState
from rollout.store.commits import IS_PULL, ITSELF
from rollout.store.tables import commits, rollout_hosts, rollouts

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from sqlalchemy import Select

    from rollout.store.store import Transaction

Counts = dict[tuple[str, str], int]
UNTESTED = (CommitState.RECEIVED, CommitState.TESTING)


class Census:
    """How many there are of what."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def rollouts(self) -> Counts:
        """By app and state."""
        return self._counts(_by_state(rollouts))

    def commits(self) -> Counts:
        """By app and state, without those inside merges."""
        return self._counts(_by_state(commits).where(ITSELF))

    def hosts(self) -> Counts:
        """Of unfinished rollouts, by app and state."""
        return self._counts(
            _by_state(rollout_hosts)
            .join(rollouts, rollouts.c.id == rollout_hosts.c.rollout)
            .where(rollouts.c.state.not_in(FINISHED))
        )

    def oldest_unfinished_s(self) -> dict[str, float]:
        """How old the oldest untested commit and the oldest unfinished rollout are; 0 when there is none."""
        return {
            "commit": self._age_s(
                commits.c.received_at, commits.c.state.in_(UNTESTED), not_(IS_PULL), ITSELF
            ),
            "rollout": self._age_s(rollouts.c.started_at, rollouts.c.state.not_in(FINISHED)),
        }

    def _counts(self, query: Select[Any]) -> Counts:
        return {(app, state): number for app, state, number in self._tx.connection.execute(query)}

    def _age_s(self, since: Column[Any], *where: Any) -> float:
        oldest: datetime | None = self._tx.connection.execute(
            select(func.min(since)).where(*where)
        ).scalar_one()
        return 0.0 if oldest is None else max(0.0, (self._tx.today() - oldest).total_seconds())


def _by_state(table: Table) -> Select[Any]:
    return select(table.c.app, table.c.state, func.count()).group_by(table.c.app, table.c.state)
