"""Deny by default: what is not public wants the token, whatever it is called."""

import base64

import pytest
from starlette.routing import Route

from rollout.web.gate import PUBLIC
from tests.support.web import BEARER, TOKEN

LETTERS = {"{id:int}": "1", "{sha}": "abcd1234"}
MUTATIONS = [
    "/api/rollouts;",
    "/api/rollouts;.jsp",
    "/api/rollouts;jsessionid=1",
    "/api/rollouts/1/stop;/healthz",
    "/healthz;/../api/rollouts",
    "/healthz/../api/rollouts",
    "/healthz/%2e%2e/api/rollouts",
    "/healthz%2f..%2fapi%2frollouts",
    "/healthz%252f..%252fapi",
    "/%2e/healthz",
    "/./healthz",
    "//healthz",
    "//api/rollouts",
    "/healthz/",
    "/healthz//",
    "/healthz.json",
    "/healthz%00",
    "/healthz%20",
    "/healthz%0a",
    "/HEALTHZ",
    "/Metrics",
    "/metrics/extra",
    "/metricsx",
    "/API/rollouts",
    "/api/rollouts/",
    "/api/rollouts?jsp=/healthz;.jsp",
    "/api/rollouts?app=shop&/metrics",
    "/api%2frollouts",
    "/api/rollouts%3f/healthz",
    "/api\\rollouts",
    "/webhooks/github/",
    "/webhooks/github;x",
    "/webhooks/../api/rollouts",
    "/webhooks/nobody",
    "/webhooks",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/static/page.css",
    "/favicon.ico",
    "/nowhere",
    "http://localhost/healthz",
    "*",
    "",
]


def addresses(client):
    """(method, address) of every registered route."""
    found = []
    for route in client.app.routes:
        assert isinstance(route, Route)
        path = route.path
        for name, value in LETTERS.items():
            path = path.replace(name, value)
        found += [(method, path) for method in route.methods]
    return found


def basic(user="rollout", password=TOKEN):
    """What a browser sends."""
    return ("authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())


def test_every_registered_route_but_the_public_ones_wants_the_token(client):
    """Without a token each route answers 401 unless it is on the public list; no route is missed."""
    found = addresses(client)
    assert set(found) >= PUBLIC
    assert len(found) >= 18
    for method, path in found:
        answer = client.ask(method, path)
        if (method, path) in PUBLIC and method == "GET":
            assert answer.status in {200, 503}, path
        else:
            assert answer.status == 401, (method, path)
            assert answer.json.keys() == {"error", "message", "remedy"}


def test_what_is_public_is_this_and_no_more():
    """A new public address is a decision that is taken here, too."""
    assert sorted(PUBLIC) == [
        ("GET", "/healthz"),
        ("GET", "/metrics"),
        ("GET", "/readyz"),
        ("POST", "/webhooks/bitbucket"),
        ("POST", "/webhooks/gitea"),
        ("POST", "/webhooks/github"),
        ("POST", "/webhooks/gitlab"),
    ]


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "PUT", "TRACE", "get"])
def test_no_spelling_of_an_address_gets_around_the_token(client, method):
    """Mutated, unknown and half-known addresses are 401 without the token, under every method."""
    assert [target for target in MUTATIONS if client.ask(method, target).status != 401] == []


@pytest.mark.parametrize(("method", "path"), sorted(PUBLIC))
def test_a_public_address_is_public_for_its_one_method(client, method, path):
    """The other methods of a public address want the token."""
    other = "POST" if method == "GET" else "GET"
    assert client.ask(other, path).status == 401
    assert client.ask("HEAD", path).status == 401


@pytest.mark.parametrize(
    "target", ["/nowhere", "/api/rollouts;", "/docs", "/openapi.json", "/api/rollouts/", "//"]
)
def test_an_unknown_address_is_404_with_the_token(client, target):
    """Whoever has the token learns that there is nothing."""
    answer = client.get(target, BEARER)
    assert answer.status == 404
    assert answer.json["error"] == "NotFound"


def test_a_known_address_with_another_method_is_405_with_the_token(client):
    """The answer names what is allowed."""
    answer = client.ask("DELETE", "/api/rollouts", BEARER)
    assert answer.status == 405
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("authorization", "Bearer guessed")],
        [("authorization", f"Bearer {TOKEN}x")],
        [("authorization", f"Bearer {TOKEN[:-1]}")],
        [("authorization", f"Token {TOKEN}")],
        [("authorization", TOKEN)],
        [("authorization", "Bearer \xff\xfe")],
        [("authorization", "Basic not/base64!")],
        [("authorization", "Basic " + base64.b64encode(b"\xff:\xff").decode())],
        [basic(user="admin")],
        [basic(password="guessed")],
        [basic(user="", password="")],
        [BEARER, BEARER],
        [BEARER, ("authorization", "Bearer guessed")],
        [("x-api-token", TOKEN)],
        [("cookie", f"token={TOKEN}")],
    ],
)
def test_anything_but_the_one_token_is_refused(client, headers):
    """Missing, wrong, doubled and misplaced tokens are 401, and the answer repeats nothing of them."""
    answer = client.get("/api/rollouts", *headers)
    assert answer.status == 401
    assert TOKEN not in answer.text
    assert "guessed" not in answer.text


def test_the_token_in_the_query_is_no_token(client):
    """Addresses end in logs and histories."""
    assert client.get(f"/api/rollouts?token={TOKEN}").status == 401


def test_a_browser_may_read_with_the_token_as_its_password(client):
    """HTTP Basic opens the page and the API's reads."""
    assert client.get("/", basic()).status == 200
    assert client.get("/api/rollouts", basic()).status == 200
    assert client.get("/api/hosts", basic()).status == 200


@pytest.mark.parametrize(
    "path", ["/api/rollouts/1/stop", "/api/rollouts/1/resume", "/api/commits/abcd/checks"]
)
def test_what_a_browser_sends_by_itself_changes_nothing(client, path):
    """HTTP Basic is refused for every POST, so that no other site can make a browser give an order."""
    assert client.post(path, basic()).status == 401


def test_only_the_page_asks_for_a_password(client):
    """`/` asks a browser; everything else asks a program."""
    assert client.get("/").headers["www-authenticate"].startswith("Basic ")
    assert client.get("/api/rollouts").headers["www-authenticate"].startswith("Bearer ")


def test_without_a_token_nobody_gets_in(world, serve):
    """When no token is configured, the empty one does not open anything."""
    client = serve(world.deps, api_token=None)
    for value in ("Bearer ", "Bearer", "Basic " + base64.b64encode(b"rollout:").decode()):
        assert client.get("/", ("authorization", value)).status == 401
        assert client.get("/api/rollouts", ("authorization", value)).status == 401
    assert client.get("/healthz").status == 200


def test_every_answer_is_armoured(client):
    """Refusals, errors and data alike forbid sniffing, framing, caching and scripts."""
    for answer in (
        client.get("/nowhere"),
        client.get("/nowhere", BEARER),
        client.get("/api/rollouts", BEARER),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
