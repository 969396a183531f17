"""How the hosts of a rollout go back: who is to, whose turn it is, who is back, and who never needs to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, false, func, or_, select, update

from rollout.domain.model import UNREAD, AppName, RolloutHost, RolloutId
from rollout.domain.states import FINISHED, HOSTS, HostEvent, HostState, RolloutState
from rollout.store.fleet import IS_IN_FLEET, ITS_FLEET_HOST, is_in_fleet
from rollout.store.hosts import DUE_OF, IN_ORDER, IN_UNFINISHED, LAST_TOUCHED_OF_ITS, hosts_of, its_rollout_is
from rollout.store.straight import Prepared
from rollout.store.tables import fleet_hosts, rollout_hosts, rollouts

if TYPE_CHECKING:
    from rollout.store.store import Transaction

H, HE = HostState, HostEvent
# A touched host in one of these was switched, or goes back itself.
TAKEN_OVER = (H.DONE, H.ROLLING_BACK, H.ROLLED_BACK, H.ROLLBACK_FAILED)


class GoingBack:
    """The rows of the hosts that were switched, or possibly were."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def under_way(self, rollout: RolloutId) -> int:
        """How many touched hosts are on their way back, or have a message under way for it."""
        now = self._tx.now()
        claimed = and_(rollout_hosts.c.state == H.ROLLING_BACK, rollout_hosts.c.lease_until > now)
        query = select(func.count()).where(
            rollout_hosts.c.rollout == rollout,
            _needs_first_try(),
            or_(claimed, rollout_hosts.c.due_at > now),
        )
        return int(self._tx.connection.execute(query).scalar_one())

    def to_roll_back(self, rollout: RolloutId, limit: int) -> list[RolloutHost]:
        """Touched hosts whose first try to be brought back is not over, and that no message is under way for.

        First those at which nobody is at work: one in flight may hold its slot for as long as its restart takes.
        """
        found = self._next(_BACK_AT_ONCE, limit, rollout=rollout)
        if len(found) < limit:
            found += self._next(_BACK_NEXT, limit - len(found), rollout=rollout)
        return found

    def waits(self, rollout: RolloutId) -> bool:
        """A message waits for the next of those that are switched: they are handed out, and taken, in their order."""
        due_at = self._tx.run(_FIRST_SWITCHED_DUE_AT, {"rollout": rollout}).scalar_one_or_none()
        return due_at is not None and due_at > self._tx.now()

    def forget_waits(self, rollout: RolloutId) -> None:
        """Whatever its touched hosts waited for, their way back does not."""
        self._tx.connection.execute(
            update(rollout_hosts)
            .where(rollout_hosts.c.rollout == rollout, rollout_hosts.c.due_at.is_not(None), needs_roll_back())
            .values(due_at=None)
        )

    def to_bring_back(self, rollout: RolloutId) -> list[RolloutHost]:
        """Touched hosts of the fleet that are not back yet, whoever works on them."""
        return self._list(rollout, needs_roll_back(), is_in_fleet())

    def left_as_they_are(self, rollout: RolloutId) -> list[RolloutHost]:
        """Touched hosts that are not back and have left the fleet: whatever they serve by now, nobody switches them."""
        return self._list(rollout, needs_roll_back(), ~is_in_fleet())

    def not_back(self, rollout: RolloutId) -> list[RolloutHost]:
        """Hosts of the fleet that could not be brought back yet."""
        return self._list(rollout, rollout_hosts.c.state == H.ROLLBACK_FAILED, is_in_fleet())

    def all_back(self, rollout: RolloutId) -> bool:
        """Every touched host has been rolled back, or failed to be, or has left the fleet."""
        return self._tx.connection.execute(_NOT_BACK, {"rollout": rollout}).first() is None

    def had(self, app: AppName, name: str, commit: str) -> bool:
        """The host was switched to this commit once (whether it kept the release, its fence will say)."""
        found = self._tx.connection.execute(
            select(rollout_hosts.c.id)
            .join(rollouts, rollouts.c.id == rollout_hosts.c.rollout)
            .where(
                rollout_hosts.c.app == app,
                rollout_hosts.c.name == name,
                rollout_hosts.c.touched,
                or_(rollouts.c.commit == commit, rollout_hosts.c.previous == commit),
            )
            .limit(1)
        )
        return found.first() is not None

    def touched_later(self, host: RolloutHost, *, for_good: bool = False) -> bool:
        """Another rollout of the app has this host now, or (for good) the host owes nothing since: this one's rollback is moot.

        Whoever acts on it asks when he has his epoch, and so the app's row: then no claim with a lower one can still come.
        """
        its = {"app": host.app, "name": host.name, "rollout": host.rollout, "operation": host.operation or 0}
        query = _SETTLED_LATER if for_good else _HAD_LATER
        return self._tx.connection.execute(query, its).first() is not None

    def to_try_again(self, limit: int = 200) -> list[RolloutHost]:
        """Of rollouts that are over: due to be tried again. One that has left the fleet is when it is back.

        Also one that was away when the others went back, and is found with what they left.
        """
        found = self._next(_TO_TRY_AGAIN, limit)
        return found + self._next(_MISSED_IT, limit - len(found)) if len(found) < limit else found

    def leave(self, host: RolloutHost) -> None:
        """Its rollback is not tried again."""
        self._tx.connection.execute(
            update(rollout_hosts).where(rollout_hosts.c.id == host.id).values(due_at=None)
        )

    def _list(self, rollout: RolloutId, *where: Any) -> list[RolloutHost]:
        its = IN_ORDER.where(rollout_hosts.c.rollout == rollout, *where)
        return hosts_of(self._tx.connection.execute(its))

    def _next(self, query: Prepared, limit: int, **values: Any) -> list[RolloutHost]:
        return hosts_of(self._tx.run(query, {"now": self._tx.now(), "most": limit, **values}))


def needs_roll_back() -> Any:
    """Switched, or possibly switched, and not back."""
    return and_(
        rollout_hosts.c.touched,
        rollout_hosts.c.state.in_([state for state in H if HE.ROLL_BACK in HOSTS[state]]),
    )


def _needs_first_try() -> Any:
    """The same, and no try to bring it back has failed."""
    return and_(needs_roll_back(), rollout_hosts.c.state != H.ROLLBACK_FAILED)


def missed_it() -> Any:
    """It was away when its rollout was taken back, is in the fleet again, and was found to run that release."""
    return (
        select(fleet_hosts.c.name)
        .where(ITS_FLEET_HOST, IS_IN_FLEET, fleet_hosts.c.owes, fleet_hosts.c.release == rollouts.c.commit)
        .correlate(rollout_hosts, rollouts)
        .exists()
    )


# By position alone all of several states would be sorted.
_AS_INDEXED = (rollout_hosts.c.state, rollout_hosts.c.position)
_BACK_AT_ONCE = Prepared(
    DUE_OF.where(rollout_hosts.c.touched, rollout_hosts.c.state == H.DONE, is_in_fleet()).limit(
        bindparam("most")
    )
)
_FIRST_SWITCHED_DUE_AT = Prepared(
    select(rollout_hosts.c.due_at)
    .where(
        rollout_hosts.c.rollout == bindparam("rollout"),
        rollout_hosts.c.touched,
        rollout_hosts.c.state == H.DONE,
        is_in_fleet(),
    )
    .order_by(rollout_hosts.c.position)
    .limit(1)
)
_BACK_NEXT = Prepared(
    DUE_OF.where(
        _needs_first_try(),
        rollout_hosts.c.state != H.DONE,
        or_(rollout_hosts.c.state != H.ROLLING_BACK, rollout_hosts.c.lease_until <= bindparam("now")),
        is_in_fleet(),
    )
    .order_by(None)
    .order_by(*_AS_INDEXED)
    .limit(bindparam("most"))
)
_NOT_BACK = (
    select(rollout_hosts.c.id)
    .where(
        rollout_hosts.c.rollout == bindparam("rollout"),
        _needs_first_try(),
        # What was sent to one before it left is waited for.
        or_(rollout_hosts.c.state == H.ROLLING_BACK, is_in_fleet()),
    )
    .limit(1)
)
_TO_TRY_AGAIN = Prepared(
    IN_ORDER.where(
        rollout_hosts.c.state == H.ROLLBACK_FAILED,
        rollout_hosts.c.due_at <= bindparam("now"),
        its_rollout_is({RolloutState.ROLLED_BACK}),
        is_in_fleet(),
    ).limit(bindparam("most"))
)
_MISSED_IT = Prepared(
    IN_ORDER.join(rollouts, rollouts.c.id == rollout_hosts.c.rollout)
    .where(
        # Begun with the hosts: few owe anything. What was planned later and came to nothing has not touched them.
        rollout_hosts.c.id.in_(select(LAST_TOUCHED_OF_ITS).where(fleet_hosts.c.owes, IS_IN_FLEET)),
        ~IN_UNFINISHED,
        _needs_first_try(),
        rollout_hosts.c.state != H.ROLLING_BACK,
        rollouts.c.state == RolloutState.ROLLED_BACK,
        missed_it(),
        or_(rollout_hosts.c.due_at.is_(None), rollout_hosts.c.due_at <= bindparam("now")),
    )
    .limit(bindparam("most"))
)
# A host that is done or back owes nothing any more. One that only greeted a newer rollout still owes what it owed; so
# when that one is over, an older one's rollback goes on, unless the host runs the newer release, or nobody knows that.
_TOUCHED_LATER = (
    select(rollout_hosts.c.id)
    .join(rollouts, rollouts.c.id == rollout_hosts.c.rollout)
    .outerjoin(fleet_hosts, ITS_FLEET_HOST)
    .where(
        rollout_hosts.c.app == bindparam("app"),
        rollout_hosts.c.name == bindparam("name"),
        rollout_hosts.c.rollout != bindparam("rollout"),
        rollout_hosts.c.operation > bindparam("operation"),
    )
    .limit(1)
)
_SETTLED = and_(rollout_hosts.c.touched, ~func.coalesce(fleet_hosts.c.owes, false()))
_HAS_IT = and_(
    rollout_hosts.c.touched,
    or_(
        rollout_hosts.c.state.in_(TAKEN_OVER),
        rollouts.c.state.not_in(sorted(FINISHED)),
        fleet_hosts.c.release.in_([UNREAD, rollouts.c.commit]),
    ),
)
_SETTLED_LATER = _TOUCHED_LATER.where(_SETTLED)
_HAD_LATER = _TOUCHED_LATER.where(or_(_SETTLED, _HAS_IT, rollout_hosts.c.state == H.ACTIVATING))
