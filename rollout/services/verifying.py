"""`hosts --verify`: what every host of an app runs, read from its disk and written down at once."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from rollout.config.deploy_file import AppConfig
from rollout.domain.model import UNREAD, AppName, Member
from rollout.errors import HostError
from rollout.services import catching_up, hosts
from rollout.services.ports import Deps
from rollout.services.targets import member_target


def verify(app_name: str, deps: Deps, *, threads: int = 16) -> dict[str, str]:
    """Read every host of the app as configured now, and keep what it runs; the errors, by host."""
    app = deps.config.app(app_name)
    members = deps.fleet.members(app)
    with deps.store.transaction() as tx:
        tx.apps.lock(AppName(app.name))  # first, as whoever plans
        tx.hosts.take_stock(AppName(app.name), members)
    catching_up.follow(AppName(app.name), members, deps)
    with ThreadPoolExecutor(max(1, min(threads, len(members)))) as pool:
        found = list(pool.map(partial(_read, app=app, deps=deps), members))
    return {
        member.name: str(error) for member, error in zip(members, found, strict=True) if error is not None
    }


def _read(member: Member, app: AppConfig, deps: Deps) -> HostError | None:
    name = AppName(app.name)
    with deps.store.reading() as tx:
        before = tx.hosts.in_fleet(name, member.name)
        lost = tx.hosts.nobody_reads(name, member.name) if before.release == UNREAD else None
    if lost is not None:  # what was sent to it may still act: only a seal ends that
        return hosts.look(lost, deps)
    try:
        status = deps.fleet.status(member_target(member, app), timeout_s=30.0)
    except HostError as error:
        return error
    if not status.running:  # else it is being switched at this moment
        with deps.store.transaction() as tx:
            tx.hosts.seen(before, status.current)
    return None
