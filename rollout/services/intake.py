"""From "there is a new commit" to its row: webhook, poll, or by hand. The row is what counts, the message is a hint."""

from dataclasses import dataclass

import structlog

from rollout import crashpoints
from rollout.config.deploy_file import AppConfig
from rollout.domain.model import AppName, BranchCommit, Commit, Push
from rollout.domain.pipeline import run_tests
from rollout.domain.retry import backoff_s, spread
from rollout.domain.states import CommitState
from rollout.errors import Conflict, NotFound, RolloutError
from rollout.services import planning, turns
from rollout.services.ports import Deps
from rollout.store.apps import LONGEST_BACKOFF_S
from rollout.store.store import Transaction

log = structlog.get_logger()
BRANCH_LIMIT = 500  # commits of the branch that are looked at, and all above what runs
QUEUE_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a delivery."""

    delivery: int
    outcome: str  # accepted, duplicate, ignored
    reason: str


@crashpoints.stage("webhook")
def receive(push: Push, app: AppConfig | None, deps: Deps) -> Received:
    """Store a verified webhook with its one outcome; then, and only then, it may be answered 2xx.

    `app` is the one whose repository the webhook names, None when it is none of ours.
    """
    ignored = _why_ignored(push, app)
    commit = None
    with deps.store.transaction() as tx:
        if ignored is not None or app is None:
            outcome, reason = "ignored", ignored or "not a repository of ours"
        else:
            commit, new = tx.commits.add(
                AppName(app.name), push.head, who=f"webhook {push.provider}", why="pushed"
            )
            outcome = "accepted" if new else "duplicate"
            reason = f"commit {push.head}" if new else f"commit {push.head} is known already"
            if not new and _may_have_moved(tx, commit):
                tx.apps.look(commit.app)
                reason += "; the branch is looked at"
            commit = commit if new else None
        number = tx.deliveries.add(push, AppName(app.name) if app else None, outcome, reason)
        if commit is not None:
            tx.commits.rung([commit.id], deps.settings.ring_again_s)
        crashpoints.reach("in-report")
    if commit is not None:
        deps.bell.ring([run_tests(commit.id)])
    log.info("webhook_stored", delivery=number, provider=push.provider, outcome=outcome, reason=reason)
    return Received(number, outcome, reason)


def _may_have_moved(tx: Transaction, head: Commit) -> bool:
    """A known commit is the branch's head, and not the newest of those that we take for the branch's: a force-push."""
    newest = tx.commits.newest(head.app)
    return newest is None or newest.sha != head.sha


def _why_ignored(push: Push, app: AppConfig | None) -> str | None:
    if app is None:
        return "not a repository of ours"
    if push.kind != "push":
        return f"a {push.kind} event"
    if push.branch != app.branch:
        return f"branch {push.branch!r} is not {app.branch!r}" if push.branch else "not a branch"
    return None if push.head else "the branch was deleted"


def read_branch(app: AppConfig, deps: Deps, *, who: str, why: str) -> str:
    """Fetch the branch, give every commit of the queue its row, and ring for those to be tested; the head.

    ServiceUnavailable when the repository does not answer, NotFound when it has no such branch, Conflict when it is so far
    ahead of what runs that nobody means it.
    """
    head = deps.workshop.fetch(app.name, app)
    name = AppName(app.name)
    with deps.store.reading() as tx:
        last = _released_position(tx, name)
    branch = _branch_above(last, app, deps)
    queue = [told for told in branch if told.sha == head or (last is not None and told.position > last)]
    with deps.store.transaction() as tx:
        tx.commits.add_all(name, queue, who=who, why=why)
        tx.commits.place(name, branch)
        rings = turns.take(tx, app, deps)
    deps.bell.ring(rings)
    return head


def _branch_above(last: int | None, app: AppConfig, deps: Deps) -> list[BranchCommit]:
    """The branch's newest commits, oldest first, and all of them above `last`: a commit without a row would ship unseen."""
    branch = deps.workshop.branch(app.name, app, BRANCH_LIMIT)
    if last is None or not branch or branch[0].position <= last + 1:
        return branch
    ahead = branch[-1].position - last
    if ahead > QUEUE_LIMIT:
        raise Conflict(
            f"branch {app.branch} of {app.repository} is {ahead} commits ahead of what {app.name} runs",
            remedy=f"is it the right branch? If so, go there in steps of {QUEUE_LIMIT} at most: `branch` may name one in between",
        )
    return deps.workshop.branch(app.name, app, ahead)


def _released_position(tx: Transaction, app: AppName) -> int | None:
    released = planning.released(tx, app)
    return released.position if released else None


def poll(app_name: str, deps: Deps, *, force: bool = False) -> None:
    """Find what a lost webhook did not say; one `ls-remote` an interval, rarer while the git server is down."""
    app = deps.config.app(app_name)
    name = AppName(app.name)
    with deps.store.reading() as tx:
        if not tx.apps.poll_is_due(name, app.poll) and not force:
            return
    with deps.store.transaction() as tx:
        if not tx.apps.claim_poll(name, app.poll) and not force:
            return
        failures = tx.apps.poll_failures(name)
    try:
        head = deps.workshop.remote_head(app.name, app)
        with deps.store.reading() as tx:
            known = tx.commits.newest(name)
        if known is None or known.sha != head:  # a force-push may have left the branch with an old head
            read_branch(app, deps, who="poll", why="found on the branch")
        failures = 0
    except RolloutError as error:
        failures += 1
        log.warning("poll_failed", app=app.name, failures=failures, error=str(error))
    with deps.store.transaction() as tx:
        wait = (
            app.poll
            if failures == 0
            else max(app.poll, backoff_s(failures, first=app.poll or 30.0, most=LONGEST_BACKOFF_S))
        )
        # The apps of one git server ask it neither all at once nor, when it is back, all together again.
        tx.apps.polled(name, next_s=spread(wait, app.name, failures), failures=failures)


@dataclass(frozen=True, slots=True)
class Wish:
    """A person wants a commit out before the queue."""

    reason: str
    by: str


def enqueue(app: AppConfig, name: str | None, deps: Deps, *, who: str, now: Wish | None = None) -> Commit:
    """By hand what a webhook does: `name` is a hash or its beginning, None the branch's head.

    NotFound when the branch does not have it; Conflict when it is barred, older than what runs, or, with `now`, when
    another rollout is active.
    """
    head = read_branch(app, deps, who=who, why="enqueued by hand")
    sha = head if name is None else deps.workshop.resolve(app.name, name)
    with deps.store.reading() as tx:
        last = _released_position(tx, AppName(app.name))
    branch = {told.sha: told for told in _branch_above(last, app, deps)}
    if sha not in branch:
        raise NotFound(
            f"commit {sha[:12]} is not on branch {app.branch} of {app.repository}",
            remedy=f"merge it into {app.branch} first (the newest {BRANCH_LIMIT} commits are looked at)",
        )
    with deps.store.transaction() as tx:
        tx.commits.add(AppName(app.name), sha, who=who, why="enqueued by hand")
        tx.commits.place(AppName(app.name), list(branch.values()))
        placed = tx.commits.get(AppName(app.name), sha)
        assert placed is not None
        _refuse_conflicts(tx, app, placed, now=now)
        if placed.state is CommitState.FAILED:
            placed = tx.commits.test_again(placed, who=who, why="tried again by hand", reds=0)
        if now is not None:
            placed = tx.commits.wish_now(placed, now.reason, now.by)
            tx.record(placed.app, f"commit {sha}", "deploy now", who=now.by, why=now.reason)
    if placed.state is CommitState.PASSED:
        planning.start_next(app.name, deps)
    else:
        deps.bell.ring([run_tests(placed.id)])
    return placed


def _refuse_conflicts(tx: Transaction, app: AppConfig, commit: Commit, *, now: Wish | None) -> None:
    short = commit.sha[:12]
    if commit.state is CommitState.BARRED:
        raise Conflict(
            f"commit {short} is barred: {commit.reason}",
            remedy=f"revert it and push, or allow it with `rollout unbar {short}`",
        )
    released = planning.released(tx, commit.app)
    if released is not None and released.on_branch and _position(commit) < _position(released):
        raise Conflict(
            f"commit {short} is older than what runs",
            remedy=f"to go back: `rollout rollback --to {short}`",
        )
    if not now:
        return
    planning.make_way(tx, commit.app, f"{now.by} wants {short} out now: {now.reason}", who=now.by)
    active = planning.under_way(tx, commit.app)
    if active is not None:
        raise Conflict(
            f"rollout {active.id} of {app.name} is {active.state}",
            remedy=f"wait for it (`rollout status {active.id}`) or end it: `rollout stop {active.id}`",
        )


def _position(commit: Commit) -> int:
    return commit.position or 0
