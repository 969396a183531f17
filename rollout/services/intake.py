"""From "there is a new commit" to its row: webhook, poll, or by hand. The row is what counts, the message is a hint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from rollout import crashpoints
from rollout.config.deploy_file import AppConfig
from rollout.domain.deliveries import End, Outcome, known_before
from rollout.domain.model import AppName, BranchCommit, Commit, CommitId, Pull, Push
from rollout.domain.pipeline import run_tests
from rollout.domain.retry import backoff_s, spread
from rollout.domain.states import CommitState
from rollout.errors import Conflict, NotFound, RolloutError
from rollout.services import deliveries, planning, pulls, turns
from rollout.services.ports import Deps
from rollout.store.apps import LONGEST_BACKOFF_S
from rollout.store.store import Transaction

log = structlog.get_logger()
BRANCH_LIMIT = 500  # commits of the branch that are looked at, and all above what runs
QUEUE_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a delivery so far."""

    delivery: int
    outcome: str  # of domain/deliveries.py
    reason: str


@crashpoints.stage("webhook")
def receive_all(told: Sequence[tuple[Push, AppConfig | None]], deps: Deps) -> list[Received]:
    """Store verified webhooks, in one transaction; then, and only then, they may be answered 2xx.

    The app is the one whose repository the webhook names, None when it is none of ours. One whose commit is on its way is
    "accepted", and comes to its end with what is decided over the commit.
    """
    found: dict[int, Received] = {}
    new: list[CommitId] = []
    # In one order of apps, so that no two processes wait for each other's.
    in_order = sorted(range(len(told)), key=lambda one: app.name if (app := told[one][1]) else "")
    with deps.store.transaction() as tx:
        for one in in_order:
            push, app = told[one]
            end, commit = _end_of(tx, push, app)
            number = tx.deliveries.add(push, AppName(app.name) if app else None, end)
            found[one] = Received(number, end.outcome, end.reason)
            new += [commit.id] if commit else []
        tx.commits.rung(new, deps.settings.ring_again_s)
        crashpoints.reach("in-report")
    if new:
        deps.bell.ring([run_tests(commit) for commit in new])
    for one, (push, _) in enumerate(told):
        stored = found[one]
        log.info(
            "webhook_stored",
            delivery=stored.delivery,
            provider=push.provider,
            outcome=stored.outcome,
            reason=stored.reason,
        )
    return [found[one] for one in range(len(told))]


def _end_of(tx: Transaction, push: Push, app: AppConfig | None) -> tuple[End, Commit | None]:
    """How the delivery ends as far as that is known, and its commit when nobody knew it before."""
    ignored = _why_ignored(push, app)
    if ignored is not None or app is None:
        return End(Outcome.IGNORED, ignored or "not a repository of ours"), None
    commit, new = tx.commits.add(AppName(app.name), push.head, who=f"webhook {push.provider}", why="pushed")
    if not new:
        return _of_known(tx, push, commit), None
    return End(Outcome.ACCEPTED, f"commit {push.head}"), commit


def reject(provider: str, delivery: str, why: str, deps: Deps) -> int:
    """Keep that somebody who knows a secret sent what cannot be read; the delivery's number."""
    with deps.store.transaction() as tx:
        return tx.deliveries.add(Push(provider, delivery, "other"), None, End(Outcome.REJECTED, why))


def _of_known(tx: Transaction, push: Push, commit: Commit) -> End:
    """Of the delivery that told of it first; or, when it was found in another way, of what was decided already."""
    first = tx.deliveries.of_head(commit.app, commit.sha)
    if first is not None:
        again = (first.provider, first.delivery) == (push.provider, push.delivery)
        told = "was sent before" if again else f"was told of by delivery {first.id}"
        end = End(Outcome.DUPLICATE, f"commit {commit.sha} {told}", f"delivery {first.id}")
    else:
        decided = deliveries.decided(tx, commit)
        end = (
            known_before(decided)
            if decided
            else End(Outcome.ACCEPTED, f"commit {commit.sha} is known already")
        )
    if _may_have_moved(tx, commit):
        tx.apps.look(commit.app)
        return replace(end, reason=f"{end.reason}; the branch is looked at")
    return end


def receive_pull(push: Push, apps: Sequence[AppConfig], deps: Deps) -> Received:
    """A verified webhook says that something is new with a pull request: each app that tests them looks at the next poll."""
    looking = [app for app in apps if app.tests.pull_requests]
    end = End(Outcome.REPORTED, "a pull request; the repository is looked at")
    if not apps:
        end = End(Outcome.IGNORED, "not a repository of ours")
    elif not looking:
        end = End(Outcome.IGNORED, "a pull request, and tests.pull_requests is not true")
    with deps.store.transaction() as tx:
        for app in sorted(looking, key=lambda one: one.name):  # in the order of `receive_all`
            tx.apps.look(AppName(app.name))
        number = tx.deliveries.add(push, AppName(apps[0].name) if apps else None, end)
    return Received(number, end.outcome, end.reason)


def _may_have_moved(tx: Transaction, head: Commit) -> bool:
    """A known commit is the branch's head, and not the newest of those that we take for the branch's: a force-push."""
    newest = tx.commits.newest(head.app)
    return newest is None or newest.sha != head.sha


def _why_ignored(push: Push, app: AppConfig | None) -> str | None:
    if app is None:
        return "not a repository of ours"
    if push.kind != "push":
        return "no push to a branch"
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
        last = planning.floor(tx, name)
    branch = _branch_above(last, app, deps)
    queue = [told for told in branch if told.sha == head or (last is not None and told.position > last)]
    with deps.store.transaction() as tx:
        tx.commits.add_all(name, queue, who=who, why=why)
        tx.commits.place(name, branch)
        deliveries.settle(tx, name)
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


def due(deps: Deps) -> list[str]:
    """The apps whose branches are to be looked at now: an interval is over, or somebody asked for it."""
    with deps.store.reading() as tx:
        apps = deps.config.apps.values()
        return [app.name for app in apps if tx.apps.poll_is_due(AppName(app.name), app.poll)]


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
        head, heads = _ask(app, deps)
        with deps.store.reading() as tx:
            known, unread = tx.commits.newest(name), planning.unread(tx, name)
        # A force-push may have left the branch with an old head
        if known is None or known.sha != head or unread:
            read_branch(app, deps, who="poll", why="found on the branch")
        failures = 0
    except RolloutError as error:
        failures += 1
        log.warning("poll_failed", app=app.name, failures=failures, error=str(error))
    if failures == 0 and app.tests.pull_requests:
        pulls.look(app, heads, deps)
    with deps.store.transaction() as tx:
        wait = (
            app.poll
            if failures == 0
            else max(app.poll, backoff_s(failures, first=app.poll or 30.0, most=LONGEST_BACKOFF_S))
        )
        # The apps of one git server ask it neither all at once nor, when it is back, all together again.
        tx.apps.polled(name, next_s=spread(wait, app.name, failures), failures=failures)


def _ask(app: AppConfig, deps: Deps) -> tuple[str, list[Pull]]:
    """The branch's head, and those of pull requests if they are tested, by one `ls-remote`."""
    if app.tests.pull_requests:
        return deps.workshop.remote_heads(app.name, app)
    return deps.workshop.remote_head(app.name, app), []


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
        last = planning.floor(tx, AppName(app.name))
    branch = {told.sha: told for told in _branch_above(last, app, deps)}
    with deps.store.reading() as tx:
        known = tx.commits.get(AppName(app.name), sha)
    if sha not in branch and known is not None and known.is_pull:
        raise Conflict(
            f"commit {sha[:12]} is the head of pull request {known.pull}, which is tested and never shipped",
            remedy=f"merge it into {app.branch}",
        )
    if sha not in branch:
        raise NotFound(
            f"commit {sha[:12]} is not on branch {app.branch} of {app.repository}",
            remedy=f"merge it into {app.branch} first (the newest {BRANCH_LIMIT} commits are looked at)",
        )
    with deps.store.transaction() as tx:
        if now is not None:  # first: its claims lock its own row before the app's
            why = f"{now.by} wants {sha[:12]} out now: {now.reason}"
            planning.make_way(tx, AppName(app.name), why, who=now.by)
        tx.commits.add(AppName(app.name), sha, who=who, why="enqueued by hand")
        tx.commits.place(AppName(app.name), list(branch.values()))
        deliveries.settle(tx, AppName(app.name))
        placed = tx.commits.get(AppName(app.name), sha)
        assert placed is not None
        _refuse_conflicts(tx, app, placed, now=now is not None)
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


def _refuse_conflicts(tx: Transaction, app: AppConfig, commit: Commit, *, now: bool) -> None:
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
    active = planning.under_way(tx, commit.app)
    if now and active is not None:
        raise Conflict(
            f"rollout {active.id} of {app.name} is {active.state}",
            remedy=f"wait for it (`rollout status {active.id}`) or end it: `rollout stop {active.id}`",
        )


def _position(commit: Commit) -> int:
    return commit.position or 0
