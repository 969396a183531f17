"""Where the hosts of rollouts are by now: a rollout keeps the places of its plan, and the inventory may have other ones since."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from sqlalchemy import and_, bindparam, case, func, or_, select, update

from rollout.domain.model import UNREAD, AppName, HostId, Member, RolloutId
from rollout.domain.states import FINISHED, HostState
from rollout.store.fleet import ITS_FLEET_HOST, WHERE_IT_IS
from rollout.store.hosts import AFTERWARDS, LAST_OF_ITS, its_rollout_is
from rollout.store.rows import columns, load_one
from rollout.store.tables import fleet_hosts, rollout_hosts, rollouts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rollout.store.store import Transaction

H = HostState
# A row, its host as it is now, and whether it may be another machine.
Moved = tuple[HostId, Member, bool]


class Places:
    """Address, port, user, variables and path, in the rows of `rollout_hosts`."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def moved(
        self, app: AppName, members: Iterable[Member], path_on: Callable[[RolloutId, Member], str | None]
    ) -> list[Moved]:
        """Where hosts are now that are known, or looked for, elsewhere, or with other variables.

        Of the newest rollout, of that whose release the fleet runs, of their last one, by which they are read, or to be
        brought back after theirs. `path_on`: where a rollout's releases are on a host; None where nobody can tell: it stays where it was.
        """
        now, goal = {member.name: member for member in members}, self._tx.rollouts.newest_done(app)
        asked = {"its_app": app, "now": self._tx.now(), "goal": goal and goal.id}
        found = [self._tx.connection.execute(query, asked) for query in (_OF_NEWEST, _LAST, _AWAITED)]
        known = {row.id: (load_one(Member, row), row.rollout) for row in chain.from_iterable(found)}
        return [
            (HostId(host), its, _place(its) != _place(was))
            for host, (was, rollout) in known.items()
            if (said := now.get(was.name)) and (its := _now(was, said, partial(path_on, rollout))) != was
        ]

    def move(self, app: AppName, moved: Iterable[Moved], members: Iterable[Member]) -> None:
        """They are looked for there, at once; a claim that somebody has keeps its way. `members`: the inventory that says so."""
        now, rows = self._tx.now(), sorted(moved, key=lambda one: one[0])
        for host, its, _ in rows:
            self._tx.connection.execute(_MOVED.values(asdict(its)), {"host": host, "now": now})
        elsewhere = {its.name for _, its, elsewhere in rows if elsewhere}
        # By the port or path alone it may be another one, too.
        self._tx.fleet.know(app, members, moved=elsewhere)

    def others_by_now(self, rollout: RolloutId) -> set[HostId]:
        """Its hosts where another app of this installation has switched since: since this rollout did, or else since it began to.

        In the same folder at the same address, whatever the host is called there; other folders of the machine are nothing to it.
        """
        return {
            HostId(host) for host in self._tx.connection.execute(_OTHERS, {"its_rollout": rollout}).scalars()
        }

    def follow(self, rollout: RolloutId, path_on: Callable[[Member], str | None]) -> None:
        """Its hosts are looked for where they are known to be by now: one that is taken back later may have moved meanwhile. `path_on` as for `moved`."""
        now = self._tx.now()
        found = self._tx.connection.execute(_KNOWN_NOW, {"its_rollout": rollout, "now": now}).all()
        for row in found:
            was = load_one(Member, row)
            said = replace(was, **{what: getattr(row, f"now_{what}") for what in WHERE_IT_IS})
            if (its := _now(was, said, path_on)) != was:
                self._tx.connection.execute(_PLACED.values(asdict(its)), {"host": row.id, "now": now})


def _now(was: Member, said: Member, path_on: Callable[[Member], str | None]) -> Member:
    """A host of a rollout by what is said of it now, its path as that rollout has it.

    A variable that is not told any more stays: an inventory's are kept as rollout.toml mentions them, and the rollout's policy may mention others.
    """
    its = replace(said, variables={**was.variables, **said.variables}, path=was.path)
    if (its.address, its.variables) == (was.address, was.variables):
        return its
    path = path_on(replace(its, path=said.path))
    return was if path is None else replace(its, path=path)


def _place(its: Member) -> tuple[str, int, str]:
    """Behind another one may be another machine."""
    return its.address, its.port, its.path


# Nobody is at work on it; what failed to go back waits for its next try with a lease of nobody's.
_FREE = or_(
    rollout_hosts.c.lease_until.is_(None),
    rollout_hosts.c.lease_until <= bindparam("now"),
    rollout_hosts.c.state == H.ROLLBACK_FAILED,
)
# Of rollouts that are over; one that is under way has the addresses of its plan.
_SOMEWHERE = select(*columns(Member, rollout_hosts), rollout_hosts.c.id, rollout_hosts.c.rollout).where(
    rollout_hosts.c.state.in_([*AFTERWARDS, H.ROLLBACK_FAILED]),
    its_rollout_is(FINISHED),
    _FREE,
)
_NEWEST = select(func.max(rollouts.c.id)).where(rollouts.c.app == bindparam("its_app")).scalar_subquery()
# Several statements: of all in one a planner begins with all rows that there ever were.
_OF_NEWEST = _SOMEWHERE.where(
    or_(rollout_hosts.c.rollout == _NEWEST, rollout_hosts.c.rollout == bindparam("goal"))
)
_LAST = _SOMEWHERE.where(
    rollout_hosts.c.id.in_(select(LAST_OF_ITS).where(fleet_hosts.c.app == bindparam("its_app")))
)
_AWAITED = _SOMEWHERE.join(fleet_hosts, ITS_FLEET_HOST).where(
    fleet_hosts.c.app == bindparam("its_app"),
    or_(fleet_hosts.c.release == UNREAD, fleet_hosts.c.owes),
    # Of the many in which it was done the last one.
    or_(rollout_hosts.c.state != H.DONE, rollout_hosts.c.id == LAST_OF_ITS),
)
_KNOWN_NOW = (
    select(
        *columns(Member, rollout_hosts),
        *(fleet_hosts.c[what].label(f"now_{what}") for what in WHERE_IT_IS),
        rollout_hosts.c.id,
    )
    .join(fleet_hosts, ITS_FLEET_HOST)
    .where(
        rollout_hosts.c.rollout == bindparam("its_rollout"),
        _FREE,
        fleet_hosts.c.port.is_not(None),  # a process of before 0020 has written it
    )
)
_PLACED = update(rollout_hosts).where(rollout_hosts.c.id == bindparam("host"), _FREE)
# What is not due any more stays so.
_MOVED = _PLACED.values(
    due_at=case((rollout_hosts.c.due_at.is_not(None), bindparam("now"))), lease_until=None, failures=0
)
_THEM, _THEIRS, _SWITCHED, _OWN = (
    fleet_hosts.alias(),
    rollout_hosts.alias(),
    rollout_hosts.alias(),
    rollout_hosts.alias(),
)
# Begun with the fleets, of which each row's last switch is found by its name: most rows are of what was long ago.
# One that was taken back has left what it found, which may be ours.
_LAST_SWITCH = (
    select(_SWITCHED.c.id)
    .where(
        _SWITCHED.c.app == _THEM.c.app,
        _SWITCHED.c.name == _THEM.c.name,
        _SWITCHED.c.touched,
        _SWITCHED.c.state != H.ROLLED_BACK,
    )
    .order_by(_SWITCHED.c.rollout.desc())
    .limit(1)
    .scalar_subquery()
)
_BEGAN = select(func.min(_OWN.c.touched_at)).where(_OWN.c.rollout == bindparam("its_rollout"))
_OTHERS = (
    select(rollout_hosts.c.id)
    .join(_THEM, and_(_THEM.c.address == rollout_hosts.c.address, _THEM.c.app != rollout_hosts.c.app))
    .join(_THEIRS, _THEIRS.c.id == _LAST_SWITCH)
    .where(
        rollout_hosts.c.rollout == bindparam("its_rollout"),
        *(_THEIRS.c[what] == rollout_hosts.c[what] for what in ("address", "port", "path")),
        _THEIRS.c.touched_at > func.coalesce(rollout_hosts.c.touched_at, _BEGAN.scalar_subquery()),
    )
)
