"""What becomes of a webhook: exactly one end, with what it names (I4)."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from rollout.domain.model import NOT_ON_BRANCH
from rollout.domain.states import CommitState

REFUSED = {CommitState.BARRED: "is barred", CommitState.FAILED: "failed"}
PATIENCE = timedelta(days=1)  # after that nobody finds out any more whether the branch has the commit


class Outcome(StrEnum):
    """What is recorded of a delivery."""

    ACCEPTED = "accepted"  # no end yet: its commit is on its way
    STARTED = "started"  # a rollout began that brings its commit
    SUPERSEDED = "superseded"  # a rollout began with something newer, or that is the branch's head
    DUPLICATE = "duplicate"  # of an earlier delivery, or of what was decided before it came
    IGNORED = "ignored"  # no push to a branch of ours
    REPORTED = "reported"  # a CI server's report, or a pull request
    REJECTED = "rejected"  # its commit must not go out, or its body makes no sense
    ERROR = "error"  # nobody could tell within a day


@dataclass(frozen=True, slots=True)
class End:
    """An outcome, why, and what it names: "rollout 7", "commit 1a2b…", "delivery 3"."""

    outcome: Outcome
    reason: str
    ref: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """The commit that a delivery told of, as its row is now."""

    sha: str
    state: CommitState
    position: int | None  # None: git has not confirmed it
    on_branch: bool
    reason: str | None
    merged_into: str | None = None  # the commit of the branch's line that it came in with
    pull: int | None = None  # the request that it was first seen as the head of


@dataclass(frozen=True, slots=True)
class Out:
    """The newest commit that is on its way to the fleet, or that the fleet runs."""

    sha: str
    position: int
    ref: str  # its rollout


def end_of(told: Told, out: Out | None, head: str | None) -> End | None:
    """How a delivery ends by the rows as they are now; None while its commit is on its way.

    It ends once, with what was decided first. A retest, an unbar, or a push back to the commit later on does not open it
    again: `rollout why COMMIT` tells of the commit, the delivery of what became of the webhook. `head` is the branch's.
    """
    if told.merged_into is not None and told.state not in REFUSED:
        merge = told.merged_into
        return End(Outcome.SUPERSEDED, f"commit {told.sha[:12]} came in with {merge[:12]}", f"commit {merge}")
    if _unconfirmed(told):
        return None
    if told.state in REFUSED:
        return End(
            Outcome.REJECTED,
            f"commit {told.sha[:12]} {REFUSED[told.state]}: {told.reason}",
            f"commit {told.sha}",
        )
    if not told.on_branch:
        return _left(told, head)
    return _taken(told, out) if out is not None else None


def known_before(end: End) -> End:
    """Of a delivery whose commit had been found, and decided over, before it came."""
    return End(Outcome.DUPLICATE, f"known already: {end.reason}", end.ref)


def lost(told: Told | None, app: str | None, *, configured: bool) -> End | None:
    """How a delivery ends that has had no end for `PATIENCE`; None when its commit only waits, however long."""
    if not configured:
        return End(Outcome.ERROR, f"app {app} is not in rollout.toml any more")
    if told is not None and not _unconfirmed(told):
        return None
    why = told.reason if told is not None and told.reason else "the branch could not be read"
    return End(
        Outcome.ERROR,
        f"for a day nobody could tell whether the branch has this commit: {why}"
        " (`poll_failed` in the log says more; `rollout check` asks the git server)",
    )


def _left(told: Told, head: str | None) -> End:
    why = f"commit {told.sha[:12]} is not on the branch any more"
    if head is None:
        return End(Outcome.REJECTED, why, f"commit {told.sha}")
    return End(Outcome.SUPERSEDED, f"{why}, its head is {head[:12]}", f"commit {head}")


def _taken(told: Told, out: Out) -> End | None:
    if told.position is None or told.position > out.position:
        return None
    if told.sha == out.sha:
        return End(Outcome.STARTED, f"{out.ref} began with commit {told.sha[:12]}", out.ref)
    return End(
        Outcome.SUPERSEDED,
        f"commit {told.sha[:12]} is older than {out.sha[:12]}, with which {out.ref} began",
        out.ref,
    )


def _unconfirmed(told: Told) -> bool:
    """Nothing is decided, and git has not been seen to have it on the branch: its server is away, or behind."""
    if told.state is CommitState.FAILED:
        as_request = told.pull is not None  # what CI servers say of the branch may yet decide
        missing = as_request or (told.reason or "").startswith(NOT_ON_BRANCH)
        return missing and told.position is None
    return told.position is None and told.state is not CommitState.BARRED
