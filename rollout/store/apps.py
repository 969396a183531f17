"""Apps: the epoch counter, and when the branch is polled."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, and_, bindparam, case, collate, func, insert, not_, or_, select, update

from rollout.domain.model import AppName, Epoch, Freeze
from rollout.domain.states import CommitState
from rollout.store.straight import Prepared
from rollout.store.tables import apps, commits

if TYPE_CHECKING:
    from collections.abc import Collection

    from rollout.store.store import Transaction

_NAMED = select(apps.c.name).where(apps.c.name == bindparam("its_name"))
_ALL_NAMED = select(apps.c.name).where(apps.c.name.in_(bindparam("names", expanding=True)))
_LOOK = update(apps).where(apps.c.name.in_(bindparam("names", expanding=True))).values(poll_due_at=-1.0)
_FROZEN = select(apps.c.frozen_at, apps.c.frozen_until, apps.c.frozen_by, apps.c.frozen_reason).where(
    apps.c.name == bindparam("its_name")
)
_UNREAD = (
    select(commits.c.id)
    .join_from(commits, apps, commits.c.app == apps.c.name)
    .where(
        commits.c.app == bindparam("its_name"),
        commits.c.state.in_([CommitState.RECEIVED, CommitState.TESTING]),
        commits.c.position.is_(None),
        commits.c.merged_into.is_(None),
        commits.c.pull.is_(None),
        commits.c.received_s <= bindparam("until"),
        or_(
            apps.c.read_s.is_(None),
            apps.c.read_s > bindparam("now"),  # of another boot
            and_(apps.c.read_s <= commits.c.received_s, apps.c.read_s <= bindparam("lately")),
        ),
    )
    .limit(1)
)
HOLD_S = 60.0  # whoever looks at a branch has this long before another one does
LOOK_S = 5.0  # a flood of webhooks costs the git server one question in so long
LONGEST_BACKOFF_S = 600.0  # of a poll while the git server does not answer


class Apps:
    """The rows of `apps`, one for each app of the configuration."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def ensure(self, app: AppName) -> None:
        """The app has its row."""
        if self._tx.connection.execute(_NAMED, {"its_name": app}).first() is None:
            self._tx.connection.execute(insert(apps).values(name=app, epoch=0))

    def lock(self, app: AppName) -> None:
        """Nobody else decides for this app until the transaction ends."""
        self.ensure(app)
        if self._tx.is_postgresql:
            self._tx.connection.execute(_NAMED.with_for_update(), {"its_name": app})

    def lock_all(self, some: Collection[AppName]) -> None:
        """As `lock`, for several: in the order of their names, as everyone does who locks more than one."""
        if not some:
            return
        names = {"names": list(some)}
        missing = set(some) - set(self._tx.connection.execute(_ALL_NAMED, names).scalars())
        if missing:
            self._tx.connection.execute(
                insert(apps), [{"name": name, "epoch": 0} for name in sorted(missing)]
            )
        if self._tx.is_postgresql:
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
        known = self._tx.connection.execute(_NAMED, {"its_name": app}).first() is not None
        if not known:
            return every_s > 0
        due = _poll_is_due(polled=every_s > 0)
        return self._tx.connection.execute(due, self._moments(app, every_s)).first() is not None

    def claim_poll(self, app: AppName, every_s: float) -> bool:
        """True for one caller an interval; without an interval (0) only for what `look` asked for."""
        self.ensure(app)
        moments = self._moments(app, every_s)
        taken = {"poll_due_at": moments["now"] + max(every_s, HOLD_S), "looked_s": moments["now"]}
        claim = _claim_poll(polled=every_s > 0)
        return self._tx.connection.execute(claim, {**moments, **taken}).rowcount == 1

    def _moments(self, app: AppName, every_s: float) -> dict[str, Any]:
        now = self._tx.now()
        # `never`: much later than it can be due, so the store's clock was set back.
        never = now + 2 * (every_s + LONGEST_BACKOFF_S)
        return {"its_name": app, "now": now, "just_now": now - LOOK_S, "never": never}

    def look(self, some: Collection[AppName]) -> None:
        """Their branches may not be what we know: a poll is due, also of an app that is not polled, once in `LOOK_S` at most.

        For whoever holds their rows.
        """
        if some:
            self._tx.connection.execute(_LOOK, {"names": list(some)})

    def read(self, app: AppName, began_s: float) -> None:
        """Its branch was read as it was at this moment."""
        self._tx.connection.execute(update(apps).where(apps.c.name == app).values(read_s=began_s))

    def unread(self, app: AppName, within_s: float = 0.0, until_s: float | None = None) -> bool:
        """Whether a webhook told of a head, until this moment, since the branch was read; `within_s`: what git said so lately counts still."""
        now = self._tx.now()
        until = now if until_s is None else until_s
        values = {"its_name": app, "now": now, "lately": now - within_s, "until": until}
        return self._tx.connection.execute(_UNREAD, values).first() is not None

    def polled(self, app: AppName, *, next_s: float, failures: int) -> None:
        """When to poll again, and how often in a row it has failed."""
        self._tx.connection.execute(
            update(apps)
            .where(apps.c.name == app)
            .values(
                # What was asked for while this one looked is still due.
                poll_due_at=case((apps.c.poll_due_at < 0, apps.c.poll_due_at), else_=self._tx.now() + next_s),
                poll_failures=failures,
            )
        )

    def poll_failures(self, app: AppName) -> int:
        """How often in a row the git server did not answer."""
        return (
            self._tx.connection.execute(
                select(apps.c.poll_failures).where(apps.c.name == app)
            ).scalar_one_or_none()
            or 0
        )

    def note(self, app: AppName, text: str | None) -> bool:
        """Keep why nothing is being started; True when it is news."""
        self.ensure(app)
        changed = self._tx.connection.execute(
            update(apps).where(apps.c.name == app, apps.c.note.is_distinct_from(text)).values(note=text)
        )
        return changed.rowcount == 1

    def tell_red(self, app: AppName, sha: str | None) -> bool:
        """Keep which commit people were told to have made the branch red, None for a green one; True when it is news."""
        changed = self._tx.connection.execute(
            update(apps).where(apps.c.name == app, apps.c.red_told.is_distinct_from(sha)).values(red_told=sha)
        )
        return changed.rowcount == 1

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
        row = self._tx.connection.execute(_FROZEN, {"its_name": app}).first()
        return None if row is None or row.frozen_at is None else Freeze(*row)

    def noted(self, app: AppName) -> str | None:
        """Why nothing is being started."""
        return self._tx.connection.execute(select(apps.c.note).where(apps.c.name == app)).scalar_one_or_none()


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
    just_now = and_(apps.c.looked_s > bindparam("just_now"), apps.c.looked_s <= now)
    asked = and_(apps.c.poll_due_at < 0, or_(apps.c.looked_s.is_(None), not_(just_now)))
    return or_(asked, due) if polled else or_(asked, and_(apps.c.poll_failures > 0, due))


@functools.cache
def _poll_is_due(*, polled: bool) -> Any:
    return _NAMED.where(_is_due(polled=polled))


@functools.cache
def _claim_poll(*, polled: bool) -> Any:
    return update(apps).where(apps.c.name == bindparam("its_name"), _is_due(polled=polled))
