"""Webhooks over the real application: signed, stored, answered."""

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import tracemalloc
from dataclasses import replace
from functools import partial
from threading import Event
from unittest.mock import Mock

import pytest
from pydantic import SecretStr

from rollout.config import secret_files
from rollout.config.deploy_file import AppConfig
from rollout.domain.pipeline import RUN_TESTS
from rollout.errors import ConfigError, Conflict
from rollout.services import intake, testing
from rollout.store.store import Store
from rollout.web.app import build
from rollout.web.service import Limits
from rollout.webhooks.payload import MOST_BYTES
from tests.support.processes import until
from tests.support.web import (
    PATIENT,
    PAYLOADS,
    SECRET,
    Client,
    an_application,
    github,
    push_body,
    settings,
    signature,
)

A, B = "1" * 40, "2" * 40


def deliveries(world):
    """Outcome counts of what is stored."""
    with world.store.reading() as tx:
        return tx.deliveries.counts()


def commits(world, *shas):
    """Which of these have a row."""
    with world.store.reading() as tx:
        return [sha for sha in shas if tx.commits.get("shop", sha)]


def send(client, body, provider="github", **more):
    """A signed GitHub push."""
    return client.post(f"/webhooks/{provider}", *github(body, **more), body=body)


def gitlab_headers(body, secret=SECRET):
    """GitLab's own signature, as Standard Webhooks says."""
    signed = hmac.new(secret.encode(), b"id-1.1764000000." + body, hashlib.sha256).digest()
    return (
        ("webhook-id", "id-1"),
        ("webhook-timestamp", "1764000000"),
        ("webhook-signature", f"v1,{base64.b64encode(signed).decode()}"),
    )


HEADERS = {
    "github_push": ("github", github),
    "gitea_push": (
        "gitea",
        lambda body: (
            ("X-Gitea-Event", "push"),
            ("X-Gitea-Delivery", "g"),
            ("X-Gitea-Signature", signature(body)),
        ),
    ),
    "gitlab_push": ("gitlab", gitlab_headers),
    "bitbucket_cloud_push": (
        "bitbucket",
        lambda body: (("X-Event-Key", "repo:push"), ("X-Hub-Signature", f"sha256={signature(body)}")),
    ),
    "bitbucket_data_center_push": (
        "bitbucket",
        lambda body: (("X-Event-Key", "repo:refs_changed"), ("X-Hub-Signature", f"sha256={signature(body)}")),
    ),
}


def test_a_signed_push_is_stored_answered_and_rung(world, client):
    """202 with the delivery's number; the commit has its row, and a message to test it is sent."""
    answer = send(client, push_body(A))
    assert answer.status == 202
    assert answer.json["delivery"] >= 1
    assert answer.json["outcome"] == "accepted"
    assert commits(world, A) == [A]
    until(lambda: [entry[1] for entry in world.bell.queue] == [(RUN_TESTS,)], what="the ring")


@pytest.mark.parametrize("name", HEADERS)
def test_each_servers_recorded_push_is_taken_with_its_own_signature(world, client, name):
    """The recorded payload of each server, signed its way, is 202; with one bit changed it is 401."""
    provider, headers = HEADERS[name]
    body = (PAYLOADS / f"{name}.json").read_bytes()
    assert client.post(f"/webhooks/{provider}", *headers(body), body=body).status == 202
    changed = bytes([body[0] ^ 1]) + body[1:]
    assert client.post(f"/webhooks/{provider}", *headers(body), body=changed).status == 401
    assert sum(deliveries(world).values()) == 1


@pytest.mark.parametrize("name", HEADERS)
def test_the_same_json_in_other_bytes_does_not_verify(client, name):
    """The signature is over the raw bytes: a re-serialised body is 401."""
    provider, headers = HEADERS[name]
    body = (PAYLOADS / f"{name}.json").read_bytes()
    again = json.dumps(json.loads(body)).encode()
    assert again != body
    assert client.post(f"/webhooks/{provider}", *headers(body), body=again).status == 401


@pytest.mark.parametrize("name", HEADERS)
def test_a_signature_of_another_server_is_not_taken(client, name):
    """A webhook is judged by the scheme of the address that it came to, and by no other."""
    provider, headers = HEADERS[name]
    body = (PAYLOADS / f"{name}.json").read_bytes()
    for other in {"github", "gitea", "gitlab", "bitbucket"} - {provider}:
        assert client.post(f"/webhooks/{other}", *headers(body), body=body).status == 401


def test_what_may_be_of_an_app_whose_table_is_wrong_is_503(world, serve):
    """Nobody says that it is not ours: it can be sent again when the table is mended. What is another app's is stored, and a ping answered."""
    config = replace(world.deps.config, left_out={"blog": "1 to mend"})
    client = serve(replace(world.deps, config=config))
    theirs = push_body(B, repository="https://git.example.com/acme/blog.git").replace(
        b"acme/shop", b"acme/blog"
    )
    answer = send(client, theirs)
    assert (answer.status, "retry-after" in answer.headers) == (503, True)
    assert "blog" in answer.json["message"]
    assert send(client, push_body(A), delivery="d-2").status == 202
    assert send(client, (PAYLOADS / "github_ping.json").read_bytes(), event="ping").status == 200
    assert deliveries(world) == {"accepted": 1, "ignored": 1}


def test_without_a_signature_nothing_is_stored(world, client):
    """Missing, empty, wrong, doubled, SHA-1 only: 401, no row, and the answer tells nothing of the secret."""
    body = push_body(A)
    right = dict(github(body))["X-Hub-Signature-256"]
    tries = [
        (),
        (("X-Hub-Signature-256", ""),),
        (("X-Hub-Signature-256", "sha256="),),
        (("X-Hub-Signature-256", f"sha256={signature(body, 'another secret')}"),),
        (("X-Hub-Signature-256", right), ("X-Hub-Signature-256", right)),
        (("X-Hub-Signature-256", f"sha256={'0' * 64}"), ("X-Hub-Signature-256", right)),
        (("X-Hub-Signature", "sha1=" + hmac.new(SECRET.encode(), body, hashlib.sha1).hexdigest()),),
    ]
    for headers in tries:
        answer = client.post("/webhooks/github", ("X-GitHub-Event", "push"), *headers, body=body)
        assert answer.status == 401, headers
        assert SECRET not in answer.text
    assert deliveries(world) == {}
    assert world.bell.queue == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b'{"ref": NaN}',
        b'{"ref": "refs/heads/main"}',
        b'{"a": 1, "a": 2}',
        b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        push_body("not a commit"),
        gzip.compress(push_body(A)),
    ],
)
def test_a_signed_body_that_makes_no_sense_is_400(world, client, body):
    """Broken, truncated, too deep, doubled keys, not UTF-8: a clear 400, recorded as rejected, and no commit."""
    answer = send(client, body)
    assert answer.status == 400
    assert answer.json["error"] == "Unreadable"
    assert deliveries(world) == {"rejected": 1}
    assert commits(world, A) == []


def test_nothing_of_an_unsigned_body_is_read(client):
    """The signature comes first: an unreadable body without one is 401, not 400."""
    assert client.post("/webhooks/github", body=b"{").status == 401


def test_a_ping_is_200_and_stored_as_such(world, client):
    """GitHub's ping, signed, is in the record as what it is; unsigned it is 401, and nowhere."""
    body = (PAYLOADS / "github_ping.json").read_bytes()
    answer = send(client, body, event="ping")
    assert (answer.status, answer.json["outcome"], answer.json["reason"]) == (200, "ignored", "a ping")
    assert client.post("/webhooks/github", ("X-GitHub-Event", "ping"), body=body).status == 401
    assert deliveries(world) == {"ignored": 1}


def test_the_same_push_under_a_new_id_is_a_duplicate(world, client):
    """Delivered again, even under another id, it is stored as a duplicate: one commit, one ring."""
    body = push_body(A)
    assert send(client, body, delivery="one").json["outcome"] == "accepted"
    again = [send(client, body, delivery=f"again-{number}") for number in range(5)]
    assert {answer.status for answer in again} == {202}
    assert {answer.json["outcome"] for answer in again} == {"duplicate"}
    assert deliveries(world) == {"accepted": 1, "duplicate": 5}
    until(lambda: len(world.bell.queue) == 1, what="one ring")


def test_many_at_once_end_in_one_commit(world, client):
    """A hundred deliveries of one push at the same time: each is stored, one is accepted."""
    body = push_body(A)
    asked = [
        ("POST", "/webhooks/github", github(body, delivery=f"d-{number}"), body) for number in range(100)
    ]
    answers = client.together(*asked)
    assert {answer.status for answer in answers} == {202}
    assert deliveries(world) == {"accepted": 1, "duplicate": 99}


@pytest.mark.parametrize(
    "body",
    [
        push_body(A, branch="feature"),
        push_body("0" * 40),
        json.dumps(json.loads(push_body(A)) | {"ref": "refs/tags/v1"}).encode(),
        json.dumps(
            json.loads(push_body(A))
            | {"repository": {"full_name": "evil/shop", "clone_url": "https://evil.example/shop.git"}}
        ).encode(),
    ],
)
def test_what_is_not_ours_is_stored_as_ignored(world, client, body):
    """Another branch, a deleted one, a tag, another repository: 202, recorded as ignored, no commit, no ring."""
    answer = send(client, body)
    assert answer.status == 202
    assert answer.json["outcome"] == "ignored"
    assert deliveries(world) == {"ignored": 1}
    assert commits(world, A) == []
    assert world.bell.queue == []


def test_another_event_is_stored_as_ignored(world, client):
    """202 for events that we do not use."""
    assert send(client, b"{}", event="issues").json["outcome"] == "ignored"
    assert deliveries(world) == {"ignored": 1}


def test_two_apps_of_one_repository_both_get_the_push(world, serve):
    """Each app that ships the branch gets its own commit row."""
    shop = world.deps.config.app("shop")
    apps = {"shop": shop, "admin": shop.model_copy(update={"name": "admin"})}
    client = serve(replace(world.deps, config=replace(world.deps.config, apps=apps)))
    assert send(client, push_body(A)).status == 202
    with world.store.reading() as tx:
        assert tx.commits.get("shop", A)
        assert tx.commits.get("admin", A)


def test_every_one_of_several_secrets_is_taken(world, serve):
    """While a secret is being exchanged, the old and the new one both work, and no third."""
    client = serve(world.deps, webhook_secrets=(SecretStr("old"), SecretStr("new")))
    assert send(client, push_body(A), secret="old").status == 202
    assert send(client, push_body(B), secret="new").status == 202
    assert send(client, push_body(B), secret=SECRET).status == 401


def test_a_secret_is_exchanged_while_the_service_runs(world, tmp_path, monkeypatch):
    """The file's lines as they are now: the old one, both, the new one alone; without a restart."""
    monkeypatch.setattr(secret_files, "READ_AGAIN_S", 0.0)
    file, own = tmp_path / "webhook.secret", settings(webhook_secrets=(SecretStr("old"),))
    own._watched = secret_files.Watched(file, ("old",))
    client = Client(build(replace(world.deps, settings=own), PATIENT))
    taken = []
    for number, lines in enumerate(("old\n", "old\nnew\n", "new\n")):
        file.write_text(lines)
        taken.append([send(client, push_body(f"{number:040x}"), secret=one).status for one in ("old", "new")])
    client.close()
    assert taken == [[202, 401], [202, 202], [401, 202]]


def test_what_is_fetched_is_the_configurations_whatever_a_payload_names(world, serve):
    """Of one that is ours by one address, and names another repository, branch and commits beside it, only the head is looked for, over there."""
    world.push()
    world.settle()
    push = json.loads((PAYLOADS / "github_push.json").read_bytes())
    evil = "https://evil.example/shop.git"
    theirs = {
        "clone_url": evil,
        "ssh_url": "git@evil.example:shop.git",
        "git_url": evil,
        "default_branch": "evil",
    }
    push["repository"] |= theirs | {"html_url": "https://git.example.com/acme/shop"}
    push |= {"ref": "refs/heads/main", "before": B, "base_ref": "refs/heads/evil"}
    workshop = Mock(wraps=world.workshop)
    deps = replace(world.deps, workshop=workshop)
    body = json.dumps(push).encode()
    assert send(serve(deps), body).json["outcome"] == "accepted"
    with world.store.reading() as tx:
        commit = tx.commits.get("shop", push["after"])
    testing.run_tests(commit.id, deps)
    assert workshop.fetch.called
    shop = world.config.app("shop")
    for name, arguments, more in workshop.mock_calls:
        apps = [one for one in (*arguments, *more.values()) if isinstance(one, AppConfig)]
        assert {(app.repository, app.branch) for app in apps} <= {(shop.repository, shop.branch)}, name
        assert "evil" not in repr((arguments, more)), name
        assert B not in repr((arguments, more)), name
    assert not workshop.run_tests.called
    assert not workshop.build.called


@pytest.mark.parametrize("secrets", [(), ("",), ("  ",)])
def test_without_a_secret_the_service_does_not_start(world, secrets):
    """No secret, or an empty one: ConfigError that says how to make one."""
    with pytest.raises(ConfigError, match="no webhook secret") as caught:
        an_application(world.deps, webhook_secrets=tuple(map(SecretStr, secrets)))
    assert "openssl rand" in caught.value.remedy


def test_a_declared_size_over_the_limit_is_413(client):
    """Content-Length alone is enough to be refused; a lie about it does not help."""
    body = b" " * 10
    assert client.post("/webhooks/github", ("content-length", "5000001"), body=body).status == 413
    assert client.post("/webhooks/github", ("content-length", "junk"), body=body).status == 401
    large = [b" " * 100_000] * 60
    assert client.post("/webhooks/github", ("content-length", "10"), body=large).status == 413


def test_a_body_at_the_limit_is_read(client):
    """5 MB exactly are taken, one byte more is not."""
    body = push_body(A)
    padded = body + b" " * (MOST_BYTES - len(body))
    assert send(client, padded).status == 202
    assert send(client, padded + b" ").status == 413


def test_a_chunked_body_over_the_limit_is_refused_while_it_streams(client):
    """6 MB in chunks are 413, and an endless one too; no more than the limit is ever in memory."""
    client.post("/webhooks/github", body=b"{}")  # what the first request imports and starts is not counted
    chunk = 65_536
    sent = 0

    def endless():
        nonlocal sent
        while True:
            sent += chunk
            yield bytes(chunk)

    tracemalloc.start()
    try:
        assert client.post("/webhooks/github", body=(bytes(chunk) for _ in range(96))).status == 413
        answer = client.post("/webhooks/github", body=endless())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    assert sent < 3 * MOST_BYTES
    assert peak < MOST_BYTES + 1_000_000


def test_a_slow_body_is_given_up_on(world, serve):
    """A body that drips is 408 when its time is over, whatever it says it is."""
    client, body = serve(world.deps, Limits(body_s=0.3)), push_body(A)
    drips = [body[number : number + 1] for number in range(len(body))]
    answer = client.post("/webhooks/github", *github(body), body=drips, pause=partial(asyncio.sleep, 0.2))
    assert answer.status == 408
    assert answer.headers["connection"] == "close"


def test_slow_bodies_do_not_hold_up_others(world, serve):
    """While many bodies drip, a whole one is stored: no thread waits for a body."""
    client, body = serve(world.deps, Limits()), push_body(A)

    async def one_among_many():
        stored = asyncio.Event()
        slow = [
            asyncio.create_task(client.asking("POST", "/webhooks/github", (), body, stored.wait))
            for _ in range(50)
        ]
        await asyncio.sleep(0)
        answer = await client.asking("POST", "/webhooks/github", github(body), body)
        assert not any(task.done() for task in slow)
        stored.set()
        return answer, await asyncio.gather(*slow)

    answer, others = client.runner.run(one_among_many())
    assert answer.status == 202
    assert {other.status for other in others} == {401}


def test_all_bodies_together_have_a_limit(world, serve):
    """When too much is in memory already, the next large one is 503 with Retry-After, and room comes back."""
    client = serve(world.deps, Limits(bodies_in_all=4096))
    body = push_body(A, padding="x" * 5000)
    refused = send(client, body)
    assert refused.status == 503
    assert "retry-after" in refused.headers
    assert send(client, push_body(A)).status == 202


def test_a_store_that_does_not_answer_is_503(world, serve):
    """The store's file cannot be opened: 503 with Retry-After whatever comes, also what makes no sense; and no ring."""
    gone = Store("sqlite:////nowhere/at/all/rollout.db")
    client = serve(replace(world.deps, store=gone))
    for body, event in (
        (push_body(A), "push"),
        (b"{", "push"),
        (push_body(A), "pull_request"),
        (b"{}", "ping"),
    ):
        answer = send(client, body, event=event)
        assert answer.status == 503, (body, event)
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json["error"] == "ServiceUnavailable"
    assert world.bell.queue == []


def test_a_webhook_that_meets_another_one_at_a_row_is_503(client, monkeypatch):
    """Its sender is not at fault: who is answered 409 does not send it again."""

    def beaten(*_):
        raise Conflict("the store refused a second one: duplicate key")

    monkeypatch.setattr(intake, "receive_all", beaten)
    answer = send(client, push_body(A))
    assert answer.status == 503
    assert "retry-after" in answer.headers


def test_a_store_that_is_locked_is_503_in_time(world, client, serve):
    """Somebody holds the store's lock: 503 before the sender gives up; when the lock is gone, it is stored."""
    with world.store.transaction():
        answer = send(serve(world.deps, Limits(answer_s=0.3)), push_body(A))
    assert answer.status == 503
    assert "retry-after" in answer.headers
    assert send(client, push_body(B)).status == 202


class SilentBroker:
    """A broker that accepts and never answers."""

    def __init__(self):
        self.asked, self.end = Event(), Event()

    def ring(self, rings):
        self.asked.set()
        self.end.wait(30)
        return False

    revoke = ring

    def alive(self):
        return self.ring(())


def test_a_broker_that_hangs_delays_no_answer(world, serve):
    """Stored is stored: 202 at once, for as many as come, while the first message is still being sent."""
    bell = SilentBroker()
    client = serve(replace(world.deps, bell=bell))
    try:
        for number in range(20):
            assert send(client, push_body(f"{number:040x}")).status == 202
        assert bell.asked.is_set()
        assert not bell.end.is_set()
    finally:
        bell.end.set()


def test_a_broker_that_breaks_fails_no_answer(world, serve):
    """A bell that raises is written into the log, and the next message is sent all the same."""

    class Broken(SilentBroker):
        count = 0

        def ring(self, rings):
            self.count += 1
            raise RuntimeError("no such broker")

    bell = Broken()
    client = serve(replace(world.deps, bell=bell))
    for number, sha in enumerate((A, B), 1):
        assert send(client, push_body(sha)).status == 202
        until(lambda: bell.count == number, what="the ring")  # noqa: B023  # it is waited for here
        world.seconds += world.deps.settings.ring_again_s + 1  # until then the message counts as under way


def test_answers_are_counted(client):
    """Every answer to a webhook is in the metrics by its status, refused ones too."""
    send(client, push_body(A))
    client.post("/webhooks/github", body=b"{}")
    client.post("/webhooks/github", ("content-length", "6000000"), body=b"")
    page = client.get("/metrics").text
    for status in (202, 401, 413):
        assert f'rollout_webhook_answers_total{{provider="github",status="{status}"}} 1.0' in page


def test_a_secret_is_in_no_log(client, capfd):
    """Refusals are logged without the secret, the signature or the body."""
    body = push_body(A, note="private words")
    send(client, body)
    send(client, body, secret="wrong")
    client.get("/api/rollouts?password=hunter2", ("authorization", "Bearer guess-of-a-token"))
    printed = "".join(capfd.readouterr())
    assert "webhook_refused" in printed
    for secret in (SECRET, signature(body), "private words", "hunter2", "guess-of-a-token"):
        assert secret not in printed


def test_the_answer_comes_before_the_sender_gives_up():
    """GitHub waits for 10 s."""
    assert Limits().answer_s < 10
