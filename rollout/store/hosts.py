"""Hosts of a rollout: reports guarded by their claim's version, counters moved along."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, case, func, or_, select, tuple_, update

from rollout.domain.counting import count, total
from rollout.domain.model import (
    FOREIGN,
    UNREAD,
    AppName,
    Epoch,
    HostId,
    Role,
    Rollout,
    RolloutHost,
    RolloutId,
)
from rollout.domain.states import (
    FINISHED,
    STAGES,
    HostEvent,
    HostState,
    RolloutState,
    next_host_state,
)
from rollout.errors import StaleWrite
from rollout.store.fleet import HAS_MOVED, IS_IN_FLEET, ITS_FLEET_HOST
from rollout.store.rows import load_one, rows_of
from rollout.store.straight import Prepared
from rollout.store.tables import fleet_hosts, rollout_hosts, rollouts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rollout.store.store import Transaction

H = HostState
UNSWITCHED = (H.PENDING, H.PREPARING, H.PREPARED)
LEASED = (H.PREPARING, H.ACTIVATING, H.ROLLING_BACK)
SWITCHING = (*sorted(STAGES), RolloutState.HALTED)  # what was begun may finish while a rollout is halted
# What these run may not be known when their rollout is over; of the first two since an earlier rollout, or attempt, and of
# rolled back ones since the rollout before it has gone on with the host. Of any, since another machine may have its name.
AFTERWARDS = (H.PENDING, H.PREPARED, H.UNKNOWN, H.FAILED, H.EXCLUDED, H.ROLLED_BACK, H.DONE)


class Hosts:
    """The rows of `rollout_hosts`."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, host: HostId) -> RolloutHost | None:
        """The host of this id."""
        return _if_any(self._tx.run(_BY_ID, {"host": host}).first())

    def of(self, rollout: RolloutId, *states: HostState) -> list[RolloutHost]:
        """The rollout's hosts in the order of activation, all or those in these states."""
        return self._found(_of(states), rollout=rollout)

    def may_still_act(self, rollout: RolloutId) -> list[RolloutHost]:
        """Those that an order may reach, or be at work on, whose end nobody has heard of; also failed or excluded ones."""
        sent = or_(rollout_hosts.c.state.in_([H.ACTIVATING, H.UNKNOWN]), rollout_hosts.c.lost_at.is_not(None))
        return self._list(rollout_hosts.c.rollout == rollout, sent)

    def without_permit(self, rollout: RolloutId) -> list[RolloutHost]:
        """Claimed to be switched, and nobody has been told to: until the transaction ends nobody is. But for those whose rows somebody writes just now."""
        query = IN_ORDER.where(
            rollout_hosts.c.rollout == rollout,
            rollout_hosts.c.state.in_([H.ACTIVATING, H.UNKNOWN]),
            ~rollout_hosts.c.touched,
        )
        if self._tx.is_postgresql:
            query = query.with_for_update(skip_locked=True)
        return hosts_of(self._tx.connection.execute(query))

    def canaries(self, rollout: RolloutId) -> list[RolloutHost]:
        """The hosts that get the release first."""
        return self._found(_CANARIES, rollout=rollout)

    def compared(self, rollout: Rollout, positions: Sequence[int] = ()) -> list[RolloutHost]:
        """The baseline: hosts that are not switched yet, and run what the canary ran before, as far as is recorded.

        One that has moved since ran it at its old address, and is most likely the same: else a fleet that moves has no baseline. One that had left the fleet may have missed a rollback.
        Of the baseline's role, or at these positions. Empty when the canary ran nothing before: there is no old release to compare with.
        """
        before = {rollout.previous, *(host.previous for host in self.canaries(rollout.id))} - {None}
        its = {"rollout": rollout.id, "positions": list(positions), "before": list(before)}
        return hosts_of(self._tx.connection.execute(_COMPARED, its))

    def sampled(self, rollout: RolloutId, positions: Sequence[int]) -> list[RolloutHost]:
        """The canary's hosts, the baseline's, and those at these positions, in the order of activation."""
        special = rollout_hosts.c.role.in_([Role.CANARY, Role.BASELINE])
        return self._list(
            rollout_hosts.c.rollout == rollout, or_(special, rollout_hosts.c.position.in_(positions))
        )

    def canary_names(self, ids: Sequence[RolloutId]) -> dict[RolloutId, list[str]]:
        """The names of the canary's hosts, for each rollout."""
        found: dict[RolloutId, list[str]] = {}
        rows = self._tx.connection.execute(
            select(rollout_hosts.c.rollout, rollout_hosts.c.name)
            .where(rollout_hosts.c.rollout.in_(ids), rollout_hosts.c.role == Role.CANARY)
            .order_by(rollout_hosts.c.position)
        )
        for number, name in rows:
            found.setdefault(RolloutId(number), []).append(name)
        return found

    def startable(self, rollout: RolloutId, limit: int, *, canary: bool) -> list[RolloutHost]:
        """Prepared hosts without a token that no message is under way for."""
        return self._load(_startable(canary=canary), rollout=rollout, most=limit)

    def to_retry(self, rollout: RolloutId) -> list[RolloutHost]:
        """Prepared hosts that kept their token and whose wait is over."""
        return self._load(_TO_RETRY, rollout=rollout)

    def preparable(self, rollout: RolloutId, limit: int) -> list[RolloutHost]:
        """Pending hosts that no message is under way for; the canary's first."""
        return self._load(_PREPARABLE, rollout=rollout, most=limit)

    def preparable_ahead(self, rollout: RolloutId, before: RolloutId, limit: int) -> list[RolloutHost]:
        """As `preparable`, of the hosts that are done with the rollout `before` it."""
        return self._load(_PREPARABLE_AHEAD, rollout=rollout, before=before, most=limit)

    def under_way(self, rollout: RolloutId) -> tuple[int, int]:
        """How many prepares, and how many token-less activations, run or have a message under way."""
        row = self._tx.run(_UNDER_WAY, {"rollout": rollout, "now": self._tx.now()}).one()
        return int(row[0]), int(row[1])

    def silent(self, limit: int = 500) -> list[RolloutHost]:
        """Whose worker's lease ran out, and that no message is under way for."""
        return self._load(_SILENT, most=limit)

    def to_read(self, limit: int = 500) -> list[RolloutHost]:
        """Unknown ones that are due to be read, in rollouts that are neither stopping nor over."""
        return self._load(_TO_READ, most=limit)

    def any_to_watch(self) -> bool:
        """A rollout is stopping, or a host is to be read; asked four times a second, and hardly ever so."""
        return bool(self._tx.run(_TO_WATCH, {"now": self._tx.now()}).scalar_one())

    def to_look_at(self, limit: int = 100) -> list[RolloutHost]:
        """Hosts that nobody could read to the end of their last rollout; one that is not over reads its own."""
        return self._load(_FIRST_TO_LOOK_AT, most=limit)

    def nobody_reads(self, app: AppName, name: str) -> RolloutHost | None:
        """This host, in the rollout for which it is to be looked at, now or later."""
        its = (rollout_hosts.c.app == app, rollout_hosts.c.name == name)
        row = self._tx.connection.execute(TO_LOOK_AT.where(*its), {"now": float("inf")}).first()
        return _if_any(row)

    def last_touched(self, app: AppName, name: str) -> RolloutHost | None:
        """This host, in the rollout that has switched it last or was to; None when none ever was."""
        row = self._tx.connection.execute(_LAST_TOUCHED, {"its_app": app, "its_name": name}).first()
        return _if_any(row)

    def read_by_nobody(self, app: AppName) -> dict[str, RolloutHost]:
        """As `nobody_reads`, all hosts of the app, by name."""
        rows = self._tx.connection.execute(
            TO_LOOK_AT.where(rollout_hosts.c.app == app), {"now": float("inf")}
        )
        return {host.name: host for host in hosts_of(rows)}

    def all_settled(self, rollout: RolloutId) -> bool:
        """Every host is done, failed, excluded, or could not be read for its whole time."""
        return self._tx.connection.execute(_NOT_SETTLED, {"rollout": rollout}).first() is None

    # -- reporting -------------------------------------------------------------------------------------------------

    def change(
        self,
        host: RolloutHost,
        what: HostEvent,
        *,
        who: str,
        why: str | None = None,
        window: int | None = None,
        **values: Any,
    ) -> tuple[RolloutHost, bool]:
        """Take an edge of the host's state machine; StaleWrite when the row has moved.

        Moves the rollout's counters in the same transaction. Returns the changed host, and whether the caller must
        ring count_outcome.
        """
        values.setdefault("busy_since", None)
        after = replace(host, state=next_host_state(host.state, what), **values)
        # The rollout's row first, then the host's: everyone locks in this order.
        ring = self._tx.rollouts.add_counts(host.rollout, count(host), count(after), window=window)
        return self._take_edge(host, what, who=who, why=why, **values), ring

    def change_all(
        self,
        what: HostEvent,
        changes: Sequence[tuple[RolloutHost, dict[str, Any]]],
        *,
        who: str,
        why: str | None = None,
        counted: bool = False,
    ) -> None:
        """As `change` for several hosts of one rollout, when nobody needs to decide about it; `counted`: their counters were moved."""
        values = [(host, {"busy_since": None, **its}) for host, its in changes]
        if not counted:
            before = total(count(host) for host, _ in values)
            after = total(
                count(replace(host, state=next_host_state(host.state, what), **its)) for host, its in values
            )
            if before != after:
                self._tx.rollouts.move_counts(values[0][0].rollout, before, after)
        self.take_edges(what, values, who=who, why=why)

    def take_edges(
        self,
        what: HostEvent,
        changes: Sequence[tuple[RolloutHost, dict[str, Any]]],
        *,
        who: str,
        why: str | None = None,
    ) -> list[RolloutHost]:
        """As `change_all`, of hosts whose counters were moved; how they are then."""
        whole = []
        for host, values in changes:
            state = next_host_state(host.state, what)
            if state not in LEASED and state is not H.UNKNOWN:
                values.setdefault("lease_owner", None)
                # Nobody's until it is due: a second copy of a message is not the next attempt.
                values.setdefault("lease_until", values.get("due_at"))
            values.setdefault("due_at", None)
            whole.append((host, {"state": state, **values}))
        changed = self._write_all(whole)
        for host, values in whole:
            self._tx.record(
                host.app,
                f"host {host.name}",
                what,
                who=who,
                why=why,
                rollout=host.rollout,
                states=(host.state, values["state"]),
            )
        return changed

    def set_unreadable(
        self, host: RolloutHost, *, who: str, why: str, window: int | None, **values: Any
    ) -> bool:
        """The unknown host could not be read in its time: it counts as failed from now on; True as in `change`."""
        values |= {"unreadable": True, "lease_owner": None, "lease_until": None}
        after = replace(host, **values)
        ring = self._tx.rollouts.add_counts(host.rollout, count(host), count(after), window=window)
        self._write(host, **values)
        self._tx.record(
            host.app,
            f"host {host.name}",
            "unreadable",
            who=who,
            why=why,
            rollout=host.rollout,
            states=(host.state, host.state),
        )
        return ring

    def hope(self, host: RolloutHost, *, who: str) -> None:
        """The unreadable host is given its whole time again to be read."""
        now = self._tx.now()
        values: dict[str, Any] = {"unreadable": False, "accepted": False, "lost_at": now, "due_at": now}
        self._tx.rollouts.add_counts(host.rollout, count(host), count(replace(host, **values)))
        self._write(host, **values)
        self._tx.record(
            host.app,
            f"host {host.name}",
            "read again",
            who=who,
            rollout=host.rollout,
            states=(host.state, host.state),
        )

    def update(self, host: RolloutHost, **values: Any) -> RolloutHost:
        """Change what is not the state, and nothing that counts; StaleWrite when the row has moved."""
        return self._write(host, **values)

    def rung(self, ids: Sequence[HostId], again_s: float) -> None:
        """A message is under way: do not ring again before `again_s`."""
        if ids:
            self._tx.connection.execute(_RUNG, {"ids": list(ids), "due_at": self._tx.now() + again_s})

    def not_rung(self, ids: Sequence[HostId]) -> None:
        """No message is under way after all: they are due, but for those that somebody works on by now."""
        if ids:
            self._tx.connection.execute(_NOT_RUNG, {"ids": list(ids), "now": self._tx.now()})

    def accept(self, host: RolloutHost, *, who: str, why: str) -> None:
        """A person takes this failure on: it leaves the count."""
        after = replace(host, accepted=True)
        self._tx.rollouts.add_counts(host.rollout, count(host), count(after))
        self._write(host, accepted=True)
        self._tx.record(
            host.app,
            f"host {host.name}",
            "accept failure",
            who=who,
            why=why,
            rollout=host.rollout,
            states=(host.state, host.state),
        )

    def forget_cursors(self, rollout: RolloutId) -> None:
        """The metric source begins anew."""
        self._tx.connection.execute(
            update(rollout_hosts).where(rollout_hosts.c.rollout == rollout).values(cursor=None)
        )

    def move_cursor(self, host: RolloutHost, cursor: str | None) -> bool:
        """Where the metric source goes on reading; False when somebody else has read on from the same place."""
        its = {"its_id": host.id, "its_cursor": host.cursor, "cursor": cursor}
        return self._tx.run(_CURSOR, its).rowcount == 1

    def set_role(self, host: RolloutHost, role: Role) -> None:
        """Canary or not; a claim that runs on the host keeps its right."""
        self._tx.connection.execute(
            update(rollout_hosts).where(rollout_hosts.c.id == host.id).values(role=role)
        )

    def seal(self, ids: Sequence[HostId], epoch: Epoch) -> None:
        """A sealing status with this epoch is in these hosts' journals."""
        if ids:
            self._tx.connection.execute(
                update(rollout_hosts).where(rollout_hosts.c.id.in_(ids)).values(sealed=epoch)
            )

    def vouch(self, rollout: RolloutId, claims: Mapping[HostId, int], owner: str, epoch: Epoch) -> None:
        """The orders of these claims (hosts and versions) of `owner` switch nothing any more: as good as sealed by the stop's epoch."""
        its = tuple_(rollout_hosts.c.id, rollout_hosts.c.version).in_(list(claims.items()))
        self._tx.connection.execute(
            update(rollout_hosts)
            .where(
                its,
                rollout_hosts.c.rollout == rollout,
                rollout_hosts.c.lease_owner == owner,
                rollout_hosts.c.state == H.ACTIVATING,
                func.coalesce(rollout_hosts.c.sealed, 0) < epoch,
            )
            .values(sealed=epoch)
        )

    # -- inside ----------------------------------------------------------------------------------------------------

    def _take_edge(
        self, host: RolloutHost, what: HostEvent, *, who: str, why: str | None = None, **values: Any
    ) -> RolloutHost:
        return self.take_edges(what, [(host, values)], who=who, why=why)[0]

    def _list(self, *where: Any) -> list[RolloutHost]:
        rows = self._tx.connection.execute(IN_ORDER.where(*where))
        return hosts_of(rows)

    def _load(self, query: Prepared, **values: Any) -> list[RolloutHost]:
        return self._found(query, now=self._tx.now(), **values)

    def _found(self, query: Prepared, **values: Any) -> list[RolloutHost]:
        return hosts_of(self._tx.run(query, values))

    def _write(self, host: RolloutHost, **values: Any) -> RolloutHost:
        return self._write_all([(host, values)])[0]

    def _write_all(self, changes: Sequence[tuple[RolloutHost, Mapping[str, Any]]]) -> list[RolloutHost]:
        answers = self._tx.run_each(
            _GUARDED,
            [{**claim_of(host), "version": host.version + 1, **values} for host, values in changes],
        )
        for answer, (host, _) in zip(answers, changes, strict=True):
            if answer.rowcount != 1:
                raise StaleWrite(f"{host.name}: another worker has reported on it meanwhile")
        return [replace(host, version=host.version + 1, **values) for host, values in changes]


def claim_of(host: RolloutHost) -> dict[str, Any]:
    """The claim that this row is of, as values of `CLAIMED`."""
    return {"its_id": host.id, "its_version": host.version}


def host_of(row: Any) -> RolloutHost:
    """The host of a row that begins with its columns."""
    return load_one(RolloutHost, row, state=HostState, role=Role)


def hosts_of(rows: Iterable[Any]) -> list[RolloutHost]:
    """As `host_of`, of several."""
    return [host_of(row) for row in rows]


def _if_any(row: Any) -> RolloutHost | None:
    return None if row is None else host_of(row)


@functools.cache
def _of(states: tuple[HostState, ...]) -> Prepared:
    return Prepared(_ITS_OWN.where(rollout_hosts.c.state.in_(states)) if states else _ITS_OWN)


def its_rollout_is(states: Iterable[RolloutState]) -> Any:
    """The host is one of a rollout in one of these states."""
    return rollout_hosts.c.rollout.in_(select(rollouts.c.id).where(rollouts.c.state.in_(list(states))))


# -- what runs for every host, built once: a statement's parameters come with its execution, values to be set included -

_BY_ID = Prepared(rows_of(RolloutHost, rollout_hosts).where(rollout_hosts.c.id == bindparam("host")))
_RUNG = update(rollout_hosts).where(rollout_hosts.c.id.in_(bindparam("ids", expanding=True)))
_NOT_RUNG = _RUNG.where(
    rollout_hosts.c.due_at > bindparam("now"),
    or_(rollout_hosts.c.lease_until.is_(None), rollout_hosts.c.lease_until <= bindparam("now")),
).values(due_at=bindparam("now"))
IS_DUE = or_(rollout_hosts.c.due_at.is_(None), rollout_hosts.c.due_at <= bindparam("now"))
IN_ORDER = rows_of(RolloutHost, rollout_hosts).order_by(rollout_hosts.c.position)
_ITS_OWN = IN_ORDER.where(rollout_hosts.c.rollout == bindparam("rollout"))
DUE_OF = _ITS_OWN.where(IS_DUE)
_CANARIES = Prepared(_ITS_OWN.where(rollout_hosts.c.role == Role.CANARY))
_PENDING = DUE_OF.where(rollout_hosts.c.state == H.PENDING).limit(bindparam("most"))
_PREPARABLE = Prepared(_PENDING)
_OTHER = rollout_hosts.alias()
_SAME_HOST = and_(_OTHER.c.app == rollout_hosts.c.app, _OTHER.c.name == rollout_hosts.c.name)
_PREPARABLE_AHEAD = Prepared(
    _PENDING.where(
        select(_OTHER.c.id)
        .where(_SAME_HOST, _OTHER.c.rollout == bindparam("before"), _OTHER.c.state == H.DONE)
        .exists()
    )
)
_TO_RETRY = Prepared(DUE_OF.where(rollout_hosts.c.state == H.PREPARED, rollout_hosts.c.token))
_IS_RUNG = rollout_hosts.c.due_at > bindparam("now")
_UNDER_WAY = Prepared(
    select(
        func.count().filter(
            or_(rollout_hosts.c.state == H.PREPARING, and_(rollout_hosts.c.state == H.PENDING, _IS_RUNG))
        ),
        func.count().filter(and_(rollout_hosts.c.state == H.PREPARED, ~rollout_hosts.c.token, _IS_RUNG)),
    ).where(rollout_hosts.c.rollout == bindparam("rollout"))
)
CLAIMED = and_(rollout_hosts.c.id == bindparam("its_id"), rollout_hosts.c.version == bindparam("its_version"))
_GUARDED = Prepared(update(rollout_hosts).where(CLAIMED))
_NOT_SETTLED = (
    select(rollout_hosts.c.id)
    .where(
        rollout_hosts.c.rollout == bindparam("rollout"),
        rollout_hosts.c.state.in_([H.PENDING, H.PREPARING, H.PREPARED, H.ACTIVATING, H.UNKNOWN]),
        ~rollout_hosts.c.unreadable,
    )
    .limit(1)
)
_IS_UNREAD = and_(
    rollout_hosts.c.state == H.UNKNOWN,
    IS_DUE,
    or_(rollout_hosts.c.lease_until.is_(None), rollout_hosts.c.lease_until <= bindparam("now")),
    its_rollout_is(SWITCHING),
)
_TO_READ = Prepared(IN_ORDER.where(_IS_UNREAD).limit(bindparam("most")))
_STOPPING = select(rollouts.c.id).where(rollouts.c.state == RolloutState.STOPPING)
_TO_WATCH = Prepared(select(or_(_STOPPING.exists(), select(rollout_hosts.c.id).where(_IS_UNREAD).exists())))
_SILENT = Prepared(
    IN_ORDER.where(
        rollout_hosts.c.state.in_(LEASED), rollout_hosts.c.lease_until <= bindparam("now"), IS_DUE
    ).limit(bindparam("most"))
)
_CURSOR = Prepared(
    update(rollout_hosts).where(
        rollout_hosts.c.id == bindparam("its_id"),
        rollout_hosts.c.cursor.is_not_distinct_from(
            bindparam("its_cursor", type_=rollout_hosts.c.cursor.type)
        ),
    )
)
# What a host runs that we never shipped to is not recorded: it is the foreign release, like the canary's.
_RAN_BEFORE = case((fleet_hosts.c.release.is_(None), FOREIGN), else_=fleet_hosts.c.release).in_(
    bindparam("before", expanding=True)
)
_COMPARED = _ITS_OWN.where(
    or_(
        rollout_hosts.c.role == Role.BASELINE,
        rollout_hosts.c.position.in_(bindparam("positions", expanding=True)),
    ),
    rollout_hosts.c.state.in_(UNSWITCHED),
    ~rollout_hosts.c.touched,
    select(fleet_hosts.c.name)
    .where(ITS_FLEET_HOST, or_(_RAN_BEFORE, and_(fleet_hosts.c.release == UNREAD, HAS_MOVED)))
    .exists(),
)
_LAST_TOUCHED = (
    rows_of(RolloutHost, rollout_hosts)
    .where(
        rollout_hosts.c.app == bindparam("its_app"),
        rollout_hosts.c.name == bindparam("its_name"),
        rollout_hosts.c.touched,
    )
    .order_by(rollout_hosts.c.operation.desc())
    .limit(1)
)
_ITS_LAST = (
    select(_OTHER.c.id)
    .where(_OTHER.c.app == fleet_hosts.c.app, _OTHER.c.name == fleet_hosts.c.name)
    .order_by(_OTHER.c.rollout.desc())
    .limit(1)
)
LAST_OF_ITS = _ITS_LAST.scalar_subquery()
LAST_TOUCHED_OF_ITS = _ITS_LAST.where(_OTHER.c.touched).scalar_subquery()
IN_UNFINISHED = (
    select(_OTHER.c.id)
    .where(
        _SAME_HOST,
        _OTHER.c.rollout.in_(select(rollouts.c.id).where(rollouts.c.state.not_in(sorted(FINISHED)))),
    )
    .correlate(rollout_hosts)
    .exists()
)
TO_LOOK_AT = (
    rows_of(RolloutHost, rollout_hosts)
    .where(
        # Begun with the hosts: few are unread, and most rows are of done ones.
        rollout_hosts.c.id.in_(select(LAST_OF_ITS).where(fleet_hosts.c.release == UNREAD, IS_IN_FLEET)),
        rollout_hosts.c.state.in_(AFTERWARDS),
        IS_DUE,
        or_(rollout_hosts.c.lease_until.is_(None), rollout_hosts.c.lease_until <= bindparam("now")),
        its_rollout_is(FINISHED),
        # Nor of one that was planned ahead and came to nothing, while the rollout before it has the host.
        ~IN_UNFINISHED,
    )
    .order_by(rollout_hosts.c.id)
)
_FIRST_TO_LOOK_AT = Prepared(TO_LOOK_AT.limit(bindparam("most")))


def is_ready(*, canary: bool) -> Any:
    """Prepared, and without a token."""
    its_role = (rollout_hosts.c.role == Role.CANARY) if canary else (rollout_hosts.c.role != Role.CANARY)
    return and_(rollout_hosts.c.state == H.PREPARED, ~rollout_hosts.c.token, its_role)


@functools.cache
def _startable(*, canary: bool) -> Prepared:
    return Prepared(DUE_OF.where(is_ready(canary=canary)).limit(bindparam("most")))
