"""Are the payloads of our tests shaped like what git servers send? Compared with recordings that other projects publish.

`git clone` the repositories that RECORDED names to DIRECTORY/owner/name, then `python -m tests.support.recordings DIRECTORY`:
says which field is of another type in the recording, and which recording is read as something else than ours; 1 when there is
any. Fields of newer servers, which their documentation has and an old recording has not, are no difference.
"""

import json
import sys
from pathlib import Path
from typing import Any

from rollout.webhooks import PROVIDERS
from tests.support.web import PAYLOADS

OCTOKIT = "octokit/webhooks/payload-examples/api.github.com"
GO_SCM = "drone/go-scm/scm/driver"
PLAYGROUND = "go-playground/webhooks/testdata"
RECORDED = {
    "github_push": f"{OCTOKIT}/push/with-new-branch.payload.json",
    "github_new_branch": f"{GO_SCM}/github/testdata/webhooks/push_branch_create.json",
    "github_branch_deletion": f"{GO_SCM}/github/testdata/webhooks/push_branch_delete.json",
    "github_tag_push": f"{GO_SCM}/github/testdata/webhooks/push_tag.json",
    "github_ping": f"{OCTOKIT}/ping/payload.json",
    "github_status": f"{OCTOKIT}/status/payload.json",
    "github_check_run": f"{OCTOKIT}/check_run/completed.1.payload.json",
    "github_check_run_rerequested": f"{OCTOKIT}/check_run/rerequested.payload.json",
    "github_check_suite": f"{OCTOKIT}/check_suite/completed.payload.json",
    "github_workflow_run": f"{OCTOKIT}/workflow_run/completed.payload.json",
    "github_workflow_run_waiting": f"{OCTOKIT}/workflow_run/requested.with-conclusion.payload.json",
    "github_pull_request": f"{OCTOKIT}/pull_request/synchronize.payload.json",
    "gitlab_push": f"{PLAYGROUND}/gitlab/push-event.json",
    "gitlab_new_branch": f"{GO_SCM}/gitlab/testdata/webhooks/branch_create.json",
    "gitlab_branch_deletion": f"{GO_SCM}/gitlab/testdata/webhooks/branch_delete.json",
    "gitlab_tag_push": f"{GO_SCM}/gitlab/testdata/webhooks/tag_create.json",
    "gitlab_pipeline": f"{GO_SCM}/gitlab/testdata/webhooks/pipeline_hook.json",
    "gitlab_merge_request": f"{GO_SCM}/gitlab/testdata/webhooks/pull_request_create.json",
    "gitea_push": f"{PLAYGROUND}/gitea/push-event.json",
    "gitea_branch_creation": f"{PLAYGROUND}/gitea/create-event.json",
    "gitea_branch_deletion": f"{PLAYGROUND}/gitea/delete-event.json",
    "gitea_pull_request": f"{PLAYGROUND}/gitea/pull-request-event.json",
    "bitbucket_cloud_push": f"{GO_SCM}/bitbucket/testdata/webhooks/push.json",
    "bitbucket_cloud_new_branch": f"{GO_SCM}/bitbucket/testdata/webhooks/push_branch_create.json",
    "bitbucket_cloud_branch_deletion": f"{GO_SCM}/bitbucket/testdata/webhooks/push_branch_delete.json",
    "bitbucket_cloud_tag_push": f"{GO_SCM}/bitbucket/testdata/webhooks/push_tag_create.json",
    "bitbucket_data_center_branch_deletion": f"{PLAYGROUND}/bitbucket-server/repo-refs-changed.json",
}


_GITHUB = ("push", "ping", "status", "check_run", "check_suite", "workflow_run", "pull_request")


def headers(name: str) -> dict[str, str]:
    """The header that says which event our payload of this name is; a push unless its name says something else."""
    server, _, what = name.partition("_")
    match server:
        case "github":
            return {"X-GitHub-Event": next((event for event in _GITHUB if what.startswith(event)), "push")}
        case "gitlab":
            return {"X-Gitlab-Event": "the body says it too"}
        case "gitea" | "forgejo":
            events = {
                "branch_creation": "create",
                "branch_deletion": "delete",
                "pull_request": "pull_request",
            }
            return {"X-Gitea-Event": events.get(what, "push")}
        case _:
            return {"X-Event-Key": "repo:refs_changed" if what.startswith("data_center") else "repo:push"}


def differences(name: str, recording: bytes) -> list[str]:
    """What is wrong with our payload of this name; nothing, when it is shaped like the recording and read as it is."""
    ours = (PAYLOADS / f"{name}.json").read_bytes()
    found = list(_shape(json.loads(ours), json.loads(recording), ""))
    mine, its = _outcome(name, ours), _outcome(name, recording)
    return found if mine == its else [*found, f"is read as {mine}, the recording as {its}"]


def _outcome(name: str, body: bytes) -> tuple[Any, ...]:
    push = PROVIDERS[name.partition("_")[0]].parse(headers(name), body)
    check = push.check and (push.check.state, push.check.details)
    return push.kind, bool(push.branch), bool(push.head), check, bool(push.repositories or push.full_name)


def _shape(ours: Any, its: Any, path: str) -> list[str]:
    if ours is None or its is None:
        return []
    if type(ours) is not type(its):
        return [f"{path} is a {type(ours).__name__}, recorded a {type(its).__name__}"]
    if isinstance(ours, list):
        return [line for one in ours if its for line in _shape(one, its[0], f"{path}[]")]
    if not isinstance(ours, dict):
        return []
    return [line for key in ours if key in its for line in _shape(ours[key], its[key], f"{path}.{key}")]


def main(directory: str) -> int:
    """Say what differs."""
    found = 0
    for name, path in RECORDED.items():
        for line in differences(name, (Path(directory) / path).read_bytes()):
            found += 1
            sys.stdout.write(f"{name}: {line}\n")
    sys.stdout.write(f"{len(RECORDED)} payloads compared, {found} differences\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
