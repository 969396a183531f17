"""Reports of CI servers over HTTP: who may say something, in which shapes, and what is answered."""

import json
from dataclasses import replace

import pytest

from rollout.domain.states import CommitState
from rollout.errors import ServiceUnavailable, StaleWrite
from rollout.services import freezes
from tests.support.recordings import headers
from tests.support.web import BEARER, PAYLOADS, SECRET, signature

SHA = f"{1:040x}"
XML = ("content-type", "application/xml")
GOOD = b'<testsuite><testcase name="a"/></testsuite>'


@pytest.fixture
def client(world, serve):
    """`shop` waits for the checks `unit` and `lint`."""
    app = world.deps.config.app("shop")
    tests = app.tests.model_copy(update={"source": "external", "required": ("unit", "lint")})
    config = replace(world.deps.config, apps={"shop": app.model_copy(update={"tests": tests})})
    world.config, world.deps = config, replace(world.deps, config=config)
    return serve(world.deps)


def reported(world):
    with world.store.reading() as tx:
        return {check.name: (str(check.state), check.source) for check in tx.checks.of("shop", SHA)}


def status(state="success"):
    body = {"sha": SHA, "context": "lint", "state": state, "repository": {"full_name": "acme/shop"}}
    return json.dumps(body).encode()


def hook(body, secret=None):
    signed = signature(body, secret) if secret else signature(body)
    return (
        ("X-GitHub-Event", "status"),
        ("X-GitHub-Delivery", "d-1"),
        ("X-Hub-Signature-256", f"sha256={signed}"),
        ("content-type", "application/json"),
    )


def test_json_junit_and_a_webhook_together_pass_a_commit(client, world):
    """Each way of reporting counts, and the commit's JSON shows what was said."""
    sha = world.push()
    xml = client.post(f"/api/commits/{sha}/checks?name=unit", BEARER, XML, body=GOOD)
    assert (xml.status, xml.json["state"], xml.json["apps"]) == (
        202,
        "success",
        [{"app": "shop", "said": "taken"}],
    )
    answer = client.post("/webhooks/github", *hook(status()), body=status())
    assert (answer.status, answer.json["outcome"]) == (202, "reported")
    world.run(seconds=10)
    with world.store.reading() as tx:
        assert tx.commits.get("shop", sha).state is CommitState.PASSED
    shown = client.get(f"/api/commits/{sha}", BEARER).json["checks"]
    assert [(one["name"], one["source"]) for one in shown] == [("lint", "github"), ("unit", "api")]


@pytest.mark.parametrize("written", ["Application/XML", "text/xml ; charset=utf-8", "TEXT/XML;charset=UTF-8"])
def test_a_media_type_is_the_same_however_it_is_written(client, world, written):
    """Capitals, blanks and parameters make no other type of it: the body is read as the JUnit XML that it is."""
    sha = world.push()
    address = f"/api/commits/{sha}/checks?name=unit"
    assert client.post(address, BEARER, ("content-type", written), body=GOOD).status == 202


@pytest.mark.parametrize(("first", "newest"), [("success", "failure"), ("failure", "success")])
def test_a_report_that_comes_again_changes_nothing(client, world, first, newest):
    """Byte for byte, and signed all the same: what the server said later counts, whichever of the two is the good word."""
    sha = world.push()
    freezes.freeze(
        world.config.app("shop"), world.deps, who="ann", why="so that nothing goes out", until=None
    )
    assert client.post(f"/api/commits/{sha}/checks?name=unit", BEARER, XML, body=GOOD).status == 202
    told = []
    for number, state in enumerate((first, newest)):
        at = {
            "id": 7 + number,
            "updated_at": f"2026-11-20T09:09:4{number}+00:00",
            "target_url": f"https://{number}",
        }
        told.append(json.dumps(json.loads(status(state)) | at).encode())
        assert client.post("/webhooks/github", *hook(told[-1]), body=told[-1]).json["outcome"] == "reported"
        world.run(seconds=10)
    for body in told:
        assert client.post("/webhooks/github", *hook(body), body=body).json["outcome"] == "duplicate"
        world.run(seconds=10)
    with world.store.reading() as tx:
        state = tx.commits.get("shop", sha).state
    assert reported(world)["lint"] == (newest, "github")
    assert state is (CommitState.PASSED if newest == "success" else CommitState.BARRED)


@pytest.mark.parametrize("error", [StaleWrite("a row"), ServiceUnavailable("the database does not answer")])
def test_a_report_that_cannot_be_kept_now_is_to_be_sent_again(client, world, monkeypatch, error):
    """Another transaction was at the same row, or the database is away: no fault of the sender, who hears when to come again."""

    def fails(*_words):
        raise error

    monkeypatch.setattr("rollout.services.checks.report", fails)
    answer = client.post(f"/api/commits/{SHA}/checks?name=unit", BEARER, XML, body=GOOD)
    assert (answer.status, answer.headers["retry-after"]) == (503, "10")


def test_a_forged_report_leaves_nothing(client, world):
    """Without the token, or signed by somebody else: 401, and no row."""
    body = b'{"name": "unit", "state": "success"}'
    assert client.post(f"/api/commits/{SHA}/checks", body=body).status == 401
    forged = hook(status(), "another secret")
    assert client.post("/webhooks/github", *forged, body=status()).status == 401
    assert reported(world) == {}


def test_a_report_of_another_repository_is_ignored(client, world):
    """Signed all the same, it is none of ours."""
    body = status().replace(b"acme/shop", b"acme/blog")
    answer = client.post("/webhooks/github", *hook(body), body=body)
    assert (answer.status, answer.json["outcome"]) == (202, "ignored")
    assert reported(world) == {}


@pytest.mark.parametrize(
    ("address", "headers", "body"),
    [
        (f"/api/commits/{SHA}/checks", (), b'{"name": "unit", "state": "fine"}'),
        (f"/api/commits/{SHA}/checks", (), b'{"name": "unit", "state": "success", "more": 1}'),
        (f"/api/commits/{SHA}/checks", (), b'{"name": "a\\nb", "state": "success"}'),
        (f"/api/commits/{SHA}/checks", (), b'{"name": "a", "state": "success", "url": "x\\u0000"}'),
        (f"/api/commits/{SHA[:12]}/checks", (), b'{"name": "unit", "state": "success"}'),
        (f"/api/commits/{SHA}/checks", (XML,), GOOD),
        (f"/api/commits/{SHA}/checks?name=unit", (XML,), b'<!DOCTYPE s [<!ENTITY e "x">]><s><testcase/></s>'),
    ],
)
def test_a_report_that_makes_no_sense_is_400(client, world, address, headers, body):
    """Nothing is guessed and nothing kept."""
    assert client.post(address, BEARER, *headers, body=body).status == 400
    assert reported(world) == {}


REPORTS = {
    "github_status": ("https://github.com/acme/shop.git", "ci/unit", "success"),
    "github_check_run": ("https://github.com/acme/shop.git", "unit", "failure"),
    "github_workflow_run": ("https://github.com/acme/shop.git", "tests", "success"),
    "github_workflow_run_waiting": ("https://github.com/acme/shop.git", "tests", "cancelled"),
    "gitlab_pipeline": ("https://gitlab.example.com/acme/web/shop.git", "pipeline", "success"),
}


@pytest.mark.parametrize("name", REPORTS)
def test_each_servers_report_is_kept_as_it_says(client, world, serve, name):
    """From the signed bytes to the row, with the address of its output."""
    repository, check, state = REPORTS[name]
    shop = world.config.app("shop").model_copy(update={"repository": repository})
    serving = serve(replace(world.deps, config=replace(world.config, apps={"shop": shop})))
    body, server = (PAYLOADS / f"{name}.json").read_bytes(), name.partition("_")[0]
    signed = ("X-Hub-Signature-256", f"sha256={signature(body)}")
    signed = signed if server == "github" else ("X-Gitlab-Token", SECRET)
    answer = serving.post(f"/webhooks/{server}", *headers(name).items(), signed, body=body)
    assert (answer.status, answer.json["outcome"]) == (202, "reported")
    with world.store.reading() as tx:
        delivery = tx.deliveries.newest(None, 1)[0]
        (kept,) = tx.checks.of("shop", delivery.head)
    assert (kept.name, kept.state, kept.source) == (check, state, server)
    assert kept.url.startswith("https://")


def test_a_webhook_that_makes_no_sense_says_what_to_look_at(client):
    """Signed and unreadable: who reads the answer in the git server's list of deliveries knows what to do."""
    body = b'{"ref": "refs/heads/main"}'
    given = [
        ("X-GitHub-Event", "push") if key == "X-GitHub-Event" else (key, value) for key, value in hook(body)
    ]
    answer = client.post("/webhooks/github", *given, body=body)
    assert answer.status == 400
    assert "rollout history --deliveries" in answer.json["remedy"]
