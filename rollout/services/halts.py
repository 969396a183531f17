"""What a person can say to a rollout that waits: go on, try the failed ones again, leave hosts out."""

from rollout.config.deploy_file import AppConfig
from rollout.domain.budget import must_halt
from rollout.domain.model import AppName, Member, Rollout, RolloutHost, RolloutId
from rollout.domain.pipeline import count_outcome
from rollout.domain.states import FINISHED, RESUME, HostEvent, HostState, RolloutEvent, RolloutState
from rollout.domain.verdict import Status
from rollout.errors import Conflict, NotFound, StepRefused
from rollout.services import freezes, planning
from rollout.services.policies import unreadable
from rollout.services.ports import Deps
from rollout.services.rollouts import (
    CANARY_CONFIRM,
    FAN_OUT_CONFIRM,
    counters,
    enter_fan_out,
    leave_to_others,
    limits,
    ring_stage,
    take_out,
)
from rollout.store.journal import WENT_PAST
from rollout.store.store import Transaction

H, R, HE = HostState, RolloutState, HostEvent


def resume(
    rollout_id: RolloutId,
    deps: Deps,
    *,
    who: str,
    why: str | None = None,
    accept_failed: bool = False,
    accept_canary: bool = False,
) -> Rollout:
    """Go on with the stage it halted in. Conflict while too many hosts have failed, unless they are accepted; and of a yes in a freeze without a reason."""
    with deps.store.transaction() as tx:
        halted = rollout = _halted(tx, rollout_id, deps, who)
        if accept_failed:
            _accept_failed(tx, rollout, who, why)
            rollout = tx.rollouts.lock(rollout_id)
        _refuse_while_too_many(tx, rollout)
        app = _if_configured(rollout, deps)
        rollout = (
            _accept_canary(tx, rollout, who, why) if accept_canary else _resume(tx, app, rollout, who, why)
        )
        _past_a_freeze(tx, app, halted, who, why)
    _ring(rollout, deps)
    return rollout


def retry(rollout_id: RolloutId, deps: Deps, *, who: str) -> Rollout:
    """Try the failed and the unreadable hosts again, and go on; the budget continues."""
    with deps.store.transaction() as tx:
        halted = _halted(tx, rollout_id, deps, who)
        again = [
            host
            for host in tx.hosts.of(rollout_id, H.FAILED, H.UNKNOWN)
            if host.state is H.FAILED or host.unreadable
        ]
        if not again:
            raise Conflict(
                f"rollout {rollout_id} has no failed host", remedy=f"to go on: rollout resume {rollout_id}"
            )
        for host in again:
            _again(tx, host, who)
        app = _if_configured(halted, deps)
        rollout = _resume(tx, app, tx.rollouts.lock(rollout_id), who, f"retry of {len(again)} hosts")
        _past_a_freeze(tx, app, halted, who, None)
    _ring(rollout, deps)
    return rollout


def exclude(app: str, names: list[str], deps: Deps, *, who: str, why: str) -> list[str]:
    """Take hosts out of all rollouts, the present one included; those that are in flight there, and so stay, by name.

    The inventory is asked for whom nobody has seen yet: one that fails keeps no known host in.
    """
    configured = deps.config.app(app)
    with deps.store.reading() as tx:
        known = {host.name for host in tx.fleet.hosts(AppName(app))}
    members = [] if known.issuperset(names) else deps.fleet.members(configured)
    while (busy := _exclude(AppName(app), names, members, deps, who=who, why=why)) is None:
        pass  # another rollout was planned at this very moment
    return busy


def _exclude(
    name_of_app: AppName, names: list[str], members: list[Member], deps: Deps, *, who: str, why: str
) -> list[str] | None:
    busy: list[str] = []
    with deps.store.transaction() as tx:
        known = {host.name for host in tx.fleet.hosts(name_of_app)}
        _refuse_unknown(names, known | {member.name for member in members})
        # The rollouts' rows before the fleet's, as whoever reports on a host has them.
        planning.make_way(tx, deps.config.app(name_of_app), f"hosts were excluded: {why}", who=who)
        unfinished = [tx.rollouts.lock(found.id) for found in tx.rollouts.unfinished(name_of_app)]
        tx.apps.lock(name_of_app)  # from here on nobody plans these hosts in
        if {one.id for one in tx.rollouts.unfinished(name_of_app)} - {one.id for one in unfinished}:
            return None  # its row comes before the app's, so all over again
        if done := tx.catching_up.goal(name_of_app):  # it leaves them behind, and its budget is others' again
            unfinished = [tx.rollouts.lock(done.id)]
        tx.fleet.know(name_of_app, [one for one in members if one.name in names and one.name not in known])
        for name in names:
            tx.fleet.set_excluded(name_of_app, name, why)
            tx.record(name_of_app, f"host {name}", "exclude", who=who, why=why)
        for rollout in unfinished:
            if rollout.state in {*FINISHED - {R.DONE}, R.STOPPING, R.ROLLING_BACK}:
                continue  # every host that it touched must be sealed and brought back
            hosts = [host for host in tx.hosts.of(rollout.id) if host.name in names]
            busy += [host.name for host in hosts if not take_out(tx, host, who, why)]
    deps.bell.ring([count_outcome(rollout.id) for rollout in unfinished])
    return busy


def include(app: str, names: list[str], deps: Deps, *, who: str) -> None:
    """Take hosts back in: they are brought to what the fleet runs, and have their part in every rollout from the next one on."""
    name_of_app = AppName(deps.config.app(app).name)
    with deps.store.transaction() as tx:
        known = {host.name for host in tx.fleet.hosts(name_of_app)}
        _refuse_unknown(names, known)
        # Rollout, app, fleet: in this order everybody locks them.
        planning.make_way(tx, deps.config.app(app), "hosts were included", who=who)
        tx.apps.lock(name_of_app)
        for name in names:
            tx.fleet.set_excluded(name_of_app, name, None)
            tx.record(name_of_app, f"host {name}", "include", who=who)
        tx.catching_up.forget_tries(name_of_app, names)


def _halted(tx: Transaction, rollout_id: RolloutId, deps: Deps, who: str) -> Rollout:
    """The rollout that a person has going on; by rollout.toml as it is now when what it was planned with cannot be read any more."""
    rollout = tx.rollouts.lock(rollout_id)
    if rollout.state is not R.HALTED:
        over = rollout.state in FINISHED
        raise Conflict(
            f"rollout {rollout_id} is {rollout.state}, not halted",
            remedy="`rollout deploy` starts a new one" if over else f"look at it: rollout show {rollout_id}",
        )
    rollout = leave_to_others(tx, rollout)
    if (unread := unreadable(rollout)) is None:
        return rollout
    what = "goes by rollout.toml as it is now"
    tx.record(rollout.app, f"rollout {rollout.id}", what, who=who, why=unread, rollout=rollout.id)
    return tx.rollouts.update(rollout, policy=deps.config.app(rollout.app).policy())


def _accept_failed(tx: Transaction, rollout: Rollout, who: str, why: str | None) -> None:
    if not why:
        raise Conflict("accepting failed hosts wants a reason", remedy="add --reason '…'")
    for host in tx.hosts.of(rollout.id, H.FAILED, H.UNKNOWN):
        if host.state is H.FAILED or host.unreadable:
            tx.hosts.accept(host, who=who, why=why)


def _refuse_while_too_many(tx: Transaction, rollout: Rollout) -> None:
    if not must_halt(counters(rollout), limits(rollout)):
        return
    hurt = [
        host.name
        for host in tx.hosts.of(rollout.id, H.FAILED, H.UNKNOWN)
        if not host.accepted and (host.state is H.FAILED or host.unreadable)
    ]
    number = rollout.id
    raise Conflict(
        f"{len(hurt)} hosts have failed or cannot be read, at most {rollout.max_failed} may: {', '.join(hurt)}",
        remedy=f"rollout retry {number}, or rollout exclude HOST --reason …, or"
        f" rollout resume {number} --accept-failed --reason …",
    )


def _if_configured(rollout: Rollout, deps: Deps) -> AppConfig | None:
    """Its app, which may have been taken out of rollout.toml; ConfigError when its table is wrong: nobody knows then whether it is frozen."""
    return deps.config.app(rollout.app) if rollout.app in deps.config.names else None


def _past_a_freeze(
    tx: Transaction, app: AppConfig | None, halted: Rollout, who: str, why: str | None
) -> None:
    """What automation began goes on in a freeze by a person's word, shown and audited as a hotfix is; and a yes wants a reason, as that does."""
    by_automation = halted.requested_by == planning.AUTOMATION
    frozen = freezes.frozen(tx, app) if app is not None and by_automation else None
    if frozen is None:
        return
    number = halted.id
    if not why and planning.may_get_no_yes(halted):
        raise Conflict(
            f"{halted.app} is {frozen}",
            remedy=f"if it cannot wait: rollout resume {number} --reason …; rollout stop {number} takes it back",
        )
    said = f"{freezes.HOTFIX}{frozen}; {who}{f': {why}' if why else ' had it go on'}"
    tx.record(halted.app, f"rollout {number}", WENT_PAST, who=who, why=said, rollout=number)


def _accept_canary(tx: Transaction, rollout: Rollout, who: str, why: str | None) -> Rollout:
    if not why:
        raise Conflict("accepting a canary wants a reason", remedy="add --reason '…'")
    if rollout.halted_stage is not R.EVALUATING_CANARY and rollout.canary_status != Status.FAIL:
        raise Conflict(
            f"rollout {rollout.id} did not halt for its canary", remedy=f"rollout resume {rollout.id}"
        )
    # The fan-out is watched from here on anew: a person has taken on what was seen.
    rollout = tx.rollouts.update(rollout, accepted_at=tx.now())
    return enter_fan_out(tx, rollout, RolloutEvent.CANARY_ACCEPTED, who=who, why=f"accepted by {who}: {why}")


def _resume(tx: Transaction, app: AppConfig | None, rollout: Rollout, who: str, why: str | None) -> Rollout:
    stage = rollout.halted_stage
    assert stage is not None
    if (
        rollout.canary_status == Status.FAIL
    ):  # a FAIL is final: only a person's word, with a reason, is above it
        number = rollout.id
        raise Conflict(
            f"rollout {number} does harm: {rollout.canary_reason}",
            remedy=f"rollout stop {number} takes it back; rollout resume {number} --accept-canary --reason … goes on",
        )
    confirmed = set(rollout.confirmed)
    undone = planning.undone_before_yes(tx, app, rollout)
    if undone is not None:
        raise Conflict(
            f"nothing comes of rollout {rollout.id}: {undone}",
            remedy=planning.in_place_of_yes(rollout),
        )
    if stage is R.DEPLOYING_CANARY:
        confirmed.add(CANARY_CONFIRM)
    if stage is R.FANNING_OUT:
        confirmed.add(FAN_OUT_CONFIRM)
    values: dict[str, object] = {
        "confirmed": tuple(sorted(confirmed)),
        "reason": None,
        "halted_stage": None,
        "due_at": 0.0,
    }
    if stage is R.EVALUATING_CANARY:  # resuming measures again
        tx.samples.forget(rollout.id)
        tx.hosts.forget_cursors(rollout.id)
        values |= {"ready_at": tx.now(), "canary_status": "running", "canary_reason": None}
    return tx.rollouts.change(rollout, RESUME[stage], who=who, why=why, **values)


def _again(tx: Transaction, host: RolloutHost, who: str) -> None:
    if (
        host.state is H.UNKNOWN
    ):  # what was sent to it may still act: it is read, and sealed, before anything else
        tx.hosts.hope(host, who=who)
        return
    refused = host.cause == StepRefused.__name__  # the release may be gone from it: a new disk, a clean-up
    what = HE.RETRY if host.touched and not refused else HE.PREPARE_AGAIN
    tx.hosts.change(
        host,
        what,
        who=who,
        attempt=host.attempt + 1,
        token=False,
        accepted=False,
        error=None,
        cause=None,
    )


def _refuse_unknown(names: list[str], known: set[str]) -> None:
    missing = [name for name in names if name not in known]
    if missing:
        raise NotFound(f"no host is called {', '.join(missing)}", remedy="`rollout hosts` lists them")


def _ring(rollout: Rollout, deps: Deps) -> None:
    deps.bell.ring(ring_stage(rollout))
