"""From "there is a new commit" to its row: webhook, poll, or by hand. The row is what counts, the message is a hint."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from rollout import crashpoints
from rollout.config.deploy_file import AppConfig
from rollout.domain.branches import Branch, above
from rollout.domain.deliveries import End, Outcome, known_before
from rollout.domain.model import AppName, BranchCommit, Commit, CommitId, Delivery, Pull, Push, Rollout
from rollout.domain.pipeline import run_tests
from rollout.domain.retry import backoff_s, spread
from rollout.domain.states import CommitState, RolloutState
from rollout.errors import Conflict, NotFound, RolloutError, ServiceUnavailable
from rollout.services import deliveries, outages, planning, pulls, telling, turns
from rollout.services.ports import Deps
from rollout.store.apps import LONGEST_BACKOFF_S
from rollout.store.store import Transaction

log = structlog.get_logger()
BRANCH_LIMIT = 500  # commits that are looked at of a branch of which nothing is known
QUEUE_LIMIT = 10_000  # above what runs
# For a poll to fetch what is new, twice as much after each failure, up to what a first fetch may take: one that hangs
# keeps the branch from being read.
POLL_FETCH_S = 60.0
PING, NOT_OURS = "a ping", "not a repository of ours"
NEEDS_NO_GIT = (
    "a commit that is known to be on the branch needs no git when it is named: rollout deploy COMMIT"
)


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a delivery so far."""

    delivery: int
    outcome: str  # of domain/deliveries.py
    reason: str


Head = tuple[AppName, str]  # of an app's branch, as a webhook says
Told = Sequence[tuple[Push, AppConfig | None]]
ToldOf = Sequence[tuple[Push, Sequence[AppConfig]]]  # with every app of the repository


@crashpoints.stage("webhook")
def receive_all(told: Told, deps: Deps) -> list[Received]:
    """Store verified webhooks, in one transaction and few statements; then, and only then, they may be answered 2xx.

    The app is the one whose repository the webhook names, None when it is none of ours. One whose commit is on its way is
    "accepted", and comes to its end with what is decided over the commit.
    """
    with deps.store.transaction() as tx:
        found, new = _store(tx, told)
        first = _first_of_each_app(tx, new, deps)
        tx.turns.rung(first, deps.settings.ring_again_s)
        crashpoints.reach("in-report")
    if first:
        deps.bell.ring([run_tests(commit) for commit in first])
    bound = log.bind()  # once, not for each
    for one, (push, _) in enumerate(told):
        stored = found[one]
        bound.info(
            "webhook_stored",
            delivery=stored.delivery,
            provider=push.provider,
            outcome=stored.outcome,
            reason=stored.reason,
        )
    return [found[one] for one in range(len(told))]


def _store(tx: Transaction, told: Told) -> tuple[dict[int, Received], list[Commit]]:
    """What is stored of each; and the commits that nobody knew before."""
    ends: dict[int, End] = {}
    heads: dict[int, Head] = {}
    for one, (push, app) in enumerate(told):
        ignored = _why_ignored(push, app)
        if ignored is None and app is not None:
            heads[one] = AppName(app.name), push.head
        else:
            ends[one] = End(Outcome.IGNORED, ignored or NOT_OURS)
    tx.apps.lock_all({app for app, _ in heads.values()})
    tellers: dict[Head, int] = {}
    for one, head in heads.items():
        tellers.setdefault(head, one)
    who = {head: f"webhook {told[one][0].provider}" for head, one in tellers.items()}
    commits, new = tx.commits.add_pushed(who, why="pushed")
    tx.apps.told({app for app, _ in new})  # by a forced push: what was to go out may have left the branch
    ends |= {tellers[head]: End(Outcome.ACCEPTED, f"commit {head[1]}") for head in new}
    known = {one: head for head, one in tellers.items() if head not in new}
    found = _add(tx, told, ends | _of_known(tx, told, known, commits))
    # Their ends name the delivery that told of the commit, by its number.
    again = {one: head for one, head in heads.items() if tellers[head] != one}
    return found | _add(tx, told, _of_known(tx, told, again, commits)), [commits[head] for head in new]


def _add(tx: Transaction, told: Told, ends: Mapping[int, End]) -> dict[int, Received]:
    in_order = sorted(ends)
    rows = [
        (told[one][0], AppName(app.name) if (app := told[one][1]) else None, ends[one]) for one in in_order
    ]
    numbers = tx.deliveries.add_all(rows)
    return {
        one: Received(number, ends[one].outcome, ends[one].reason)
        for one, number in zip(in_order, numbers, strict=True)
    }


def _first_of_each_app(tx: Transaction, new: Sequence[Commit], deps: Deps) -> list[CommitId]:
    """No more messages than the app has tests at a time, those of earlier webhooks among them: nobody waits behind a crowd.

    Each test that ends rings for the next one, and so does the reconciler. Where CI servers decide all are looked at: one
    that waits for its checks ends nothing.
    """
    if not new:
        return []
    of_app: dict[AppName, list[CommitId]] = {}
    for commit in new:
        of_app.setdefault(commit.app, []).append(commit.id)
    in_hand = tx.turns.in_hand(of_app, deps.settings.ring_again_s)
    tests = {app: deps.config.app(app).tests for app in of_app}
    most = {
        app: None if its.external else max(0, its.parallel - in_hand.get(app, 0))
        for app, its in tests.items()
    }
    return [one for app, its in of_app.items() for one in its[: most[app]]]


def reject_all(unreadable: Sequence[tuple[Push, str]], deps: Deps) -> list[Received]:
    """Keep that somebody who knows a secret sent what cannot be read, and why it cannot."""
    with deps.store.transaction() as tx:
        return add_ended(tx, [(push, (), End(Outcome.REJECTED, why)) for push, why in unreadable])


Ended = tuple[Push, Sequence[AppConfig], End]


def add_ended(tx: Transaction, told: Sequence[Ended]) -> list[Received]:
    """Store deliveries that are over as they come, each as its first app's."""
    numbers = tx.deliveries.add_all(
        [(push, AppName(apps[0].name) if apps else None, end) for push, apps, end in told]
    )
    return [
        Received(number, end.outcome, end.reason) for number, (_, _, end) in zip(numbers, told, strict=True)
    ]


def _of_known(
    tx: Transaction,
    told: Told,
    heads: Mapping[int, Head],
    commits: Mapping[Head, Commit],
) -> dict[int, End]:
    """How those end whose commits were known; a branch that may have moved is looked at."""
    firsts = tx.deliveries.first_of(set(heads.values()))
    newest = tx.commits.heads({app for app, _ in heads.values()})
    ends, moved = {}, set()
    for one, head in heads.items():
        end = _known_end(tx, told[one][0], commits[head], firsts.get(head))
        app, sha = head
        if newest.get(app) != sha:  # what is the branch's head is not the newest that we know: a force-push
            moved.add(app)
            end = replace(end, reason=f"{end.reason}; the branch is looked at")
        ends[one] = end
    tx.apps.told(moved, same=newest)
    return ends


def _known_end(tx: Transaction, push: Push, commit: Commit, first: Delivery | None) -> End:
    """Of the delivery that told of it first; or, when it was found in another way, of what was decided already."""
    if first is not None:
        again = (first.provider, first.delivery) == (push.provider, push.delivery)
        told = "was sent before" if again else f"was told of by delivery {first.id}"
        return End(Outcome.DUPLICATE, f"commit {commit.sha} {told}", f"delivery {first.id}")
    decided = deliveries.decided(tx, commit)
    if decided is not None:
        return known_before(decided)
    return End(Outcome.ACCEPTED, f"commit {commit.sha} is known already")


def receive_pulls(told: ToldOf, deps: Deps) -> list[Received]:
    """Verified webhooks say that something is new with pull requests: each app that tests them looks at the next poll."""
    looking = {AppName(app.name) for _, apps in told for app in apps if app.tests.pull_requests}
    with deps.store.transaction() as tx:
        tx.apps.lock_all(looking)
        tx.apps.look(looking)
        return add_ended(tx, [_end_of_pull(push, apps) for push, apps in told])


def _end_of_pull(push: Push, apps: Sequence[AppConfig]) -> Ended:
    looking = [app for app in apps if app.tests.pull_requests]
    if not apps:
        return push, apps, End(Outcome.IGNORED, NOT_OURS)
    if not looking:
        return push, apps, End(Outcome.IGNORED, "a pull request, and tests.pull_requests is not true")
    return push, looking, End(Outcome.REPORTED, "a pull request; the repository is looked at")


def _why_ignored(push: Push, app: AppConfig | None) -> str | None:
    if push.kind == "ping":
        return PING
    if push.kind != "push":
        return "no push to a branch"
    if app is None:
        return NOT_OURS
    if push.branch != app.branch:
        return f"branch {push.branch!r} is not {app.branch!r}" if push.branch else "not a branch"
    return None if push.head else "the branch was deleted"


def read_branch(app: AppConfig, deps: Deps, *, who: str, why: str, limit_s: float | None = None) -> str:
    """Fetch the branch, give every commit of the queue its row, and ring for those to be tested; the head.

    ServiceUnavailable when the repository does not answer (within the limit), NotFound when it has no such branch, Conflict when it is so far
    ahead of what runs that nobody means it.
    """
    return _read(app, deps, who=who, why=why, limit_s=limit_s)[0]


@dataclass(frozen=True, slots=True)
class _Known:
    """The branch's line as it is known from what runs on, by positions and hashes, oldest first; and what runs."""

    line: tuple[tuple[int, str], ...]
    running: tuple[Commit, ...]


def _known(tx: Transaction, name: AppName) -> _Known:
    newest, floor = tx.commits.newest(name), planning.floor(tx, name)
    of_newest = newest.position if newest is not None else None
    since = min((position for position in (floor, of_newest) if position is not None), default=0)
    return _Known(tuple(tx.commits.line(name, since)), tuple(planning.running(tx, name)))


def _read(
    app: AppConfig, deps: Deps, *, who: str, why: str, limit_s: float | None = None
) -> tuple[str, Branch]:
    name = AppName(app.name)
    for tries_left in (2, 1, 0):
        with deps.store.reading() as tx:
            # Before the fetch: what that finds is newer than what is written here.
            known, began_s = _known(tx, name), tx.now()
        head = deps.workshop.fetch(app.name, app, limit_s=limit_s)
        branch = _branch_above(known, head, app, deps)
        with deps.store.transaction() as tx:
            tx.apps.lock(name)
            if tries_left and _known(tx, name) != known:
                continue  # somebody else has read the branch meanwhile, and may have seen a newer head
            _write(tx, app, head, known, branch, who=who, why=why)
            tx.apps.read(name, began_s)
            outages.ends(tx, app, who=who)
            deliveries.settle(tx, name)
            telling.red_branch(tx, app)  # CI servers may have said red before git was asked whose it is
            rings = turns.take(tx, app, deps)
        deps.bell.ring(rings)
        return head, branch
    raise AssertionError("the last try does not give up")


def _write(
    tx: Transaction, app: AppConfig, head: str, known: _Known, branch: Branch, *, who: str, why: str
) -> None:
    """Rows for the queue, which is what lies above all that runs, or before the first release above the first head that was seen; and for what came in with it."""
    name = AppName(app.name)
    before = planning.above_wishes(tx, name)
    places = {told.sha: told.position for told in branch.line}
    last = min(
        (place for one in known.running if (place := places.get(one.sha, one.position)) is not None),
        default=None,
    )
    if last is None and branch.line and tx.commits.known(name, [branch.line[0].sha]):
        last = branch.line[0].position
    queue = [told for told in branch.line if told.sha == head or (last is not None and told.position > last)]
    tx.commits.add_all(name, queue, who=who, why=why)
    with_rows, brings, at = tx.commits.known(name, list(places)), {}, head
    for told in reversed(branch.line):
        at = told.sha if told.sha in with_rows else at
        brings[told.sha] = at
    inner = [replace(told, into=brings[told.into or head]) for told in branch.inner]
    tx.commits.add_all(name, inner, who=who, why=why)
    tx.commits.place(name, branch.line, inner, since=branch.since, external=app.tests.external)
    planning.end_wishes(tx, name, before)
    planning.look_again(tx, name)


def _branch_above(known: _Known, head: str, app: AppConfig, deps: Deps) -> Branch:
    """The branch from what runs on, or from the newest commit that is known of it: each above what runs is to have its row.

    It goes through what runs whenever the head has that, also when the line that was known does not: what is shipped one
    after the other never lacks what ran before it.
    """
    name, workshop = AppName(app.name), deps.workshop
    line = known.line
    if line and not workshop.contains(app.name, head, line[-1][1]):
        line = _up_to(head, app, deps)
    placed = {sha for _, sha in line}
    strayed = (one for one in known.running if one.sha not in placed)
    back = next((one for one in strayed if workshop.contains(app.name, head, one.sha)), None)
    if back is not None:
        line = _up_to(back.sha, app, deps)[-1:]
        line = (*line, (line[-1][0] + 1 if line else back.position or 1, back.sha))
    if not line:
        return Branch(tuple(workshop.branch(app.name, app, BRANCH_LIMIT)))
    runs = {one.sha for one in known.running}
    start = 0 if back is not None else next((at for at, (_, sha) in enumerate(line) if sha in runs), -1)
    since, first = line[start]
    history = workshop.history(app.name, head, first, QUEUE_LIMIT)
    if history is None:
        raise Conflict(
            f"branch {app.branch} of {app.repository} is more than {QUEUE_LIMIT} commits ahead of what {app.name} runs",
            remedy=f"is it the right branch? If so, go there in steps of {QUEUE_LIMIT} at most: `branch` may name one in between",
        )
    found = above([sha for _, sha in line[start:]], since, history)
    with deps.store.reading() as tx:
        row = tx.commits.get(name, first)
        assert row is not None
        inside = {told.sha for told in (*found.line, *found.inner)} | {first}
        late = tx.commits.unplaced(name)
        # Git told no more then; a bar on one of the rest is a bar on its merge all the same
        if len(history) >= QUEUE_LIMIT:
            late += tx.bars.barred_elsewhere(name)
    mends = frozenset(row.mends.split())
    told = BranchCommit(first, since, row.subject, row.author, row.message, mends=mends, tree=row.tree)
    places = [first, *(one.sha for one in found.line)]
    rest = [
        BranchCommit(sha, 0, "", "", "", into=_oldest_with(sha, places, app, deps))
        for sha in late
        if sha not in inside and workshop.contains(app.name, head, sha)
    ]
    return Branch((told, *found.line), (*found.inner, *rest), 0 if first == (back and back.sha) else since)


def _oldest_with(sha: str, line: Sequence[str], app: AppConfig, deps: Deps) -> str:
    """What it came in with, of a line whose last one has it."""
    return line[bisect_left(line[:-1], True, key=lambda one: deps.workshop.contains(app.name, one, sha))]


def _up_to(head: str, app: AppConfig, deps: Deps) -> tuple[tuple[int, str], ...]:
    """As much of the known line as `head` has."""
    with deps.store.reading() as tx:
        line = tx.commits.line(AppName(app.name), 0)
    ends = bisect_left(line, True, key=lambda place: not deps.workshop.contains(app.name, head, place[1]))
    return tuple(line[:ends])


def due(deps: Deps) -> list[str]:
    """The apps whose branches are to be looked at now: an interval is over, or somebody asked for it."""
    with deps.store.reading() as tx:
        apps = deps.config.apps.values()
        return [app.name for app in apps if tx.apps.poll_is_due(AppName(app.name), app.poll)]


def poll(app_name: str, deps: Deps, *, force: bool = False, look: pulls.Look = pulls.look) -> None:
    """Find what a lost webhook did not say; one `ls-remote` an interval, rarer while the git server is down.

    `look` at the heads of pull requests may take minutes: workers do it beside the poll.
    """
    app = deps.config.app(app_name)
    name = AppName(app.name)
    with deps.store.reading() as tx:
        if not tx.apps.poll_is_due(name, app.poll) and not force:
            return
    with deps.store.transaction() as tx:
        if not tx.apps.claim_poll(name, app.poll) and not force:
            return
        began_s = tx.now()
    heads: list[Pull] | None = None
    trouble: RolloutError | None = None
    try:
        with deps.leases.hold("poll", name):
            head, heads = _ask(app, deps)
            _read_news(app, head, deps)
    except RolloutError as error:
        trouble = error
    with deps.store.transaction() as tx:
        tx.apps.lock(name)
        if not force and tx.apps.claimed_since(name, began_s, app.poll):
            log.info("poll_overtaken", app=app.name, error=str(trouble or ""))
            return
        if isinstance(trouble, NotFound | Conflict):  # asking again would say no more
            tx.apps.read(name, began_s)
        failures, silent = _noted(tx, app, trouble), isinstance(trouble, ServiceUnavailable)
        wait = (
            app.poll
            if not silent and (app.poll or not failures)  # without an interval it is asked on all the same
            else max(app.poll, backoff_s(failures, first=app.poll or 30.0, most=LONGEST_BACKOFF_S))
        )
        # The apps of one git server ask it neither all at once nor, when it is back, all together again.
        next_s = spread(wait, app.name, failures)
        tx.apps.polled(name, began_s, next_s=next_s, failures=failures, silent=silent)
    if trouble is not None:
        log.warning("poll_failed", app=app.name, failures=failures, error=str(trouble))
    if not silent and heads is not None and app.tests.pull_requests:
        look(app, heads, deps)


def _read_news(app: AppConfig, head: str, deps: Deps) -> None:
    """The branch, when its head is news; or a force-push may have left it with an old one."""
    name = AppName(app.name)
    with deps.store.reading() as tx:
        known, unread = tx.commits.newest(name), planning.unread(tx, name) or tx.apps.unread(name)
        limit_s = _fetch_s(tx, name)
    if known is None or known.sha != head or unread:
        # Into a mirror that is new on this machine comes the whole history, however long the branch is known.
        is_news = deps.workshop.has_branch(app.name, app)
        limit = limit_s if is_news else None
        read_branch(app, deps, who="poll", why="found on the branch", limit_s=limit)


def _fetch_s(tx: Transaction, name: AppName) -> float:
    return backoff_s(tx.apps.poll_failures(name, silent=True) + 1, first=POLL_FETCH_S, most=math.inf)


def _noted(tx: Transaction, app: AppConfig, trouble: RolloutError | None) -> int:
    """How often in a row the branch could not be read."""
    if trouble is not None:
        return outages.begins(tx, app, trouble, who="poll")
    outages.ends(tx, app, who="poll")
    return 0


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

    NotFound when the branch does not have it; Conflict when it is barred, older than what runs, or, with `now`, while
    another rollout is active that does not fan out, or brings it. ServiceUnavailable when git does not answer, but of what
    is named and known to be on the branch.
    """
    sha, told = _look_up(app, name, deps, who=who)
    with deps.store.transaction() as tx:
        if now is not None:  # first: its claims lock its own row before the app's
            why = f"{now.by} wants {sha[:12]} out now: {now.reason}"
            planning.make_way(tx, app, why, who=now.by)
        # One that is not above what runs, or comes before the first release, may have no row yet.
        tx.commits.add_all(AppName(app.name), [told] if told else [], who=who, why="enqueued by hand")
        deliveries.settle(tx, AppName(app.name))
        placed = tx.commits.get(AppName(app.name), sha)
        assert placed is not None
        _refuse_conflicts(tx, placed, now=now is not None)
        if placed.state is CommitState.RECEIVED:
            tx.turns.rung([placed.id], deps.settings.ring_again_s)  # a person's word ends a wait
        if placed.state is CommitState.FAILED:
            placed = tx.commits.test_again(placed, who=who, why="tried again by hand", reds=0)
        released = planning.released(tx, placed.app)
        if now is not None and (
            released is None or released.id != placed.id
        ):  # else nothing is left to wish for
            placed = tx.commits.wish_now(placed, now.reason, now.by)
            tx.record(placed.app, f"commit {sha}", "deploy now", who=now.by, why=now.reason)
    if placed.state is CommitState.PASSED:
        planning.start_next(app.name, deps, may_wait=True)
    else:
        deps.bell.ring([run_tests(placed.id)])
    return placed


def _look_up(app: AppConfig, name: str | None, deps: Deps, *, who: str) -> tuple[str, BranchCommit | None]:
    """The hash of what a person names, and what git says of it; nothing of what is older than what runs, or while git is away."""
    known = _known_as(app, name, deps)
    limit_s = None if known is None else POLL_FETCH_S
    try:
        head, branch = _read(app, deps, who=who, why="enqueued by hand", limit_s=limit_s)
    except ServiceUnavailable as error:
        if known is None:
            raise ServiceUnavailable(
                str(error), remedy="; ".join(filter(None, (error.remedy, NEEDS_NO_GIT)))
            ) from error
        log.warning("git_does_not_answer", app=app.name, commit=known.sha, error=str(error))
        return known.sha, None
    sha = head if name is None else deps.workshop.resolve(app.name, name)
    told = next((one for one in branch.line if one.sha == sha), None)
    if told is None:
        _refuse_others(app, head, sha, deps)
    return sha, told


def _known_as(app: AppConfig, name: str | None, deps: Deps) -> Commit | None:
    """The one commit of the branch's line whose hash begins so, as it was read last."""
    with deps.store.reading() as tx:
        found = tx.commits.starting_with(AppName(app.name), name.lower()) if name else []
    alone = found[0] if len(found) == 1 else None
    return alone if alone is not None and alone.on_branch and alone.position is not None else None


def _refuse_others(app: AppConfig, head: str, sha: str, deps: Deps) -> None:
    """Of a commit that is not on the branch's line from what runs on."""
    name, short = AppName(app.name), sha[:12]
    with deps.store.reading() as tx:
        known, running = tx.commits.get(name, sha), planning.released(tx, name)
        merge = None if known is None else tx.commits.on_line(known)
    if known is not None and known.on_branch and known.position is not None:
        return
    if known is not None and merge is not None and merge.id != known.id and merge.on_branch:
        raise Conflict(
            f"commit {short} came in with {merge.sha[:12]}, and is not shipped by itself",
            remedy=f"ship that: `rollout deploy {merge.sha[:12]}`; `rollout why {short}` says when it is out",
        )
    if known is not None and known.is_pull:
        raise Conflict(
            f"commit {short} is the head of pull request {known.pull}, which is tested and never shipped",
            remedy=f"merge it into {app.branch}",
        )
    if deps.workshop.contains(app.name, head, sha):
        newer = running.sha if running is not None and running.on_branch else head
        back = f"`rollout why {newer[:12]}` says where that is; to go back: `rollout rollback --to COMMIT`"
        if running is None:
            back = f"nothing has been released yet, and the branch's head goes first: revert what is bad in it, and push to {app.branch}"
        raise Conflict(f"commit {short} is older than {newer[:12]}, and inside of it", remedy=back)
    raise NotFound(
        f"commit {short} is not on branch {app.branch} of {app.repository}",
        remedy=f"merge it into {app.branch} first",
    )


def _refuse_conflicts(tx: Transaction, commit: Commit, *, now: bool) -> None:
    short = commit.sha[:12]
    if commit.is_barred and (now or commit.state is CommitState.BARRED):  # its tests may be run again
        raise Conflict(
            f"commit {short} is barred: {commit.barred_for}",
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
        _refuse_beside(tx, commit, active)


def _refuse_beside(tx: Transaction, commit: Commit, active: Rollout) -> None:
    """A wish is kept while a rollout fans out, and goes out when that is done; while that may still fail its canary a person ends it first."""
    it, short = f"rollout {active.id} of {active.app}", commit.sha[:12]
    if active.state in {RolloutState.STOPPING, RolloutState.ROLLING_BACK}:
        raise Conflict(
            f"{it} is {active.state}",
            remedy=f"wait until it is over: `rollout status {active.id}`",
        )
    shipped = tx.commits.get(active.app, active.commit)
    brings = shipped is not None and (commit.id == shipped.id or planning.is_out(commit, shipped))
    if brings and active.state is RolloutState.HALTED:
        raise Conflict(
            f"commit {short} is in {it}, which is halted",
            remedy=f"a person decides: `rollout show {active.id}`",
        )
    if brings:
        raise Conflict(
            f"commit {short} goes out already: {it} is {active.state}",
            remedy=f"look: `rollout status {active.id}`",
        )
    if active.state not in planning.BEFORE_THE_NEXT:
        lead_on = f"lead it on (`rollout resume {active.id} --reason …`) and " * (
            active.state is RolloutState.HALTED
        )
        raise Conflict(
            f"{it} is {active.state}",
            remedy=f"end it (`rollout stop {active.id}`), or {lead_on}say it again once it fans out: then the commit goes out when it is done",
        )


def _position(commit: Commit) -> int:
    return commit.position or 0
