"""Reports of CI servers: GitHub's status, check_run and workflow_run events, and GitLab's pipeline events."""

from collections.abc import Mapping

from rollout.domain.model import Check, CheckState, Push
from rollout.errors import Unreadable
from rollout.webhooks import payload
from rollout.webhooks.hub import ADDRESSES

GITHUB = frozenset({"status", "check_run", "workflow_run"})
PIPELINE = "pipeline"  # the name of a GitLab pipeline's check
_STATUS = {"success": CheckState.SUCCESS, "pending": CheckState.PENDING}
_CONCLUSION = {
    "success": CheckState.SUCCESS,
    "neutral": CheckState.SUCCESS,
}  # a skipped one says nothing good
_ENDED = {"success": CheckState.SUCCESS} | dict.fromkeys(
    ("failed", "canceled", "skipped"), CheckState.FAILURE
)


def github(event: str, delivery: str, found: payload.Table) -> Push:
    """The report; Unreadable without its commit, its name or the repository's addresses."""
    repository = payload.table(found, "repository")
    addresses, full_name = payload.texts(repository, *ADDRESSES), payload.text(repository, "full_name")
    if event == "status":
        check = _check(
            found, "context", "target_url", _STATUS.get(payload.text(found, "state"), CheckState.FAILURE)
        )
        return _report("github", delivery, addresses, full_name, payload.head(found, "sha"), check)
    run = payload.table(found, event)
    state = CheckState.PENDING
    if payload.text(run, "status") == "completed":
        state = _CONCLUSION.get(payload.text(run, "conclusion"), CheckState.FAILURE)
    check = _check(run, "name", "html_url", state)
    return _report("github", delivery, addresses, full_name, payload.head(run, "head_sha"), check)


def gitlab(delivery: str, found: payload.Table, keys: tuple[str, ...]) -> Push:
    """As `github`; a pipeline's check is called "pipeline"."""
    project, run = payload.table(found, "project"), payload.table(found, "object_attributes")
    state = _ENDED.get(payload.text(run, "status"), CheckState.PENDING)
    check = _check({**run, "name": PIPELINE}, "name", "url", state)
    full_name = payload.text(project, "path_with_namespace")
    return _report(
        "gitlab", delivery, payload.texts(project, *keys), full_name, payload.head(run, "sha"), check
    )


def _check(within: Mapping[str, object], name: str, url: str, state: CheckState) -> Check:
    return Check(payload.text(within, name)[:200], state, payload.text(within, url))


def _report(
    provider: str, delivery: str, addresses: tuple[str, ...], full_name: str, sha: str, check: Check
) -> Push:
    if not (sha and check.name and (addresses or full_name)):
        raise Unreadable("a report without its commit, its check's name, or the repository's addresses")
    said = Check(check.name, check.state, check.url, source=provider)
    return Push(provider, delivery, "report", addresses, full_name, head=sha, check=said)
