"""What is only ever added, or comes to one end: events, deliveries, samples, outputs, notices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, case, delete, func, insert, or_, select, update

from rollout.domain.deliveries import REFUSED, End, Outcome, Told
from rollout.domain.model import AppName, Delivery, Event, Notice, Push, Role, RolloutId
from rollout.domain.states import CommitState
from rollout.domain.verdict import Interval
from rollout.store.rows import load_all, rows_of
from rollout.store.straight import Prepared
from rollout.store.tables import commits, deliveries, events, notices, outputs, samples

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from rollout.store.store import Transaction

KEPT_DELIVERIES = 100_000
KEPT_OUTPUT = 8_192  # characters of one step on one host
NOTICE_ATTEMPTS = 8
WENT_PAST = "went past a freeze"  # a halted rollout, by a person's word
# Built once, and nobody asks for their ids.
_MORE = Prepared(insert(events).inline())
_ONE_OUTPUT = Prepared(insert(outputs).inline())
_SAMPLES = Prepared(insert(samples).inline())
_ITS_SAMPLES = Prepared(
    rows_of(Interval, samples)
    .where(samples.c.rollout == bindparam("rollout"))
    .order_by(samples.c.t, samples.c.id)
)


class Events:
    """The audit: who did what, why and when."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._new: list[dict[str, Any]] = []

    def add(
        self,
        app: AppName,
        subject: str,
        what: str,
        *,
        who: str,
        why: str | None,
        rollout: RolloutId | None,
        states: tuple[str | None, str | None],
    ) -> None:
        """One more event, now; written with the transaction's others."""
        self._new.append(
            {
                "at": self._tx.today(),
                "app": app,
                "rollout": rollout,
                "subject": subject,
                "what": what,
                "before": states[0],
                "after": states[1],
                "who": who,
                "why": why,
            }
        )

    def write(self) -> None:
        """What was added, in one statement: at the transaction's end, and before its own reading."""
        if self._new:
            self._tx.run_each(_MORE, self._new)
            self._new = []

    def of_rollout(self, rollout: RolloutId) -> list[Event]:
        """Everything that happened to this rollout and its hosts, in order."""
        return self._list(events.c.rollout == rollout)

    def of_subject(self, app: AppName, subject: str) -> list[Event]:
        """Everything that happened to one thing, in order."""
        return self._list(events.c.app == app, events.c.subject == subject)

    def newest(self, app: AppName, subject: str) -> Event | None:
        """What happened to one thing last, beside all rollouts."""
        self.write()
        its = (events.c.rollout.is_(None), events.c.app == app, events.c.subject == subject)
        query = rows_of(Event, events).where(*its).order_by(events.c.id.desc()).limit(1)
        return next(iter(load_all(Event, self._tx.connection.execute(query))), None)

    def let_on_because(self, ids: Sequence[RolloutId]) -> dict[RolloutId, str]:
        """Why each of these rollouts was planned, or by a person's last word went on past a freeze."""
        self.write()
        its = events.c.rollout.in_(ids) & events.c.what.in_(["plan", WENT_PAST])
        rows = self._tx.connection.execute(
            select(events.c.rollout, events.c.why).where(its).order_by(events.c.id)
        )
        return {RolloutId(number): why or "" for number, why in rows}

    def was_barred(self, rollout: RolloutId, subject: str) -> bool:
        """Whether this commit was when the rollout was planned."""
        self.write()
        planned = (
            select(events.c.id, events.c.app)
            .where(events.c.rollout == rollout, events.c.what == "plan")
            .subquery()
        )
        its = (events.c.app == planned.c.app, events.c.subject == subject, events.c.id < planned.c.id)
        said = or_(events.c.what.startswith("bar"), events.c.what == "unbar")
        last = select(events.c.what).where(*its, said).order_by(events.c.id.desc()).limit(1)
        return (self._tx.connection.execute(last).scalar() or "unbar") != "unbar"

    def _list(self, *where: Any) -> list[Event]:
        self.write()
        rows = self._tx.connection.execute(rows_of(Event, events).where(*where).order_by(events.c.id))
        return load_all(Event, rows)


_ADD_DELIVERY = Prepared(insert(deliveries).returning(deliveries.c.id))
_FIRST_OF = rows_of(Delivery, deliveries).where(
    deliveries.c.id.in_(
        select(func.min(deliveries.c.id))
        .where(
            deliveries.c.outcome.in_(
                [Outcome.ACCEPTED, Outcome.STARTED, Outcome.SUPERSEDED, Outcome.REJECTED]
            ),
            deliveries.c.app.in_(bindparam("apps", expanding=True)),
            deliveries.c.head.in_(bindparam("heads", expanding=True)),
        )
        .group_by(deliveries.c.app, deliveries.c.head)
    )
)
_TOLD = (
    commits.c.sha, commits.c.state, commits.c.position, commits.c.on_branch, commits.c.reason, commits.c.merged_into,
    commits.c.pull,
)  # fmt: skip
_ITS_COMMIT = and_(commits.c.app == deliveries.c.app, commits.c.sha == deliveries.c.head)
# Whoever decides over a commit asks for them, and of thousands in a flood git has hardly one on the branch yet.
_WAITING = Prepared(
    select(*_TOLD, deliveries.c.id)
    .join_from(deliveries, commits, _ITS_COMMIT)
    .where(
        deliveries.c.outcome == Outcome.ACCEPTED,
        deliveries.c.app == bindparam("app"),
        or_(
            commits.c.position.is_not(None),
            commits.c.merged_into.is_not(None),
            commits.c.state.in_(list(REFUSED)),
        ),
    )
    .order_by(deliveries.c.id)
)
_OLDER = (
    select(*_TOLD, deliveries.c.id, deliveries.c.app)
    .join_from(deliveries, commits, _ITS_COMMIT, isouter=True)
    .where(deliveries.c.outcome == Outcome.ACCEPTED, deliveries.c.received_at < bindparam("before"))
    .order_by(deliveries.c.id)
)


class Deliveries:
    """Webhooks as they came, each with its one outcome (I4)."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def add(self, push: Push, app: AppName | None, end: End) -> int:
        """Store a delivery together with what came of it so far; its id."""
        return self.add_all([(push, app, end)])[0]

    def add_all(self, told: Sequence[tuple[Push, AppName | None, End]]) -> list[int]:
        """As `add`, for many at once; their ids, in their order."""
        today = self._tx.today()
        values = [
            {
                "received_at": today,
                "provider": push.provider,
                "delivery": push.delivery[:200],
                "app": app,
                "branch": push.branch[:300] or None,
                "head": push.head or None,
                "outcome": end.outcome,
                "reason": end.reason,
                "ref": end.ref,
                "settled_at": None if end.outcome is Outcome.ACCEPTED else today,
            }
            for push, app, end in told
        ]
        numbers = [int(one.scalar_one()) for one in self._tx.run_each(_ADD_DELIVERY, values)]
        for number in numbers:
            if number % 1000 == 0:
                old = deliveries.c.id <= number - KEPT_DELIVERIES
                # One that has no end yet is kept: there are never more of them than commits that wait.
                self._tx.connection.execute(
                    delete(deliveries).where(old, deliveries.c.settled_at.is_not(None))
                )
        return numbers

    def end(self, number: int, end: End) -> None:
        """It has come to its end; one that has one keeps it."""
        self._tx.connection.execute(
            update(deliveries)
            .where(deliveries.c.id == number, deliveries.c.outcome == Outcome.ACCEPTED)
            .values(outcome=end.outcome, reason=end.reason, ref=end.ref, settled_at=self._tx.today())
        )

    def waiting(self, app: AppName) -> list[tuple[int, Told]]:
        """The app's that have no end yet and may have one by now, by their numbers, with the commit of each.

        Of a commit that git has not been seen to have, and that nothing is decided over, nothing can be said.
        """
        return [(row.id, _told(row)) for row in self._tx.run(_WAITING, {"app": app})]

    def older(self, before: datetime) -> list[tuple[int, str | None, Told | None]]:
        """Of any app, without an end though they came before then: number, app, and the commit if it has a row."""
        rows = self._tx.connection.execute(_OLDER, {"before": before})
        return [(row.id, row.app, _told(row) if row.sha else None) for row in rows]

    def first_of(self, heads: Collection[tuple[AppName, str]]) -> dict[tuple[AppName, str], Delivery]:
        """The first ones that told of these commits, of those that were told of."""
        if not heads:
            return {}
        values = {"apps": list({app for app, _ in heads}), "heads": list({head for _, head in heads})}
        rows = load_all(Delivery, self._tx.connection.execute(_FIRST_OF, values))
        return {head: one for one in rows if one.app and one.head and (head := (one.app, one.head)) in heads}

    def taken(self, app: AppName, push: Push) -> int | None:
        """The delivery that brought this very report before, by the server's id of it or else the body's digest; None when none did."""
        its = (
            deliveries.c.outcome == Outcome.REPORTED,
            deliveries.c.app == app,
            deliveries.c.head == push.head,
            deliveries.c.provider == push.provider,
            deliveries.c.delivery == push.delivery[:200],
        )
        number = self._tx.connection.execute(select(func.min(deliveries.c.id)).where(*its)).scalar_one()
        return None if number is None else int(number)

    def newest(self, app: AppName | None, limit: int) -> list[Delivery]:
        """The last ones, newest first."""
        query = rows_of(Delivery, deliveries).order_by(deliveries.c.id.desc()).limit(limit)
        rows = self._tx.connection.execute(query.where(deliveries.c.app == app) if app else query)
        return load_all(Delivery, rows)

    def counts(self) -> dict[str, int]:
        """How many deliveries ended in which outcome."""
        rows = self._tx.connection.execute(
            select(deliveries.c.outcome, func.count()).group_by(deliveries.c.outcome)
        )
        return {str(row[0]): int(row[1]) for row in rows}


def _told(row: Any) -> Told:
    return Told(
        row.sha,
        CommitState(row.state),
        row.position,
        row.on_branch,
        row.reason,
        row.merged_into,
        row.pull,
    )


class Samples:
    """What the canary's and the baseline's hosts answered."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def add(self, rollout: RolloutId, intervals: Sequence[Interval]) -> None:
        """Keep these intervals."""
        rows = [
            {
                "rollout": rollout,
                "t": one.t,
                "dt": one.dt,
                "host": one.host,
                "role": one.role,
                "observed": one.observed,
                "counts": dict(one.counts),
                "source": one.source,
                "flags": list(one.flags),
            }
            for one in intervals
        ]
        if rows:
            self._tx.run_each(_SAMPLES, rows)

    def of(self, rollout: RolloutId) -> list[Interval]:
        """All of them, by time."""
        return load_all(Interval, self._tx.run(_ITS_SAMPLES, {"rollout": rollout}), flags=tuple)

    def unread_s(self, rollout: RolloutId) -> float:
        """For how long none of its canaries could be read; 0 while one can, and before anybody has tried."""
        its = (samples.c.rollout == rollout, samples.c.role == Role.CANARY, samples.c.t > 0)
        seen_t = func.max(case((samples.c.observed, samples.c.t)))
        tried, seen = self._tx.connection.execute(select(func.max(samples.c.t), seen_t).where(*its)).one()
        return float((tried or 0.0) - (seen or 0.0))

    def newest_t(self, rollout: RolloutId) -> float:
        """Up to when something was measured; 0 when nothing was."""
        newest = select(func.max(samples.c.t)).where(samples.c.rollout == rollout)
        return float(self._tx.connection.execute(newest).scalar_one() or 0.0)

    def forget(self, rollout: RolloutId) -> None:
        """A canary that is measured anew starts from nothing."""
        self._tx.connection.execute(delete(samples).where(samples.c.rollout == rollout))


class Outputs:
    """What restart, health and refusals printed on hosts."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def add(self, rollout: RolloutId, host: str, step: str, attempt: int, text: str) -> None:
        """Keep the end of a step's output; empty text is not kept."""
        if text.strip():
            values = {"rollout": rollout, "host": host, "step": step, "attempt": attempt}
            values |= {"at": self._tx.today(), "text": text[-KEPT_OUTPUT:]}
            self._tx.run(_ONE_OUTPUT, values)

    def of(self, rollout: RolloutId, host: str | None = None, after: int = 0) -> list[dict[str, Any]]:
        """In order: id, host, at, step, attempt, text."""
        query = (
            select(outputs).where(outputs.c.rollout == rollout, outputs.c.id > after).order_by(outputs.c.id)
        )
        if host is not None:
            query = query.where(outputs.c.host == host)
        return [dict(row._mapping) for row in self._tx.connection.execute(query)]  # noqa: SLF001  # public name


class Notices:
    """The outbox of what people are told: written with the change, sent after the commit."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def add(self, app: AppName, rollout: RolloutId | None, title: str, body: str) -> None:
        """One more to be sent."""
        self._tx.connection.execute(
            insert(notices).values(
                app=app, rollout=rollout, title=title, body=body, due_at=0.0, created_at=self._tx.today()
            )
        )

    def any_due(self) -> bool:
        """Something waits to be sent."""
        return self._tx.run(_ANY_NOTICE, {"now": self._tx.now()}).first() is not None

    def claim(self, hold_s: float, limit: int = 10) -> list[Notice]:
        """Due ones, taken for `hold_s`: if they are not settled by then, somebody else sends them."""
        now = self._tx.now()
        query = (
            rows_of(Notice, notices)
            .where(notices.c.due_at <= now, notices.c.attempts < NOTICE_ATTEMPTS)
            .order_by(notices.c.id)
            .limit(limit)
        )
        rows = self._tx.connection.execute(
            query.with_for_update(skip_locked=True) if self._tx.is_postgresql else query
        )
        claimed = load_all(Notice, rows, owed=frozenset)
        if claimed:
            self._tx.connection.execute(
                update(notices)
                .where(notices.c.id.in_([notice.id for notice in claimed]))
                .values(due_at=now + hold_s, attempts=notices.c.attempts + 1)
            )
        return claimed

    def sent(self, notice: Notice) -> None:
        """It was delivered."""
        self._tx.connection.execute(
            update(notices).where(notices.c.id == notice.id).values(due_at=None, sent_at=self._tx.today())
        )

    def put_off(self, notice: Notice, wait_s: float, owed: Collection[int] = ()) -> None:
        """It was not delivered, or not to these addresses; again later, but not for ever."""
        due_at = None if notice.attempts + 1 >= NOTICE_ATTEMPTS else self._tx.now() + wait_s
        values = {"due_at": due_at, **({"owed": sorted(owed)} if owed else {})}
        self._tx.connection.execute(update(notices).where(notices.c.id == notice.id).values(values))


# Asked every second, and built once.
_ANY_NOTICE = Prepared(
    select(notices.c.id)
    .where(notices.c.due_at <= bindparam("now"), notices.c.attempts < NOTICE_ATTEMPTS)
    .limit(1)
)
