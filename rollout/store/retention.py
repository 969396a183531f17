"""What is not kept for ever: rows that only ever grow, once nobody can need them any more; a batch at a time.

Who did what, when and why stays: rollouts, their hosts, commits of the branch, and every event that is not one host's.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select, update

from rollout.store.commits import IS_PULL, ITSELF
from rollout.store.tables import checks, commits, deliveries, events, notices, outputs, rollouts, samples

if TYPE_CHECKING:
    from sqlalchemy import Table

    from rollout.store.store import Transaction

MEASURED = timedelta(days=30)  # what the canary's and the baseline's hosts answered, after the rollout's end
TOLD = timedelta(days=30)  # webhooks, and what people were told of
PRINTED = timedelta(days=90)  # output of tests and hosts, and each step of each host, after the rollout's end
BATCH = 1000  # rows of a table in one transaction


class Retention:
    """Removes what is too old."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def tidy(self) -> dict[str, int]:
        """Remove the oldest of each kind, at most a batch; how many rows of which table."""
        told = self._tx.today() - TOLD
        return {
            "samples": self._remove(samples, samples.c.rollout.in_(self._ended(MEASURED))),
            "outputs": self._remove(outputs, outputs.c.rollout.in_(self._ended(PRINTED))),
            "events": self._remove(
                events, events.c.rollout.in_(self._ended(PRINTED)), events.c.subject.like("host %")
            ),
            "deliveries": self._remove(
                deliveries, deliveries.c.received_at < told, deliveries.c.settled_at.is_not(None)
            ),
            "notices": self._remove(notices, notices.c.created_at < told, notices.c.due_at.is_(None)),
            "checks": self._remove(checks, checks.c.reported_at < self._tx.today() - PRINTED),
            "commits": self._forget_output()
            + self._remove(
                commits, IS_PULL, ITSELF, commits.c.received_at < told, commits.c.bar_wanted.is_(None)
            ),
        }

    def _ended(self, ago: timedelta) -> Any:
        """Rollouts that ended so long ago."""
        return select(rollouts.c.id).where(rollouts.c.ended_at < self._tx.today() - ago)

    def _remove(self, table: Table, *old: Any) -> int:
        oldest = select(table.c.id).where(*old).order_by(table.c.id).limit(BATCH)
        return self._tx.connection.execute(delete(table).where(table.c.id.in_(oldest))).rowcount

    def _forget_output(self) -> int:
        """Of tests; the commit stays."""
        old = select(commits.c.id).where(
            commits.c.tested_at < self._tx.today() - PRINTED, commits.c.output != ""
        )
        oldest = old.order_by(commits.c.id).limit(BATCH)
        changed = self._tx.connection.execute(
            update(commits).where(commits.c.id.in_(oldest)).values(output="")
        )
        return changed.rowcount
