"""Watching the fan-out: a short look a tick at some of its hosts, switched ones and others, and a halt when they differ.

Nothing of it holds the fan-out up: hosts are read beside it, judged outside of any transaction, and a tick that is lost
is only late.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import structlog

from rollout import crashpoints
from rollout.config.deploy_file import AppConfig
from rollout.domain import judge
from rollout.domain.horizon import told_by_all
from rollout.domain.model import Role, Rollout, RolloutHost, RolloutId
from rollout.domain.sample import coarse, evenly
from rollout.domain.states import HostState, RolloutState
from rollout.domain.verdict import Interval, Status, Verdict
from rollout.errors import HostError, MetricUnavailable
from rollout.services import rollouts, stopping
from rollout.services.canaries import TICK_S, most_compared, on_this_host
from rollout.services.comparison import Reading
from rollout.services.policies import policy
from rollout.services.ports import Deps
from rollout.services.steps import Again, End, Step
from rollout.services.targets import target_of
from rollout.services.verdicts import policy_of
from rollout.store.store import Transaction

log = structlog.get_logger()
R = RolloutState

CANARIES, BASELINES, OTHERS = 4, 4, 8  # hosts that are read: 16 at most, however large the fleet
HISTORY_BIN_S = 10.0  # of a host that is read for the fan-out alone
PACE = (
    1 / 200
)  # of the time that it is watched already: what there is to judge grows with it, its cost must not


@crashpoints.stage("evaluation")
def watch(rollout_id: RolloutId, deps: Deps) -> Step:
    """Read what is new, judge it, and halt on harm. Whoever comes too early, or beside another, has nothing to do."""
    crashpoints.reach("before-claim")
    with deps.store.transaction() as tx:
        rollout = tx.rollouts.get(rollout_id)
        if rollout.ready_at is None:
            return End()
        elapsed = tx.watched_s(rollout)
        pace = max(TICK_S, PACE * elapsed)
        if not tx.rollouts.claim_watch(rollout_id, pace):
            return End()
        app = policy(rollout)
        hosts = _to_read(tx, rollout, app)
    read = partial(_read, app=app, elapsed=elapsed, deps=deps)
    readings = deps.comparison.finished(rollout, deps.comparison.begin(rollout, hosts, read))
    crashpoints.reach("after-reading")
    _keep(rollout, readings, deps)
    verdict = _judge(rollout, app, {host.name for host in hosts}, deps)
    if verdict.status is Status.FAIL and _halt(rollout, verdict, deps):
        return End()
    return Again(pace)


def _to_read(tx: Transaction, rollout: Rollout, app: AppConfig) -> list[RolloutHost]:
    """Of the sample, those that have the new release for certain, or the old one."""
    places = _places(rollout, app)
    old = {host.id for host in tx.hosts.compared(rollout, places)}
    return [host for host in _sample(tx, rollout, app) if host.state is HostState.DONE or host.id in old]


def _places(rollout: Rollout, app: AppConfig) -> list[int]:
    """Where in the order of activation hosts are read beside the canary's and the baseline's.

    Spread evenly and fixed, so that each is read before and after its switch, and some are switched at every moment.
    """
    return [] if app.canary.source == "probe" else evenly(OTHERS, rollout.total)


def _sample(tx: Transaction, rollout: Rollout, app: AppConfig) -> list[RolloutHost]:
    hosts = tx.hosts.sampled(rollout.id, _places(rollout, app))
    most = {Role.CANARY: CANARIES, Role.BASELINE: min(BASELINES, most_compared(app)), Role.OTHER: OTHERS}
    return [host for role in Role for host in [one for one in hosts if one.role is role][: most[role]]]


@crashpoints.stage("evaluation")
def _read(host: RolloutHost, app: AppConfig, elapsed: float, deps: Deps) -> Reading:
    source, here = deps.metrics[app.canary.source], on_this_host(app, host)
    # The canary's judge, when it looks back, is to find what it saw: its own hosts, as long as they were what they were.
    role = Role.OTHER if host.role is Role.BASELINE and host.touched else host.role
    try:
        intervals, cursor = source.read(target_of(host, app), str(role), here, host.cursor, elapsed=elapsed)
    except (HostError, MetricUnavailable) as error:
        log.info("watched_host_not_read", rollout=host.rollout, host=host.name, error=str(error))
        return Reading(host, [], host.cursor)
    if role is Role.OTHER:
        intervals = coarse(intervals, HISTORY_BIN_S)
    return Reading(host, intervals, cursor)


def _keep(rollout: Rollout, readings: list[Reading], deps: Deps) -> None:
    if not any(intervals for _, intervals, _ in readings):
        return
    with deps.store.transaction() as tx:
        tx.rollouts.hold(
            rollout.id
        )  # samples name it: before the hosts' rows, as whoever reports on one has them
        if tx.rollouts.get(rollout.id).ready_at != rollout.ready_at:
            return  # measured anew since: these readings have another t = 0
        for host, intervals, cursor in readings:
            if tx.hosts.move_cursor(host, cursor):  # else these very requests are counted already
                tx.samples.add(rollout.id, [_late(one, rollout.passed_t or 0.0) for one in intervals])


def _late(one: Interval, passed_t: float) -> Interval:
    """A slow host tells of what was before the PASS: the word fell without it, and falls without it when it is replayed."""
    return replace(one, role=str(Role.OTHER)) if one.t <= passed_t else one


def _judge(rollout: Rollout, app: AppConfig, read: set[str], deps: Deps) -> Verdict:
    """What all that was seen says; nobody's locks are held, for it takes a while."""
    with deps.store.reading() as tx:
        begun = tx.watched_s(rollout)
        hosts, seen = _sample(tx, rollout, app), tx.samples.of(rollout.id)
        looked = begun, tx.watched_s(rollout)

    def told(what: str, moments: Mapping[str, float | None]) -> dict[str, float]:
        at = {
            name: deps.sightings.t(rollout, f"{what} {name}", moment, looked)
            for name, moment in moments.items()
        }
        return {name: t for name, t in at.items() if moments[name] is not None}

    return judge.watch(
        told_by_all(seen, read),
        told("switched", {host.name: host.switched_at for host in hosts}),
        policy_of(app),
        left=told("touched", {host.name: host.touched_at for host in hosts}),
        since=deps.sightings.t(rollout, "accepted", rollout.accepted_at, looked),
    )


def _halt(seen: Rollout, verdict: Verdict, deps: Deps) -> bool:
    """False when it was halted, or accepted, while we judged: then this verdict is not about what there is now."""
    with deps.store.transaction() as tx:
        rollout = tx.rollouts.lock(seen.id)
        if rollout.state is not R.FANNING_OUT or rollout.accepted_at != seen.accepted_at:
            return False
        why = verdict.explanation
        rollout = tx.rollouts.update(rollout, canary_status=verdict.status, canary_reason=why)
        number = rollout.id
        then = f"rollout stop {number}, or rollout resume {number} --accept-canary --reason …"
        rollout = rollouts.halt(tx, rollout, f"harm in the fan-out: {why}", then=then)
        crashpoints.reach("in-decision")
    log.warning("harm_in_the_fan_out", rollout=seen.id, why=why)
    stopping.announce(rollout, deps)
    return True
