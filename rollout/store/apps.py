"""Apps: the epoch counter, and when the branch is polled."""

from __future__ import annotations

import functools
import time
from math import inf
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Float,
    and_,
    bindparam,
    case,
    collate,
    func,
    insert,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as insert_or_leave

from rollout.domain.model import AppName, Epoch, Freeze
from rollout.store.straight import Prepared
from rollout.store.tables import apps

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from rollout.store.store import Transaction

_NAMED = select(apps.c.name).where(apps.c.name == bindparam("its_name"))
_HAS_ROW = Prepared(_NAMED)
_NOTE = Prepared(select(apps.c.note).where(apps.c.name == bindparam("its_name")))
_SET_NOTE = Prepared(
    update(apps).where(
        apps.c.name == bindparam("its_name"),
        apps.c.note.is_distinct_from(bindparam("its_note", type_=apps.c.note.type)),
    )
)
_RED_TOLD = Prepared(select(apps.c.red_told).where(apps.c.name == bindparam("its_name")))
_SET_RED_TOLD = Prepared(
    update(apps).where(
        apps.c.name == bindparam("its_name"),
        apps.c.red_told.is_distinct_from(bindparam("its_sha", type_=apps.c.red_told.type)),
    )
)
_ALL_NAMED = select(apps.c.name).where(apps.c.name.in_(bindparam("names", expanding=True)))
_LOOK = update(apps).where(apps.c.name.in_(bindparam("names", expanding=True))).values(poll_due_at=-1.0)
_FROZEN = Prepared(
    select(apps.c.frozen_at, apps.c.frozen_until, apps.c.frozen_by, apps.c.frozen_reason).where(
        apps.c.name == bindparam("its_name")
    )
)
# A head was told of, and no reading of the branch began since: it may have taken away what was to go out.
HEAD_UNREAD = and_(apps.c.told_s.is_not(None), or_(apps.c.read_s.is_(None), apps.c.read_s < apps.c.told_s))
_WAS_TOLD = (
    update(apps)
    .where(apps.c.name == bindparam("its_name"))
    .values(poll_due_at=-1.0, told_s=bindparam("now", type_=Float()))
)
_TOLD, _TOLD_SAME = Prepared(_WAS_TOLD), Prepared(_WAS_TOLD.where(HEAD_UNREAD))
_HEARD = Prepared(
    select(apps.c.told_s, apps.c.read_s, apps.c.answered_s).where(apps.c.name == bindparam("its_name"))
)
HOLD_S = 60.0  # whoever looks at a branch, and does not say any more that he is at it, has this long before another one does
_HELD_S = 2 * HOLD_S  # at most; processes do not see PostgreSQL's clock at the very same moment
LOOK_S = 5.0  # a flood of webhooks costs the git server one question in so long
LONGEST_BACKOFF_S = 600.0  # of a poll while the git server does not answer


class Apps:
    """The rows of `apps`, one for each app of the configuration."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def ensure(self, app: AppName) -> None:
        """The app has its row."""
        if self._tx.run(_HAS_ROW, {"its_name": app}).first() is None:
            self._add([app])

    def _add(self, some: Iterable[AppName]) -> None:
        """Their first rows; somebody else may give them theirs at this moment, which is as good."""
        rows = [{"name": name, "epoch": 0} for name in sorted(some)]
        new = insert_or_leave(apps).on_conflict_do_nothing() if self._tx.is_postgresql else insert(apps)
        self._tx.connection.execute(new, rows)

    def lock(self, app: AppName) -> None:
        """Nobody else decides for this app until the transaction ends."""
        self.ensure(app)
        if self._tx.is_postgresql:
            self._tx.connection.execute(_NAMED.with_for_update(), {"its_name": app})

    def lock_all(self, some: Collection[AppName]) -> None:
        """As `lock`, for several: in the order of their names, as everyone does who locks more than one."""
        if not some:
            return
        has_row = self._tx.run_each(_HAS_ROW, [{"its_name": app} for app in some])
        if missing := [app for app, row in zip(some, has_row, strict=True) if row.first() is None]:
            self._add(missing)
        if self._tx.is_postgresql:
            names = {"names": list(some)}
            in_order = _ALL_NAMED.order_by(collate(apps.c.name, "C")).with_for_update()
            self._tx.connection.execute(in_order, names)

    def next_epoch(self, app: AppName) -> Epoch:
        """The next one alone, as in `next_epochs`."""
        return self.next_epochs(app, 1)[0]

    def next_epochs(self, app: AppName, many: int) -> list[Epoch]:
        """As many, from one above the last on, and above every one that a lost or restored store can have given out.

        Milliseconds since 1970, not seconds: a fleet of thousands claims faster than once a second, and a counter that runs
        ahead of its clock could be overtaken by a restored store.
        """
        statement = _next_epoch(postgresql=self._tx.is_postgresql)
        values = {"its_name": app, "milliseconds": int(time.time() * 1000), "more": many - 1}
        found = self._tx.run(statement, values).scalar_one_or_none()
        if found is None:
            self.ensure(app)
            found = self._tx.run(statement, values).scalar_one()
        return [Epoch(int(found) - behind) for behind in reversed(range(many))]

    def poll_is_due(self, app: AppName, every_s: float) -> bool:
        """Whether `claim_poll` may be true; for reading transactions."""
        found = self._tx.run(_poll_is_due(polled=every_s > 0), self._moments(app, every_s)).first()
        return every_s > 0 if found is None else bool(found.due)

    def claim_poll(self, app: AppName, every_s: float) -> bool:
        """True for one caller an interval; without an interval (0) only for what `look` asked for."""
        self.ensure(app)
        moments = self._moments(app, every_s)
        taken = {"poll_due_at": moments["now"] + max(every_s, HOLD_S), "looked_s": moments["now"] + HOLD_S}
        claim = _claim_poll(polled=every_s > 0)
        return self._tx.connection.execute(claim, {**moments, **taken}).rowcount == 1

    def claimed_since(self, app: AppName, began_s: float, every_s: float) -> bool:
        """Whoever began to ask at this moment was silent for so long that somebody else asks, or has asked, git anew: that is newer."""
        query = select(apps.c.poll_due_at).where(apps.c.name == app)
        due_at = self._tx.connection.execute(query).scalar_one()
        return bool(due_at > began_s + max(every_s, HOLD_S))

    def hold_polls(self, some: Collection[AppName]) -> None:
        """Who claimed these polls is at it still: a first fetch may take many times as long as the claim of one who dies.

        Waits for nobody, as the caller has rows of hosts: what somebody else has just now is held the next time.
        """
        its = select(apps.c.name).where(apps.c.name.in_(some), self._is_held())
        free = apps.c.name.in_(its.with_for_update(skip_locked=True))
        until = self._tx.now() + HOLD_S
        self._tx.connection.execute(update(apps).where(free).values(looked_s=until))

    def _is_held(self) -> Any:
        """Somebody reads the branch; what is asked for meanwhile is due when he has done so."""
        now = self._tx.now()
        return and_(apps.c.looked_s > now, apps.c.looked_s <= now + _HELD_S)

    def first_read(self, app: AppName) -> bool:
        """Whether the branch is being read for the very first time."""
        unanswered = and_(apps.c.answered_s.is_(None), apps.c.poll_failures == 0)
        query = select(apps.c.name).where(apps.c.name == app, self._is_held(), unanswered)
        return self._tx.connection.execute(query).first() is not None

    def _moments(self, app: AppName, every_s: float) -> dict[str, Any]:
        now = self._tx.now()
        # `never`: much later than it can be due, so the store's clock was set back.
        never = now + 2 * (every_s + LONGEST_BACKOFF_S)
        return {"its_name": app, "now": now, "just_now": now - LOOK_S, "held": now + _HELD_S, "never": never}

    def look(self, some: Collection[AppName]) -> None:
        """Their branches may not be what we know: a poll is due, also of an app that is not polled, once in `LOOK_S` at most.

        For whoever holds their rows.
        """
        if some:
            self._tx.connection.execute(_LOOK, {"names": list(some)})

    def told(self, moved: Collection[AppName], same: Collection[AppName] = ()) -> None:
        """Webhooks told of heads: `look`, and nothing is planned until a reading that begins from now on.

        `same`: of the head that is known as the newest one. It is news only while an earlier one has not been read: that
        reading may be under way, and have found what this one takes back.
        """
        now = self._tx.now()
        for statement, some in ((_TOLD, moved), (_TOLD_SAME, set(same) - set(moved))):
            self._tx.run_each(statement, [{"its_name": app, "now": now} for app in some])

    def read(self, app: AppName, began_s: float) -> None:
        """Git answered what its branch is, to who began to ask at this moment."""
        its = {"read_s": began_s, "answered_s": self._tx.now()}
        self._tx.connection.execute(update(apps).where(apps.c.name == app).values(its))

    def unread(self, app: AppName, *, lately: bool = False, since_s: float | None = None) -> bool:
        """Whether a webhook told of a head since the last reading of the branch began.

        But what counts: `lately`, what git answered within `LOOK_S` (by its end: a slow answer in a flood would never do);
        `since_s`, what it was asked after this moment.
        """
        its, now = self._tx.run(_HEARD, {"its_name": app}).first(), self._tx.now()
        if its is None or its.told_s is None:
            return False
        if its.read_s is None or its.read_s > now:  # the store's clock was set back
            return True
        if lately and its.answered_s is not None and now - LOOK_S < its.answered_s <= now:
            return False
        return its.read_s < its.told_s and (since_s is None or its.read_s < since_s)

    def polled(
        self, app: AppName, began_s: float, *, next_s: float, failures: int, silent: bool = False
    ) -> None:
        """Who began at this moment is done: when to poll again, how often in a row it has failed, and whether the git server was silent this time."""
        self._tx.connection.execute(
            update(apps)
            .where(apps.c.name == app)
            .values(
                # What was asked for while this one looked is still due.
                poll_due_at=case((apps.c.poll_due_at < 0, apps.c.poll_due_at), else_=self._tx.now() + next_s),
                looked_s=began_s,
                poll_failures=failures,
                poll_silent=silent,
            )
        )

    def unasked_s(self, app: AppName, every_s: float) -> float | None:
        """For how long nobody has asked the git server, though that is due; inf: nobody ever has. None: it is asked, or not polled."""
        if every_s <= 0:
            return None
        due_at, looked_s = self._tx.connection.execute(
            select(apps.c.poll_due_at, apps.c.looked_s).where(apps.c.name == app)
        ).first() or (0.0, None)
        now = self._tx.now()
        if looked_s is None or looked_s > now + _HELD_S:  # or the store's clock was set back since
            return inf
        if due_at < 0:  # somebody asked for it, who knows when
            due_at = looked_s + LONGEST_BACKOFF_S
        return float(now - looked_s) if now - max(due_at, looked_s) > HOLD_S else None

    def answers(self, app: AppName) -> None:
        """Its git server does: none of its last polls failed."""
        values = {"poll_failures": 0, "poll_silent": False}
        self._tx.connection.execute(update(apps).where(apps.c.name == app).values(values))

    def poll_failures(self, app: AppName, *, silent: bool = False) -> int:
        """How often in a row the git server was asked in vain; `silent`: 0 when it did answer the last time, though not with what the branch is."""
        query = select(apps.c.poll_failures, apps.c.poll_silent).where(apps.c.name == app)
        its = self._tx.connection.execute(query).first()
        if its is None or (silent and not its.poll_silent):
            return 0
        return abs(int(its.poll_failures))  # a process of before 0021 counts answers below zero

    def note(self, app: AppName, text: str | None) -> bool:
        """Keep why nothing is being started; True when it is news."""
        self.ensure(app)
        its = {"its_name": app, "its_note": text, "note": text}
        return self._tx.run(_SET_NOTE, its).rowcount == 1

    def tell_red(self, app: AppName, sha: str | None) -> bool:
        """Keep which commit people were told to have made the branch red, None for a green one; True when it is news."""
        its = {"its_name": app, "its_sha": sha, "red_told": sha}
        return self._tx.run(_SET_RED_TOLD, its).rowcount == 1

    def red_told(self, app: AppName) -> str | None:
        """Which commit people were told to have made the branch red."""
        found: str | None = self._tx.run(_RED_TOLD, {"its_name": app}).scalar_one_or_none()
        return found

    def set_frozen(self, app: AppName, freeze: Freeze | None) -> None:
        """Automation stands still for the app, or not."""
        self.ensure(app)
        its = (None,) * 4 if freeze is None else (freeze.at, freeze.until, freeze.by, freeze.reason)
        values = dict(
            zip(
                (apps.c.frozen_at, apps.c.frozen_until, apps.c.frozen_by, apps.c.frozen_reason),
                its,
                strict=True,
            )
        )
        self._tx.connection.execute(update(apps).where(apps.c.name == app).values(values))

    def frozen(self, app: AppName) -> Freeze | None:
        """What a person said; its end may be over."""
        row = self._tx.run(_FROZEN, {"its_name": app}).first()
        return None if row is None or row.frozen_at is None else Freeze(*row)

    def noted(self, app: AppName) -> str | None:
        """Why nothing is being started."""
        found: str | None = self._tx.run(_NOTE, {"its_name": app}).scalar_one_or_none()
        return found


@functools.cache
def _next_epoch(*, postgresql: bool) -> Prepared:
    greatest = func.greatest if postgresql else func.max
    return Prepared(
        update(apps)
        .where(apps.c.name == bindparam("its_name"))
        .values(
            epoch=greatest(apps.c.epoch + 1, bindparam("milliseconds", type_=BigInteger))
            + bindparam("more", type_=BigInteger)
        )
        .returning(apps.c.epoch)
    )


# Asked for every app every second, so built once.


def _is_due(*, polled: bool) -> Any:
    now: Any = bindparam("now")
    due = or_(apps.c.poll_due_at.between(0, now), apps.c.poll_due_at > bindparam("never"))
    # Or is being looked at.
    just_now = and_(apps.c.looked_s > bindparam("just_now"), apps.c.looked_s <= bindparam("held"))
    held = and_(just_now, apps.c.looked_s > now)
    asked = and_(apps.c.poll_due_at < 0, or_(apps.c.looked_s.is_(None), not_(just_now)))
    # Whoever was to read it may have died
    again = due if polled else and_(or_(apps.c.poll_failures != 0, HEAD_UNREAD), due)
    return or_(asked, and_(again, or_(apps.c.looked_s.is_(None), not_(held))))


@functools.cache
def _poll_is_due(*, polled: bool) -> Prepared:
    return Prepared(select(_is_due(polled=polled).label("due")).where(apps.c.name == bindparam("its_name")))


@functools.cache
def _claim_poll(*, polled: bool) -> Any:
    return update(apps).where(apps.c.name == bindparam("its_name"), _is_due(polled=polled))
