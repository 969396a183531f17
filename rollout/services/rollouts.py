"""A rollout from its first canary to done: each function looks at the rows, decides, saves guarded, and rings.

Whatever calls them (a chain, a link, the reconciler, twice or late), the rows decide what happens.
"""

from dataclasses import replace

import structlog

from rollout import crashpoints
from rollout.domain import budget
from rollout.domain.model import Role, Rollout, RolloutHost, RolloutId
from rollout.domain.pipeline import LAST, Ring, deploy_host, pipeline, prepare_host, watch_fan_out
from rollout.domain.states import STAGES, HostEvent, HostState, RolloutEvent, RolloutState
from rollout.errors import Unhealthy
from rollout.services import bars, bell, deliveries, editions, notices, planning, shares, stopping
from rollout.services.policies import asks, goes_back_on_halt, policy, unreadable
from rollout.services.ports import Deps
from rollout.services.steps import Again, End, GoOn, Step
from rollout.store.store import Transaction

log = structlog.get_logger()
H, R, HE, RE = HostState, RolloutState, HostEvent, RolloutEvent

STAGE_TICK_S = 0.5  # how often a waiting stage looks again
AHEAD_TICK_S = 1.0  # how often one that was planned ahead looks whether it is its turn
# Of a hosts worker's slots, for what is prepared ahead: the one that fans out must not feel it.
AHEAD_SHARE = 0.1
LATE_S = 5.0  # a stage that nobody looked at for so long is rung by the reconciler
PREPARE_SHARE = 0.8  # of a hosts worker's slots: roll-backs and activations always find one free
MOST_QUEUED = 4  # messages for each slot of a hosts worker: more than all apps have under way at once
CANARY_CONFIRM, FAN_OUT_CONFIRM = planning.CANARY_CONFIRM, planning.FAN_OUT_CONFIRM


@crashpoints.stage("canary")
def deploy_canary(rollout_id: RolloutId, deps: Deps) -> Step:
    """The first stage: start the rollout, and switch its canary hosts."""
    with deps.store.transaction() as tx:
        rollout = tx.rollouts.lock(rollout_id)
        if rollout.state is R.PENDING:
            rollout = _start(tx, rollout, deps)
        if rollout.state is R.EVALUATING_CANARY:
            return GoOn()  # count_outcome saw it first
        rings: list[Ring] = []
        if rollout.state is R.PENDING and _tick(tx, rollout, AHEAD_TICK_S):
            rings = prepare_ahead(tx, rollout, deps)
        elif rollout.state is R.DEPLOYING_CANARY and _tick(tx, rollout):
            rings, rollout = _decide(tx, rollout, deps)
        elif rollout.state is not R.ERROR:
            return End()
        crashpoints.reach("in-decision")
    bell.ring(rings, deps)
    _after(rollout, deps)
    if rollout.state is R.PENDING:
        return Again(AHEAD_TICK_S)
    return _step(rollout, R.DEPLOYING_CANARY, R.EVALUATING_CANARY)


@crashpoints.stage("activate")
def fan_out(rollout_id: RolloutId, deps: Deps) -> Step:
    """The last stage: hand tokens out until every host is done, or too many are not. The next rollout may be planned meanwhile."""
    with deps.store.transaction() as tx:
        rollout = tx.rollouts.lock(rollout_id)
        if rollout.state is not R.FANNING_OUT or not _tick(tx, rollout, LATE_S):
            return End()
        rings, rollout = _decide(tx, leave_to_others(tx, rollout), deps)
        crashpoints.reach("in-decision")
    bell.ring(rings, deps)
    _after(rollout, deps)
    if rollout.state is R.FANNING_OUT:
        planning.start_next(rollout.app, deps)
    return End()  # outcomes ring from here on


@crashpoints.stage("count")
def count(rollout_id: RolloutId, deps: Deps) -> None:
    """Outcomes have come in: go on, halt or finish. One call serves all since the last."""
    bell.ring(look(rollout_id, deps), deps)


@crashpoints.stage("count")
def look(rollout_id: RolloutId, deps: Deps) -> list[Ring]:
    """As `count`; the messages that follow are the caller's to send, or to do himself."""
    with deps.store.transaction() as tx:
        tx.rollouts.set_counting(rollout_id, counting=False)
        rollout = tx.rollouts.lock(rollout_id)
        rings: list[Ring] = []
        if rollout.state in STAGES:
            rings, rollout = _decide(tx, rollout, deps)
            if rollout.state is R.FANNING_OUT:
                tx.rollouts.ring_again(rollout.id, LATE_S)
        elif rollout.state is R.PENDING:
            rings = prepare_ahead(tx, rollout, deps)
        elif rollout.state is R.ROLLING_BACK:
            rings = stopping.roll_back_rings(tx, rollout, deps)
        crashpoints.reach("in-decision")
    if rollout.state is R.ROLLING_BACK:
        stopping.finish_roll_back(rollout.id, deps)
    _after(rollout, deps)
    return rings


def _after(rollout: Rollout, deps: Deps) -> None:
    if rollout.state in {R.DONE, R.ERROR}:  # an error is one that was not begun: it is planned anew
        planning.start_next(rollout.app, deps)
    stopping.announce(rollout, deps)


def _start(tx: Transaction, rollout: Rollout, deps: Deps) -> Rollout:
    """It begins, waits for the active one that it was planned behind, or is set aside.

    With it the webhooks of what it brings come to their end, not before: until now nothing may have come of it (a freeze,
    an app that is taken out). The app's row is held, so that none that is being stored meanwhile is overlooked.
    """
    if rollout.app in deps.config.left_out:  # nobody knows whether it is frozen by now
        return rollout
    if editions.is_astray(tx, deps.config):  # nor does who goes by another file
        return rollout
    tx.apps.lock(rollout.app)
    why = planning.outdated(tx, deps.config.apps.get(rollout.app), rollout)
    if why is not None:
        return planning.set_aside(tx, rollout, why, who=deps.worker)
    if tx.rollouts.active(rollout.app) is not None:
        return rollout
    if rollout.is_ahead:  # what it waited for is no part of its own duration
        rollout = tx.rollouts.update(rollout, began_s=tx.now(), started_at=tx.today())
    if planning.waits_for_the_branch(tx, rollout):
        return rollout
    started = tx.rollouts.change(rollout, RE.START, who=deps.worker, due_at=0.0)
    planning.grant(tx, started)
    deliveries.settle(tx, rollout.app)
    return _confirm(tx, started, CANARY_CONFIRM)


def _confirm(tx: Transaction, rollout: Rollout, stage: str) -> Rollout:
    """Halt before a stage that waits for a person's yes and has not got it."""
    if stage not in asks(rollout) or stage in rollout.confirmed:
        return rollout
    return halt(tx, rollout, planning.waits_for_yes(stage), automatic=False)


def _tick(tx: Transaction, rollout: Rollout, next_s: float = STAGE_TICK_S) -> bool:
    return tx.rollouts.claim_tick(rollout.id, rollout.state, next_s)


def _step(rollout: Rollout, stage: RolloutState, following: RolloutState) -> Step:
    if rollout.state is stage:
        return Again(STAGE_TICK_S)
    return GoOn() if rollout.state is following else End()


def _decide(tx: Transaction, rollout: Rollout, deps: Deps) -> tuple[list[Ring], Rollout]:
    """What the rows say is next; the rollout's row is locked."""
    # Before the budget: a commit that breaks its canary goes back, however few hosts may fail.
    if rollout.state in {R.DEPLOYING_CANARY, R.EVALUATING_CANARY} and (failed := convicted(tx, rollout)):
        return [], failed
    if budget.must_halt(counters(rollout), limits(rollout)):
        return [], halt(tx, rollout, _too_many(tx, rollout))
    if rollout.state is R.FANNING_OUT and tx.hosts.all_settled(rollout.id):
        done = tx.rollouts.change(rollout, RE.FINISH, who=deps.worker, due_at=None, reason=None)
        bars.after_success(tx, done, who="automation")
        return [], done
    if (unread := unreadable(rollout)) is not None:
        return [], _halt_unreadable(tx, rollout, unread)
    if rollout.state is R.DEPLOYING_CANARY:
        rollout = _decide_canary(tx, rollout, deps.worker)
    return (hand_out(tx, rollout, deps) if rollout.state in STAGES else []), rollout


def _halt_unreadable(tx: Transaction, rollout: Rollout, unread: str) -> Rollout:
    """What was planned is not known here, so nobody goes on with it; going back needs less."""
    number = rollout.id
    then = f"rollout resume {number} goes on by rollout.toml as it is; rollout stop {number} takes it back"
    return halt(tx, rollout, f"{unread}; {then}", automatic=False, then=then)


def convicted(tx: Transaction, rollout: Rollout) -> Rollout | None:
    """Of a rollout without its PASS: failed, if the release itself did on a host, as the host said; all else may be our fault, or the host's.

    The host is a canary, or was one until another took its place, because nobody could read it then.
    """
    for host in tx.hosts.of(rollout.id, H.FAILED):
        if host.touched and host.cause == Unhealthy.__name__ and not host.accepted:
            return stopping.fail_canary(tx, rollout, f"canary {host.name} failed: {host.error}")
    return None


def _decide_canary(tx: Transaction, rollout: Rollout, worker: str) -> Rollout:
    canaries = tx.hosts.canaries(rollout.id)
    lost = [host for host in canaries if host.state in {H.FAILED, H.EXCLUDED} or host.unreadable]
    if lost:
        return _replace(tx, rollout, lost)
    if all(host.state is H.DONE for host in canaries):
        return tx.rollouts.change(
            rollout, RE.CANARY_DEPLOYED, who=worker, ready_at=tx.now(), due_at=0.0, canary_status="running"
        )
    return rollout


def _replace(tx: Transaction, rollout: Rollout, lost: list[RolloutHost]) -> Rollout:
    """A canary host that cannot be reached or prepared, or was interrupted, is not the commit's fault: the next takes its place."""
    names = ", ".join(host.name for host in lost)
    others = [host for host in tx.hosts.of(rollout.id) if host.role is not Role.CANARY]
    before = [host.name for host in others if _was_lost(host) and not host.accepted]
    if before and any(map(_was_lost, lost)):
        # Once is the host's bad luck. Twice may be the release, which would go through the fleet like this without a PASS.
        why = f"canary host {names} went the way of {', '.join(before)}: {_what_befell(lost[0])}"
        return halt(tx, rollout, why)
    spare = [host for host in others if host.state in {H.PENDING, H.PREPARING, H.PREPARED}]
    if not isinstance(policy(rollout).canary.hosts, int) or len(spare) < len(lost):
        return halt(tx, rollout, f"canary host {names} cannot be one: {_what_befell(lost[0])}")
    for host, heir in zip(lost, spare, strict=False):
        tx.hosts.set_role(host, Role.OTHER)
        tx.hosts.set_role(heir, Role.CANARY)
        tx.record(
            rollout.app,
            f"host {heir.name}",
            "takes the canary's place",
            who="planning",
            why=host.error,
            rollout=rollout.id,
        )
    return rollout


def _was_lost(host: RolloutHost) -> bool:
    """While it had the release; whom a person has excluded he takes for broken himself."""
    return host.touched and (host.state is H.FAILED or (host.state is H.UNKNOWN and host.unreadable))


def _what_befell(host: RolloutHost) -> str:
    return host.error or ("cannot be read" if host.unreadable else "excluded")


def halt(
    tx: Transaction, rollout: Rollout, why: str, *, automatic: bool = True, then: str | None = None
) -> Rollout:
    """Automation waits for a person; nothing is undone, and nothing new starts. `then`: what the person can do."""
    halted = tx.rollouts.change(
        rollout, RE.HALT, who="automation", why=why, halted_stage=rollout.state, reason=why, due_at=None
    )
    number = rollout.id
    tx.rollouts.watch_at_once(number)  # when it goes on
    notices.add(
        tx,
        halted,
        "halted",
        why,
        f"rollout show {number}; then "
        + (then or f"rollout resume|retry|stop {number}, or rollout exclude HOST --reason …"),
    )
    if automatic and goes_back_on_halt(rollout):
        return stopping.stop_locked(tx, halted, who="automation", why=f"on_halt is roll-back: {why}")
    return halted


def _too_many(tx: Transaction, rollout: Rollout) -> str:
    hurt = [
        host.name
        for host in tx.hosts.of(rollout.id, H.FAILED, H.UNKNOWN)
        if not host.accepted and (host.state is H.FAILED or host.unreadable)
    ]
    shown = ", ".join(hurt[:5]) + (f" and {len(hurt) - 5} more" if len(hurt) > 5 else "")
    return f"{len(hurt)} of {rollout.total} hosts failed or cannot be read ({shown}); at most {rollout.max_failed} may"


def hand_out(tx: Transaction, rollout: Rollout, deps: Deps) -> list[Ring]:
    """Messages for the hosts that may be prepared or switched now, each marked so that it is not rung twice."""
    preparing, starting = tx.hosts.under_way(rollout.id)
    most = shares.most(tx, rollout, deps)
    room_here = rollout.total if most is None else most - preparing - starting - rollout.in_flight
    switches: list[RolloutHost] = []
    canary = rollout.state is R.DEPLOYING_CANARY
    if canary or rollout.state is R.FANNING_OUT:
        room = min(budget.room(counters(rollout), limits(rollout)) - starting, room_here)
        switches = tx.hosts.to_retry(rollout.id)
        switches += tx.hosts.startable(rollout.id, room, canary=canary) if room > 0 else []
    free = max(1, int(deps.settings.slots * PREPARE_SHARE)) - preparing
    free = min(free, room_here - len(switches))
    if _queue_is_full(deps):
        free = min(free, int(canary))  # its message goes before all that wait
    prepares = tx.hosts.preparable(rollout.id, free) if free > 0 else []
    tx.hosts.rung([host.id for host in [*prepares, *switches]], deps.settings.ring_again_s)
    return [*map(deploy_host, switches), *map(prepare_host, prepares)]


def prepare_ahead(tx: Transaction, rollout: Rollout, deps: Deps) -> list[Ring]:
    """Messages for hosts that are done with the rollout before this one, in slots that it has no use for.

    A host that is done gets no order of it any more: nothing overtakes what is prepared here, and the host has next to
    everything that the new release is made of.
    """
    before = tx.rollouts.active(rollout.app)
    if before is None or before.state is not R.FANNING_OUT:
        return []
    preparing, starting = tx.hosts.under_way(before.id)
    if preparing:
        return []
    spare = int(deps.settings.slots * PREPARE_SHARE) - before.in_flight - starting
    own, _ = tx.hosts.under_way(rollout.id)
    free = 0 if _queue_is_full(deps) else min(spare, max(1, int(deps.settings.slots * AHEAD_SHARE))) - own
    hosts = tx.hosts.preparable_ahead(rollout.id, before.id, free) if free > 0 else []
    tx.hosts.rung([host.id for host in hosts], deps.settings.ring_again_s)
    return [replace(prepare_host(host), priority=LAST) for host in hosts]  # its canary is nobody's canary yet


def _queue_is_full(deps: Deps) -> bool:
    """Messages wait for so long that their rows are due again: another one for each would only make it longer."""
    return deps.bell.waiting > MOST_QUEUED * deps.settings.slots


def counters(rollout: Rollout) -> budget.Counters:
    """The rollout's counters, for the budget's rules."""
    return budget.Counters(
        done=rollout.done,
        failed=rollout.failed,
        unreadable=rollout.unreadable,
        unknown=rollout.unknown,
        in_flight=rollout.in_flight,
        window=rollout.window,
    )


def limits(rollout: Rollout) -> budget.Limits:
    """The rollout's limits, fixed at planning."""
    return budget.Limits(rollout.max_failed, rollout.concurrency, budget.Mode(rollout.mode))


def ring_stage(rollout: Rollout) -> list[Ring]:
    """The chain from the stage that the row says."""
    start = R.DEPLOYING_CANARY if rollout.state is R.PENDING else rollout.state
    if start not in STAGES:
        return []
    beside = [watch_fan_out(rollout.id)] if start is R.FANNING_OUT else []
    return [pipeline(rollout.id, start), *beside]


def leave_to_others(tx: Transaction, rollout: Rollout) -> Rollout:
    """Where another app of this installation has switched since, hosts are that one's by now: nothing is brought to them."""
    theirs = tx.places.others_by_now(rollout.id)
    if not theirs:
        return rollout
    for host in tx.hosts.of(rollout.id):
        if host.id in theirs:
            take_out(tx, host, planning.AUTOMATION, "another app has switched it since")
    return tx.rollouts.lock(rollout.id)


def take_out(tx: Transaction, host: RolloutHost, who: str, why: str) -> bool:
    """The rollout goes on without it; False while it is in flight."""
    if host.state is H.ACTIVATING:
        return False
    if host.state in {H.PENDING, H.PREPARING, H.PREPARED, H.FAILED, H.UNKNOWN}:
        tx.hosts.change(host, HE.EXCLUDE, who=who, why=why, token=False, unreadable=False)
    return True


def enter_fan_out(tx: Transaction, rollout: Rollout, what: RolloutEvent, *, who: str, why: str) -> Rollout:
    """The canary has its PASS: the rest of the fleet may follow, after a person's yes where one is wanted."""
    passed = tx.rollouts.change(
        rollout, what, who=who, why=why, canary_status="pass", canary_reason=why, due_at=0.0, reason=None
    )
    return _confirm(tx, passed, FAN_OUT_CONFIRM)
