"""The service as it really listens: uvicorn on loopback, a store in a file, brokers that are gone."""

import gc
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
import uvicorn

from rollout import wiring
from rollout.domain.deliveries import End, Outcome
from rollout.domain.model import Push
from rollout.errors import ConfigError, Conflict
from rollout.store import postgresql
from rollout.web import server
from rollout.web.connection import Connection
from rollout.web.service import Limits
from tests.support import stores
from tests.support.postgres import Postgres
from tests.support.processes import until
from tests.support.proxy import proxy
from tests.support.web import PATIENT, SECRET, TOKEN, an_application, github, push_body

TOML = """
[server]
state_dir = "state"
database = "{database}"
broker = "redis://127.0.0.1:{broker}/0"
listen = "127.0.0.1:{listen}"
[apps.shop]
repository = "https://git.example.com/acme/shop.git"
[apps.shop.release]
path = "/srv/shop"
[apps.shop.canary]
log = "/srv/shop/shared/access.log"
[apps.shop.fleet]
hosts = ["web[1:3]"]
"""


def a_free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def configuration(tmp_path):
    """Writes a rollout.toml with its secrets; its broker is gone."""

    def configuration(database="sqlite"):
        file = tmp_path / "rollout.toml"
        file.write_text(TOML.format(database=database, broker=a_free_port(), listen=a_free_port()))
        (tmp_path / "webhook.secret").write_text(SECRET + "\n")
        (tmp_path / "api.token").write_text(TOKEN + "\n")
        stores.put(tmp_path / "state" / "rollout.db")
        return file

    return configuration


@contextmanager
def listening(deps, limits=PATIENT):
    """The real application behind uvicorn, as `rollout web` has it; (port, uvicorn's server)."""
    socket_ = server.listen(deps.config.server)
    serving = uvicorn.Server(server.configured(an_application(deps, limits)))
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [socket_]})
    thread.start()
    try:
        until(lambda: serving.started, what="uvicorn listens")
        yield socket_.getsockname()[1], serving
    finally:
        serving.should_exit = True
        thread.join(30)
        socket_.close()
        deps.store.close()
        assert not thread.is_alive()


def ask(port, method, path, headers=(), body=None, *, chunked=False):
    """(status, headers, body) over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, dict(headers), encode_chunked=chunked)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def raw(port, sent):
    """The first line of the answer to exactly these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(sent)
        return connection.makefile("rb").readline().decode()


def outcomes(deps):
    """What is stored."""
    with deps.store.reading() as tx:
        return tx.deliveries.counts()


def test_a_webhook_becomes_a_row_with_the_broker_gone(configuration):
    """202 and stored over real TCP though no broker is there; ready says 503 and which one."""
    deps = wiring.configured(configuration(), role="web")
    body = push_body()
    with listening(deps) as (port, _):
        status, headers, answer = ask(port, "POST", "/webhooks/github", github(body), body)
        assert status == 202
        assert json.loads(answer)["outcome"] == "accepted"
        assert "server" not in headers
        assert outcomes(deps) == {"accepted": 1}
        with deps.store.reading() as tx:
            assert tx.commits.get("shop", "1" * 40)
        status, _, answer = ask(port, "GET", "/readyz")
        assert status == 503
        assert json.loads(answer) == {"status": "not ready", "store": "answers", "broker": "does not answer"}
        assert ask(port, "GET", "/healthz")[0] == 200


def test_a_large_body_is_refused_over_the_network(configuration):
    """6 MB in chunks get their 413 and the connection ends; 500 MB are not listened to; it goes on answering."""
    deps = wiring.configured(configuration(), role="web")
    with listening(deps) as (port, _):
        six = (bytes(65_536) for _ in range(96))
        status, headers, _ = ask(
            port, "POST", "/webhooks/github", [("Transfer-Encoding", "chunked")], six, chunked=True
        )
        assert status == 413
        assert headers["connection"] == "close"
        sent = 0
        with socket.create_connection(("127.0.0.1", port), timeout=60) as endless:
            endless.sendall(b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 500000000\r\n\r\n")
            with suppress(ConnectionError):
                while sent < 500_000_000:
                    sent += endless.send(bytes(65_536))
        assert sent < 50_000_000
        assert ask(port, "GET", "/healthz")[0] == 200


def test_who_never_finishes_a_head_is_cut_off(configuration, monkeypatch):
    """Silent and dripping connections are closed; a kept-alive one in use is not."""
    monkeypatch.setattr(Connection, "head_s", 0.5)
    deps = wiring.configured(configuration(), role="web")
    with listening(deps) as (port, serving):
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        silent = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(5)]
        for one in silent[1:]:
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Drip: ")
        kept.request("GET", "/healthz")
        assert kept.getresponse().read()
        for one in silent:
            with suppress(ConnectionError):
                assert one.recv(100) == b""
            one.close()
        kept.request("GET", "/healthz")
        assert kept.getresponse().status == 200
        kept.close()
        until(lambda: not serving.server_state.connections, what="every connection is gone")


def test_who_never_finishes_a_second_request_is_cut_off(configuration, monkeypatch):
    """The clock runs anew after an answer: for a head that drips in, and for what is left of a body that was refused."""
    monkeypatch.setattr(Connection, "head_s", 0.5)
    deps = wiring.configured(configuration(), role="web")
    with listening(deps) as (port, serving):
        for first, drop in (
            (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"),
            (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nX-Drip: "),
            (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 40000000\r\n\r\n", b"x"),
            (b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 40000000\r\n\r\n", b"x"),
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
                one.sendall(first + drop)
                _drips_until_it_is_cut_off(serving, drop, one)


def _drips_until_it_is_cut_off(serving, drop, one):
    def over():
        with suppress(ConnectionError):
            one.sendall(drop[-1:])
        return not serving.server_state.connections

    until(over, what="it is cut off")


def test_a_head_that_never_ends_is_refused(configuration):
    """In small pieces, each in time: 400 beyond what a head may have, and the connection ends."""
    deps = wiring.configured(configuration(), role="web")
    with listening(deps) as (port, serving):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
            sent = _until_it_is_cut_off(serving, one, b"X-More: y\r\n")
            assert sent < 1_000_000
        assert ask(port, "GET", "/healthz")[0] == 200


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n" + bytes(2000),
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_requests_that_do_not_wait_for_answers_are_refused(configuration, endless):
    """Nothing of them is kept: one connection would fill the memory."""
    deps = wiring.configured(configuration(), role="web")
    with listening(deps) as (port, serving):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
            sent = _until_it_is_cut_off(serving, one, endless * 50)
        assert sent < 10_000_000
        assert ask(port, "GET", "/healthz")[0] == 200


@pytest.mark.parametrize("endless", [b"a:b\r\n" * 200, b"x" * 1000])
def test_what_follows_a_body_is_bounded(configuration, endless):
    """Lines behind a body in chunks, many or one without an end: the connection ends."""
    deps = wiring.configured(configuration(), role="web")
    with listening(deps) as (port, serving):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
            one.sendall(
                b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
            )
            sent = _until_it_is_cut_off(serving, one, endless)
        assert sent < 10_000_000
        assert ask(port, "GET", "/healthz")[0] == 200


def _until_it_is_cut_off(serving, one, endless, most=20_000_000):
    """How many bytes of it were taken."""
    until(lambda: serving.server_state.connections, what="it is there")
    sent = 0
    with suppress(ConnectionError):
        while sent < most and serving.server_state.connections:
            one.sendall(endless)
            sent += len(endless)
    until(lambda: not serving.server_state.connections, what="it is cut off")
    return sent


@pytest.mark.parametrize("drips", [False, True])
def test_who_does_not_read_its_answer_is_cut_off(configuration, monkeypatch, drips):
    """Of 12 MB nothing is read, or a byte at a time: the connection and what was kept for it are gone."""
    monkeypatch.setattr(server, "UNREAD_S", 1.0)
    deps = wiring.configured(configuration(), role="web")
    deps.store.prepare()
    with deps.store.transaction() as tx:
        tx.deliveries.add(Push("github", "d-1", "ping"), None, End(Outcome.IGNORED, "x" * 12_000_000))
    with listening(deps) as (port, serving):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
            one.sendall(
                f"GET /api/deliveries HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
            )
            assert one.recv(12) == b"HTTP/1.1 200"

            def over():
                if drips:
                    with suppress(ConnectionError):
                        one.recv(1)
                return not serving.server_state.connections

            until(over, what="it is cut off")
        assert ask(port, "GET", "/healthz")[0] == 200


def test_a_crowd_of_connections_is_told_when_to_come_again(configuration, monkeypatch):
    """Beyond the limit a webhook is 503 with Retry-After, as whatever else is put off; when they are gone it is stored."""
    monkeypatch.setattr(server, "CONNECTIONS", 4)
    deps, body = wiring.configured(configuration(), role="web"), push_body()
    with listening(deps) as (port, serving):
        crowd = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(4)]
        until(lambda: len(serving.server_state.connections) == 4, what="they are there")
        status, headers, answer = ask(port, "POST", "/webhooks/github", github(body), body)
        assert (status, headers["connection"]) == (503, "close")
        assert int(headers["retry-after"]) > 0
        assert json.loads(answer)["error"] == "Busy"
        assert outcomes(deps) == {}
        for one in crowd:
            one.close()
        until(lambda: not serving.server_state.connections, what="they are gone")
        assert ask(port, "POST", "/webhooks/github", github(body), body)[0] == 202


@pytest.mark.parametrize(
    "target",
    [
        b"/api/rollouts",
        b"/healthz/../api/rollouts",
        b"/healthz%2f..%2fapi%2frollouts",
        b"//api/rollouts",
        b"/api/rollouts;/healthz",
        b"/api/rollouts?jsp=/healthz;.jsp",
        b"http://127.0.0.1/api/rollouts",
        b"http://healthz/api/rollouts",
        b"/HEALTHZ",
        b"/healthz/",
        b"/%2e/healthz",
        b"/docs",
        b"*",
    ],
)
def test_no_spelling_gets_around_the_token_over_the_network(service, target):
    """What uvicorn makes of an address is what is judged: 401 without the token."""
    assert " 401 " in raw(service, b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target)


def test_what_is_no_http_is_refused(service):
    """Huge heads, broken requests, other protocols: 400, or a closed connection; never an answer of ours."""
    huge = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Large: " + b"x" * 3_000_000 + b"\r\n\r\n"
    for sent in (
        huge,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
    ):
        with suppress(ConnectionError):
            assert " 400 " in raw(service, sent)
    upgrade = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert " 101 " not in raw(service, upgrade)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"HTTP/1.1\r\n", 400),
        (b"HTTP/1.1\r\nHost: x\r\nHost: x\r\n", 400),
        (b"HTTP/1.0\r\nHost: x\r\nhost: y\r\n", 400),
        (b"HTTP/1.1\r\nHost:\r\n", 200),
        (b"HTTP/1.0\r\n", 200),
    ],
)
def test_a_request_is_for_one_host(service, sent, status):
    """As RFC 9112 wants it: without a Host, or with two, it is refused; HTTP/1.0 knows none."""
    assert f" {status} " in raw(service, b"GET /healthz %s\r\n" % sent)


@pytest.mark.parametrize("asks", ["h2c", "websocket"])
@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_who_asks_for_another_protocol_is_answered_in_this_one(service, asks, pieces):
    """With all of its body, whenever that comes; the next request on the connection is one of its own."""
    body = push_body()
    head = [f"{name}: {value}" for name, value in github(body)]
    head += ["Host: x", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {asks}", "HTTP2-Settings: AAMAAABk"]
    head += [f"Content-Length: {len(body)}"]
    sent = "\r\n".join(["POST /webhooks/github HTTP/1.1", *head, "", ""]).encode() + body
    with socket.create_connection(("127.0.0.1", service), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(pieces):
            connection.sendall(sent[len(sent) * number // pieces : len(sent) * (number + 1) // pieces])
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, json.loads(answer.read())["outcome"]) == (202, "accepted")
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b" 200 " in connection.makefile("rb").readline()


def test_a_tunnel_is_refused(service):
    """CONNECT is no method of ours, whatever it asks for besides."""
    for more in (b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"):
        assert " 40" in raw(service, b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n%s\r\n" % more)


@pytest.fixture
def service(configuration):
    """A running service's port."""
    with listening(wiring.configured(configuration(), role="web")) as (port, _):
        yield port


@pytest.mark.needs("postgresql")
def test_a_database_that_falls_silent(configuration, postgres, monkeypatch):
    """Webhooks are 503 while nothing comes back from PostgreSQL, nobody waits for it, and they are stored again after."""
    monkeypatch.setattr(postgresql.Impatient, "patience_s", 1.0)
    monkeypatch.setitem(postgresql._CONNECT, "connect_timeout", 2)  # the least that libpq takes
    with proxy(("127.0.0.1", postgres.port)) as way:
        address = postgres.prepared().replace(f":{postgres.port}/", f":{way.port}/")
        deps = wiring.configured(configuration(address), role="web")
        with listening(deps, replace(Limits(), answer_s=0.5, fresh_s=0)) as (port, _):

            def push(number):
                body = push_body(f"{number:040x}")
                return ask(port, "POST", "/webhooks/github", github(body), body)

            until(lambda: push(1)[0] == 202, what="stored before")
            way.silence()
            for number in range(2, 8):
                status, headers, _ = push(number)
                assert status == 503
                assert int(headers["retry-after"]) > 0
            assert json.loads(ask(port, "GET", "/readyz")[2])["store"] == "does not answer"
            assert ask(port, "GET", "/healthz")[0] == 200
            way.mute = False
            until(lambda: push(9)[0] == 202, what="stored again")


@pytest.mark.needs("postgresql")
def test_a_database_that_goes_away_and_comes_back(configuration):
    """Webhooks are 503 with Retry-After while PostgreSQL is down, and stored again when it is up."""
    cluster = Postgres().start()
    try:
        deps = wiring.configured(configuration(cluster.database()), role="web")
        with listening(deps, replace(Limits(), fresh_s=0)) as (port, _):

            def push(number):
                body = push_body(f"{number:040x}")
                return ask(port, "POST", "/webhooks/github", github(body), body)

            until(lambda: push(1)[0] == 202, what="stored before")
            cluster.stop()
            status, headers, answer = push(2)
            assert status == 503
            assert int(headers["retry-after"]) > 0
            assert json.loads(answer)["error"] == "ServiceUnavailable"
            status, _, answer = ask(port, "GET", "/readyz")
            assert status == 503
            assert json.loads(answer)["store"] == "does not answer"
            cluster.resume()
            until(lambda: push(3)[0] == 202, what="stored again", timeout_s=60)
            with deps.store.reading() as tx:
                assert tx.commits.get("shop", f"{3:040x}")
    finally:
        cluster.remove()


def serving(file, **environment):
    """`serve` in a process of its own."""
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from rollout.web.server import serve
        serve(Path(sys.argv[1]))
    """)
    return subprocess.Popen(
        [sys.executable, "-c", program, str(file)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_whoever_still_sends_its_request_does_not_hold_up_the_end(configuration, monkeypatch, caplog):
    """It is told to come again when the time to say goodbye is over, and the log has no traceback of it."""
    monkeypatch.setattr(server, "GOODBYE_S", 1)
    deps = wiring.configured(configuration(), role="web")
    with listening(deps) as (port, serving), socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\nx")
        until(lambda: serving.server_state.tasks, what="its body is waited for")
        serving.should_exit = True
        head, _, body = one.makefile("rb").read().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in head
        assert json.loads(body)["message"] == "the service ends"
    assert [record for record in caplog.records if record.exc_info] == []


def test_the_process_ends_cleanly_and_its_log_holds_no_secret(configuration):
    """It listens where the configuration says, ends at SIGTERM, and logs neither secrets nor addresses asked for."""
    file = configuration()
    port = wiring.deploy_file.load(file).server.listen_port
    process = serving(file)
    try:
        until(lambda: _answers(port), what="it listens", timeout_s=60)
        body = push_body(note="private words")
        assert ask(port, "POST", "/webhooks/github", github(body), body)[0] == 202
        assert ask(port, "POST", "/webhooks/github", github(body, secret="wrong"), body)[0] == 401
        assert (
            ask(port, "GET", "/api/rollouts?token=hunter2", [("Authorization", "Bearer a-guess")])[0] == 401
        )
        assert ask(port, "GET", "/api/rollouts", [("Authorization", f"Bearer {TOKEN}")])[0] == 200
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode in {0, -signal.SIGTERM}
    assert "webhook_stored" in printed
    for secret in (SECRET, TOKEN, "private words", "hunter2", "a-guess"):
        assert secret not in printed


def test_what_is_there_at_the_start_is_not_looked_through_for_garbage(configuration, monkeypatch):
    """A full collection held every webhook up for 100 ms: when the service begins to answer, the collector leaves alone what is there."""
    left_alone = []

    def run(_self, sockets):
        left_alone.append(gc.get_freeze_count())
        for one in sockets:
            one.close()

    monkeypatch.setattr(uvicorn.Server, "run", run)
    try:
        server.serve(configuration())
    finally:
        gc.unfreeze()
    assert left_alone[0] > 10_000


def _answers(port):
    try:
        return ask(port, "GET", "/healthz")[0] == 200
    except OSError:
        return False


def test_an_address_that_is_taken_is_a_conflict(configuration):
    """What to change is said."""
    file = configuration()
    config = wiring.deploy_file.load(file)
    with (
        socket.create_server(("127.0.0.1", config.server.listen_port)),
        pytest.raises(Conflict, match=r"server\.listen") as caught,
    ):
        server.serve(file)
    assert "listen" in caught.value.remedy


def test_without_a_secret_it_does_not_start(configuration):
    """A service whose webhooks anybody could sign refuses to start, and says how to make a secret."""
    file = configuration()
    (file.parent / "webhook.secret").unlink()
    with pytest.raises(ConfigError, match="no webhook secret"):
        server.serve(file)
