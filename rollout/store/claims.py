"""Claims of a rollout's hosts: the right to prepare, switch, read or bring back one, with a lease and an epoch.

A claim raises the row's version, and renewing a lease does not. So a report that comes with the version of its claim is
the claim's own, and one that was overtaken finds no row (StaleWrite).
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, false, func, or_, select, update

from rollout.domain.counting import count, total
from rollout.domain.model import UNREAD, AppName, Epoch, HostId, Role, RolloutHost, RolloutId
from rollout.domain.states import STAGES, HostEvent, HostState, RolloutState, next_host_state
from rollout.errors import StaleWrite
from rollout.store.fleet import ITS_FLEET_HOST, is_in_fleet
from rollout.store.going_back import missed_it, needs_roll_back
from rollout.store.hosts import (
    CLAIMED,
    IS_DUE,
    LEASED,
    SWITCHING,
    TO_LOOK_AT,
    claim_of,
    host_of,
    is_ready,
    its_rollout_is,
)
from rollout.store.rows import columns
from rollout.store.straight import Prepared
from rollout.store.tables import fleet_hosts, rollout_hosts, rollouts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rollout.store.store import Transaction

H, HE = HostState, HostEvent
PREPARING = STAGES | {RolloutState.PENDING}  # one that is planned ahead is made ready
BACK = (RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK)
Debtor = tuple[RolloutHost, dict[str, Any]]  # a host, and what an older rollout owes it, as values of its row


class Claims:
    """Whoever has one is the only one who acts on the host, for as long as he renews its lease."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    # -- to have one -----------------------------------------------------------------------------------------------

    def preparation(self, host: HostId, owner: str, lease_s: float) -> RolloutHost | None:
        """The right to prepare this host; None when there is nothing to do."""
        found = self._unleased(host, H.PENDING)
        if found is None or not self._may_act(found, PREPARING):
            return None
        return self._claim(found, HE.PREPARE, owner, lease_s)

    def preparable(self, found: Sequence[RolloutHost], owner: str, lease_s: float) -> list[RolloutHost]:
        """As `preparation` for hosts that are `hosts.preparable`, of a rollout whose row is held and whose state lets them be."""
        return self._claim_all(found, HE.PREPARE, owner, lease_s)

    def activation(
        self,
        host: HostId,
        owner: str,
        lease_s: float,
        *,
        is_held: Callable[[AppName], bool] = lambda _: False,
    ) -> RolloutHost | None:
        """The right to switch this host, with its token; None when there is nothing to do or no room.

        `is_held`: whether automation begins nothing now, as it then does not of a rollout that is done, however old the message.
        """
        row = self._tx.run(_TO_ACTIVATE, {"host": host}).first()
        if row is None or (row.lease_until or 0.0) > self._tx.now():
            return None
        found = _debtor(row)
        its, canary = found[0], found[0].role is Role.CANARY
        take = self._tx.rollouts.may_activate if its.token else self._tx.rollouts.take_token
        if take(its.rollout, canary=canary) or self._goes_on(its, is_held):
            return self.with_tokens([found], owner, lease_s)[0]
        if not its.token:  # its message is over: whoever finds room again does not wait for it
            self._tx.connection.execute(_NO_ROOM, {"refused": its.id})
        return None

    def _goes_on(self, host: RolloutHost, is_held: Callable[[AppName], bool]) -> bool:
        late = self._tx.catching_up
        # Whoever freezes holds the app's row too: asked before, a freeze could come in between.
        if not late.allows(host) or is_held(host.app):
            return False
        return host.token or late.take_token(host.rollout)

    def next_to_activate(self, rollout: RolloutId, limit: int) -> list[Debtor]:
        """The next hosts without a token that no message is under way for."""
        rows = self._tx.run(_NEXT_TO_ACTIVATE, {"rollout": rollout, "now": self._tx.now(), "most": limit})
        return [_debtor(row) for row in rows]

    def with_tokens(self, found: Sequence[Debtor], owner: str, lease_s: float) -> list[RolloutHost]:
        """The right to switch hosts of one rollout, with tokens that are counted already."""
        hosts = [replace(host, token=True) for host, _ in found]
        # What was accepted was an earlier attempt's failure; and what an older rollout owes the host is this one's now.
        values = [
            {"token": True, "accepted": False, "owes": host.owes, "owed": host.owed}
            | ({} if host.touched else debt)
            for host, debt in found
        ]
        return self._claim_all(hosts, HE.ACTIVATE, owner, lease_s, values)

    def reading(self, host: HostId, owner: str, lease_s: float) -> RolloutHost | None:
        """The right to read an unknown host, with an epoch that seals it; None when somebody else reads it."""
        found = self._unleased(host, H.UNKNOWN)
        if found is None or not (self._rollout_in(found.rollout, SWITCHING) or self._reads_late(found)):
            return None
        return self._tx.hosts.update(
            found,
            lease_owner=owner,
            lease_until=self._tx.now() + lease_s,
            epoch=self._tx.apps.next_epoch(found.app),
        )

    def look(self, host: HostId, owner: str, lease_s: float) -> RolloutHost | None:
        """The right to look at a host after its rollout, with an epoch that seals it; None as in `hosts.to_look_at`."""
        its = self._tx.hosts.get(host)
        if its is None:
            return None
        # First the epoch, then whether a newer rollout has the host: one that comes later is above it, and not sealed off.
        epoch = self._tx.apps.next_epoch(its.app)
        looks = TO_LOOK_AT.where(rollout_hosts.c.id == bindparam("host"))
        # A message has just been sent for it, so it is due again later: what is asked here is whether anybody has it.
        row = self._tx.connection.execute(looks, {"host": host, "now": float("inf")}).first()
        found = None if row is None else host_of(row)
        if found is None or (found.lease_until or 0.0) > self._tx.now():
            return None
        return self._tx.hosts.update(
            found, lease_owner=owner, lease_until=self._tx.now() + lease_s, epoch=epoch
        )

    def roll_back(self, host: HostId, owner: str, lease_s: float) -> RolloutHost | None:
        """The right to bring this host back; nobody has it once the host has left the fleet.

        A host in flight is free for it as soon as a stop has sealed it: whoever held it can switch nothing any more.
        What failed is tried again when every other host had its first try: the unreachable hold nobody up.
        """
        row = self._tx.run(_TO_ROLL_BACK, {"host": host}).first()
        if row is None:
            return None
        found = host_of(row)
        again = found.state is H.ROLLBACK_FAILED
        if again and (row.stage == RolloutState.ROLLING_BACK or (found.lease_until or 0.0) > self._tx.now()):
            return None
        if not self._is_free(found, row.stop_epoch):
            return None
        return self._claim(
            found, HE.ROLL_BACK, owner, lease_s, unless_moot=row.stage == RolloutState.ROLLED_BACK
        )

    def to_roll_back(self, found: Sequence[RolloutHost], owner: str, lease_s: float) -> list[RolloutHost]:
        """As `roll_back` for hosts that are `hosts.to_roll_back`, of one rollout whose row is held; those of them that are free."""
        stop = self._tx.run(_STOP, {"rollout": found[0].rollout}).one() if found else None
        if stop is None or stop.state != RolloutState.ROLLING_BACK:
            return []
        free = [host for host in found if self._is_free(host, stop.stop_epoch)]
        return self._claim_all(free, HE.ROLL_BACK, owner, lease_s)

    def _is_free(self, host: RolloutHost, stop_epoch: Epoch | None) -> bool:
        sealed = (host.sealed or 0) >= (stop_epoch or 1) and host.state is not H.ROLLING_BACK
        return sealed or host.state not in LEASED or (host.lease_until or 0.0) <= self._tx.now()

    # -- while one has it ------------------------------------------------------------------------------------------

    def touch(self, greeted: Sequence[tuple[RolloutHost, str | None]], lease_s: float) -> list[float]:
        """These claimed hosts greeted and run this now: they count as touched from now on, and may act for so many seconds.

        0, and not touched, when the claim was taken over, ran out, or the rollout was stopped: then nothing may be sent.
        """
        now = self._tx.now()
        found = {}
        for host, current in sorted(greeted, key=lambda one: one[0].id):  # as a stop has them
            its = {"now": now, "touched": True, "touched_at": now, "previous": current}
            found[_claim(host)] = (host, {**claim_of(host), **its})
        answers = self._tx.run_each(_FIRST_TOUCH, [values for _, values in found.values()])
        until = dict(zip(found, (answer.scalar_one_or_none() for answer in answers), strict=True))
        for claim, (host, values) in found.items():
            if until[claim] is None and self._tx.catching_up.allows(host):
                until[claim] = self._tx.run(_ANY_TOUCH, values).scalar_one_or_none()
        return [self._left(until[_claim(host)], lease_s) for host, _ in greeted]

    def leases_left(self, hosts: Sequence[RolloutHost], lease_s: float) -> list[float]:
        """As `touch`, of hosts that are touched already: nothing is written."""
        until: dict[tuple[HostId, int], float | None] = {}
        for back in (False, True):
            its = [host for host in hosts if (host.state is H.ROLLING_BACK) is back]
            answers = self._tx.run_each(_lease_left(back=back), [claim_of(host) for host in its])
            ends = (answer.scalar_one_or_none() for answer in answers)
            until |= zip(map(_claim, its), ends, strict=True)
        for host in hosts:
            if until[_claim(host)] is None and self._tx.catching_up.allows(host):
                until[_claim(host)] = self._tx.run(_LEASE_LEFT, claim_of(host)).scalar_one_or_none()
        return [self._left(until[_claim(host)], lease_s) for host in hosts]

    def still_hold(self, hosts: Sequence[RolloutHost]) -> list[bool]:
        """Whether each claim is the row's last, and its rollout is under way, or goes on with the host after its end."""
        answers = self._tx.run_each(_STILL_CLAIMED, [claim_of(host) for host in hosts])
        return [
            answer.first() is not None or self._still_hold_late(host)
            for answer, host in zip(answers, hosts, strict=True)
        ]

    def _still_hold_late(self, host: RolloutHost) -> bool:
        its_last = self._tx.run(_LEASE_LEFT, claim_of(host)).first() is not None
        return its_last and self._tx.catching_up.allows(host)

    def _left(self, until: float | None, lease_s: float) -> float:
        return 0.0 if until is None else max(0.0, min(until - self._tx.now(), lease_s))

    def renew(self, owner: str, ids: Sequence[HostId], lease_s: float) -> None:
        """Leases that have not run out last `lease_s` from now; not for what a stop has ended."""
        now = self._tx.now()
        ended = select(rollouts.c.id).where(rollouts.c.state == RolloutState.STOPPING)
        mine = rollout_hosts.c.id.in_(ids)
        if self._tx.is_postgresql:
            # One whose row somebody writes has its turn next time: who writes several would wait for us, and we for him.
            its = select(rollout_hosts.c.id).where(mine).with_for_update(skip_locked=True)
            mine = rollout_hosts.c.id.in_(self._tx.connection.execute(its).scalars().all())
        self._tx.connection.execute(
            update(rollout_hosts)
            .where(
                mine,
                rollout_hosts.c.lease_owner == owner,
                rollout_hosts.c.lease_until > now,
                rollout_hosts.c.rollout.not_in(ended),
            )
            .values(lease_until=now + lease_s)
        )

    # -- inside ----------------------------------------------------------------------------------------------------

    def _unleased(self, host: HostId, state: HostState) -> RolloutHost | None:
        found = self._tx.hosts.get(host)
        if found is None or found.state is not state or (found.lease_until or 0.0) > self._tx.now():
            return None
        return found

    def _may_act(self, host: RolloutHost, states: Any) -> bool:
        return self._rollout_in(host.rollout, states) or self._tx.catching_up.allows(host)

    def _reads_late(self, host: RolloutHost) -> bool:
        """Of a rollout that is done; while nobody can read the host, `look` finds out when it is back."""
        answers = not host.unreadable or self._tx.fleet.recorded(host.app, host.name) != UNREAD
        return answers and self._tx.catching_up.allows(host, to_read=True)

    def _rollout_in(self, rollout: RolloutId, states: Any) -> bool:
        """The rollout is in one of these states, and stays so until the transaction ends."""
        query = _in_states(frozenset(states), locked=self._tx.is_postgresql)
        return self._tx.run(query, {"rollout": rollout}).first() is not None

    def _claim(
        self,
        host: RolloutHost,
        what: HostEvent,
        owner: str,
        lease_s: float,
        *,
        unless_moot: bool = False,
    ) -> RolloutHost | None:
        try:
            return self._claim_all([host], what, owner, lease_s, unless_moot=unless_moot)[0]
        except StaleWrite:
            if what is HE.PREPARE:
                return None
            raise  # counters were moved: the whole transaction must go

    def _claim_all(
        self,
        hosts: Sequence[RolloutHost],
        what: HostEvent,
        owner: str,
        lease_s: float,
        more: Sequence[Mapping[str, Any]] | None = None,
        *,
        unless_moot: bool = False,
    ) -> list[RolloutHost]:
        """Of one rollout; `more` of their values."""
        if not hosts:
            return []
        before = total(map(count, hosts))
        after = total(count(replace(host, state=next_host_state(host.state, what))) for host in hosts)
        if before != after:
            self._tx.rollouts.move_counts(hosts[0].rollout, before, after)
        epochs = self._tx.apps.next_epochs(hosts[0].app, len(hosts))
        for host in hosts if unless_moot else ():
            if self._tx.going_back.touched_later(host):
                raise StaleWrite(f"{host.name}: another rollout has it")
        lease = {"lease_owner": owner, "lease_until": self._tx.now() + lease_s}
        changes = []
        for host, epoch, values in zip(hosts, epochs, more or [{}] * len(hosts), strict=True):
            order = {"epoch": epoch} if what is HE.PREPARE else {"epoch": epoch, "operation": epoch}
            changes.append((host, {**lease, **order, **values}))
        return self._tx.hosts.take_edges(what, changes, who=owner)


def _claim(host: RolloutHost) -> tuple[HostId, int]:
    """An older claim of the same host may be asked about together with the one that took it over."""
    return host.id, host.version


def _debtor(row: Any) -> Debtor:
    return host_of(row), {"owes": row.it_owes, "owed": row.it_owed}


_NO_ROOM = (
    update(rollout_hosts)
    .where(
        rollout_hosts.c.id == bindparam("refused"),
        rollout_hosts.c.state == H.PREPARED,
        ~rollout_hosts.c.token,
        its_rollout_is({RolloutState.FANNING_OUT}),
    )
    .values(due_at=None)
)
_WITH_DEBT = select(
    *columns(RolloutHost, rollout_hosts),
    func.coalesce(fleet_hosts.c.owes, false()).label("it_owes"),
    fleet_hosts.c.owed.label("it_owed"),
).outerjoin(fleet_hosts, ITS_FLEET_HOST)
_TO_ACTIVATE = Prepared(
    _WITH_DEBT.where(rollout_hosts.c.id == bindparam("host"), rollout_hosts.c.state == H.PREPARED)
)
_NEXT_TO_ACTIVATE = Prepared(
    _WITH_DEBT.where(rollout_hosts.c.rollout == bindparam("rollout"), IS_DUE, is_ready(canary=False))
    .order_by(rollout_hosts.c.position)
    .limit(bindparam("most"))
)
_TO_ROLL_BACK = Prepared(
    select(
        *columns(RolloutHost, rollout_hosts), rollouts.c.stop_epoch, rollouts.c.state.label("stage")
    ).where(
        rollout_hosts.c.id == bindparam("host"),
        rollouts.c.id == rollout_hosts.c.rollout,
        rollouts.c.state.in_(BACK),
        needs_roll_back(),
        is_in_fleet(),
        or_(
            rollouts.c.state == RolloutState.ROLLING_BACK,
            rollout_hosts.c.state.in_([H.ROLLING_BACK, H.ROLLBACK_FAILED]),
            missed_it(),
        ),
    )
)
_STOP = Prepared(select(rollouts.c.state, rollouts.c.stop_epoch).where(rollouts.c.id == bindparam("rollout")))
_STILL_CLAIMED = Prepared(select(rollout_hosts.c.id).where(CLAIMED, its_rollout_is(PREPARING)))
# To one that is late nothing is sent: it is not touched.
_IN_TIME = rollout_hosts.c.lease_until > bindparam("now")
_FIRST_TOUCH = Prepared(
    update(rollout_hosts)
    .where(CLAIMED, _IN_TIME, its_rollout_is(SWITCHING))
    .returning(rollout_hosts.c.lease_until)
)
# Of a rollout that is done, when it may go on with this host.
_ANY_TOUCH = Prepared(update(rollout_hosts).where(CLAIMED, _IN_TIME).returning(rollout_hosts.c.lease_until))
_LEASE_LEFT = Prepared(select(rollout_hosts.c.lease_until).where(CLAIMED))


@functools.cache
def _lease_left(*, back: bool) -> Prepared:
    stages = BACK if back else SWITCHING
    return Prepared(select(rollout_hosts.c.lease_until).where(CLAIMED, its_rollout_is(stages)))


@functools.cache
def _in_states(states: frozenset[RolloutState], *, locked: bool) -> Prepared:
    query = select(rollouts.c.id).where(
        rollouts.c.id == bindparam("rollout"), rollouts.c.state.in_(sorted(states))
    )
    return Prepared(query.with_for_update(read=True) if locked else query)
