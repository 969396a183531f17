"""What makes it correct: look for rows that nobody is working on, and ring again (I8).

`sweep` is for every worker, every few seconds; `watch` is for the processes that hold the connections, four times a
second: it drives stops, and reads unknown hosts.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import structlog

from rollout.domain.model import AppName, Rollout, RolloutHost, RolloutId
from rollout.domain.pipeline import (
    Ring,
    deploy_host,
    look_at_host,
    roll_back_host,
    watch_fan_out,
)
from rollout.domain.states import STAGES, HostEvent, HostState, RolloutState
from rollout.errors import RolloutError, ServiceUnavailable, StaleWrite
from rollout.services import (
    bell,
    catching_up,
    deliveries,
    editions,
    intake,
    notices,
    planning,
    rollouts,
    stopping,
    telling,
    turns,
)
from rollout.services.perform import HereAndNow
from rollout.services.ports import Deps
from rollout.services.watching import PACE as WATCH_PACE
from rollout.store.store import Transaction

log = structlog.get_logger()
H, R, HE = HostState, RolloutState, HostEvent
Row = TypeVar("Row", RolloutHost, Rollout)
LONGEST_WAIT_S = 900.0  # no row is ever due later than that
STAGE_WAIT_S = 60.0  # nor a rollout's own


def sweep(
    deps: Deps, here: HereAndNow | None = None, following: Callable[[str, Deps], object] | None = None
) -> None:
    """Ring every row that is due; settle what is silent. `here` does host steps when no message can be sent.

    `following` is `next_of`, and may do it side by side: no app waits for another one's inventory. It is left to others by
    who goes by another rollout.toml than automation.
    """
    deps.bell.count()
    for part in (_silent_hosts, _due_tests, _due_rollouts, _unwatched, _failed_roll_backs, _unread_hosts):
        _apart(part.__name__, partial(_ring_part, part, deps, here))
    _roll_backs(deps, here)
    with deps.store.reading() as tx:
        if editions.is_astray(tx, deps.config):
            return
    for app in deps.config.apps:
        _apart(f"next of {app}", partial(following or partial(next_of, here=here), app, deps))


def next_of(app: str, deps: Deps, here: HereAndNow | None = None) -> None:
    """The app's next rollout, or the next host that is behind; and who made the branch red, if only time can tell."""
    _apart(f"red branch of {app}", partial(telling.red_at_last, app, deps))
    _apart(f"start_next {app}", partial(planning.start_next, app, deps, may_wait=True))
    _apart(f"catch up {app}", partial(_ring_part, partial(catching_up.go_on, app), deps, here))


def watch(
    deps: Deps,
    here: HereAndNow | None = None,
    drive: Callable[[RolloutId, Deps], object] | None = None,
) -> None:
    """Drive the stops, and read the hosts whose outcome is unknown."""
    with deps.store.reading() as tx:
        if not tx.hosts.any_to_watch():
            return
        stopping_now = tx.rollouts.in_state(R.STOPPING)
        unknown = tx.hosts.to_read()
    for rollout in stopping_now:
        _apart(f"vouch {rollout.id}", partial(stopping.vouch, rollout.id, deps))
        _apart(f"drive {rollout.id}", partial(drive or stopping.drive, rollout.id, deps))
    if unknown:
        with deps.store.transaction() as tx:
            unknown = tx.hosts.to_read()
            tx.hosts.rung([host.id for host in unknown], deps.settings.ring_again_s)
        _ring([deploy_host(host) for host in unknown], deps, here)


def poll_all(deps: Deps, poll: Callable[[str, Deps], object] | None = None) -> None:
    """Look at every app's branch that is due; `poll` may do so side by side."""
    for app in intake.due(deps):
        (poll or intake.poll)(app, deps)


def tell(deps: Deps) -> None:
    """Send the notices that wait."""
    notices.send_due(deps)


def heal(deps: Deps) -> None:
    """A store's clock that was set back leaves leases and due times behind that nobody would live to see."""
    longest = max(LONGEST_WAIT_S, deps.settings.lease_s, deps.settings.ring_again_s)
    stage = max(STAGE_WAIT_S, deps.settings.ring_again_s)
    healed = deps.store.heal(longest, stage_s=stage, pace=WATCH_PACE)
    if healed:
        log.warning("clock_was_set_back", rows=healed)


def tidy(deps: Deps) -> None:
    """Remove a batch of what is not kept any longer; end what nobody will find out any more."""
    deliveries.give_up(deps)
    with deps.store.transaction() as tx:
        removed = tx.retention.tidy()
    if any(removed.values()):
        log.info("tidied", **{table: rows for table, rows in removed.items() if rows})


def _apart(what: str, work: Callable[[], object]) -> None:
    """One row's or one app's trouble is not another's. Without the database there is nothing to go on with."""
    try:
        work()
    except ServiceUnavailable:
        raise
    except StaleWrite:
        pass  # somebody else was faster
    except RolloutError as error:
        log.warning("not_reconciled", what=what, error=str(error))
    except Exception:  # a row that cannot even be read must not hide the others
        log.exception("not_reconciled", what=what)


def _each(rows: Iterable[Row], work: Callable[[Row], list[Ring]]) -> list[Ring]:
    """What is to be rung for all of them, but for those that are in trouble themselves."""
    rings: list[Ring] = []

    def one(row: Row) -> None:
        rings.extend(work(row))

    for row in rows:
        _apart(f"{type(row).__name__} {row.id}", partial(one, row))
    return rings


def _ring(rings: list[Ring], deps: Deps, here: HereAndNow | None) -> None:
    if here is None:
        bell.ring(rings, deps)
    elif rings and not deps.bell.ring(rings):
        here.do(rings)


def _ring_part(part: Callable[[Deps], list[Ring]], deps: Deps, here: HereAndNow | None) -> None:
    _ring(part(deps), deps, here)


def _silent_hosts(deps: Deps) -> list[Ring]:
    """Leases that ran out: a prepare begins anew, a switch is unknown and is read, a rollback is taken over."""
    with deps.store.reading() as tx:
        silent = tx.hosts.silent()
    return _each(silent, partial(_settle_silent, deps=deps))


def _settle_silent(host: RolloutHost, deps: Deps) -> list[Ring]:
    with deps.store.transaction() as tx:
        return _settled(tx, host, deps)


def _settled(tx: Transaction, host: RolloutHost, deps: Deps) -> list[Ring]:
    tx.rollouts.hold(host.rollout)  # first, as whoever reports on the host
    why = f"{host.lease_owner} went silent" if host.lease_owner else str(host.error)
    if host.state is H.PREPARING:
        tx.hosts.change(host, HE.PUT_OFF, who="reconciler", why=why, due_at=tx.now())
        return []
    if host.state is H.ACTIVATING:
        lost_at = host.lease_until or tx.now()
        if host.touched:
            tx.fleet.unread(host)
        tx.hosts.change(
            host,
            HE.LOSE,
            who="reconciler",
            why=why,
            lost_at=lost_at,
            due_at=tx.now(),
            lease_owner=None,
            lease_until=None,
        )
        tx.hosts.rung([host.id], deps.settings.ring_again_s)
        return [deploy_host(host)]
    if (moot := _no_way_back(tx, host)) is not None:
        tx.hosts.change(host, HE.ROLLBACK_FAILED, who="reconciler", why=f"{why}; {moot}", due_at=tx.now())
        return []
    tx.hosts.rung([host.id], deps.settings.ring_again_s)
    return [roll_back_host(host)]


def _no_way_back(tx: Transaction, host: RolloutHost) -> str | None:
    """Why nobody takes over what a silent worker has begun to bring back."""
    if not tx.fleet.has(host):
        return "it has left the fleet"
    later = tx.going_back.touched_later(host) and tx.rollouts.get(host.rollout).state is R.ROLLED_BACK
    return "a newer rollout has the host" if later else None


def _due_tests(deps: Deps) -> list[Ring]:
    apps = deps.config.apps.values()
    with deps.store.reading() as tx:
        due = [app for app in apps if turns.any_due(tx, app, deps)]
    if not due:
        return []
    with deps.store.transaction() as tx:
        tx.apps.lock_all({AppName(app.name) for app in due})
        return [ring for app in due for ring in turns.take(tx, app, deps)]


def _due_rollouts(deps: Deps) -> list[Ring]:
    """Stages that nobody has looked at in time, and outcomes that nobody has counted.

    They are looked at here, so that hosts go on even if no message of the stage's own tasks ever arrives.
    """
    with deps.store.reading() as tx:
        due = [
            one
            for one in tx.rollouts.due()
            if one.state in STAGES or one.state in {R.PENDING, R.HALTED, R.ROLLING_BACK}
        ]
        late = [one for one in due if one.counting or tx.now() - (one.due_at or 0.0) > rollouts.LATE_S / 2]
    return _each(late, partial(_look, deps=deps))


def _look(rollout: Rollout, deps: Deps) -> list[Ring]:
    if rollout.counting and rollout.state is not R.ROLLING_BACK:
        return rollouts.look(rollout.id, deps)
    wrong = _recount(rollout.id, deps)
    if wrong:
        log.error("counters_were_wrong", rollout=rollout.id, repaired=wrong)
    if rollout.state is R.ROLLING_BACK:
        return []  # `_roll_backs` goes on with it
    return [*rollouts.look(rollout.id, deps), *rollouts.ring_stage(rollout)]


def _unwatched(deps: Deps) -> list[Ring]:
    """Fan-outs that nobody has looked at in time, however busy their own stage is."""
    with deps.store.reading() as tx:
        return [watch_fan_out(one) for one in tx.rollouts.unwatched(rollouts.LATE_S / 2)]


def _recount(rollout: RolloutId, deps: Deps) -> dict[str, int]:
    with deps.store.transaction() as tx:
        return tx.rollouts.recount(rollout)


def _roll_backs(deps: Deps, here: HereAndNow | None) -> None:
    with deps.store.reading() as tx:
        back = [one for one in tx.rollouts.in_state(R.ROLLING_BACK) if (one.due_at or 0.0) <= tx.now()]
    for rollout in back:
        _apart(f"roll back {rollout.id}", partial(_roll_back, rollout.id, deps, here))


def _roll_back(rollout_id: RolloutId, deps: Deps, here: HereAndNow | None) -> None:
    rings = stopping.ring_roll_backs(rollout_id, deps)
    if here is None:
        bell.ring(rings, deps)
    elif rings and not deps.bell.ring(rings):
        here.do(stopping.unclaimed(rollout_id, deps))  # the window is for the broker's sake


def _failed_roll_backs(deps: Deps) -> list[Ring]:
    """Of rollouts that are over: again with back-off, not while a newer rollout has the host, and until it owes nothing."""
    rings = []
    with deps.store.reading() as tx:
        if not tx.going_back.to_try_again(1):
            return []
    with deps.store.transaction() as tx:
        for host in tx.going_back.to_try_again():
            if tx.going_back.touched_later(host, for_good=True):
                tx.going_back.leave(host)
                continue
            if not tx.going_back.touched_later(host):
                rings.append(roll_back_host(host))
            tx.hosts.rung([host.id], deps.settings.ring_again_s)
    return rings


def _unread_hosts(deps: Deps) -> list[Ring]:
    """What they run is not known, and their rollouts are over: read with back-off until they answer (I5)."""
    with deps.store.reading() as tx:
        if not tx.hosts.to_look_at(1):
            return []
    with deps.store.transaction() as tx:
        hosts = tx.hosts.to_look_at()
        tx.hosts.rung([host.id for host in hosts], deps.settings.ring_again_s)
    return [look_at_host(host) for host in hosts]
