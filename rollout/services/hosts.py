"""Work on one host: claim in a short transaction, act outside any, report guarded by the claim in a second one."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog

from rollout import crashpoints
from rollout.config.deploy_file import AppConfig
from rollout.domain import budget, retry, template, transfer
from rollout.domain.model import (
    FOREIGN,
    UNREAD,
    Answer,
    AppName,
    Epoch,
    Greeting,
    HostId,
    HostStatus,
    Outcome,
    PrepareOrder,
    Release,
    Role,
    Rollout,
    RolloutHost,
    RolloutId,
    SwitchOrder,
)
from rollout.domain.pipeline import Ring, count_outcome, deploy_host, prepare_host, roll_back_host
from rollout.domain.states import HostEvent, HostState, RolloutState
from rollout.errors import (
    AuthRefused,
    HostError,
    HostKeyRefused,
    Interrupted,
    LeaseLost,
    NoSpace,
    OutcomeUnknown,
    ReleaseError,
    StaleWrite,
    StepFailed,
    StepRefused,
    Unhealthy,
    Unreachable,
)
from rollout.services import bars, bell, freezes, planning, shares
from rollout.services.ports import Deps, Permit
from rollout.services.rollouts import limits
from rollout.services.targets import target_of
from rollout.store.hosts import AFTERWARDS
from rollout.store.store import Transaction

log = structlog.get_logger()
T = TypeVar("T")
H, HE = HostState, HostEvent

READ_AGAIN_S = 2.0
AHEAD_AGAIN_S = 10.0  # a host that could not be prepared ahead is left alone for so long
# Hosts on one message, one after another; then others that wait have their turn (decision 0012). Prepares leave some slots free anyway.
IN_A_ROW, ROW_S, PREPARES_S = 16, 2.0, 5.0
# Under load many are written together so often (decision 0020). Nobody waits for a host that is prepared.
TOUCHES_S, REPORTS_S, PREPARED_S = 0.1, 0.2, 0.5
_FOUND: dict[str, Any] = {"unreadable": False, "lost_at": None}
# An accepted failure stays accepted when it turns out to be one. Of a host that is switched anew nobody has accepted anything.
_UNTOUCHED: dict[str, Any] = {**_FOUND, "accepted": False}
_NOTHING_DONE = {"late", "busy"}  # refusals after which the same attempt may go on
_UNDER_WAY = {"intent", "back"}  # an order without an end; `back`: unhealthy, and on its own way back
_OVERTAKEN = {
    "epoch",
    "op",
}  # refusals of an order that a higher one was there before: a new claim is above it
_NOT_PREPARED = "not prepared"  # a refusal: what it is to be switched to is not on it
_RELIEVED = (
    "overtaken"  # a failure: another order ended the health wait, and what became of it is that one's to know
)
_NOT_SEEN = (Unreachable, HostKeyRefused, AuthRefused, OutcomeUnknown)  # nobody could look at the host
MARGIN_S = 1.0  # of a lease: the database's clock, the way to the host, the time from its check to its rename


@dataclass(frozen=True, slots=True)
class _Job:
    """A claimed host, with what is needed to act on it."""

    host: RolloutHost
    rollout: Rollout  # as it was planned; its state, counters and goal may be others by now
    app: AppConfig
    began: float  # monotonic
    number: int  # in its row of hosts on one message, from 1
    row_began: float  # monotonic
    row_s: float

    @property
    def took_s(self) -> float:
        return round(time.monotonic() - self.began, 3)

    def went(self, deps: Deps, output: str = "", runs: str | None = None) -> "_Went":
        """As it should; others have their turn when they wait for one, and else the row begins anew."""
        over = self.number >= IN_A_ROW or time.monotonic() > self.row_began + self.row_s
        last = over and deps.bell.crowded()
        return _Went(self, last, output, runs, anew=over and not last)


@dataclass(frozen=True, slots=True)
class _Went:
    """A step that went as it should."""

    job: _Job
    last: bool  # of its row
    output: str = ""
    runs: str | None = None  # the release that the host has now
    anew: bool = False  # a row begins with the next one: this one is over, and nobody waits

    def then(self, host: RolloutHost) -> _Job:
        """The next host of the row, which is claimed."""
        now = time.monotonic()
        row = {"number": 1, "row_began": now} if self.anew else {"number": self.job.number + 1}
        return replace(self.job, host=host, began=now, **row)


@dataclass(frozen=True, slots=True)
class _Then:
    """What a report leads to, of which a row needs no count."""

    tell: bool  # somebody has to decide
    following: RolloutHost | None = None  # claimed: the next one of the row
    ring: Ring | None = None  # for the host that the next row begins with, when this one ends


@dataclass(frozen=True, slots=True)
class _Parcel:
    """What is sent to every host of a row, and what none of them may throw away."""

    release: Release
    spare: tuple[str, ...]


# -- prepare -----------------------------------------------------------------------------------------------------------


@crashpoints.stage("prepare")
def prepare(rollout: RolloutId, host_id: HostId, deps: Deps) -> None:
    """Put the release on a pending host, and while the canary bakes on those that wait behind it: harmless, cut by a stop."""
    job = _begin(
        rollout,
        lambda tx: tx.claims.preparation(host_id, deps.worker, deps.settings.lease_s),
        deps,
        PREPARES_S,
    )
    if job is None:
        return
    parcel = functools.cache(functools.partial(_parcel, job.rollout, deps))
    while job is not None:
        job = _prepare(job, parcel, deps)


def _prepare(job: _Job, parcel: Callable[[], _Parcel], deps: Deps) -> _Job | None:
    error, refused = _send(job, parcel, lambda: _still_claimed(job.host, deps), deps)
    if error is None:
        return _report_and_go_on(deps, job.went(deps), _all_prepared, every_s=PREPARED_S)
    _report(deps, job, lambda tx: _prepared(tx, job, error, refused=refused))
    return None


def _send(
    job: _Job, parcel: Callable[[], _Parcel], go_on: Callable[[], bool], deps: Deps
) -> tuple[HostError | None, str]:
    """What went wrong, and the fence's word if it refused."""
    with deps.leases.hold("host", job.host.id):
        try:
            outcome = deps.fleet.prepare(
                target_of(job.host, job.app),
                _prepare_order(job, parcel(), deps),
                timeout_s=job.app.fan_out.host_timeout,
                go_on=go_on,
            )
        except HostError as failure:
            return failure, ""
        except ReleaseError as failure:  # its archive is gone from this machine
            return StepFailed(f"{job.host.name}: {failure}", remedy=failure.remedy), ""
    return _error_of(outcome, job.host), outcome.reason if outcome.answer is Answer.REFUSED else ""


def _all_prepared(tx: Transaction, went: Sequence[_Went], deps: Deps) -> list[_Then]:
    """The next ones are claimed in the same transaction while the canary bakes: a message for each costs more than its preparing.

    Nothing else is decided then. In other stages every prepared host is somebody's cue.
    """
    number = went[0].job.rollout.id
    if tx.rollouts.state(number) is not RolloutState.EVALUATING_CANARY:
        return [_Then(_prepared(tx, each.job, None)) for each in went]
    changes = [(each.job.host, {"took_s": each.job.took_s}) for each in went]
    tx.hosts.change_all(HE.PREPARED, changes, who=deps.worker)
    found = tx.hosts.preparable(number, len(went))

    def claim(many: int) -> list[RolloutHost]:
        return tx.claims.preparable(found[:many], deps.worker, deps.settings.lease_s)

    return _go_on(tx, went, found, claim, prepare_host, deps)


def _parcel(rollout: Rollout, deps: Deps) -> _Parcel:
    with deps.store.reading() as tx:
        release = tx.commits.release(rollout.app, rollout.commit)
        spare = tx.rollouts.unfinished_commits(rollout.app)
    if release is None or release.digest != rollout.digest:
        raise StepFailed(
            f"the release of {rollout.commit[:12]} is no longer the one that was tested",
            remedy=f"stop this rollout, then rollout deploy {rollout.commit[:12]}",
        )
    if rollout.previous:
        spare.add(rollout.previous)
    return _Parcel(release, tuple(sorted(spare)))


def _prepare_order(job: _Job, parcel: _Parcel, deps: Deps) -> PrepareOrder:
    base = _base(job, parcel.release, deps)
    assert job.host.epoch is not None
    return PrepareOrder(
        epoch=job.host.epoch,
        operation=job.host.epoch,
        release=parcel.release,
        keep=job.app.release.keep,
        spare=parcel.spare,
        delta=deps.workshop.delta(job.rollout.app, base, parcel.release) if base else None,
    )


def _base(job: _Job, release: Release, deps: Deps) -> Release | None:
    """What the host has already, as far as is known: the host itself looks before it takes a delta."""
    if not transfer.may_pay(release.size):
        return None
    with deps.store.reading() as tx:
        runs = tx.fleet.recorded(job.host.app, job.host.name)
        commit = job.rollout.previous if runs in {None, UNREAD, FOREIGN} else runs
        return tx.commits.release(job.host.app, commit) if commit else None


def _still_claimed(host: RolloutHost, deps: Deps) -> bool:
    def look(hosts: Sequence[RolloutHost]) -> list[bool]:
        with deps.store.reading() as tx:
            return tx.claims.still_hold(hosts)

    return deps.together.do(("claimed", host.rollout), host, look)


def _prepared(tx: Transaction, job: _Job, error: HostError | None, *, refused: str = "") -> bool:
    if error is None:
        return _change(tx, job, HE.PREPARED, due_at=None)
    if tx.rollouts.get(job.rollout.id).state is RolloutState.PENDING:  # nothing counts before it begins
        return _change(tx, job, HE.PUT_OFF, why=str(error), due_at=tx.now() + AHEAD_AGAIN_S, **_told(error))
    if refused in _NOTHING_DONE and _has_time(tx, job):  # an older rollout's way back restarts the service
        return _change(tx, job, HE.PUT_OFF, why=str(error), **_asked_again(tx, job, error))
    # Of an older rollout's way back that came in between a new claim is above.
    passing = refused in _OVERTAKEN or error.retryable or isinstance(error, OutcomeUnknown)
    if retry.may_retry(job.host.attempt, job.app.fan_out.retries, passing):
        wait = tx.now() + retry.backoff_s(job.host.attempt)
        return _change(
            tx, job, HE.PUT_OFF, why=str(error), attempt=job.host.attempt + 1, due_at=wait, **_told(error)
        )
    if not tx.rollouts.room_to_fail(job.host.rollout):
        # Hosts are prepared many at once, and as many could fail at once. A failure takes its place in the budget
        # like any other (I3); the one that finds none is put off until the rollout has halted or gone on.
        return _change(tx, job, HE.PUT_OFF, why=str(error), due_at=tx.now() + READ_AGAIN_S, **_told(error))
    return _fail(tx, job, error)


# -- activate ----------------------------------------------------------------------------------------------------------


@crashpoints.stage("activate")
def deploy(rollout: RolloutId, host_id: HostId, deps: Deps) -> None:
    """Switch a prepared host, or read one whose outcome is unknown."""

    def claim(tx: Transaction) -> RolloutHost | None:
        return tx.claims.activation(
            host_id, deps.worker, deps.settings.lease_s, is_held=lambda name: _is_held(tx, name, deps)
        )

    job = _begin(rollout, claim, deps, ROW_S)
    if job is None:
        _read(host_id, deps)
    while job is not None:
        with crashpoints.stage("canary" if job.host.role is Role.CANARY else "activate"):
            job = _activate(job, deps)


def _is_held(tx: Transaction, name: AppName, deps: Deps) -> bool:
    """By a freeze, by a window of rollout.toml, by a bar on what runs or is inside of it, or since rollout.toml has the app no more, or a table of it that is wrong."""
    app = deps.config.apps.get(name)
    return app is None or freezes.frozen(tx, app) is not None or bool(bars.barred_below(tx, name))


def _read(host_id: HostId, deps: Deps) -> None:
    with deps.store.reading() as tx:
        host = tx.hosts.get(host_id)
        # Of most that are done the message is a second one.
        if host is None or (host.state is H.DONE and tx.fleet.recorded(host.app, host.name) != UNREAD):
            return
    if host.state is H.UNKNOWN and read_unknown(host, deps):
        return
    if host.state in AFTERWARDS:
        look(host, deps)


def _activate(job: _Job, deps: Deps) -> _Job | None:
    assert job.host.operation is not None
    order = _order(job.host, job.app, job.host.operation, job.rollout.commit, job.rollout.digest)
    order = replace(order, owes=job.host.owes, owed=job.host.owed)
    with deps.leases.hold("host", job.host.id):
        try:
            outcome = deps.fleet.activate(
                target_of(job.host, job.app),
                order,
                _permit(job.host, deps),
                timeout_s=_step_timeout(job.app),
                on_switch=lambda: deps.leases.passed(job.host.id, job.host.version),
            )
        except LeaseLost as failure:
            why = str(failure)
            _report(deps, job, lambda tx: _change(tx, job, HE.FOUND_UNTOUCHED, why=why, token=False))
            return None
        except HostError as failure:
            lost = failure
            _report(deps, job, lambda tx: _not_switched(tx, job, lost))
            return None
    if outcome.answer is Answer.DONE and job.host.role is not Role.CANARY:
        went = job.went(deps, outcome.output, job.rollout.commit)
        return _report_and_go_on(deps, went, _all_switched)
    _report(deps, job, lambda tx: _switched(tx, job, outcome))
    return None


def _permit(host: RolloutHost, deps: Deps) -> Permit:
    # Only the first touch writes; whatever comes later just looks whether the claim still holds.
    def touch(greeted: Sequence[tuple[RolloutHost, str | None]]) -> list[float]:
        with deps.store.transaction() as tx:
            return tx.claims.touch(greeted, deps.settings.lease_s)

    def permit(greeting: Greeting) -> int:
        left = (
            _lease_left(host, deps)
            if host.touched
            else deps.together.do(("touch", host.rollout), (host, greeting.current), touch, every_s=TOUCHES_S)
        )
        milliseconds = int((left - min(MARGIN_S, deps.settings.lease_s / 4)) * 1000)
        if milliseconds <= 0:
            raise LeaseLost(
                f"{host.name}: the right to act on it is gone (stopped, taken over, or the lease ran out)"
                if left <= 0
                else f"{host.name}: too little of the lease is left"
            )
        return milliseconds

    return permit


def _lease_left(host: RolloutHost, deps: Deps) -> float:
    """Of a claim on a touched host, in seconds; 0 when it may not act any more."""

    def look(hosts: Sequence[RolloutHost]) -> list[float]:
        with deps.store.reading() as tx:
            return tx.claims.leases_left(hosts, deps.settings.lease_s)

    return deps.together.do(("lease", host.rollout), host, look)


def _step_timeout(app: AppConfig) -> float:
    """A switch may need its restart and health wait twice (put back), and the way there."""
    return max(app.fan_out.host_timeout, 2 * (app.release.restart_limit + app.release.health_timeout) + 30.0)


def _order(
    host: RolloutHost, app: AppConfig, operation: Epoch, commit: str | None, digest: str | None
) -> SwitchOrder:
    variables = template.variables_of(host)
    assert host.epoch is not None
    return SwitchOrder(
        epoch=host.epoch,
        operation=operation,
        commit=commit,
        digest=digest,
        restart=template.fill(app.release.restart, variables),
        health=template.fill(app.release.health, variables),
        restart_limit_s=int(app.release.restart_limit),
        health_timeout_s=max(1, int(app.release.health_timeout)),
    )


def _all_switched(tx: Transaction, went: Sequence[_Went], deps: Deps) -> list[_Then]:
    """The tokens of hosts that are done go to the next ones, for the same worker and in the same transaction."""
    rollout = went[0].job.rollout
    found = tx.claims.next_to_activate(rollout.id, len(went))
    passed, others = went[: len(found)], went[len(found) :]
    windows = [tx.rollouts.window(rollout.id)]
    for _ in passed:
        windows.append(budget.window_after_done(windows[-1], limits(rollout)))
    kept = sum(not each.last for each in passed)
    if not passed or not tx.rollouts.pass_tokens_on(rollout.id, windows[1:], kept):
        return [_Then(_kept_and_done(tx, each)) for each in went]

    def claim(many: int) -> list[RolloutHost]:
        return tx.claims.with_tokens(found[:many], deps.worker, deps.settings.lease_s)

    changes = [(each.job.host, _as_done(tx, each.job)) for each in passed]
    tx.hosts.change_all(HE.DONE, changes, who=deps.worker, counted=True)
    # The claims lock the app's row, and whoever plans has that one before he comes to the fleet's.
    thens = _go_on(tx, passed, [host for host, _ in found], claim, deploy_host, deps)
    _keep(tx, passed, "activate")
    thens += [_Then(_kept_and_done(tx, each)) for each in others]
    # Whoever counts hands the tokens out that a wider window has room for.
    if windows[-1] > windows[0] and not any(then.tell for then in thens) and tx.rollouts.to_count(rollout.id):
        thens[0] = replace(thens[0], tell=True)
    return thens


def _kept_and_done(tx: Transaction, each: _Went) -> bool:
    _keep(tx, [each], "activate")
    return _done(tx, each.job)


def _switched(tx: Transaction, job: _Job, outcome: Outcome) -> bool:
    error = _error_of(outcome, job.host)
    if error is None:
        return _kept_and_done(tx, _Went(job, last=True, output=outcome.output, runs=job.rollout.commit))
    tx.outputs.add(job.host.rollout, job.host.name, "activate", job.host.attempt, outcome.output)
    # It got as far as its journal, or another order took over: only reading it tells.
    if (outcome.answer is Answer.BROKEN and outcome.intent) or outcome.reason == _RELIEVED:
        return _lose(tx, job, OutcomeUnknown(str(error)))
    if outcome.answer is Answer.FAILED:
        tx.fleet.runs(job.host, outcome.current)
    if outcome.answer is Answer.REFUSED and outcome.reason in _NOTHING_DONE and _has_time(tx, job):
        again = _asked_again(tx, job, error)
        return _change(tx, job, HE.FOUND_UNTOUCHED, why=str(error), token=False, **again)
    if outcome.reason == _NOT_PREPARED and job.host.attempt <= job.app.fan_out.retries:
        return _change(
            tx,
            job,
            HE.PREPARE_AGAIN,
            why=str(error),
            token=False,
            attempt=job.host.attempt + 1,
            **_told(error),
        )
    return _fail(tx, job, error, release=outcome.current)


def _not_switched(tx: Transaction, job: _Job, error: HostError) -> bool:
    if isinstance(error, OutcomeUnknown):
        return _lose(tx, job, error)
    if retry.may_retry(job.host.attempt, job.app.fan_out.retries, error.retryable):
        wait = tx.now() + retry.backoff_s(job.host.attempt)
        return _change(
            tx, job, HE.RETRY, why=str(error), attempt=job.host.attempt + 1, due_at=wait, **_told(error)
        )
    return _fail(tx, job, error)


# -- unknown -----------------------------------------------------------------------------------------------------------


@crashpoints.stage("read")
def read_unknown(host: RolloutHost, deps: Deps) -> bool:
    """Read a host that went silent, sealing it, and settle it by what its journal says; never by a guess. False: not ours to read."""
    job = _begin(
        host.rollout, lambda tx: tx.claims.reading(host.id, deps.worker, deps.settings.lease_s), deps
    )
    if job is None:
        return False
    with deps.leases.hold("host", host.id):
        try:
            status = _seal(job, deps)
        except HostError as failure:
            error = failure
            _report(deps, job, lambda tx: _not_read(tx, job, error))
            return True
        if _was_interrupted(job, status):
            _put_back(job, deps, unhealthy=status.asked == "back")
            return True
    _report(deps, job, lambda tx: _settle(tx, job, status))
    return True


def _seal(job: _Job, deps: Deps) -> HostStatus:
    """Read it under its claim's epoch, so that nothing that was sent before acts afterwards."""
    host = job.host
    assert host.epoch is not None
    return deps.fleet.status(
        target_of(host, job.app), asked=host.operation or 0, seal=(host.epoch, host.epoch), timeout_s=30.0
    )


def _was_interrupted(job: _Job, status: HostStatus) -> bool:
    """The order has no end and nobody is at work on it; one that was to put the host back after it may have run, or not."""
    over = status.sealed and not status.running and status.asked in _UNDER_WAY
    return (
        over
        and job.host.touched
        and status.current
        in {
            job.rollout.commit,
            job.host.previous,
            job.host.way_back,
        }
    )


def _settle(tx: Transaction, job: _Job, status: HostStatus) -> bool:
    host = job.host
    if not status.sealed or (status.asked in _UNDER_WAY and status.running):
        busy = OutcomeUnknown(f"{host.name}: is still at work on what was sent to it")
        return _read_again(tx, job, busy, unreadable_after_s=_step_timeout(job.app))
    tx.fleet.found(host, status.current)
    done = status.asked == "done" and status.current == job.rollout.commit
    if host.touched:
        tx.fleet.runs(host, status.current, settled=done)
    if done:
        return _done(tx, job)
    # A host that owes a rollback may have made it meanwhile.
    as_before = status.current in ({host.previous, host.owed} if host.owes else {host.previous})
    if status.asked == "none" and (as_before or not host.touched):
        return _change(tx, job, HE.FOUND_UNTOUCHED, why="read: not switched", token=False, **_UNTOUCHED)
    runs = f"it runs {status.current or 'nothing'}"
    if status.asked == "none":
        error: HostError = Interrupted(f"{host.name}: its journal is gone; {runs}")
    elif status.asked == "failed":
        back = (
            "and put back"
            if status.current in {host.previous, host.way_back}
            else f"and not put back; {runs}"
        )
        error = Unhealthy(f"{host.name}: was unhealthy {back}", remedy=_by_hand(job))
    else:
        what = (
            "was switched, and not by us again"
            if status.asked == "done"
            else "was interrupted (reboot or kill)"
        )
        error = Interrupted(f"{host.name}: {what}; {runs}", remedy=_by_hand(job))
    return _fail(tx, job, error, release=status.current)


def _put_back(job: _Job, deps: Deps, *, unhealthy: bool) -> None:
    """Never done, and nobody knows what was restarted: back to what it ran, and failed. `unhealthy`: as the host itself had found.

    The row keeps the number of the interrupted activation. So whoever reads the host after this was lost, on whatever
    part of the way, comes here again, and the host itself knows what is left to be done.
    """
    try:
        with deps.store.transaction() as tx:
            epoch = tx.apps.next_epoch(job.host.app)
            host = tx.hosts.update(job.host, epoch=epoch)
            release = tx.commits.release(host.app, host.way_back) if host.way_back else None
    except StaleWrite:
        log.info("report_overtaken", rollout=job.host.rollout, host=job.host.name, attempt=job.host.attempt)
        return
    again = replace(job, host=host)
    order = _order(host, job.app, epoch, host.way_back, release.digest if release else None)
    try:
        outcome = deps.fleet.roll_back(
            target_of(host, job.app), order, _permit(host, deps), timeout_s=_step_timeout(job.app)
        )
    except LeaseLost:
        return  # stopped, or another worker has it
    except HostError as failure:
        error = failure
        _report(deps, again, lambda tx: _not_read(tx, again, error))
        return
    _report(deps, again, lambda tx: _was_put_back(tx, again, outcome, unhealthy=unhealthy))


def _was_put_back(tx: Transaction, job: _Job, outcome: Outcome, *, unhealthy: bool) -> bool:
    host, error = job.host, _error_of(outcome, job.host)
    if error is not None and (outcome.answer is Answer.BROKEN or _again_later(outcome)):
        return _read_again(tx, job, error, unreadable_after_s=_step_timeout(job.app))
    back = "put back" if error is None else f"and could not be put back: {error}"
    kind, what = (Unhealthy, "was unhealthy, then") if unhealthy else (Interrupted, "was")
    why = kind(f"{host.name}: {what} interrupted (reboot or kill); {back}", remedy=_by_hand(job))
    tx.fleet.runs(host, outcome.current)
    return _fail(tx, job, why, release=outcome.current)


def _again_later(outcome: Outcome) -> bool:
    """Nothing came of this way back, and the same order, claimed anew, may get through."""
    if outcome.answer is Answer.REFUSED:
        return outcome.reason in _NOTHING_DONE | _OVERTAKEN
    return outcome.answer is Answer.FAILED and outcome.reason == _RELIEVED


def _not_read(tx: Transaction, job: _Job, error: HostError) -> bool:
    if isinstance(error, HostKeyRefused):
        # Somebody must look at this host. What was sent to it before may still act: `lost_at` stays, for a stop.
        return _fail(tx, job, error, lost_at=job.host.lost_at)
    return _read_again(tx, job, error, unreadable_after_s=job.app.fan_out.host_timeout)


def _read_again(tx: Transaction, job: _Job, error: HostError, *, unreadable_after_s: float) -> bool:
    """Only what a reading says settles it; a host that has had its time counts as failed until then."""
    host, now = job.host, tx.now()
    too_long = host.lost_at is not None and tx.elapsed(host.lost_at) > unreadable_after_s
    if too_long:
        tx.fleet.unread(host)  # whatever somebody else has read of it meanwhile
    if too_long and not host.unreadable:
        return tx.hosts.set_unreadable(
            host,
            who=job.host.lease_owner or "",
            why=str(error),
            window=_narrowed(tx, job),
            due_at=now + READ_AGAIN_S,
            **_told(error),
        )
    return _change_nothing(tx, job, due_at=now + READ_AGAIN_S, **_told(error))


# -- after the end -----------------------------------------------------------------------------------------------------


def look(host: RolloutHost, deps: Deps) -> HostError | None:
    """Read what a host runs that nobody could read before its rollout ended, sealing it; nothing is done to it (I5).

    What kept it from being read; None also when it is not to be read, or somebody else does.
    """
    job = _begin(host.rollout, lambda tx: tx.claims.look(host.id, deps.worker, deps.settings.lease_s), deps)
    if job is None:
        return None
    status = error = None
    with deps.leases.hold("host", host.id):
        try:
            status = _seal(job, deps)
        except HostError as failure:
            error = failure
            log.info("host_not_read", rollout=job.host.rollout, host=job.host.name, error=str(error))
    _report(deps, job, lambda tx: _looked(tx, job, status, error))
    return error


def _looked(tx: Transaction, job: _Job, status: HostStatus | None, error: HostError | None) -> bool:
    if status is not None and status.sealed and not status.running:
        tx.fleet.found(job.host, status.current)
        over = {} if job.host.state in {H.FAILED, H.UNKNOWN} else {"error": None, "cause": None}
        return _change_nothing(tx, job, due_at=None, failures=0, **over)
    failures = job.host.failures + 1
    wait = retry.backoff_s(failures, first=READ_AGAIN_S, most=300.0)
    told = {} if error is None else _told(error)
    return _change_nothing(tx, job, due_at=tx.now() + wait, failures=failures, **told)


# -- roll back ---------------------------------------------------------------------------------------------------------


@crashpoints.stage("rollback")
def roll_back(rollout: RolloutId, host_id: HostId, deps: Deps) -> None:
    """Bring a touched host back to what it ran (or to the commit that a person named)."""
    job = _begin(
        rollout,
        lambda tx: tx.claims.roll_back(host_id, deps.worker, deps.settings.lease_s),
        deps,
        ROW_S,
    )
    if job is None:
        return
    goal_of = functools.cache(functools.partial(_goal, job.rollout, deps))
    while job is not None:
        job = _roll_back(job, goal_of, deps)


def _goal(rollout: Rollout, deps: Deps, way_back: str | None) -> tuple[str | None, str | None]:
    """Where a host goes whose own way back leads there, and the digest of that; what a person named goes for all hosts."""
    with deps.store.reading() as tx:
        goal = tx.rollouts.rollback_to(rollout.id) or way_back
        release = tx.commits.release(rollout.app, goal) if goal and goal != FOREIGN else None
    return goal, release.digest if release else None


def _roll_back(
    job: _Job, goal_of: Callable[[str | None], tuple[str | None, str | None]], deps: Deps
) -> _Job | None:
    goal, digest = goal_of(job.host.way_back)
    with deps.leases.hold("host", job.host.id):
        try:
            outcome, error = _send_back(job, goal, digest, deps)
            if outcome is not None and goal is not None and _may_be_prepared(job, goal, outcome, deps):
                error, _ = _send(
                    job, lambda: _way_back(job, goal, deps), lambda: _lease_left(job.host, deps) > 0, deps
                )
                if error is None:  # a refusal is in no journal: the same order may come again
                    outcome, error = _send_back(job, goal, digest, deps)
        except LeaseLost:
            return None  # another worker has it
        if outcome is not None and error is not None and _again_later(outcome) and _still_has_time(job, deps):
            why = error
            _report(deps, job, lambda tx: _ask_again(tx, job, why))
            return None
        if error is not None and (found := _with_nothing_of_it(job, goal, outcome, deps)) is not None:
            status, refusal = found, error
            _report(deps, job, lambda tx: _nothing_to_take_back(tx, job, status, refusal))
            return None
        if error is not None:
            lost, runs = error, _what_runs(job, outcome, deps)
            _report(deps, job, lambda tx: _not_back(tx, job, goal, runs, outcome, lost))
            return None
    assert outcome is not None
    # Where it is to have nothing, what somebody has put there by hand since stays.
    return _report_and_go_on(deps, job.went(deps, outcome.output, outcome.current), _all_back)


def _send_back(
    job: _Job, goal: str | None, digest: str | None, deps: Deps
) -> tuple[Outcome | None, HostError | None]:
    assert job.host.operation is not None
    order = _order(job.host, job.app, job.host.operation, goal, digest)
    try:
        outcome = deps.fleet.roll_back(
            target_of(job.host, job.app), order, _permit(job.host, deps), timeout_s=_step_timeout(job.app)
        )
    except HostError as failure:
        return None, failure
    return outcome, _error_of(outcome, job.host)


def _may_be_prepared(job: _Job, goal: str, outcome: Outcome, deps: Deps) -> bool:
    """It refuses its way back for want of the release alone: a machine from an image of what is taken back, say.

    Not at the first try, for which the rollout's end waits: nothing that is sent holds that up (I10). But for what a person
    has named, which may be older than what hosts keep: else nobody would be back at that end.
    """
    if outcome.reason != _NOT_PREPARED or outcome.current not in _its_releases(job, goal) - {FOREIGN}:
        return False
    with deps.store.reading() as tx:
        named = tx.rollouts.rollback_to(job.rollout.id) is not None
        return named or tx.rollouts.state(job.rollout.id) is RolloutState.ROLLED_BACK


def _its_releases(job: _Job, goal: str | None) -> set[str]:
    """What the rollout found on the host, brought to it, or takes it back to."""
    return {one for one in (job.rollout.commit, job.host.previous, job.host.owed, goal) if one}


def _way_back(job: _Job, goal: str, deps: Deps) -> _Parcel:
    """The release that a host is to go back to and lacks; StepFailed says why it cannot be had, and what to do."""
    app = job.rollout.app
    with deps.store.reading() as tx:
        release = tx.commits.release(app, goal)
        spare = tx.rollouts.unfinished_commits(app)
    if goal != FOREIGN and release is not None and deps.workshop.has_archive(app, goal):
        return _Parcel(release, tuple(sorted(spare)))
    with deps.store.transaction() as tx:
        tx.apps.lock(app)
        why = planning.lacks_archive(tx, app, goal, deps)
    raise StepFailed(f"{job.host.name}: what it is to go back to is not on it: {why}")


def _all_back(tx: Transaction, went: Sequence[_Went], deps: Deps) -> list[_Then]:
    """Whoever brought a host back goes on with the next that nobody works on."""
    number, mine = went[0].job.rollout.id, {each.job.host.id for each in went}
    found = [host for host in tx.going_back.to_roll_back(number, len(went)) if host.id not in mine]

    def claim(many: int) -> list[RolloutHost]:
        return tx.claims.to_roll_back(found[:many], deps.worker, deps.settings.lease_s)

    going = sum(not each.last for each in went)
    # Whoever waits for the slot of a row that ends may be one of its own rollout: another one behind it would end rows for ever.
    waits = going < len(found) and tx.going_back.waits(number)
    # The claims lock the app's row, as above.
    thens = _go_on(tx, went, found[:going] if waits else found, claim, roll_back_host, deps)
    told = {"token": False, "error": None, "cause": None}
    changes = [(each.job.host, {**told, "release": each.runs, "took_s": each.job.took_s}) for each in went]
    tx.hosts.change_all(HE.ROLLED_BACK, changes, who=deps.worker)
    _keep(tx, went, "rollback")
    # Without a next one it may have been the last.
    if not waits and any(then == _Then(tell=False) for then in thens) and tx.rollouts.to_count(number):
        thens[0] = replace(thens[0], tell=True)
    return thens


def _has_time(tx: Transaction, job: _Job) -> bool:
    """What was begun on the host before may not be over yet: a restart is not cut short."""
    since = job.host.busy_since
    return since is None or tx.elapsed(since) <= _step_timeout(job.app)


def _still_has_time(job: _Job, deps: Deps) -> bool:
    with deps.store.reading() as tx:
        return _has_time(tx, job)


def _asked_again(tx: Transaction, job: _Job, error: HostError) -> dict[str, Any]:
    since = tx.now() if job.host.busy_since is None else job.host.busy_since
    return {"busy_since": since, "due_at": tx.now() + READ_AGAIN_S, **_told(error)}


def _ask_again(tx: Transaction, job: _Job, error: HostError) -> bool:
    """It stays as it is, with a lease that is over: whoever finds it due claims it anew."""
    tx.hosts.update(job.host, lease_owner=None, lease_until=tx.now(), **_asked_again(tx, job, error))
    return False


def _with_nothing_of_it(
    job: _Job, goal: str | None, outcome: Outcome | None, deps: Deps
) -> HostStatus | None:
    """What a machine runs that has not what it is to go back to, and nothing that this could take back: another one, or its disk was lost."""
    if outcome is None or outcome.reason != _NOT_PREPARED:
        return None
    try:
        status = _seal(job, deps)
    except HostError:
        return None
    # Where we have been, somebody has switched it by hand: that stays.
    its = _its_releases(job, goal) | ({FOREIGN} if status.operation else set())
    return status if status.sealed and not status.running and status.current not in its else None


def _nothing_to_take_back(tx: Transaction, job: _Job, status: HostStatus, error: HostError) -> bool:
    """The debt is over: whoever brings hosts along brings it what the fleet runs."""
    tx.fleet.runs(job.host, status.current, settled=True)
    tx.fleet.is_another(job.host)
    runs = f"it runs {status.current or 'nothing'}"
    why = f"{error}; read: {runs}, so there is nothing to take back (another machine, or its disk was lost)"
    return _change(
        tx, job, HE.ROLLED_BACK, why=why, token=False, release=status.current, error=None, cause=None
    )


def _what_runs(job: _Job, outcome: Outcome | None, deps: Deps) -> str | None:
    """After a rollback that was not done; UNREAD when nobody can tell."""
    if outcome is None:
        return UNREAD
    if outcome.answer is Answer.FAILED:
        return outcome.current
    try:
        status = deps.fleet.status(target_of(job.host, job.app), timeout_s=30.0)
    except HostError:
        return UNREAD
    return UNREAD if status.running else status.current


def _not_back(
    tx: Transaction,
    job: _Job,
    goal: str | None,
    runs: str | None,
    outcome: Outcome | None,
    error: HostError,
) -> bool:
    host = job.host
    if outcome is not None:
        tx.outputs.add(host.rollout, host.name, "rollback", host.attempt, outcome.output)
    if runs == UNREAD:
        tx.fleet.unread(host)
    else:
        tx.fleet.runs(host, runs)
    tx.fleet.owe(host, goal)
    failures = host.failures + 1
    wait = tx.now() + retry.backoff_s(failures, first=5.0, most=300.0)
    return _change(
        tx,
        job,
        HE.ROLLBACK_FAILED,
        why=str(error),
        failures=failures,
        due_at=wait,
        token=False,
        **_told(error),
    )


# -- inside ------------------------------------------------------------------------------------------------------------


def _begin(
    rollout: RolloutId, claim: Callable[[Transaction], RolloutHost | None], deps: Deps, row_s: float = 0.0
) -> _Job | None:
    """`row_s`: for so long the message goes on with other hosts, one after another."""
    crashpoints.reach("before-claim")

    # Those of a rollout one after another: at once each would wait for its row with a connection of its own. Whoever has
    # claimed goes on at once: his lease runs.
    found = deps.together.do(("claims", rollout), claim, lambda each: [_claimed(deps, *each)], most=1)
    if found is None:
        return None
    crashpoints.reach("after-claim")
    now = time.monotonic()
    return _Job(*found, began=now, number=1, row_began=now, row_s=row_s)


def _claimed(
    deps: Deps, claim: Callable[[Transaction], RolloutHost | None]
) -> tuple[RolloutHost, Rollout, AppConfig] | None:
    try:
        with deps.store.transaction() as tx:
            host = claim(tx)
            if host is None:
                return None
            found = (host, *_plan(tx, host, deps))
            crashpoints.reach("in-claim")
    except StaleWrite:
        return None  # another worker was faster
    return found


def _plan(tx: Transaction, host: RolloutHost, deps: Deps) -> tuple[Rollout, AppConfig]:
    """Nobody goes on by a policy that cannot be read any more; readings and ways back find theirs all the same."""
    if host.state in {H.PREPARING, H.ACTIVATING}:
        return deps.plans.of(tx, host.rollout)
    return deps.plans.back(tx, host.rollout, deps.config.apps)


def _go_on(
    tx: Transaction,
    went: Sequence[_Went],
    found: Sequence[RolloutHost],
    claim: Callable[[int], list[RolloutHost]],
    message: Callable[[RolloutHost], Ring],
    deps: Deps,
) -> list[_Then]:
    """Each goes on with one of the hosts that were found, the first of which it claims; when its row ends, others have their turn."""
    going = sum(not each.last for each in went)
    following = iter(claim(going))
    ended = iter(_end_rows(tx, went[0].job.rollout, found[going:], message, deps))
    return [
        next(ended, _Then(tell=False)) if each.last else _Then(tell=False, following=next(following, None))
        for each in went
    ]


def _end_rows(
    tx: Transaction,
    rollout: Rollout,
    first: Sequence[RolloutHost],
    message: Callable[[RolloutHost], Ring],
    deps: Deps,
) -> list[_Then]:
    """Others have their turn; behind them other rows begin, each with one of these hosts, and need nobody's decision."""
    # When other apps want slots, whoever counts shares them out.
    if first and shares.most(tx, rollout, deps) is not None:
        return [_Then(tx.rollouts.to_count(rollout.id))]
    tx.hosts.rung([host.id for host in first], deps.settings.ring_again_s)
    return [_Then(tell=False, ring=message(host)) for host in first]


def _report(deps: Deps, job: _Job, report: Callable[[Transaction], bool]) -> bool:
    """Report in one transaction, then ring if it says so; False when it was overtaken."""
    crashpoints.reach("before-report")
    try:
        ring = _in_transaction(deps, job.rollout, report)
    except StaleWrite:
        _say_overtaken(job)
        return False
    if ring:
        deps.bell.ring([count_outcome(job.host.rollout)])
    return True


def _report_and_go_on(
    deps: Deps,
    went: _Went,
    report: Callable[[Transaction, Sequence[_Went], Deps], list[_Then]],
    *,
    every_s: float = REPORTS_S,
) -> _Job | None:
    """As `_report`, together with others of the rollout; the host that the report claimed is the next one of the row."""
    job = went.job
    crashpoints.reach("before-report")

    def write(together: Sequence[_Went]) -> list[_Then]:
        return _in_transaction(deps, job.rollout, lambda tx: report(tx, together, deps))

    try:
        then = deps.together.do((report, job.rollout.id), went, write, every_s=every_s)
    except StaleWrite:
        _say_overtaken(job)
        return None
    rings = [count_outcome(job.host.rollout)] if then.tell else []
    if then.ring is not None:
        rings.append(then.ring)
    bell.ring(rings, deps)
    return went.then(then.following) if then.following is not None else None


def _in_transaction(deps: Deps, rollout: Rollout, report: Callable[[Transaction], T]) -> T:
    with deps.store.transaction() as tx:
        # Before the app's row and the fleet's, as claims, planning and `exclude` have them; and so that two reports
        # that go on do not choose the same next host.
        tx.rollouts.hold(rollout.id)
        said = report(tx)
        crashpoints.reach("in-report")
    return said


def _say_overtaken(job: _Job) -> None:
    log.info("report_overtaken", rollout=job.host.rollout, host=job.host.name, attempt=job.host.attempt)


def _keep(tx: Transaction, went: Sequence[_Went], step: str) -> None:
    """What they said, and what they run."""
    for host, output in ((each.job.host, each.output) for each in went):
        tx.outputs.add(host.rollout, host.name, step, host.attempt, output)
    tx.fleet.all_run([(each.job.host, each.runs) for each in went], settled=True)


def _change(
    tx: Transaction,
    job: _Job,
    what: HostEvent,
    *,
    why: str | None = None,
    window: int | None = None,
    **values: Any,
) -> bool:
    values.setdefault("took_s", job.took_s)
    _, ring = tx.hosts.change(
        job.host, what, who=job.host.lease_owner or "", why=why, window=window, **values
    )
    return ring


def _change_nothing(tx: Transaction, job: _Job, **values: Any) -> bool:
    tx.hosts.update(job.host, lease_owner=None, lease_until=None, **values)
    return False


def _done(tx: Transaction, job: _Job) -> bool:
    window = None
    if job.host.role is not Role.CANARY:
        window = budget.window_after_done(tx.rollouts.window(job.rollout.id), limits(job.rollout))
    return _change(tx, job, HE.DONE, window=window, **_as_done(tx, job))


def _as_done(tx: Transaction, job: _Job) -> dict[str, Any]:
    its = {"token": False, "release": job.rollout.commit, "error": None, "cause": None}
    return {**its, **_FOUND, "switched_at": tx.now(), "took_s": job.took_s}


def _fail(tx: Transaction, job: _Job, error: HostError, **values: Any) -> bool:
    tx.outputs.add(job.host.rollout, job.host.name, "error", job.host.attempt, str(error))
    if isinstance(error, _NOT_SEEN):
        tx.fleet.unread(job.host)
    return _change(
        tx,
        job,
        HE.FAIL,
        why=str(error),
        window=_narrowed(tx, job),
        token=False,
        **{**_FOUND, **_told(error), **values},
    )


def _narrowed(tx: Transaction, job: _Job) -> int:
    return budget.window_after_failure(tx.rollouts.window(job.rollout.id), limits(job.rollout))


def _lose(tx: Transaction, job: _Job, error: HostError) -> bool:
    tx.fleet.unread(job.host)
    return _change(
        tx,
        job,
        HE.LOSE,
        why=str(error),
        lost_at=tx.now(),
        due_at=tx.now(),
        lease_owner=None,
        lease_until=None,
        **_told(error),
    )


def _told(error: HostError) -> dict[str, Any]:
    return {"error": str(error), "cause": type(error).__name__}


def _error_of(outcome: Outcome, host: RolloutHost) -> HostError | None:
    """What a host's answer means as an error; None when the step is done."""
    match outcome.answer:
        case Answer.DONE:
            return None
        case Answer.FAILED:
            end = outcome.output.strip().splitlines()
            back = "; put back" if outcome.put_back else ""
            said = f": {end[-1][:200]}" if end else ""
            kind = StepFailed if outcome.reason == _RELIEVED else Unhealthy
            return kind(f"{host.name}: {outcome.reason or 'unhealthy'}{back}{said}")
        case Answer.REFUSED:
            return StepRefused(f"{host.name}: its fence refused: {outcome.reason}")
        case Answer.BROKEN:
            return NoSpace(
                f"{host.name}: {outcome.reason or 'cannot be written'} (disk full, or the path is not writable)"
            )


def _by_hand(job: _Job) -> str:
    return f"rollout log {job.host.rollout} --host {job.host.name}"
