"""Which commit goes out next, and how: a pending rollout with its fleet and its limits frozen."""

from dataclasses import dataclass

import structlog

from rollout import crashpoints
from rollout.config.deploy_file import AppConfig
from rollout.domain import budget, plan, selection
from rollout.domain.model import AppName, Commit, Member, Role, Rollout
from rollout.domain.pipeline import pipeline
from rollout.domain.states import CommitState, RolloutState
from rollout.errors import ConfigError, Conflict, ReleaseError
from rollout.services import bars, deliveries, freezes
from rollout.services.ports import Deps
from rollout.store.rollouts import Planned
from rollout.store.store import Transaction

log = structlog.get_logger()
UNDER_WAY = "a rollout is under way"
UNREAD = "the branch is read again first: commits of it that would go out are not known yet"
AUTOMATION = "automation"  # who asks for a rollout that no person asked for


@dataclass(frozen=True, slots=True)
class Draft:
    """What a rollout would be: nothing of it is written."""

    commits: tuple[Commit, ...]  # oldest first, the shipped one last
    fleet: tuple[tuple[Member, Role], ...]  # in the order of activation
    limits: budget.Limits


@crashpoints.stage("plan")
def start_next(app_name: str, deps: Deps) -> Rollout | None:
    """Plan the app's next rollout if one is due, and ring its chain. None says why in the app's note."""
    app = deps.config.app(app_name)
    with deps.store.reading() as tx:
        chosen, why = (None, UNDER_WAY) if _busy(tx, app) else _choose(tx, app)
        noted = tx.apps.noted(AppName(app.name))
    if chosen is None:
        if (
            why != noted
        ):  # every process asks every few seconds for every app: writing it again would keep the others out
            _note(app, why, deps)
        return None
    try:
        fleet = deps.fleet.members(app)  # an inventory may take its time, so outside the transaction
        with deps.store.transaction() as tx:
            tx.apps.lock(AppName(app.name))
            if _busy(tx, app):
                return None
            chosen, why = _choose(tx, app)
            if chosen is None:
                return None
            rollout = _add(tx, app, chosen, fleet, why)
            tx.apps.note(rollout.app, None)
            deliveries.settle(tx, rollout.app)
            tx.rollouts.ring_again(rollout.id, deps.settings.ring_again_s)
            crashpoints.reach("in-decision")
    except Conflict:
        return None  # another worker was faster
    except (ConfigError, ReleaseError) as error:
        _note(app, str(error), deps)
        return None
    deps.bell.ring([pipeline(rollout.id)])
    log.info("rollout_planned", rollout=rollout.id, app=app.name, commit=rollout.commit, why=why)
    return rollout


def waits_for(app: AppConfig, tx: Transaction) -> str:
    """Why nothing is being started, in one sentence for people."""
    if _busy(tx, app):
        return UNDER_WAY
    return _choose(tx, app)[1]


def stuck(app: AppConfig, tx: Transaction) -> str | None:
    """Why nothing will start until a person acts or somebody pushes; None while something is under way or about to be."""
    if _busy(tx, app) or tx.commits.unfinished(AppName(app.name)):
        return None
    if freezes.over_at(tx, app) is not None:
        return None
    chosen, why = _choose(tx, app)
    return why if chosen is None else None


def released(tx: Transaction, app: AppName) -> Commit | None:
    """The commit that the fleet runs; None before the first one."""
    sha = tx.rollouts.released(app)
    return tx.commits.get(app, sha) if sha else None


def waiting(tx: Transaction, app: AppName) -> list[Commit]:
    """The branch behind the last done release, oldest first; the head alone when there is none."""
    running = released(tx, app)
    if running is None:
        newest = tx.commits.newest(app)
        return [newest] if newest else []
    return [] if _gone(tx, app) else tx.commits.after(app, _position(running))


def unread(tx: Transaction, app: AppName) -> bool:
    """A commit above what runs has no row, and would ship unseen: something else ran when the branch was read last."""
    running, queue = released(tx, app), waiting(tx, app)
    return running is not None and bool(queue) and _position(queue[-1]) - _position(running) != len(queue)


def under_way(tx: Transaction, app: AppName) -> Rollout | None:
    """The app's rollout that is active, or planned and about to begin."""
    return tx.rollouts.active(app) or tx.rollouts.pending(app)


def ahead(tx: Transaction, app: AppName) -> list[Commit]:
    """The branch behind what is on its way out, oldest first: what will wait when that is done. Else as `waiting`."""
    rollout = under_way(tx, app)
    if rollout is None or rollout.state in {RolloutState.STOPPING, RolloutState.ROLLING_BACK}:
        return waiting(tx, app)
    brought = tx.commits.get(app, rollout.commit)
    if brought is None or brought.position is None or not brought.on_branch:
        return []
    return tx.commits.after(app, brought.position)


def _note(app: AppConfig, why: str, deps: Deps) -> None:
    with deps.store.transaction() as tx:
        news = tx.apps.note(AppName(app.name), why)
        if why == UNREAD:
            tx.apps.look(AppName(app.name))
    if news:
        log.info("nothing_started", app=app.name, why=why)


def _busy(tx: Transaction, app: AppConfig) -> bool:
    return under_way(tx, AppName(app.name)) is not None


def _choose(tx: Transaction, app: AppConfig) -> tuple[Commit | None, str]:
    name = AppName(app.name)
    queue, gone = waiting(tx, name), _gone(tx, name)
    if unread(tx, name):
        return None, UNREAD
    for wanted in tx.commits.wanted_now(name):
        reachable = wanted.on_branch if gone else any(commit.id == wanted.id for commit in queue)
        if wanted.state is CommitState.PASSED and reachable:
            frozen = freezes.frozen(tx, app)
            past = f"{freezes.HOTFIX}{frozen}; " if frozen else ""
            return wanted, f"{past}{wanted.now_by}: {wanted.now_reason}"
    frozen = freezes.frozen(tx, app)
    if frozen is not None:
        return None, frozen
    if gone:
        return None, (
            "the commit that runs is no longer on the branch (a force-push), and automation does not guess what replaces it;"
            " a person may: `rollout deploy COMMIT --now --reason …`"
        )
    candidates = [bars.candidate(commit, tx) for commit in queue]
    choice = selection.choose(candidates, tx.rollouts.durations(name), app.queue.goal, app.queue.most)
    return (None if choice.position is None else queue[choice.position - 1]), choice.reason


def _gone(tx: Transaction, app: AppName) -> bool:
    """What runs has left the branch: only a person says what comes next."""
    running = released(tx, app)
    return running is not None and (running.position is None or not running.on_branch)


def draft(tx: Transaction, app: AppConfig, commits: list[Commit], fleet: list[Member]) -> Draft:
    """The rollout of these commits on this fleet, were it planned now. Reads only."""
    excluded = {host.name for host in tx.hosts.fleet(AppName(app.name)) if host.excluded is not None}
    members = {member.name: member for member in fleet if member.name not in excluded}
    names = list(members)
    total = len(names)
    wanted = app.canary.hosts
    if not isinstance(wanted, int):
        wanted = tuple(name for name in wanted if name not in excluded) or 1
    canary = plan.canary_hosts(names, wanted)
    places = plan.order(names, canary, app.canary.baseline)
    limits = budget.Limits(
        max_failed=plan.k_of(app.fan_out.max_failed.of(total), total),
        concurrency=max(1, min(app.fan_out.at_once(total), total)),
        mode=budget.Mode(app.fan_out.mode),
    )
    return Draft(tuple(commits), tuple((members[place.name], place.role) for place in places), limits)


def _add(tx: Transaction, app: AppConfig, chosen: Commit, fleet: list[Member], why: str) -> Rollout:
    release = tx.commits.release(chosen.app, chosen.sha)
    if release is None:
        raise ReleaseError(
            f"commit {chosen.sha} passed, and its release is gone", remedy="test it again: rollout deploy"
        )
    taken = [commit for commit in waiting(tx, chosen.app) if _position(commit) <= _position(chosen)]
    drafted = draft(tx, app, taken or [chosen], fleet)
    tx.commits.wish_now(chosen, None, None)  # granted: were it stopped, the same would go out again
    return tx.rollouts.add(
        Planned(
            app=chosen.app,
            commit=chosen.sha,
            commits=[commit.sha for commit in drafted.commits],
            previous=tx.rollouts.released(chosen.app),
            digest=release.digest,
            requested_by=chosen.now_by or AUTOMATION,
            policy=app.policy(),
            max_failed=drafted.limits.max_failed,
            mode=drafted.limits.mode,
            concurrency=drafted.limits.concurrency,
            worst_case=budget.worst_case(drafted.limits, len(drafted.fleet)),
            fleet=drafted.fleet,
        ),
        why=why,
    )


def _position(commit: Commit) -> int:
    return commit.position or 0
