"""Watching the canary: one short look a tick, its samples and the cursor kept in one transaction, all samples judged."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import structlog

from rollout import crashpoints
from rollout.config.deploy_file import AppConfig
from rollout.domain import template
from rollout.domain.model import Role, Rollout, RolloutHost, RolloutId
from rollout.domain.pipeline import watch_fan_out
from rollout.domain.states import HostState, RolloutEvent, RolloutState
from rollout.domain.verdict import Interval, Status, Verdict
from rollout.errors import HostError, MetricUnavailable
from rollout.services import bell, rollouts, stopping
from rollout.services.comparison import Reading
from rollout.services.policies import policy
from rollout.services.ports import Deps
from rollout.services.steps import Again, End, GoOn, Step
from rollout.services.targets import target_of
from rollout.services.verdicts import judged, policy_of
from rollout.store.store import Transaction

log = structlog.get_logger()
R, RE = RolloutState, RolloutEvent
TICK_S = 2.0


@crashpoints.stage("evaluation")
def evaluate(rollout_id: RolloutId, deps: Deps) -> Step:
    """Read what is new, judge everything, act on the verdict."""
    crashpoints.reach("before-claim")
    with deps.store.transaction() as tx:
        rollout = tx.rollouts.lock(rollout_id)
        if rollout.state is not R.EVALUATING_CANARY or not tx.rollouts.claim_tick(
            rollout_id, rollout.state, TICK_S
        ):
            return End()
        canaries = tx.hosts.canaries(rollout_id)
        app = policy(rollout)
        compared = tx.hosts.compared(rollout)[: most_compared(app)]
        elapsed = tx.watched_s(rollout)
        rings = rollouts.hand_out(tx, rollout, deps)
    bell.ring(rings, deps)
    ready_at = rollout.ready_at
    watched = [host for host in canaries if host.state is not HostState.EXCLUDED]
    read = partial(_read, app=app, elapsed=elapsed, deps=deps)
    begun = deps.comparison.begin(rollout, compared, read)
    with ThreadPoolExecutor(max(1, min(16, len(watched))), thread_name_prefix="canary") as pool:
        readings = list(pool.map(read, watched))
    readings += deps.comparison.finished(rollout, begun)
    crashpoints.reach("after-reading")
    with deps.store.transaction() as tx:
        rollout = tx.rollouts.lock(rollout_id)
        if rollout.state is not R.EVALUATING_CANARY or rollout.ready_at != ready_at:
            return End()  # also when it is measured anew since: these readings have another t = 0
        for host, intervals, cursor in readings:
            if tx.hosts.move_cursor(host, cursor):  # else these very requests are counted already
                tx.samples.add(rollout_id, intervals)
        verdict = judged(tx.samples.of(rollout_id), policy_of(app)).verdict
        rollout = rollouts.convicted(tx, rollout) or _act(tx, rollout, verdict, app)
        crashpoints.reach("in-report" if rollout.state is R.EVALUATING_CANARY else "in-decision")
    stopping.announce(rollout, deps)
    if rollout.state is R.EVALUATING_CANARY:
        return Again(TICK_S)
    if rollout.state is not R.FANNING_OUT:
        return End()
    deps.bell.ring([watch_fan_out(rollout_id)])
    return GoOn()


@crashpoints.stage("evaluation")
def _read(host: RolloutHost, app: AppConfig, elapsed: float, deps: Deps) -> Reading:
    source, here = deps.metrics[app.canary.source], on_this_host(app, host)
    try:
        told = source.read(target_of(host, app), str(host.role), here, host.cursor, elapsed=elapsed)
        return Reading(host, *told)
    except (HostError, MetricUnavailable) as error:
        about = {"rollout": host.rollout, "host": host.name, "error": str(error)}
        if host.role is not Role.CANARY:
            log.info("baseline_not_read", **about)
            return Reading(host, [], host.cursor)
        log.warning("canary_not_read", **about)
        # Not read is not the same as no requests; and the deadline must come for a silent host too.
        unseen = Interval(
            t=elapsed, dt=TICK_S, host=host.name, role=str(host.role), observed=False, counts={}
        )
        return Reading(host, [unseen], host.cursor)


def most_compared(app: AppConfig) -> int:
    """A probe asks the canary and one baseline host alike: its requests are work for the hosts."""
    return 1 if app.canary.source == "probe" else app.canary.baseline


def on_this_host(app: AppConfig, host: template.Named) -> AppConfig:
    """The app's configuration with what the canary's sources are told of this host."""
    variables, canary = template.variables_of(host), app.canary
    here = {key: template.fill(getattr(canary, key), variables) for key in ("log", "selector", "probe")}
    return app.model_copy(update={"canary": canary.model_copy(update=here)})


def _act(tx: Transaction, rollout: Rollout, verdict: Verdict, app: AppConfig) -> Rollout:
    status = verdict.status
    if status is Status.INCONCLUSIVE and app.canary.on_inconclusive == "fail":
        return stopping.fail_canary(
            tx, rollout, f"inconclusive (on_inconclusive is fail), {verdict.explanation}"
        )
    match status:
        case Status.RUNNING:
            return tx.rollouts.update(rollout, canary_status=status, canary_reason=verdict.explanation)
        case Status.PASS:
            passed = tx.rollouts.update(rollout, passed_t=verdict.t)
            return rollouts.enter_fan_out(tx, passed, RE.CANARY_PASSED, who="judge", why=verdict.explanation)
        case Status.FAIL:
            return stopping.fail_canary(tx, rollout, verdict.explanation)
        case Status.INCONCLUSIVE:
            doubted = tx.rollouts.update(rollout, canary_status=status, canary_reason=verdict.explanation)
            return rollouts.halt(tx, doubted, f"the canary is inconclusive, {verdict.explanation}")
