"""Whose turn it is to be tested, asked for every app every few seconds; and how many are in hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Float, and_, bindparam, case, func, not_, or_, select, update

from rollout.domain import turns
from rollout.domain.states import CommitState
from rollout.store.commits import IS_PULL, ITSELF, OF_APP
from rollout.store.straight import Prepared
from rollout.store.tables import commits

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rollout.domain.model import AppName, Commit, CommitId
    from rollout.store.store import Transaction
    from rollout.store.straight import Answer


class Turns:
    """The rows of `commits` that wait for their tests, or are in test."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def due_for_tests(self, app: AppName, again_s: float, parallel: int = 1, most: int = 3) -> list[Commit]:
        """Whose turn it is: waiting, or its worker went silent; as many as there is room for. `most`: of commits that ship at once.

        No more messages of an app are under way than it may test at a time, so that in the queue the apps take turns.
        """
        room = parallel - self.in_hand([app], again_s).get(app, 0)
        if room <= 0:
            return []
        its = {"its_app": app, "now": self._tx.now()}
        ids = self._tx.run(_SILENT, its).scalars()
        if len(ids) < room:
            ids += self._in_turn(app, self._tx.run(_WAITING, its), most)
        if len(ids) < room:  # nothing of the branch waits
            ids += self._tx.run(_WAITING_PULLS, its).scalars()
        return self._tx.commits.by_ids(ids[:room])

    def _in_turn(self, app: AppName, rows: Answer, most: int) -> list[int]:
        waiting = [turns.Waiting(*row) for row in rows]
        if not waiting:
            return []
        tried = self._tx.run(_TRIED, {"its_app": app}).scalar_one()
        active = self._tx.rollouts.active(app)
        runs = self._tx.commits.get(app, active.commit if active else self._tx.rollouts.released(app) or "")
        return [one.id for one in turns.in_turn(waiting, tried, runs.position if runs else None, most)]

    def in_hand(self, apps: Collection[AppName], again_s: float) -> dict[AppName, int]:
        """How many commits of each app are in test, or have a message that says they are to be; of those that have some."""
        its = {"now": self._tx.now(), "again_s": again_s}
        counts = self._tx.run_each(_IN_HAND, [{"its_app": app, **its} for app in apps])
        many = {app: sum(count.one()[:2]) for app, count in zip(apps, counts, strict=True)}
        return {app: those for app, those in many.items() if those}

    def rung(self, ids: Sequence[CommitId], again_s: float) -> None:
        """A message is under way: do not ring again before `again_s`."""
        its = {"due_at": self._tx.now() + again_s, "reason": None}
        self._tx.run_each(_RUNG, [{"its_id": one, **its} for one in ids])


_IS_DUE = commits.c.due_at <= bindparam("now")
_ITS_IDS = select(commits.c.id).where(OF_APP).order_by(commits.c.id)
_SILENT = Prepared(
    _ITS_IDS.where(
        commits.c.state == CommitState.TESTING,
        commits.c.lease_until <= bindparam("now"),
        or_(commits.c.due_at.is_(None), _IS_DUE),
    )
)
_WAITS = and_(ITSELF, commits.c.state == CommitState.RECEIVED, _IS_DUE)
_WAITING = Prepared(  # of one that has left the branch its position says nothing
    select(commits.c.id, case((commits.c.on_branch, commits.c.position))).where(OF_APP, _WAITS, not_(IS_PULL))
)
_WAITING_PULLS = Prepared(_ITS_IDS.where(_WAITS, IS_PULL))
_TRIED = Prepared(
    select(func.max(commits.c.position)).where(
        OF_APP, commits.c.on_branch, commits.c.state != CommitState.RECEIVED
    )
)
_NOW = bindparam("now", type_=Float())
_LATER = and_(commits.c.due_at > _NOW, commits.c.due_at <= _NOW + bindparam("again_s", type_=Float()))
_HAS_MESSAGE = and_(
    commits.c.state == CommitState.RECEIVED,
    commits.c.merged_into.is_(None),
    _LATER,
    commits.c.reason.is_(None),  # put off ones have a reason, and no message
)
_IS_TESTED = and_(commits.c.state == CommitState.TESTING, or_(commits.c.lease_until > _NOW, _LATER))
_IN_HAND = Prepared(
    select(
        *(
            select(func.count()).where(OF_APP, its).scalar_subquery().label(name)
            for name, its in (("rung", _HAS_MESSAGE), ("tested", _IS_TESTED))
        )
    )
)
_RUNG = Prepared(update(commits).where(commits.c.id == bindparam("its_id")))
