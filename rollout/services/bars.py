"""Keeping a commit out: by hand, and after every stop, rollback and failed canary."""

from rollout.domain import selection
from rollout.domain.model import AppName, Commit, Rollout
from rollout.domain.states import CommitEvent, CommitState
from rollout.errors import Conflict, NotFound
from rollout.services.ports import Deps
from rollout.store.store import Transaction


def candidate(commit: Commit, tx: Transaction) -> selection.Candidate:
    """A commit as selection sees it, its age by now: by the store's clock, which a step of this machine's does not move."""
    if commit.received_s is not None:
        age_s = tx.now() - commit.received_s
    else:
        age_s = (tx.today() - commit.received_at).total_seconds()
    return selection.Candidate(
        sha=commit.sha,
        state=commit.state,
        age_s=max(0.0, age_s),
        suspect=commit.suspect,
        reverts=selection.fixes(commit.message),
        author=commit.author,
    )


def after_trouble(tx: Transaction, rollout: Rollout, *, who: str, why: str) -> None:
    """The rollout went wrong: its commit is barred; of a batch, each that could have gone alone is suspect instead."""
    batch = [commit for sha in rollout.commits if (commit := tx.commits.lock(rollout.app, sha)) is not None]
    if not batch:
        return
    guilty = set(selection.suspects([candidate(commit, tx) for commit in batch]))
    culprits = [commit for commit in batch if commit.sha in guilty]
    for commit in culprits:
        if len(culprits) > 1:
            tx.commits.update(commit, suspect=True)
            tx.record(rollout.app, f"commit {commit.sha}", "suspect", who=who, why=why)
        else:
            bar_locked(tx, commit, who=who, why=why)


def bar(app: str, name: str, deps: Deps, *, who: str, why: str) -> Commit:
    """Automation must not ship this commit; one still in test is barred as soon as it passes."""
    with deps.store.transaction() as tx:
        commit = named(tx, app, name)
        if commit.state is CommitState.FAILED:
            raise Conflict(f"commit {commit.sha[:12]} failed its tests; it is not shipped anyway")
        return bar_locked(tx, commit, who=who, why=why)


def bar_locked(tx: Transaction, commit: Commit, *, who: str, why: str) -> Commit:
    """As `bar`, in the caller's transaction; a failed or barred commit stays what it is."""
    commit = tx.commits.lock(commit.app, commit.sha) or commit  # its tests may be passing at this moment
    match commit.state:
        case CommitState.PASSED:
            return tx.commits.change(commit, CommitEvent.BAR, who=who, why=why, reason=why)
        case CommitState.RECEIVED | CommitState.TESTING:
            tx.record(commit.app, f"commit {commit.sha}", "bar as soon as it passes", who=who, why=why)
            return tx.commits.wish_bar(commit, why)
        case CommitState.BARRED | CommitState.FAILED:
            return commit


def unbar(app: str, name: str, deps: Deps, *, who: str, why: str) -> Commit:
    """Automation may ship this commit after all."""
    with deps.store.transaction() as tx:
        commit = named(tx, app, name)
        if commit.state is CommitState.BARRED:
            return tx.commits.change(
                commit, CommitEvent.UNBAR, who=who, why=why, reason=None, suspect=False, bar_wanted=None
            )
        if commit.bar_wanted is None and not commit.suspect:
            raise Conflict(f"commit {commit.sha[:12]} is {commit.state}, not barred")
        tx.record(commit.app, f"commit {commit.sha}", "unbar", who=who, why=why)
        if commit.bar_wanted is not None:
            return tx.commits.wish_bar(commit, None)
        return tx.commits.update(commit, suspect=False)


def named(tx: Transaction, app: str, name: str) -> Commit:
    """The known commit whose hash starts with `name`; NotFound, Conflict when there are several."""
    found = tx.commits.starting_with(AppName(app), name.lower())
    if not found:
        raise NotFound(
            f"no commit of {app} starts with {name!r}", remedy="give more digits, or push it first"
        )
    if len(found) > 1:
        raise Conflict(f"several commits of {app} start with {name!r}", remedy="give more digits")
    return found[0]
