"""What CI servers reported of commits, known ones or not yet: the newest word on each run of each check."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    and_,
    bindparam,
    case,
    delete,
    distinct,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    update,
)

from rollout.domain.checks import PIPELINES
from rollout.domain.model import AppName, Check, CheckState
from rollout.domain.states import CommitState
from rollout.store.commits import IS_PULL, ITSELF
from rollout.store.rows import load_one, rows_of
from rollout.store.straight import Prepared
from rollout.store.tables import checks, commits

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

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
_NAME = ("app", "sha", "name")
_KEY = (*_NAME, "thing", "run", "stamp")
_OF = and_(checks.c.app == bindparam("its_app"), checks.c.sha == bindparam("its_sha"))
_RUN = and_(*(checks.c[name] == bindparam(f"its_{name}") for name in ("name", "thing", "run")))
_STAMP = bindparam("its_stamp", type_=checks.c.stamp.type)
_SAY = Prepared(  # what has no stamp comes between words that have one, and hides none of them
    update(checks).where(_OF, _RUN).values(stamp=case((_STAMP != "", _STAMP), else_=checks.c.stamp))
)
_ADD = Prepared(insert(checks).returning(checks.c.id))
_OTHERS = func.count(distinct(case((checks.c.name != bindparam("its_name"), checks.c.name))))
_MANY = Prepared(
    select(
        *(
            select(many).where(_OF).scalar_subquery().label(what)
            for what, many in (("words", func.count()), ("others", _OTHERS))
        )
    )
)


class Checks:
    """The rows of `checks`."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def put(self, sha: str, words: Mapping[AppName, Check]) -> set[AppName]:
        """For each of these apps the newest word on a run replaces what was said of it before; those whose commit has too many already."""
        today = self._tx.today()
        rows = [_row(app, sha, check) | {"reported_at": today} for app, check in words.items()]
        answers = self._tx.run_each(_SAY, list(map(_its, rows)))
        new = [row for row, answer in zip(rows, answers, strict=True) if not answer.rowcount]
        counts = self._tx.run_each(_MANY, [{f"its_{key}": row[key] for key in _NAME} for row in new])
        full = {row["app"] for row, answer in zip(new, counts, strict=True) if _is_full(answer.one())}
        for answer in self._tx.run_each(_ADD, [row for row in new if row["app"] not in full]):
            number = int(answer.scalar_one())
            if number % SWEPT_EVERY == 0:
                old = checks.c.id <= number - KEPT_CHECKS
                self._tx.connection.execute(delete(checks).where(old, not_(_IS_NOT_DECIDED)))
        return full

    def drop(self, app: AppName, sha: str, check: Check) -> None:
        """What was said of this run makes room."""
        run = and_(checks.c.name == check.name, checks.c.thing == check.thing, checks.c.run == check.run)
        self._tx.connection.execute(delete(checks).where(checks.c.app == app, checks.c.sha == sha, run))

    def of(self, app: AppName, sha: str) -> list[Check]:
        """All words, by name; `domain.checks.by_name` says what they come to."""
        return self.of_each(app, [sha]).get(sha, [])

    def alike(
        self, apps: Collection[AppName], sha: str, names: Collection[str]
    ) -> dict[AppName, list[Check]]:
        """Of a commit, for each of these apps: all words on checks of these names, and on what may count as one of them."""
        rows = self._tx.connection.execute(
            rows_of(Check, checks)
            .add_columns(checks.c.app)
            .where(checks.c.app.in_(apps), checks.c.sha == sha, checks.c.name.in_([*names, *PIPELINES]))
            .order_by(checks.c.name, checks.c.id)
        )
        found: dict[AppName, list[Check]] = {app: [] for app in apps}
        for row in rows:
            found[row.app].append(load_one(Check, row, state=CheckState))
        return found

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


def _row(app: AppName, sha: str, check: Check) -> dict[str, Any]:
    said = {its.name: getattr(check, its.name) for its in fields(Check)}
    return said | {"app": app, "sha": sha}


def _its(row: Mapping[str, Any]) -> dict[str, Any]:
    """As the statement that changes it wants it."""
    return {f"its_{name}" if name in _KEY else name: value for name, value in row.items()}


def _is_full(many: Any) -> bool:
    return bool(many.words >= MOST_WORDS or many.others >= MOST_NAMES)
