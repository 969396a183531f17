"""`hosts --verify`: what every host of an app runs, read from its disk and written down at once."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from rollout.config.deploy_file import AppConfig
from rollout.domain.model import UNREAD, AppName, Member, RolloutId
from rollout.errors import HostError
from rollout.services import catching_up, hosts
from rollout.services.policies import release_path
from rollout.services.ports import Deps
from rollout.services.targets import member_target
from rollout.store.store import Transaction


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of it, beside what is written down."""

    unread: dict[str, str]  # errors, by host
    elsewhere: str | None  # what runs was put where `release.path` is not any more, for people


@dataclass(frozen=True, slots=True)
class _Place:
    """Where what a host runs is."""

    member: Member
    path: str
    put_by: RolloutId | None  # None: no rollout ever switched it


def verify(app_name: str, deps: Deps, *, threads: int = 16) -> Verified:
    """Read every host of the app, and keep what it runs: it is addressed as configured now, and read where its releases are."""
    app = deps.config.app(app_name)
    members = deps.fleet.members(app)
    with deps.store.transaction() as tx:
        tx.apps.lock(AppName(app.name))  # first, as whoever plans
        tx.fleet.take_stock(AppName(app.name), members)
    catching_up.follow(AppName(app.name), members, deps)
    with deps.store.reading() as tx:
        places = _places(tx, app, members, deps)
    with ThreadPoolExecutor(max(1, min(threads, len(places)))) as pool:
        found = list(pool.map(partial(_read, app=app, deps=deps), places))
    unread = {one.name: str(error) for one, error in zip(members, found, strict=True) if error is not None}
    return Verified(unread, _elsewhere(app, places))


def elsewhere(tx: Transaction, app: AppConfig, members: Iterable[Member], deps: Deps) -> str | None:
    """That what runs was put where `release.path` is not any more, where the next rollout finds nothing to go back to; None: it was not."""
    runs = tx.rollouts.newest_done(AppName(app.name))
    moved = runs is not None and release_path(runs) != app.release.path
    return _elsewhere(app, _places(tx, app, members, deps)) if moved else None


def _places(tx: Transaction, app: AppConfig, members: Iterable[Member], deps: Deps) -> list[_Place]:
    return [_place(tx, AppName(app.name), member, deps) for member in members]


def _place(tx: Transaction, app: AppName, member: Member, deps: Deps) -> _Place:
    last = tx.hosts.last_touched(app, member.name)
    if last is None:
        return _Place(member, member.path, None)
    its = replace(member, variables={**last.variables, **member.variables}, path=last.path)
    return _Place(member, deps.plans.path_on(tx, last.rollout, its) or last.path, last.rollout)


def _elsewhere(app: AppConfig, places: Iterable[_Place]) -> str | None:
    moved = [one for one in places if one.path != one.member.path]
    if not moved:
        return None
    one = moved[0]
    others = f" ({len(moved) - 1} more alike)" if len(moved) > 1 else ""
    return (
        f"{app.name}: release.path is {one.member.path} on {one.member.name} now, and what it runs is read in {one.path}, where rollout"
        f" {one.put_by} has put it{others}: the next rollout puts its release in {one.member.path}, and leaves what is in {one.path}."
        f" Next: put release.path back before that one, which finds nothing in {one.member.path} to go back to (a stop leaves its hosts"
        f" without a release there, and then they are brought to what runs now, one after another); or remove {one.path} from the hosts"
        " when it is done"
    )


def _read(place: _Place, app: AppConfig, deps: Deps) -> HostError | None:
    name, member = AppName(app.name), place.member
    with deps.store.reading() as tx:
        before = tx.fleet.host(name, member.name)
        lost = tx.hosts.nobody_reads(name, member.name) if before.release == UNREAD else None
    if lost is not None:  # what was sent to it may still act: only a seal ends that
        return hosts.look(lost, deps)
    try:
        status = deps.fleet.status(member_target(replace(member, path=place.path), app), timeout_s=30.0)
    except HostError as error:
        return error
    if not status.running:  # else it is being switched at this moment
        with deps.store.transaction() as tx:
            tx.fleet.seen(before, status.current)
    return None
