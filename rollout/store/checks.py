"""What CI servers reported of commits, known ones or not yet: the newest word on each check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, func, insert, select, update

from rollout.domain.model import AppName, Check, CheckState
from rollout.store.rows import load_all, rows_of
from rollout.store.tables import checks

if TYPE_CHECKING:
    from rollout.store.store import Transaction

KEPT_CHECKS = 100_000
MOST_NAMES = 100  # of one commit


class Checks:
    """The rows of `checks`."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def put(self, app: AppName, sha: str, check: Check) -> bool:
        """The newest word replaces what was said before; False when the commit has MOST_NAMES different ones already."""
        key = and_(checks.c.app == app, checks.c.sha == sha, checks.c.name == check.name)
        values: dict[str, Any] = {
            "state": check.state,
            "url": check.url,
            "source": check.source,
            "details": check.details,
            "reported_at": self._tx.today(),
            "began_at": check.began_at,
            "took_s": check.took_s,
        }
        if check.stamp:  # what has none comes between words that have one, and hides none of them
            values["stamp"] = check.stamp
        if self._tx.connection.execute(update(checks).where(key).values(**values)).rowcount:
            return True
        known = select(func.count()).where(checks.c.app == app, checks.c.sha == sha)
        if self._tx.connection.execute(known).scalar_one() >= MOST_NAMES:
            return False
        statement = insert(checks).values(app=app, sha=sha, name=check.name, **values)
        key_of = self._tx.connection.execute(statement).inserted_primary_key
        assert key_of is not None
        if int(key_of[0]) % 1000 == 0:
            self._tx.connection.execute(delete(checks).where(checks.c.id <= int(key_of[0]) - KEPT_CHECKS))
        return True

    def of(self, app: AppName, sha: str) -> list[Check]:
        """By name."""
        rows = self._tx.connection.execute(
            rows_of(Check, checks).where(checks.c.app == app, checks.c.sha == sha).order_by(checks.c.name)
        )
        return load_all(Check, rows, state=CheckState)
