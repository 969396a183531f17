"""Hosts that are brought to the release of a rollout that is done: which, and whether they may be now (docs/decisions/0014)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, func, insert, or_, select, update

from rollout.domain.catching_up import Behind
from rollout.domain.model import FOREIGN, UNREAD, AppName, Member, Role, Rollout, RolloutHost, RolloutId
from rollout.domain.states import CommitState, HostState, RolloutState
from rollout.store.fleet import IS_ANOTHER, IS_IN_FLEET, ITS_FLEET_HOST
from rollout.store.hosts import LAST_TOUCHED_OF_ITS, host_of
from rollout.store.rollouts import has_room
from rollout.store.rows import columns
from rollout.store.tables import apps, fleet_hosts, rollout_hosts, rollouts

if TYPE_CHECKING:
    from rollout.store.store import Transaction

H = HostState


class CatchingUp:
    """The rows of the hosts that a done rollout has left behind."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def goal(self, app: AppName) -> Rollout | None:
        """The rollout whose release the fleet runs; None while another one is planned or under way."""
        return None if self._tx.rollouts.unfinished(app) else self._tx.rollouts.newest_done(app)

    def allows(self, host: RolloutHost, *, to_read: bool = False) -> bool:
        """Automation may act on this host of a done rollout, until the transaction ends; `to_read`: only read it.

        Whoever plans a rollout, takes this one back, or bars its commit, locks the app's row first, as is done here.
        """
        if self._tx.rollouts.states([host.rollout]).get(host.rollout) is not RolloutState.DONE:
            return False
        self._tx.apps.lock(host.app)
        goal = self.goal(host.app)
        if goal is None or goal.id != host.rollout:
            return False
        commit = None if to_read else self._tx.commits.get(host.app, goal.commit)
        if not to_read and (commit is None or commit.state is not CommitState.PASSED):
            return False
        its = {"its_app": host.app, "its_name": host.name}
        return self._tx.connection.execute(_WANTED, its).first() is not None

    def take_token(self, rollout: RolloutId) -> bool:
        """As `rollouts.take_token`, for one host at a time of a rollout that is done."""
        return self._tx.connection.execute(_TAKE_TOKEN, {"rollout": rollout}).rowcount == 1

    def behind(self, goal: Rollout) -> list[Behind]:
        """Its hosts that do not run its release as they should, in the order of activation."""
        return [
            Behind(
                host_of(row),
                answers=row.recorded != UNREAD,
                wanted=row.excluded is None and row.left_at is None and not row.goes_back,
                newer=row.recorded if row.runs_newer else None,
            )
            for row in self._tx.connection.execute(_BEHIND, {"rollout": goal.id, "commit": goal.commit})
        ]

    def claim_members(self, app: AppName, every_s: float) -> bool:
        """True for one caller an interval: he looks who is in the fleet now."""
        now = self._tx.now()
        claimed = self._tx.connection.execute(
            update(apps).where(apps.c.name == app, self._due(every_s)).values(members_read_at=now)
        )
        return claimed.rowcount == 1

    def members_due(self, app: AppName, every_s: float) -> bool:
        """Whether `claim_members` may be true; for reading transactions."""
        due = select(apps.c.name).where(apps.c.name == app, self._due(every_s))
        return self._tx.connection.execute(due).first() is not None

    def _due(self, every_s: float) -> Any:
        read_at, now = apps.c.members_read_at, self._tx.now()
        return or_(read_at.is_(None), read_at <= now - every_s, read_at > now)  # or the clock was set back

    def join(self, goal: Rollout, member: Member) -> None:
        """A host that is new in the fleet: it is behind, and what it runs is not known."""
        last = func.max(rollout_hosts.c.position)
        position = self._tx.connection.execute(
            select(last).where(rollout_hosts.c.rollout == goal.id)
        ).scalar_one()
        self._tx.connection.execute(
            insert(rollout_hosts).values(
                rollout=goal.id,
                app=goal.app,
                role=Role.OTHER,
                position=position + 1,
                state=H.PENDING,
                due_at=0.0,
                **asdict(member),
            )
        )
        self._tx.connection.execute(
            update(rollouts).where(rollouts.c.id == goal.id).values(total=rollouts.c.total + 1)
        )
        self._tx.fleet.know(goal.app, [member])
        self._tx.connection.execute(_UNREAD, {"its_app": goal.app, "its_name": member.name})

    def forget_tries(self, app: AppName, names: list[str]) -> None:
        """Those that were left are tried again, from the beginning; and whoever is new is looked for at once."""
        self._tx.connection.execute(update(apps).where(apps.c.name == app).values(members_read_at=None))
        goal = self._tx.rollouts.newest_done(app)
        if goal is None:
            return
        self._tx.connection.execute(
            update(rollout_hosts)
            .where(
                rollout_hosts.c.rollout == goal.id,
                rollout_hosts.c.name.in_(names),
                rollout_hosts.c.state.in_([H.FAILED, H.EXCLUDED]),
            )
            .values(tries=0, due_at=None)
        )


_WANTED = select(fleet_hosts.c.name).where(
    fleet_hosts.c.app == bindparam("its_app"),
    fleet_hosts.c.name == bindparam("its_name"),
    fleet_hosts.c.excluded.is_(None),
    IS_IN_FLEET,
)
_UNREAD = (
    update(fleet_hosts)
    .where(
        fleet_hosts.c.app == bindparam("its_app"),
        fleet_hosts.c.name == bindparam("its_name"),
        fleet_hosts.c.release.is_(None),
    )
    .values(release=UNREAD)
)
# A rollout's own rule, and no other host is on its way.
_TAKE_TOKEN = (
    update(rollouts)
    .where(
        rollouts.c.id == bindparam("rollout"),
        rollouts.c.state == RolloutState.DONE,
        rollouts.c.in_flight == 0,
        rollouts.c.unknown == rollouts.c.unreadable,
        has_room(),
    )
    .values(in_flight=1)
)
_LATER, _ITS = rollout_hosts.alias(), rollouts.alias()


def _was_later(*its: Any) -> Any:
    """It was a host of a later rollout too, and all this is true of that."""
    return (
        select(_LATER.c.id)
        .join(_ITS, _ITS.c.id == _LATER.c.rollout)
        .where(
            _LATER.c.app == rollout_hosts.c.app,
            _LATER.c.name == rollout_hosts.c.name,
            _LATER.c.rollout > rollout_hosts.c.rollout,
            *its,
        )
        .exists()
    )


# What a person has kept of a later rollout stays, until the next one.
_IS_KEPT = _was_later(
    _LATER.c.touched,
    _ITS.c.state == RolloutState.STOPPED,
    or_(~IS_ANOTHER, fleet_hosts.c.release == _ITS.c.commit),
)
# The fleet has gone back past a rollout that is done, and this host runs what that one brought: it was down when the others went.
_RUNS_NEWER = and_(
    fleet_hosts.c.found == fleet_hosts.c.release,  # nobody has switched it by hand since
    _was_later(
        _LATER.c.state == H.DONE,
        _ITS.c.state == RolloutState.DONE,
        _ITS.c.commit == fleet_hosts.c.release,
    ),
)
# It came with another app's release, and a stop has put that back; and nobody has switched it by hand since.
_NONE_OF_OURS = and_(
    fleet_hosts.c.release != bindparam("commit"),
    fleet_hosts.c.release.not_in([UNREAD, FOREIGN]),
    fleet_hosts.c.found == fleet_hosts.c.release,
    ~select(_ITS.c.id)
    .where(_ITS.c.app == fleet_hosts.c.app, _ITS.c.commit == fleet_hosts.c.release)
    .exists(),
)
# Its disk was lost: nothing was found on it, or it has been taken back to nothing.
_NOTHING = or_(
    fleet_hosts.c.release.is_(None),
    and_(fleet_hosts.c.found.is_(None), fleet_hosts.c.verified_at.is_not(None)),
)
_RUNS_WHAT_WAS_TAKEN_BACK = (
    select(_ITS.c.id)
    .where(
        _ITS.c.id == _LATER.c.rollout,
        _ITS.c.state == RolloutState.ROLLED_BACK,
        _ITS.c.commit == fleet_hosts.c.release,
    )
    .correlate(_LATER, fleet_hosts)
    .exists()
)
# A rollback that it owes comes first. Of one that had left the fleet meanwhile, while it runs what was taken back: else it comes with what it is brought to.
_GOES_BACK = and_(
    fleet_hosts.c.owes,
    select(_LATER.c.id)
    .where(
        _LATER.c.app == rollout_hosts.c.app,
        _LATER.c.name == rollout_hosts.c.name,
        or_(
            _LATER.c.state == H.ROLLING_BACK,
            and_(_LATER.c.state == H.ROLLBACK_FAILED, _LATER.c.due_at.is_not(None)),
            and_(_LATER.c.id == LAST_TOUCHED_OF_ITS.correlate(fleet_hosts), _RUNS_WHAT_WAS_TAKEN_BACK),
        ),
    )
    .exists(),
)
_BEHIND = (
    select(
        *columns(RolloutHost, rollout_hosts),
        fleet_hosts.c.release.label("recorded"),
        fleet_hosts.c.excluded,
        fleet_hosts.c.left_at,
        _GOES_BACK.label("goes_back"),
        _RUNS_NEWER.label("runs_newer"),
    )
    .join(fleet_hosts, ITS_FLEET_HOST)
    .where(
        rollout_hosts.c.rollout == bindparam("rollout"),
        or_(
            rollout_hosts.c.state != H.DONE,
            _NOTHING,
            _RUNS_NEWER,
            _NONE_OF_OURS,
            and_(IS_ANOTHER, fleet_hosts.c.release != bindparam("commit")),
        ),
        ~_IS_KEPT,
    )
    .order_by(rollout_hosts.c.position)
)
