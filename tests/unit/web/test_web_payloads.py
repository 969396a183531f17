"""What each server's push, tag, deletion, new branch, forced push and large push comes to, from the bytes to the record."""

import json
from dataclasses import replace

import pytest

from rollout.services import intake
from rollout.services.intake import NOT_OURS
from tests.support.web import PAYLOADS, SECRET, github, signature

DATA_CENTER = "bitbucket_data_center"
SERVERS = {
    "github": "https://github.com/acme/shop.git",
    "gitlab": "https://gitlab.example.com/acme/web/shop.git",
    "gitea": "https://git.example.com/acme/shop.git",
    "bitbucket_cloud": "https://bitbucket.org/acme/shop.git",
    DATA_CENTER: "https://bitbucket.example.com/scm/acme/shop.git",
}


def headers(server, name, body):
    """As the server sends them, signed its way."""
    match server:
        case "github":
            return github(body)
        case "gitlab":
            kind = "Tag Push Hook" if "tag" in name else "Push Hook"
            return (("X-Gitlab-Event", kind), ("X-Gitlab-Event-UUID", "1"), ("X-Gitlab-Token", SECRET))
        case "gitea":
            event = "delete" if "deletion" in name else "push"
            return (("X-Gitea-Event", event), ("X-Gitea-Signature", signature(body)))
        case _:
            key = "repo:refs_changed" if server == DATA_CENTER else "repo:push"
            return (("X-Event-Key", key), ("X-Hub-Signature", f"sha256={signature(body)}"))


@pytest.fixture
def send(world, serve):
    """Send a payload to an app that ships this branch of the server's repository; the answer and the stored delivery."""

    def send(server, name, *, branch="main", body=None, given=None):
        body = body or (PAYLOADS / f"{server}_{name}.json").read_bytes()
        shop = world.config.app("shop").model_copy(update={"repository": SERVERS[server], "branch": branch})
        client = serve(replace(world.deps, config=replace(world.deps.config, apps={"shop": shop})))
        path = f"/webhooks/{server.partition('_')[0]}"
        answer = client.post(path, *(given or headers(server, name, body)), body=body)
        assert answer.status == 202, answer.text
        with world.store.reading() as tx:
            return answer, tx.deliveries.newest(None, 1)[0]

    return send


def rows(world):
    """Every commit that has a row."""
    with world.store.reading() as tx:
        return [commit.sha for commit in tx.commits.unfinished("shop")]


def head(server, name):
    """The commit that the payload says is the branch's head."""
    found = json.loads((PAYLOADS / f"{server}_{name}.json").read_bytes())
    if server == "bitbucket_cloud":
        changes = (change["new"] for change in found["push"]["changes"])
        return [new["target"]["hash"] for new in changes if new and new["type"] == "branch"][-1]
    return found["after"] if server != DATA_CENTER else found["changes"][0]["toHash"]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("name", ["tag_push", "branch_deletion", "new_branch"])
def test_what_does_not_bring_the_branch_a_commit_is_ignored(world, send, server, name):
    """A tag, the end of the very branch, and a new one beside it: recorded as ignored, no commit, no ring."""
    answer, stored = send(server, name)
    assert answer.json["outcome"] == stored.outcome == "ignored"
    assert stored.reason != NOT_OURS
    assert rows(world) == []
    assert world.bell.queue == []


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("name", "branch"), [("push", "main"), ("forced_push", "main"), ("new_branch", "feature")]
)
def test_a_push_forced_or_not_to_an_old_branch_or_a_new_one_is_accepted(world, send, server, name, branch):
    """Its head has a row; what the rest of the branch is, git says."""
    _, stored = send(server, name, branch=branch)
    assert (stored.outcome, stored.head) == ("accepted", head(server, name))
    assert rows(world) == [head(server, name)]


@pytest.mark.parametrize("server", ["gitlab", "gitea", "bitbucket_cloud"])
def test_a_push_of_two_thousand_commits_that_the_server_cut_is_its_head(world, send, server):
    """Whichever the server lists, first or last: the head is taken, and nothing of the list."""
    _, stored = send(server, "large_push")
    assert (stored.outcome, stored.head) == ("accepted", head(server, "push"))
    assert rows(world) == [stored.head]


def test_githubs_push_of_two_thousand_commits_is_its_head(world, send):
    """GitHub lists them all, about 1 MB."""
    push = json.loads((PAYLOADS / "github_push.json").read_bytes())
    (commit, *_) = push["commits"]
    push["commits"] = [commit | {"id": f"{number:040x}"} for number in range(1999)] + [commit]
    body = json.dumps(push).encode()
    assert 700_000 < len(body) < 2_000_000
    _, stored = send("github", "large_push", body=body)
    assert stored.outcome == "accepted"
    assert rows(world) == [push["after"]]


def forgejo(body, *names, signed=None):
    """Forgejo's headers under these names."""
    return tuple(
        (f"X-{name}-{key}", value)
        for name in names
        for key, value in (
            ("Event", "push"),
            ("Delivery", f"{name}-1"),
            ("Signature", signed or signature(body)),
        )
    )


@pytest.mark.parametrize("names", [("Forgejo",), ("Forgejo", "Gitea")], ids=" and ".join)
def test_forgejos_own_headers_are_taken(send, names):
    """Alone, or with Gitea's beside them as it sends them today."""
    body = (PAYLOADS / "forgejo_push.json").read_bytes()
    _, stored = send("gitea", "push", body=body, given=forgejo(body, *names))
    assert (stored.outcome, stored.head) == ("accepted", json.loads(body)["after"])
    assert stored.delivery == "Forgejo-1"


def test_a_wrong_signature_of_forgejo_is_not_saved_by_one_of_gitea(client):
    """One server signs once; the other name is no second try."""
    body = (PAYLOADS / "forgejo_push.json").read_bytes()
    given = (*forgejo(body, "Forgejo", signed="0" * 64), *forgejo(body, "Gitea"))
    assert client.post("/webhooks/gitea", *given, body=body).status == 401


def test_one_delivery_replayed_is_a_duplicate_of_itself(send):
    """The same bytes, headers and id once more: recorded, named, and without effect."""
    first = send("github", "push")[1]
    answer, again = send("github", "push")
    assert (again.outcome, again.ref) == ("duplicate", f"delivery {first.id}")
    assert "was sent before" in answer.json["reason"]


def test_two_pushes_in_the_wrong_order_are_what_git_says(world, send):
    """The older push's webhook comes last: both have their rows, in the branch's order, and the newer one is the head."""
    older, newer = (world.workshop.push() for _ in range(2))
    push = json.loads((PAYLOADS / "github_push.json").read_bytes())
    for number, sha in enumerate((newer, older)):
        body = json.dumps(push | {"after": sha}).encode()
        send("github", "push", body=body, given=github(body, delivery=f"d-{number}"))
    intake.read_branch(world.config.app("shop"), world.deps, who="test", why="looked")
    with world.store.reading() as tx:
        assert [tx.commits.get("shop", sha).position for sha in (older, newer)] == [1, 2]
        assert tx.commits.newest("shop").sha == newer
