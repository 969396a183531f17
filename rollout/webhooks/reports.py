"""Reports of CI servers: GitHub's status, check_run, workflow_run and workflow_job events, and GitLab's pipeline events."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from rollout.domain.checks import ELSEWHERE, LONGEST_NAME, NAME, PIPELINE
from rollout.domain.model import Check, CheckState, Push
from rollout.errors import Unreadable
from rollout.webhooks import payload
from rollout.webhooks.hub import ADDRESSES

GITHUB = frozenset({"status", "check_run", "workflow_run", "workflow_job"})
ACTIONS = "github-actions"
_ASKED = frozenset(
    {"rerequested", "requested_action"}
)  # a person wants something of a check_run: nothing came of it yet
LONGEST_THING = 300  # as the store's column is wide
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
_TIMES = ("created_at", "run_started_at", "started_at", "updated_at", "completed_at", "finished_at")
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
        said = _check(_name(found, "context"), found, "target_url", (state, ""), _times(found))
        check = replace(said, thing=event)
        return _report("github", delivery, addresses, full_name, payload.head(found, "sha"), check)
    run = payload.table(found, event)
    word = _GOES_ON
    if payload.text(run, "status") == "completed":
        word = _CONCLUSION.get(payload.text(run, "conclusion"), _FAILED)
    name = _name(run, "name") or _name(payload.table(found, "workflow"), "name")
    check = _of_its_run(event, run, _check(name, run, "html_url", word, _times(run)))
    return _report("github", delivery, addresses, full_name, payload.head(run, "head_sha"), check)


def gitlab(delivery: str, found: payload.Table, keys: tuple[str, ...]) -> Push:
    """As `github`; a pipeline's check is called "pipeline". A tag's is not the branch's, and a child's only a part of it.

    One that runs for a branch says so: several branches may have the commit.
    """
    project, run = payload.table(found, "project"), payload.table(found, "object_attributes")
    source = payload.text(run, "source")
    if run.get("tag") is True or source == "parent_pipeline":
        return Push("gitlab", delivery, "other")
    word = _PIPELINE.get(payload.text(run, "status"), _GOES_ON)
    # A pipeline that is run again keeps its own times until it ends: its new jobs tell.
    times = [time for one in (run, *payload.tables(found, "builds")) for time in _times(one)]
    name, ref = ELSEWHERE if source == "merge_request_event" else PIPELINE, payload.ref(run, "ref")
    # Run anew for the same reason it is one thing with those before it, as for GitLab itself.
    thing = f"{PIPELINE} {source} {ref}"[:LONGEST_THING]
    check = replace(_check(name, run, "url", word, times), thing=thing)
    full_name = payload.text(project, "path_with_namespace")
    push = _report(
        "gitlab", delivery, payload.texts(project, *keys), full_name, payload.head(run, "sha"), check
    )
    return replace(push, branch=ref)


def _name(within: payload.Table, key: str) -> str:
    """Of a check, as the configuration may ask for it; "" for what is no name."""
    found = within.get(key)
    cut = found[:LONGEST_NAME] if isinstance(found, str) else ""
    return cut if NAME.fullmatch(cut) else ""


def _check(name: str, within: payload.Table, url: str, word: Word, times: Sequence[float]) -> Check:
    state, details = word
    stamp = _stamp(times, within.get("id"), state) if times else ""
    return Check(name, state, payload.text(within, url), details=details, stamp=stamp)


def _stamp(times: Sequence[float], number: object, state: CheckState) -> str:
    """Texts in the order in which the server said them: by its clock, its number, and a run's result comes last."""
    return f"{max(0.0, *times):017.3f} {_number(number, 20):020d} {state is not CheckState.PENDING:d}"


def _of_its_run(event: str, run: payload.Table, check: Check) -> Check:
    """With which run of which suite it is about: run again it has another number, but a workflow's keeps its own.

    A check run of another CI server has times of that one's clock, and GitHub's where that says none: its result comes after
    its beginning whatever they say, and a higher number is a later attempt. Actions has one clock, and jobs of one name; its results
    tell when a job got its runner, and not when it began to wait for one.
    """
    number, times = _number(run.get("id"), 15), _times(run)
    if event == "workflow_run":
        return replace(check, thing=f"{event} {number}")
    if event == "workflow_job":
        suite, attempt = run.get("run_id"), _number(run.get("run_attempt"), 9)
    else:
        suite = payload.table(run, "check_suite").get("id")
        attempt = 0 if payload.text(payload.table(run, "app"), "slug") == ACTIONS else number
    is_over = check.state is not CheckState.PENDING
    return replace(
        check,
        thing=f"{event} {_number(suite, 15)}",
        run=number,
        attempt=attempt,
        since=None if is_over else min(times, default=None),
        until=max(times, default=None) if is_over else None,
        stamp=f"{is_over:d} {check.stamp}" if check.stamp else "",
    )


def _number(said: object, digits: int) -> int:
    return said if isinstance(said, int) and 0 <= said < 10**digits else 0


def _times(within: payload.Table) -> list[float]:
    """When something happened to it, as the server says."""
    return [time for key in _TIMES if (time := _seconds(payload.text(within, key))) is not None]


def _seconds(time: str) -> float | None:
    """GitHub says 2026-11-20T09:06:02Z, GitLab 2026-11-20 09:06:03 UTC or +0100; None for what is no time."""
    try:
        return datetime.fromisoformat(re.sub(r" ([+-])", r"\1", time.replace(" UTC", "Z"))).timestamp()
    except (ValueError, OverflowError):
        return None


def _report(
    provider: str, delivery: str, addresses: tuple[str, ...], full_name: str, sha: str, check: Check
) -> Push:
    if not (sha and check.name and (addresses or full_name)):
        raise Unreadable("a report without its commit, its check's name, or the repository's addresses")
    said = replace(check, source=provider)
    return Push(provider, delivery, "report", addresses, full_name, head=sha, check=said)
