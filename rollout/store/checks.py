"""What CI servers reported of commits, known ones or not yet: the newest word on each run of each check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, exists, insert, not_, or_, select, update

from rollout.domain.model import AppName, Check, CheckState
from rollout.domain.states import CommitState
from rollout.store.commits import IS_PULL, ITSELF
from rollout.store.rows import load_one, rows_of
from rollout.store.tables import checks, commits

if TYPE_CHECKING:
    from collections.abc import Collection

    from rollout.store.store import Transaction

KEPT_CHECKS = 100_000  # beside those of commits that are not decided, which need theirs
SWEPT_EVERY = 1000
MOST_NAMES = 100  # of one commit
MOST_WORDS = 1000  # of one commit: several may say something of a check, and each run of it is kept

_IS_NOT_DECIDED = exists().where(
    commits.c.app == checks.c.app,
    commits.c.sha == checks.c.sha,
    ITSELF,
    or_(
        commits.c.state == CommitState.TESTING,
        and_(commits.c.state == CommitState.RECEIVED, commits.c.due_at.is_not(None)),
        and_(commits.c.state != CommitState.RECEIVED, IS_PULL),  # its merge is decided on anew, with these
    ),
)


class Checks:
    """The rows of `checks`."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def put(self, app: AppName, sha: str, check: Check) -> bool:
        """The newest word on a run replaces what was said of it before; False when the commit has too many already."""
        of_commit = and_(checks.c.app == app, checks.c.sha == sha)
        run = and_(checks.c.name == check.name, checks.c.thing == check.thing, checks.c.run == check.run)
        values: dict[str, Any] = {
            "state": check.state,
            "url": check.url,
            "source": check.source,
            "details": check.details,
            "reported_at": self._tx.today(),
            "began_at": check.began_at,
            "took_s": check.took_s,
            "attempt": check.attempt,
            "since": check.since,
            "until": check.until,
        }
        if check.stamp:  # what has none comes between words that have one, and hides none of them
            values["stamp"] = check.stamp
        if self._tx.connection.execute(update(checks).where(of_commit, run).values(**values)).rowcount:
            return True
        names = self._tx.connection.scalars(select(checks.c.name).where(of_commit)).all()
        if len(names) >= MOST_WORDS or len({*names, check.name}) > MOST_NAMES:
            return False
        its = {"app": app, "sha": sha, "name": check.name, "thing": check.thing, "run": check.run}
        statement = insert(checks).values(**its, **values)
        key_of = self._tx.connection.execute(statement).inserted_primary_key
        assert key_of is not None
        if int(key_of[0]) % SWEPT_EVERY == 0:
            old = checks.c.id <= int(key_of[0]) - KEPT_CHECKS
            self._tx.connection.execute(delete(checks).where(old, not_(_IS_NOT_DECIDED)))
        return True

    def drop(self, app: AppName, sha: str, check: Check) -> None:
        """What was said of this run makes room."""
        run = and_(checks.c.name == check.name, checks.c.thing == check.thing, checks.c.run == check.run)
        self._tx.connection.execute(delete(checks).where(checks.c.app == app, checks.c.sha == sha, run))

    def of(self, app: AppName, sha: str) -> list[Check]:
        """All words, by name; `domain.checks.by_name` says what they come to."""
        return self.of_each(app, [sha]).get(sha, [])

    def of_each(self, app: AppName, hashes: Collection[str]) -> dict[str, list[Check]]:
        """As `of`, of each of these commits of which there are any."""
        rows = self._tx.connection.execute(
            rows_of(Check, checks)
            .add_columns(checks.c.sha)
            .where(checks.c.app == app, checks.c.sha.in_(hashes))
            .order_by(checks.c.name, checks.c.id)
        ).all()
        found: dict[str, list[Check]] = {row.sha: [] for row in rows}
        for row in rows:
            found[row.sha].append(load_one(Check, row, state=CheckState))
        return found
