"""What webhooks say, reduced to a Push; and what makes no sense."""

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.model import Push
from rollout.errors import Unreadable
from rollout.webhooks import PROVIDERS
from tests.support.recordings import headers
from tests.support.web import PAYLOADS

EVENTS = {
    "github": {"X-GitHub-Event": "push", "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958"},
    "gitlab": {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Event-UUID": "13792a34-cac6-4fda-95a8-c58e00a3954e"},
    "gitea": {"X-Gitea-Event": "push", "X-Gitea-Delivery": "f6266f16-1bf3-46a5-9ea4-602e06ead473"},
    "bitbucket": {"X-Event-Key": "repo:push", "X-Request-UUID": "7b2a2b4e-5c0f-4f0c-9d43-0d7c5a1f3c11"},
}
HEADS = {
    "github": "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c",
    "gitlab": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7",
    "gitea": "bffeb74224043ba2feb48d137756c8a9331c449a",
}
NOTHING = "0" * 40


@pytest.fixture(params=HEADS)
def name(request):
    """Each server that tells of one branch at a time."""
    return request.param


def parse(name, body, **more):
    """The body as this server sends it."""
    return PROVIDERS[name].parse({**EVENTS[name], "Content-Type": "application/json", **more}, body)


def branch(name):
    return ("push", name, True, None)


def deleted(name):
    return ("push", name, False, None)


def check(name, state, branch=""):
    return ("report", branch, True, (name, state))


OTHER, PULL = ("other", "", False, None), ("pull", "", False, None)
READ = {
    "bitbucket_cloud_branch_deletion": deleted("main"),
    "bitbucket_cloud_forced_push": branch("main"),
    "bitbucket_cloud_large_push": branch("main"),
    "bitbucket_cloud_new_branch": branch("feature"),
    "bitbucket_cloud_push": branch("feature"),
    "bitbucket_cloud_tag_push": OTHER,
    "bitbucket_data_center_branch_deletion": deleted("main"),
    "bitbucket_data_center_forced_push": branch("main"),
    "bitbucket_data_center_new_branch": branch("feature"),
    "bitbucket_data_center_push": branch("main"),
    "bitbucket_data_center_tag_push": OTHER,
    "forgejo_push": branch("main"),
    "gitea_branch_creation": OTHER,
    "gitea_branch_deletion": OTHER,
    "gitea_forced_push": branch("main"),
    "gitea_large_push": branch("main"),
    "gitea_new_branch": branch("feature"),
    "gitea_pull_request": PULL,
    "gitea_push": branch("main"),
    "gitea_tag_push": ("other", "", True, None),
    "github_branch_deletion": deleted("main"),
    "github_check_run": check("unit", "failure"),
    "github_check_run_rerequested": OTHER,
    "github_check_suite": OTHER,
    "github_forced_push": branch("main"),
    "github_new_branch": branch("feature"),
    "github_ping": ("ping", "", False, None),
    "github_pull_request": PULL,
    "github_push": branch("main"),
    "github_status": check("ci/unit", "success"),
    "github_tag_push": ("other", "", True, None),
    "github_workflow_run": check("tests", "success"),
    "github_workflow_run_waiting": check("tests", "cancelled"),
    "gitlab_branch_deletion": deleted("main"),
    "gitlab_forced_push": branch("main"),
    "gitlab_large_push": branch("main"),
    "gitlab_merge_request": PULL,
    "gitlab_new_branch": branch("feature"),
    "gitlab_pipeline": check("pipeline", "success", "main"),
    "gitlab_push": branch("main"),
    "gitlab_tag_push": OTHER,
}


@pytest.mark.parametrize("file", sorted(PAYLOADS.glob("*.json")), ids=lambda file: file.stem)
def test_every_payload_is_read_as_what_it_is(file):
    """Each of them, so that none is left lying: its kind, its branch, whether it has a head, and what is said of a check."""
    server = {"forgejo": "gitea"}.get(kind := file.stem.partition("_")[0], kind)
    push = PROVIDERS[server].parse(headers(file.stem), file.read_bytes())
    said = push.check and (push.check.name, str(push.check.state))
    assert (push.kind, push.branch, bool(push.head), said) == READ[file.stem]
    if push.kind in {"push", "pull", "report"}:
        assert push.full_name.lower().endswith("acme/shop") or push.full_name == "acme/web/shop"


def test_a_pull_requests_own_fields_are_not_mistaken_for_the_repositorys(payload):
    """Heads, bases and forks have repositories of their own in the same payload: the one that sends it counts."""
    pull = PROVIDERS["gitlab"].parse(headers("gitlab_merge_request"), payload("gitlab_merge_request"))
    assert pull.full_name == "acme/web/shop"
    run = PROVIDERS["github"].parse(
        headers("github_workflow_run_waiting"), payload("github_workflow_run_waiting")
    )
    assert (run.full_name, run.check.details) == ("acme/shop", "wants an action of a person")


@pytest.mark.parametrize("change", [{"tag": True}, {"source": "parent_pipeline"}])
def test_a_pipeline_that_is_not_the_branchs_is_no_report(payload, change):
    """A tag's tests something else, and a child's is over before its parent is."""
    body = payload("gitlab_pipeline", lambda p: p["object_attributes"].update(change))
    assert PROVIDERS["gitlab"].parse(headers("gitlab_pipeline"), body).kind == "other"


def test_a_check_has_the_address_of_its_output(payload):
    """Which people are sent to, as the output is there."""
    for name, address in (
        ("github_status", "https://ci.example.com/acme/shop/builds/1842"),
        ("github_check_run", "https://github.com/acme/shop/runs/128620228"),
        ("github_workflow_run", "https://github.com/acme/shop/actions/runs/289782451"),
        ("gitlab_pipeline", "https://gitlab.example.com/acme/web/shop/-/pipelines/3187"),
    ):
        push = PROVIDERS[name.partition("_")[0]].parse(headers(name), payload(name))
        assert push.check.url == address


def test_a_push_is_read(name, payload):
    """A push has its branch, its head, its delivery and every address of its repository."""
    push = parse(name, payload(f"{name}_push"))
    assert (push.provider, push.kind, push.branch, push.head) == (name, "push", "main", HEADS[name])
    assert push.delivery in EVENTS[name].values()
    assert push.full_name.endswith("/shop")
    assert any(address.startswith("https://") for address in push.repositories)
    assert any("git@" in address for address in push.repositories)


def test_a_deleted_branch_has_no_head(name, payload):
    """Deleting a branch is a push without a head."""
    push = parse(name, payload(f"{name}_push", lambda p: p.update(after=NOTHING, checkout_sha=None)))
    assert (push.kind, push.branch, push.head) == ("push", "main", "")


@pytest.mark.parametrize("branch", ["look-\U0001f469\u200d\U0001f4bb", "soft\u00adhyphen", "\u202eturned"])
def test_a_branch_has_every_character_that_git_allows(name, payload, branch):
    """A joined emoji, or what is not seen, makes no push unreadable: the server would be told that it is at fault."""
    push = parse(name, payload(f"{name}_push", lambda p: p.update(ref=f"refs/heads/{branch}")))
    assert (push.kind, push.branch) == ("push", branch)


def test_bitbuckets_branches_have_every_character_that_git_allows(payload):
    """None of several is left out for a joined emoji in its name."""
    joined = "look-\U0001f469\u200d\U0001f4bb"

    def rename(found):
        found["push"]["changes"][0]["new"]["name"] = joined

    assert parse("bitbucket", payload("bitbucket_cloud_push", rename)).branch == joined


def test_a_tag_is_no_branch(name, payload):
    """A pushed tag is something else, with no branch."""
    push = parse(name, payload(f"{name}_push", lambda p: p.update(ref="refs/tags/main")))
    assert (push.kind, push.branch) == ("other", "")


def test_gitlabs_tag_event_is_something_else(payload):
    """GitLab's own event for tags is no push."""
    push = parse(
        "gitlab", payload("gitlab_push", lambda p: p.update(object_kind="tag_push", ref="refs/tags/v1"))
    )
    assert push.kind == "other"


PULLS = {
    "github": {"X-GitHub-Event": "pull_request"},
    "gitlab": {"X-Gitlab-Event": "Merge Request Hook"},
    "gitea": {"X-Gitea-Event": "pull_request"},
}


def test_a_pull_request_says_whose_it_is_and_nothing_more(name, payload):
    """Neither a branch nor a commit of it is taken from there: what is fetched, the configuration says."""
    body = payload(f"{name}_push", lambda p: p.update(object_kind="merge_request", action="opened", number=7))
    push = parse(name, body, **PULLS[name])
    assert (push.kind, push.branch, push.head) == ("pull", "", "")
    assert push.repositories == parse(name, payload(f"{name}_push")).repositories


@pytest.mark.parametrize("server", ["github", "gitea"])
def test_a_pull_request_of_nobodys_repository_makes_no_sense(server):
    """Without an address there is nothing to look at."""
    with pytest.raises(Unreadable, match="addresses"):
        parse(server, b'{"action": "opened"}', **PULLS[server])


def test_other_events_are_something_else(payload):
    """Events that we do not know are told as such, whatever is in them."""
    assert parse("github", b"{}", **{"X-GitHub-Event": "issues"}).kind == "other"
    assert parse("gitea", b"{}", **{"X-Gitea-Event": "create"}).kind == "other"
    assert parse("gitlab", b'{"object_kind": "issue"}').kind == "other"
    assert parse("bitbucket", b"{}", **{"X-Event-Key": "repo:fork"}).kind == "other"


def test_pings_are_pings(payload):
    """GitHub's and Bitbucket's test deliveries are pings."""
    assert parse("github", payload("github_ping"), **{"X-GitHub-Event": "ping"}).kind == "ping"
    assert parse("bitbucket", b'{"test": true}', **{"X-Event-Key": "diagnostics:ping"}).kind == "ping"


def test_bitbucket_cloud_tells_of_several_branches(payload):
    """Every pushed branch is there, deleted ones without a head, tags left out."""
    push = parse("bitbucket", payload("bitbucket_cloud_push"))
    assert (push.kind, push.branch, push.head) == (
        "push",
        "feature",
        "709d658dc5b6d6afcd46049c2f332ee3f515a67d",
    )
    assert push.more == (("main", "3b5d3c3b8e4f9a6f0a6b1f1a0e9d8c7b6a5f4e3d"), ("gone", ""))
    assert (push.repositories, push.full_name) == (("https://bitbucket.org/acme/shop",), "acme/shop")


def test_bitbucket_data_center_is_read(payload):
    """Data Center's other payload says the same."""
    push = parse("bitbucket", payload("bitbucket_data_center_push"), **{"X-Event-Key": "repo:refs_changed"})
    assert (push.kind, push.branch, push.head) == ("push", "main", "178864a7d521b6f5e720b386b2c2b0ef8563e0dc")
    assert push.full_name == "ACME/shop"
    assert "ssh://git@bitbucket.example.com:7999/acme/shop.git" in push.repositories


def test_a_push_of_tags_only_is_something_else(payload):
    """A Bitbucket push without a branch is no push for us."""
    body = payload("bitbucket_cloud_push", lambda p: p["push"].update(changes=p["push"]["changes"][1:2]))
    assert parse("bitbucket", body).kind == "other"


def test_a_form_is_read_too(payload):
    """GitHub's other content type carries the same JSON in a form."""
    body = urlencode({"payload": payload("github_push").decode()}).encode()
    push = parse("github", body, **{"Content-Type": "application/x-www-form-urlencoded"})
    assert push.head == HEADS["github"]


def test_a_delivery_without_an_id_is_named_by_its_body(payload):
    """Without a delivery id, or with a strange one, the body's digest stands for it."""
    body = payload("github_push")
    for strange in ("", "x" * 200, "a\nb"):
        push = parse("github", body, **{"X-GitHub-Delivery": strange})
        assert len(push.delivery) == 64


BROKEN = {
    "nothing": b"",
    "no JSON": b"hello",
    "cut off": b'{"ref": "refs/heads/ma',
    "not an object": b"[1]",
    "bad UTF-8": b'{"ref": "\xff"}',
    "NaN": b'{"n": NaN}',
    "a key twice": b'{"ref": "a", "ref": "b"}',
    "an inner key twice": b'{"repository": {"full_name": "a/b", "full_name": "c/d"}}',
    "deep": b'{"a":' * 100 + b"1" + b"}" * 100,
    "very deep": b"[" * 200_000,
    "a huge number": b'{"n": ' + b"9" * 10_000 + b"}",
    "too large": b'{"a": "' + b"x" * 5_000_000 + b'"}',
    "a form without payload": b"a=b",
    "compressed": b"\x1f\x8b\x08\x00",
}


@pytest.mark.parametrize("which", EVENTS)
@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_a_broken_body_is_unreadable(which, body):
    """Whatever a body is, it is read or it is Unreadable."""
    with pytest.raises(Unreadable):
        parse(which, body)


def test_a_compressed_body_is_unreadable(name, payload):
    """Nobody compresses webhooks; what says so is refused before it is opened."""
    with pytest.raises(Unreadable, match="compressed"):
        parse(name, payload(f"{name}_push"), **{"Content-Encoding": "gzip"})


def test_a_doubled_event_header_is_unreadable(payload):
    """Two event headers leave open which one is meant."""
    headers = [*EVENTS["github"].items(), ("x-github-event", "ping")]
    with pytest.raises(Unreadable, match="2 times"):
        PROVIDERS["github"].parse(headers, payload("github_push"))


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.pop("ref"),
        lambda p: p.update(ref=["refs/heads/main"]),
        lambda p: p.update(ref="refs/heads/ma\nin"),
        lambda p: p.pop("after"),
        lambda p: p.update(after="HEAD"),
        lambda p: p.update(after="--upload-pack=x"),
        lambda p: p.update(after="a" * 64),
        lambda p: p.update(after={"sha": 1}),
        lambda p: p.update(repository=None, project=None),
        lambda p: p.update(repository=[], project="x"),
    ],
)
def test_a_push_that_makes_no_sense_is_unreadable(name, payload, change):
    """A push without a ref, a head that is a commit, or a repository is Unreadable."""
    with pytest.raises(Unreadable):
        parse(name, payload(f"{name}_push", change))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["ref", "after", "repository", "project", "object_kind", "push", "changes"]


@given(st.dictionaries(st.sampled_from(KEYS), JSON | st.just("push")), st.sampled_from(sorted(EVENTS)))
def test_any_json_is_read_or_unreadable(found, which):
    """No shape of JSON leads to anything but a Push or Unreadable."""
    try:
        push = parse(which, json.dumps(found).encode())
    except Unreadable:
        return
    assert isinstance(push, Push)
