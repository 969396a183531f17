"""Stop, and the one way back. The state first, then the revoke, then the seals, then the acknowledgement.

Once a stop is acknowledged no host is switched to the stopped release any more (I2): a host that nobody has told to switch
yet is not told any more, as the first step takes its lease back; one that was told holds an activation lease, and is either
sealed (its fence refuses everything sent earlier) or given the longest time that a silent worker's right can last, and then
named as unconfirmed. So does one that a person excluded, or whose reading failed, before anybody had heard the end of its
last order.
"""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import structlog

from rollout import crashpoints
from rollout.config.deploy_file import AppConfig
from rollout.domain.model import FOREIGN, AppName, Commit, Epoch, Rollout, RolloutHost, RolloutId
from rollout.domain.pipeline import Ring, roll_back_host
from rollout.domain.states import FINISHED, HostEvent, HostState, RolloutEvent, RolloutState
from rollout.errors import ConfigError, Conflict, NotFound, RolloutError
from rollout.services import bars, bell, notices, planning, shares
from rollout.services.policies import for_the_way_back
from rollout.services.ports import Deps
from rollout.services.targets import target_of
from rollout.store.store import Store, Transaction

log = structlog.get_logger()
H, R, RE = HostState, RolloutState, RolloutEvent

SEAL_TIMEOUT_S = 10.0
LAST_LOOK_S = 1.0  # for a host whose time is up
DRIVE_HOLD_S = 3.0  # a driver that dies is replaced after so long
SEALERS = 256  # threads that mostly wait: hosts that answer must not queue behind silent ones
SOON_S = 5.0  # an acknowledgement that waits for no host; on SQLite a frozen writer is waited for, 2 s
BACK_SHARE = 4  # so many times a hosts worker's slots have a message at once when a way back begins: there may be more workers
MOST_BACK = 500  # messages at once, whatever rollout.toml allows to be under way: each is a row, which goes from host to host
MORE_BACK = 8  # hosts for which there is a message when none waits any more: a worker may have come, or a row have ended
ROUNDS_S = 15.0  # beyond a silent host's time: a driver that was cut off is replaced, its locks are freed, a last look


@dataclass(frozen=True, slots=True)
class Accepted:
    """A stop that is in the store: from here on nothing new starts."""

    rollout: Rollout
    longest_s: float  # until the acknowledgement, if hosts do not answer
    leased: tuple[str, ...]  # hosts that hold an activation lease now
    new: bool  # it was not there before


@crashpoints.stage("stop")
def stop(rollout_id: RolloutId, deps: Deps, *, who: str, why: str, keep: bool = False) -> Accepted:
    """End a rollout. Stopping what is stopped changes nothing; Conflict when it is done already."""
    apps, lease_s = deps.config.apps, deps.settings.lease_s
    accepted = accept(rollout_id, deps.store, apps, lease_s, who=who, why=why, keep=keep)
    announce(accepted.rollout, deps)
    return accepted


@crashpoints.stage("stop")
def accept(
    rollout_id: RolloutId,
    store: Store,
    apps: Mapping[str, AppConfig],
    lease_s: float,
    *,
    who: str,
    why: str,
    keep: bool = False,
) -> Accepted:
    """The part of `stop` that counts, and needs nothing but the store, and rollout.toml as it is now; then it may be announced."""
    with store.transaction() as tx:
        rollout = tx.rollouts.lock(rollout_id)
        if rollout.state is R.DONE:
            raise Conflict(
                f"rollout {rollout_id} is done; there is nothing to stop",
                remedy=f"to go back: rollout rollback --app {rollout.app}",
            )
        new = rollout.is_ahead or rollout.state not in {*FINISHED, R.STOPPING, R.ROLLING_BACK}
        if rollout.is_ahead:  # another one is active still; unbarred it would be planned anew at once
            rollout = planning.set_aside(tx, rollout, why, who=who)
            bars.taken_back(tx, rollout, who=who, why=why)
        elif new:
            rollout = stop_locked(tx, rollout, who=who, why=why, keep=keep, said=True)
        crashpoints.reach("in-decision")
        return _accepted(tx, rollout, apps, lease_s, new=new)


def stop_locked(
    tx: Transaction, rollout: Rollout, *, who: str, why: str, keep: bool = False, said: bool = False
) -> Rollout:
    """The stop's first step, in the caller's transaction: state, epoch, bar. `said`: by a person."""
    stopping = tx.rollouts.change(
        rollout,
        RE.STOP,
        who=who,
        why=why,
        reason=why,
        keep=keep,
        stop_epoch=tx.apps.next_epoch(rollout.app),
        stop_started=tx.now(),
        due_at=0.0,
    )
    _cut_prepares(tx, rollout, who)
    _permit_no_more(tx, rollout, who)
    if not keep:
        tx.fleet.call_back(rollout.id)  # whom it has switched, it was planned with
    blame = bars.taken_back if said else bars.after_failure
    blame(tx, rollout, who=who, why=why)
    return stopping


def _cut_prepares(tx: Transaction, rollout: Rollout, who: str) -> None:
    for host in tx.hosts.of(rollout.id, H.PREPARING):
        tx.hosts.change(host, HostEvent.PUT_OFF, who=who, why="stopped")  # its worker notices and cuts it


def _permit_no_more(tx: Transaction, rollout: Rollout, who: str) -> None:
    """Who has claimed a host and was not told yet that it may be switched is not told any more: such a host needs no seal (decision 0005)."""
    as_before = {"token": False, "unreadable": False, "lost_at": None}
    claimed = [(host, as_before.copy()) for host in tx.hosts.without_permit(rollout.id)]
    if claimed:
        tx.hosts.change_all(HostEvent.FOUND_UNTOUCHED, claimed, who=who, why="stopped")


def fail_canary(tx: Transaction, rollout: Rollout, why: str) -> Rollout:
    """The canary's verdict is FAIL: it goes back, and the commit is barred."""
    failed = tx.rollouts.update(rollout, canary_status="fail", canary_reason=why)
    notices.add(
        tx, failed, "failed its canary", why, f"rollout show {rollout.id}; revert the commit and push"
    )
    return stop_locked(
        tx, failed, who="judge", why=why if why.startswith("canary") else f"canary failed: {why}"
    )


def announce(rollout: Rollout, deps: Deps) -> None:
    """Empty the queue of what belongs to a rollout that stops; an accelerator, the rows have said it already."""
    if rollout.state is R.STOPPING:
        crashpoints.reach("before-revoke")
        deps.bell.revoke(rollout.id)


def _accepted(
    tx: Transaction, rollout: Rollout, apps: Mapping[str, AppConfig], lease_s: float, *, new: bool
) -> Accepted:
    leased = _unsealed(tx, rollout)
    longest = longest_s(for_the_way_back(rollout, apps), lease_s) + ROUNDS_S if leased else SOON_S
    return Accepted(rollout, longest, tuple(host.name for host in leased), new)


def longest_s(app: AppConfig, lease_s: float) -> float:
    """How long a host that does not answer can still be acting: its lease, then a restart and a health wait, twice."""
    return lease_s + 2 * (app.release.restart_limit + app.release.health_timeout)


def _longest_s(rollout: Rollout, deps: Deps) -> float:
    return longest_s(for_the_way_back(rollout, deps.config.apps), deps.settings.lease_s)


def _unsealed(tx: Transaction, rollout: Rollout) -> list[RolloutHost]:
    return [
        host for host in tx.hosts.may_still_act(rollout.id) if (host.sealed or 0) < (rollout.stop_epoch or 1)
    ]


@crashpoints.stage("stop")
def drive(rollout_id: RolloutId, deps: Deps) -> bool:
    """Bring a stop to its acknowledgement; True when this call acknowledged it. Any process may call it, any number of times."""
    crashpoints.reach("before-claim")
    with deps.store.transaction() as tx:
        rollout = tx.rollouts.lock(rollout_id)
        waited = tx.elapsed(
            rollout.stop_started or 0.0
        )  # whoever watches it measures it from the first look on
        if rollout.state is not R.STOPPING or not tx.rollouts.claim_tick(
            rollout_id, R.STOPPING, DRIVE_HOLD_S
        ):
            return False
        leased = _unsealed(tx, rollout)
        epoch = tx.apps.next_epoch(rollout.app)
        left = _longest_s(rollout, deps) - waited if leased else 0.0
        crashpoints.reach("in-claim")
    crashpoints.reach("after-claim")
    sealed = _seal_all(leased, rollout, epoch, time.monotonic() + left, deps)
    return _acknowledge(rollout_id, sealed, epoch, deps)


def vouch(rollout_id: RolloutId, deps: Deps) -> None:
    """Hosts that have told this process that their switch is behind them need no seal: that order makes no second one, and it was the host's last."""
    switched = deps.leases.switched()
    if not switched:
        return
    with deps.store.transaction() as tx:
        rollout = tx.rollouts.lock(rollout_id)
        if rollout.state is R.STOPPING and rollout.stop_epoch is not None:
            tx.hosts.vouch(rollout_id, switched, deps.worker, rollout.stop_epoch)


def _seal_all(
    leased: list[RolloutHost], rollout: Rollout, epoch: Epoch, until: float, deps: Deps
) -> list[RolloutHost]:
    """Those that are sealed with this epoch.

    `until` (monotonic) nobody is waited for any more: who is silent is looked at once again, all in one short time.
    """
    if not leased:
        return []
    app, end = for_the_way_back(rollout, deps.config.apps), max(until, time.monotonic()) + LAST_LOOK_S
    with ThreadPoolExecutor(min(SEALERS, len(leased)), thread_name_prefix="seal") as pool:
        sealed = pool.map(lambda host: _is_sealed(host, app, epoch, end, deps), leased)
    return [host for host, done in zip(leased, sealed, strict=True) if done]


@crashpoints.stage("stop")
def _is_sealed(host: RolloutHost, app: AppConfig, epoch: Epoch, end: float, deps: Deps) -> bool:
    left = end - time.monotonic()
    if left <= 0:
        return False  # its turn has not come: it will be named as unconfirmed
    try:
        return _seal(host, app, epoch, min(SEAL_TIMEOUT_S, left), deps)
    except RolloutError as error:
        log.warning("host_not_sealed", rollout=host.rollout, host=host.name, error=str(error))
    except Exception:  # one host's trouble must not keep the others' seals
        log.exception("host_not_sealed", rollout=host.rollout, host=host.name)
    return False


def _seal(host: RolloutHost, app: AppConfig, epoch: Epoch, timeout_s: float, deps: Deps) -> bool:
    # What becomes of the order is not asked: the host would wait for its end.
    status = deps.fleet.status(target_of(host, app), seal=(epoch, epoch), timeout_s=timeout_s)
    crashpoints.reach("after-seal")
    if not status.sealed:
        log.info("host_busy", rollout=host.rollout, host=host.name)
    return status.sealed


def _acknowledge(rollout_id: RolloutId, sealed: list[RolloutHost], epoch: Epoch, deps: Deps) -> bool:
    with deps.store.transaction() as tx:
        rollout = tx.rollouts.lock(rollout_id)
        tx.hosts.seal([host.id for host in sealed], epoch)  # also when somebody else has acknowledged it
        if rollout.state is not R.STOPPING:
            return False
        silent = [host.name for host in _unsealed(tx, rollout)]
        waited = tx.elapsed(rollout.stop_started or 0.0)
        if silent and waited < _longest_s(rollout, deps):
            tx.rollouts.ring_again(rollout_id, 0.5)
            return False
        acknowledged = _end(tx, rollout, silent)
        tx.going_back.forget_waits(rollout.id)
        rings = roll_back_rings(tx, acknowledged, deps)
        crashpoints.reach("in-acknowledgement")
    bell.ring(rings, deps)
    if acknowledged.state is R.ROLLING_BACK:
        finish_roll_back(rollout_id, deps)
    else:
        planning.start_next(acknowledged.app, deps)
    log.info("stop_acknowledged", rollout=rollout_id, unconfirmed=silent, waited_s=round(waited, 3))
    return True


def _end(tx: Transaction, rollout: Rollout, silent: list[str]) -> Rollout:
    values = {"acknowledged_at": tx.today(), "unconfirmed": tuple(silent), "due_at": 0.0}
    why = f"unconfirmed: {', '.join(silent)}" if silent else "every host that could still act is sealed"
    # Those that have left the fleet are not kept by a person's word: once they are back they are brought along.
    nothing = tx.going_back.all_back(rollout.id) and not tx.going_back.left_as_they_are(rollout.id)
    if rollout.keep or nothing:
        ended = tx.rollouts.change(rollout, RE.ACKNOWLEDGE, who="stop", why=why, **values)
        notices.add(tx, ended, "was stopped", rollout.reason or "", f"rollout show {rollout.id}")
        return ended
    return tx.rollouts.change(rollout, RE.ROLL_BACK, who="stop", why=why, **values)


# -- the way back ------------------------------------------------------------------------------------------------------


@crashpoints.stage("rollback")
def roll_back_done(app: AppConfig, deps: Deps, *, to: str | None, who: str, why: str) -> Rollout:
    """The newest done rollout goes back: each host to what it ran before, or all to the commit `to`.

    NotFound when nothing is done; Conflict while another rollout is active, or when hosts lack `to`.
    """
    name = AppName(app.name)
    _take_leave(app, deps)
    with deps.store.transaction() as tx:
        planning.make_way(tx, app, f"what it was to follow is rolled back: {why}", who=who)
        tx.apps.lock(name)
        rollout = tx.rollouts.newest_done(name)
        if rollout is None:
            raise NotFound(f"no rollout of {app.name} is done", remedy="`rollout history` lists them")
        active = planning.under_way(tx, name)
        if active is not None:
            raise Conflict(
                f"rollout {active.id} is {active.state}",
                remedy=f"end it first: `rollout stop {active.id}` (it brings its hosts back by itself)",
            )
        sha = _goal(tx, rollout, to) if to else None
        rollout = tx.rollouts.change(
            rollout,
            RE.ROLL_BACK,
            who=who,
            why=why,
            reason=why,
            rollback_to=sha,
            stop_epoch=tx.apps.next_epoch(name),
            due_at=0.0,
            ended_at=None,
        )
        _cut_prepares(tx, rollout, who)  # of a host that was behind
        bars.taken_back(tx, rollout, who=who, why=why)
        if sha is not None:
            _bar_after(tx, rollout, sha, who=who, why=why)
        tx.places.follow(rollout.id, partial(deps.plans.path_on, tx, rollout.id))
        tx.going_back.forget_waits(rollout.id)
        rings = roll_back_rings(tx, rollout, deps)
        crashpoints.reach("in-decision")
    bell.ring(rings, deps)
    return rollout


def _take_leave(app: AppConfig, deps: Deps) -> None:
    """Of whom rollout.toml names no more, which may have been edited just now; of an inventory program, which may hang, the last reading counts (I10)."""
    if app.fleet.inventory is not None:
        return
    try:
        here = {member.name for member in deps.fleet.members(app)}
    except ConfigError:
        return
    with deps.store.transaction() as tx:
        tx.apps.lock(AppName(app.name))
        tx.fleet.see_off(AppName(app.name), here)


def _goal(tx: Transaction, rollout: Rollout, to: str) -> str:
    commit = bars.named(tx, rollout.app, to)
    if commit.is_barred:
        raise Conflict(
            f"commit {commit.sha[:12]} is barred: {commit.barred_for}",
            remedy=f"choose another, or allow it with `rollout unbar {commit.sha[:12]}`",
        )
    if _is_newer(tx, commit, rollout):
        raise Conflict(
            f"commit {commit.sha[:12]} is newer than what runs: a rollback goes back",
            remedy=f"to ship it: rollout deploy {commit.sha[:12]}",
        )
    lacking = [
        host.name
        for host in tx.going_back.to_bring_back(rollout.id)
        if not tx.going_back.had(rollout.app, host.name, commit.sha)
    ]
    if commit.sha == rollout.commit:
        raise Conflict(
            f"{commit.sha[:12]} is what runs",
            remedy="without --to each host goes back to what it ran before: rollout rollback",
        )
    if lacking:
        raise Conflict(
            f"commit {commit.sha[:12]} was never on {_listed(lacking)}",
            remedy="choose a commit that every host has had, or go back without --to; or revert on the branch what is wrong,"
            " and push: rollout deploy --now --reason …",
        )
    return commit.sha


def _is_newer(tx: Transaction, commit: Commit, rollout: Rollout) -> bool:
    """By its place, where that is on one line with what the rollout shipped; else by which of the two went out first."""
    shipped = tx.commits.get(rollout.app, rollout.commit)
    if shipped is not None and shipped.on_branch and commit.on_branch:
        return not bars.is_in(commit, shipped)
    went_out = tx.rollouts.of_commit(rollout.app, commit.sha)
    return bool(went_out) and went_out[0].id > rollout.id


def _bar_after(tx: Transaction, rollout: Rollout, goal: str, *, who: str, why: str) -> None:
    """Everything after the commit that the fleet goes back to, up to what ran: nothing ships the same again.

    What the rollouts since have brought, wherever it is now; and what is between the two on the branch, if both are there:
    what has left it says nothing of those that have its place now.
    """
    since = tx.rollouts.since(goal, rollout)
    for one in since:
        bars.taken_back(tx, one, who=who, why=why)
    base, shipped = tx.commits.get(rollout.app, goal), tx.commits.get(rollout.app, rollout.commit)
    if base is None or base.position is None or shipped is None or not shipped.on_branch:
        return
    taken = {sha for one in (rollout, *since) for sha in one.commits}
    for commit in tx.commits.after(rollout.app, base.position):
        if bars.is_in(commit, shipped) and commit.sha not in taken:
            bars.take_back_with(tx, commit, who=who, why=why)


def roll_back_rings(tx: Transaction, rollout: Rollout, deps: Deps) -> list[Ring]:
    """The messages for the next touched hosts that nobody works on, each marked so that it is not rung twice."""
    if rollout.state is not R.ROLLING_BACK:
        return []
    if tx.going_back.waits(rollout.id):
        return []  # no slot is free, and others that wait behind it end the rows of hosts (decision 0012)
    going = tx.going_back.under_way(rollout.id)
    window = (
        going + MORE_BACK
        if going
        else max(BACK_SHARE * deps.settings.slots, min(rollout.concurrency, MOST_BACK))
    )
    if (most := shares.most(tx, rollout, deps)) is not None:
        window = min(window, most)
    free = window - going
    hosts = tx.going_back.to_roll_back(rollout.id, free) if free > 0 else []
    tx.hosts.rung([host.id for host in hosts], deps.settings.ring_again_s)
    slots = deps.settings.slots - going
    return [roll_back_host(host, waits=place >= slots) for place, host in enumerate(hosts)]


def unclaimed(rollout_id: RolloutId, deps: Deps) -> list[Ring]:
    """Every touched host that nobody works on, whether or not a message is under way: for who does it himself."""
    with deps.store.reading() as tx:
        now = tx.now()
        return [
            roll_back_host(host)
            for host in tx.going_back.to_bring_back(rollout_id)
            if host.state is not H.ROLLBACK_FAILED
            and (host.state is not H.ROLLING_BACK or (host.lease_until or 0.0) <= now)
        ]


@crashpoints.stage("rollback")
def finish_roll_back(rollout_id: RolloutId, deps: Deps) -> None:
    """The rollout is rolled back when every touched host is back, or could not be brought back at its first try."""
    with deps.store.transaction() as tx:
        rollout = tx.rollouts.lock(rollout_id)
        if rollout.state is not R.ROLLING_BACK or not tx.going_back.all_back(rollout_id):
            return
        left = [host.name for host in tx.going_back.not_back(rollout_id)]
        back = tx.hosts.of(rollout_id, H.ROLLED_BACK)
        bare = [host for host in back if host.release is None]
        why = rollout.reason or ""
        if left:
            # This stays in the history, and they will be back: the row of each says whether it is.
            again = f"tried again until they are; `rollout show {rollout_id}` says who is not"
            who = "not back with the others" if back else "not back: all hosts"
            why += f"; {who}: {_listed(left)} ({again})"
        gone = tx.going_back.left_as_they_are(rollout_id)
        if gone:
            why += (
                f"; left as they are, since they have left the fleet: {_listed([host.name for host in gone])}"
            )
        for host in gone:  # who takes one over when it is in the fleet again goes on from there
            tx.fleet.owe(host, rollout.rollback_to or host.way_back)
        if alone := _left_alone(tx, rollout):
            why += f"; not gone back with the others, since it never reached them: {_listed(alone)}"
        if bare:
            why += f"; without a release{_as_before(tx, rollout, bare)}"
        if kept := _by_hand(tx, rollout):
            why += f"; with what somebody has put there by hand: {_listed(kept)}"
        if barred := _on_what_is_barred(tx, rollout):
            why += f"; on a release that is barred, as before: {_listed(barred)}"
        ended = tx.rollouts.change(rollout, RE.ROLLED_BACK, who="roll back", why=why, reason=why, due_at=None)
        notices.add(tx, ended, "was rolled back", why, f"rollout show {rollout_id}")
        crashpoints.reach("in-report")
    planning.start_next(rollout.app, deps)


def _as_before(tx: Transaction, rollout: Rollout, bare: list[RolloutHost]) -> str:
    """Which hosts are, and what becomes of them: who brings hosts along takes them for behind what the fleet runs."""
    words = f", as there was none in {bare[0].path} before: {_listed([host.name for host in bare])}"
    runs = tx.rollouts.newest_done(rollout.app)
    return (
        words if runs is None else f"{words} (brought to {runs.commit[:12]} one after another: rollout hosts)"
    )


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:10])}{' …' if len(names) > 10 else ''}"


def _by_hand(tx: Transaction, rollout: Rollout) -> list[str]:
    """They were to be left without a release, and something that is none of ours is in its place."""
    back = tx.hosts.of(rollout.id, H.ROLLED_BACK)
    return [host.name for host in back if host.release == FOREIGN and host.way_back is None]


def _on_what_is_barred(tx: Transaction, rollout: Rollout) -> list[str]:
    """They have gone back to what they ran, which is all that is sure to be on their disks (I10); whoever may bring them on does so afterwards."""
    back = tx.hosts.of(rollout.id, H.ROLLED_BACK)
    runs = {host.release for host in back if host.release not in {None, FOREIGN}}
    barred = {sha for sha in runs if sha and _is_barred(tx.commits.get(rollout.app, sha))}
    return [host.name for host in back if host.release in barred]


def _is_barred(commit: Commit | None) -> bool:
    return commit is not None and commit.is_barred


def _left_alone(tx: Transaction, rollout: Rollout) -> list[str]:
    """With `--to` the whole fleet is meant, and these are known to run something else; else each host runs what it ran."""
    if rollout.rollback_to is None:
        return []
    touched = {host.name for host in tx.hosts.of(rollout.id) if host.touched}
    return [
        host.name
        for host in tx.fleet.hosts(rollout.app)
        if host.left_at is None and host.name not in touched and host.release != rollout.rollback_to
    ]


@crashpoints.stage("rollback")
def ring_roll_backs(rollout_id: RolloutId, deps: Deps) -> list[Ring]:
    """As `roll_back_rings`, for whoever looks by himself; and the end, when it is there."""
    with deps.store.transaction() as tx:
        tx.rollouts.set_counting(rollout_id, counting=False)
        rollout = tx.rollouts.lock(rollout_id)
        rings = roll_back_rings(tx, rollout, deps)
        if rollout.state is R.ROLLING_BACK:
            tx.rollouts.ring_again(rollout_id, deps.settings.reconcile_s)
    finish_roll_back(rollout_id, deps)
    return rings
