"""The fleet across rollouts, one row for each host that is known of an app: where it is, what it runs, and what it owes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, String, and_, bindparam, case, insert, or_, select, update

from rollout.domain.model import UNREAD, AppName, FleetHost, Member, RolloutHost, RolloutId
from rollout.domain.states import HostState
from rollout.store.rows import load_all, load_one, rows_of
from rollout.store.straight import Prepared
from rollout.store.tables import fleet_hosts, rollout_hosts

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from rollout.store.store import Transaction

H = HostState


class Fleet:
    """The rows of `fleet_hosts`."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    # -- who is in it, and where -----------------------------------------------------------------------------------

    def hosts(self, app: AppName) -> list[FleetHost]:
        """Every host that is known of the app, by name."""
        rows = self._tx.connection.execute(
            rows_of(FleetHost, fleet_hosts).where(fleet_hosts.c.app == app).order_by(fleet_hosts.c.name)
        )
        return load_all(FleetHost, rows)

    def host(self, app: AppName, name: str) -> FleetHost:
        """A host that is known of the app."""
        its = (fleet_hosts.c.app == app, fleet_hosts.c.name == name)
        return load_one(
            FleetHost, self._tx.connection.execute(rows_of(FleetHost, fleet_hosts).where(*its)).one()
        )

    def has(self, host: RolloutHost) -> bool:
        """The app's inventory, as it was read last, has this host."""
        its = select(rollout_hosts.c.id).where(rollout_hosts.c.id == host.id, is_in_fleet())
        return self._tx.connection.execute(its).first() is not None

    def know(self, app: AppName, members: Iterable[Member], *, moved: Container[str] = ()) -> None:
        """These hosts are in the fleet, and are where they are said to be now; what was seen at other addresses says nothing of them (I5).

        `moved`: of these hosts nor does what was seen at the same ones, behind which they may be others.
        """
        its = {row.name: row for row in self._tx.connection.execute(_WHERE, {"its_app": app})}
        missing = [one for one in members if one.name not in its]
        known = [(its[one.name], one) for one in members if one.name in its]
        if missing:
            self._tx.connection.execute(
                insert(fleet_hosts), [{"app": app, "name": one.name, **_where(one)} for one in missing]
            )
        for was, one in sorted(known, key=lambda it: it[0].name):  # as whoever reports on several
            host = {"its_app": app, "its_name": one.name}
            if was.left_at is not None or _where(was) != _where(one):
                self._tx.connection.execute(_FLEET_HOST.values(**_where(one), left_at=None), host)
            # One that had left may serve another app by now, or have another disk: as one that is new, it is read first.
            if was.left_at is not None:
                self._tx.connection.execute(_RETURNED, host)
            elif one.name in moved or was.address != one.address:
                self._tx.connection.execute(_ANOTHER_MACHINE, host)

    def take_stock(self, app: AppName, members: Iterable[Member]) -> None:
        """As `know`, of the whole inventory: whoever is not in it has left the fleet."""
        here = {member.name: member for member in members}
        self.know(app, here.values())
        self.see_off(app, here)

    def see_off(self, app: AppName, here: Container[str]) -> None:
        """Who is not among these, who are all that the inventory has, has left the fleet."""
        known = self._tx.connection.execute(_STAYED, {"its_app": app}).scalars()
        for name in sorted(name for name in known if name not in here):
            self._tx.connection.execute(
                _FLEET_HOST.values(left_at=self._tx.today()), {"its_app": app, "its_name": name}
            )

    def call_back(self, rollout: RolloutId) -> None:
        """Whom it has switched counts as of the fleet until the inventory is read the next time, whatever that has said since; but where another app has switched since, the host has left."""
        theirs = self._tx.places.others_by_now(rollout)
        back = [one for one in self._tx.going_back.left_as_they_are(rollout) if one.id not in theirs]
        gone = (
            [one for one in self._tx.going_back.to_bring_back(rollout) if one.id in theirs] if theirs else []
        )
        for host in sorted([*back, *gone], key=lambda one: one.name):  # as whoever takes stock
            its = {"its_app": host.app, "its_name": host.name}
            left_at = self._tx.today() if host.id in theirs else None
            self._tx.connection.execute(_FLEET_HOST.values(left_at=left_at), its)

    def set_excluded(self, app: AppName, name: str, reason: str | None) -> None:
        """Out of all rollouts for this reason, or back in."""
        self._tx.connection.execute(_FLEET_HOST, {"its_app": app, "its_name": name, "excluded": reason})

    # -- what they run ---------------------------------------------------------------------------------------------

    def recorded(self, app: AppName, name: str) -> str | None:
        """The release that the host runs, as recorded: a commit, FOREIGN, UNREAD or None."""
        return self._tx.connection.execute(_RECORDED, {"its_app": app, "its_name": name}).scalar()

    def any_runs(self, app: AppName, release: str) -> bool:
        """At least one host does, by what was heard last."""
        its = (fleet_hosts.c.app == app, fleet_hosts.c.release == release)
        query = select(fleet_hosts.c.name).where(*its).limit(1)
        return self._tx.connection.execute(query).first() is not None

    # A report says what was so at its claim's epoch. One that comes after a later claim's changes nothing: the host may
    # have been switched by another rollout since, and nobody would look at it again.

    def runs(self, host: RolloutHost, release: str | None, *, settled: bool = False) -> None:
        """An operation or a sealed reading left the host with this release (I5). `settled`: as it was meant to be."""
        self.all_run([(host, release)], settled=settled)

    def all_run(self, found: Sequence[tuple[RolloutHost, str | None]], *, settled: bool) -> None:
        """As `runs`, for several."""
        its: dict[str, Any] = {"its_time": self._tx.today(), "stays": not settled}
        self._tx.run_each(
            _RUNS,
            [
                {**_report_of(host), "its_address": host.address, "its_release": release, **its}
                for host, release in sorted(found, key=lambda one: one[0].name)
            ],
        )

    def is_another(self, host: RolloutHost) -> None:
        """The machine that was read has the host's name, and no operation of ours is known on it: it is behind with whatever else it runs."""
        its = {"its_app": host.app, "its_name": host.name, "its_address": host.address}
        self._tx.connection.execute(_UNTRIED, its)

    def owe(self, host: RolloutHost, owed: str | None) -> None:
        """The host is to go back to this, whatever it runs, and could not: whoever takes it over goes on from there (I2)."""
        self._report(_FLEET_REPORT, host, owes=True, owed=owed, operation=host.epoch)

    def found(self, host: RolloutHost, release: str | None) -> None:
        """The host was sealed under its claim's epoch, and has this release; what is recorded stays, unless it was not known."""
        its = {"its_address": host.address, "its_release": release, "its_time": self._tx.today()}
        self._tx.connection.execute(_FOUND, {**_report_of(host), **its})

    def seen(self, before: FleetHost, release: str | None) -> None:
        """A plain reading found this release on the host that was known like this when it began; what is recorded stays.

        It is no news when the host has been switched or read since, or somebody is at work on it; and it settles nothing
        where an order was lost, which may still act.
        """
        its = {"its_app": before.app, "its_name": before.name, "its_address": before.address}
        was = {"its_epoch": before.operation, "its_reading": before.verified_at}
        self._tx.connection.execute(
            _SEEN, {**its, **was, "its_release": release, "its_time": self._tx.today()}
        )

    def unread(self, host: RolloutHost) -> None:
        """The host's outcome was lost, or it lets nobody in: what it runs is not known until it is read (I5)."""
        sent = {} if host.operation is None else {"operation": host.epoch}  # a prepare switches nothing
        self._report(_FLEET_REPORT, host, release=UNREAD, found=None, verified_at=None, **sent)

    def _report(self, statement: Prepared, host: RolloutHost, **values: Any) -> None:
        self._tx.run(statement, {**_report_of(host), **values})


def _report_of(host: RolloutHost) -> dict[str, Any]:
    return {"its_app": host.app, "its_name": host.name, "its_epoch": host.epoch or 0}


def _where(its: Any) -> dict[str, Any]:
    """Of a host, or of a row of `fleet_hosts`."""
    return {what: getattr(its, what) for what in WHERE_IT_IS}


# A fleet's row is the one of a rollout's host.
ITS_FLEET_HOST = and_(fleet_hosts.c.app == rollout_hosts.c.app, fleet_hosts.c.name == rollout_hosts.c.name)
# The inventory had it when it was read last.
IS_IN_FLEET = fleet_hosts.c.left_at.is_(None)


def is_in_fleet() -> Any:
    """The same of a rollout's host; as a value, which is looked up for the few rows that are left."""
    return select(fleet_hosts.c.left_at).where(ITS_FLEET_HOST).scalar_subquery().is_(None)


_FLEET_HOST = update(fleet_hosts).where(
    fleet_hosts.c.app == bindparam("its_app"), fleet_hosts.c.name == bindparam("its_name")
)
# What is said of where a host is, in a fleet's row as in a rollout's; where a rollout's releases are on it, its plan says.
WHERE_IT_IS = ("address", "port", "user", "variables")
_WHERE = select(
    fleet_hosts.c.name, *(fleet_hosts.c[what] for what in WHERE_IT_IS), fleet_hosts.c.left_at
).where(fleet_hosts.c.app == bindparam("its_app"))
_STAYED = select(fleet_hosts.c.name).where(fleet_hosts.c.app == bindparam("its_app"), IS_IN_FLEET)
_RECORDED = select(fleet_hosts.c.release).where(
    fleet_hosts.c.app == bindparam("its_app"), fleet_hosts.c.name == bindparam("its_name")
)
# No operation of ours is known on it; one that nothing was recorded of is no other than it was.
_ANOTHER_MACHINE = _FLEET_HOST.values(
    release=case((fleet_hosts.c.release.is_not(None), UNREAD)),
    found=None,
    verified_at=None,
    operation=case((fleet_hosts.c.operation < 0, fleet_hosts.c.operation), else_=0),
)
# One that had left: also of what was taken back to nothing nobody knows what it has got meanwhile.
_RETURNED = _FLEET_HOST.values(
    release=case((or_(fleet_hosts.c.release.is_not(None), fleet_hosts.c.operation != 0), UNREAD)),
    found=None,
    verified_at=None,
    operation=-1,
)
# The inventory has had it at another address since, or not at all for a time: perhaps the same machine.
IS_ANOTHER = fleet_hosts.c.operation <= 0
# The first of these alone: if it is the same, it runs the same.
HAS_MOVED = fleet_hosts.c.operation == 0
_AT_ITS_ADDRESS = fleet_hosts.c.address == bindparam("its_address")  # else it is of who had the name before
_UNTRIED = _FLEET_HOST.where(_AT_ITS_ADDRESS).values(operation=0)
_NO_LATER = _FLEET_HOST.where(fleet_hosts.c.operation <= bindparam("its_epoch"))
_FLEET_REPORT = Prepared(_NO_LATER)


def _if_there(value: str, known: Any) -> Any:
    """This, if it was heard where the host is now; else what is known stays."""
    return case((_AT_ITS_ADDRESS, bindparam(value, type_=known.type)), else_=known)


_IS_PAID = and_(
    _AT_ITS_ADDRESS, fleet_hosts.c.owed.is_not_distinct_from(bindparam("its_release", type_=String))
)
_RUNS = Prepared(
    _NO_LATER.values(
        release=_if_there("its_release", fleet_hosts.c.release),
        found=_if_there("its_release", fleet_hosts.c.found),
        verified_at=_if_there("its_time", fleet_hosts.c.verified_at),
        operation=_if_there("its_epoch", fleet_hosts.c.operation),
        # A debt is the name's: who paid it where he was before owes none where he is now.
        owes=and_(fleet_hosts.c.owes, bindparam("stays", type_=Boolean), ~_IS_PAID),
    )
)
_FOUND = _FLEET_HOST.where(_AT_ITS_ADDRESS).values(
    release=case(
        (
            and_(fleet_hosts.c.release == UNREAD, fleet_hosts.c.operation <= bindparam("its_epoch")),
            bindparam("its_release"),
        ),
        else_=fleet_hosts.c.release,
    ),
    found=bindparam("its_release"),
    verified_at=bindparam("its_time"),
)
_AT_WORK = (
    select(rollout_hosts.c.id)
    .where(
        rollout_hosts.c.app == fleet_hosts.c.app,
        rollout_hosts.c.name == fleet_hosts.c.name,
        rollout_hosts.c.state.in_([H.ACTIVATING, H.ROLLING_BACK, H.UNKNOWN]),
    )
    .exists()
)
_SEEN = _FLEET_HOST.where(
    _AT_ITS_ADDRESS,
    fleet_hosts.c.release.is_distinct_from(UNREAD),
    fleet_hosts.c.operation == bindparam("its_epoch"),
    fleet_hosts.c.verified_at.is_not_distinct_from(bindparam("its_reading")),
    ~_AT_WORK,
).values(found=bindparam("its_release"), verified_at=bindparam("its_time"))
