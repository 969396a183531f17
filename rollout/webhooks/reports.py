"""Reports of CI servers: GitHub's status, check_run, workflow_run and workflow_job events, and GitLab's pipeline events."""

from collections.abc import Mapping
from dataclasses import replace

from rollout.domain.model import Check, CheckState, Push
from rollout.errors import Unreadable
from rollout.webhooks import payload
from rollout.webhooks.hub import ADDRESSES

GITHUB = frozenset({"status", "check_run", "workflow_run", "workflow_job"})
_ASKED = frozenset(
    {"rerequested", "requested_action"}
)  # a person wants something of a check_run: nothing came of it yet
PIPELINE = "pipeline"  # the name of a GitLab pipeline's check
Word = tuple[CheckState, str]  # and what people are told of a run that says nothing
_AGAIN: Word = CheckState.CANCELLED, "was cancelled, run it again"
_STATUS = {"success": CheckState.SUCCESS, "pending": CheckState.PENDING}
# As for a protected branch: there a neutral and a skipped run let a commit pass; one that was cancelled, has gone stale
# (GitHub gave it up after 14 days) or wants an action of a person does not, and has found nothing wrong either. What else
# there is has failed: failure, timed_out, startup_failure.
_CONCLUSION: Mapping[str, Word] = {
    "success": (CheckState.SUCCESS, ""),
    "neutral": (CheckState.SUCCESS, ""),
    "skipped": (CheckState.SUCCESS, ""),
    "cancelled": _AGAIN,
    "stale": (CheckState.CANCELLED, "was given up by GitHub, run it again"),
    "action_required": (CheckState.CANCELLED, "wants an action of a person"),
}
# As for "Pipelines must succeed": a skipped pipeline is none, and so is one that stands at a job to be started by hand.
_PIPELINE: Mapping[str, Word] = {
    "success": (CheckState.SUCCESS, ""),
    "failed": (CheckState.FAILURE, ""),
    "canceled": _AGAIN,
    "skipped": (CheckState.CANCELLED, "was skipped, run it"),
    "manual": (CheckState.CANCELLED, "waits for a person to start its manual job"),
}
_GOES_ON: Word = CheckState.PENDING, ""
_FAILED: Word = CheckState.FAILURE, ""


def github(event: str, delivery: str, found: payload.Table) -> Push:
    """The report, or something else that is sent by the same event; Unreadable without its commit, its name or the repository's addresses."""
    if event == "check_run" and payload.text(found, "action") in _ASKED:
        return Push("github", delivery, "other")
    repository = payload.table(found, "repository")
    addresses, full_name = payload.texts(repository, *ADDRESSES), payload.text(repository, "full_name")
    if event == "status":
        state = _STATUS.get(payload.text(found, "state"), CheckState.FAILURE)
        check = _check(found, "context", "target_url", (state, ""))
        return _report("github", delivery, addresses, full_name, payload.head(found, "sha"), check)
    run = payload.table(found, event)
    word = _GOES_ON
    if payload.text(run, "status") == "completed":
        word = _CONCLUSION.get(payload.text(run, "conclusion"), _FAILED)
    name = payload.text(run, "name") or payload.text(payload.table(found, "workflow"), "name")
    check = _check({**run, "name": name}, "name", "html_url", word)
    return _report("github", delivery, addresses, full_name, payload.head(run, "head_sha"), check)


def gitlab(delivery: str, found: payload.Table, keys: tuple[str, ...]) -> Push:
    """As `github`; a pipeline's check is called "pipeline". A tag's is not the branch's, and a child's only a part of it."""
    project, run = payload.table(found, "project"), payload.table(found, "object_attributes")
    if run.get("tag") is True or payload.text(run, "source") == "parent_pipeline":
        return Push("gitlab", delivery, "other")
    word = _PIPELINE.get(payload.text(run, "status"), _GOES_ON)
    check = _check({**run, "name": PIPELINE}, "name", "url", word)
    full_name = payload.text(project, "path_with_namespace")
    return _report(
        "gitlab", delivery, payload.texts(project, *keys), full_name, payload.head(run, "sha"), check
    )


def _check(within: Mapping[str, object], name: str, url: str, word: Word) -> Check:
    state, details = word
    return Check(payload.text(within, name)[:200], state, payload.text(within, url), details=details)


def _report(
    provider: str, delivery: str, addresses: tuple[str, ...], full_name: str, sha: str, check: Check
) -> Push:
    if not (sha and check.name and (addresses or full_name)):
        raise Unreadable("a report without its commit, its check's name, or the repository's addresses")
    said = replace(check, source=provider)
    return Push(provider, delivery, "report", addresses, full_name, head=sha, check=said)
