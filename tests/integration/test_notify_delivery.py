"""Notifications, delivered for real to receivers that take them, refuse them, or never answer."""

import json
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rollout.errors import DeliveryFailed
from rollout.notify import AppriseNotifier

pytestmark = pytest.mark.filterwarnings(
    "ignore:'imghdr' is deprecated"
)  # one of Apprise's plugins imports it
TOKEN = "hunter2token"


class Receiver(BaseHTTPRequestHandler):
    """Keeps what it gets and answers with the status in its path."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, json.loads(body)))
        status = int(self.path.split("/")[1])
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/200/redirected")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def receiver():
    """A receiver on loopback; `got` is what it was told."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.got = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def silent():
    """A receiver that accepts connections and never answers; all of them end with the test."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def url(server, status):
    """An address whose receiver answers with this status."""
    return f"json://127.0.0.1:{server.server_port}/{status}/{TOKEN}"


def test_a_notice_reaches_every_address(receiver):
    """Title and body arrive at each address."""
    AppriseNotifier().send(
        [url(receiver, 200), url(receiver, 201)], "shop: rollout 7 halted", "Next: rollout retry 7"
    )
    assert {path.split("/")[1] for path, _ in receiver.got} == {"200", "201"}
    assert {(found["title"], found["message"]) for _, found in receiver.got} == {
        ("shop: rollout 7 halted", "Next: rollout retry 7")
    }


def test_a_refused_notice_is_an_error_without_the_address(receiver, caplog):
    """One address that refuses is told by number and kind; the others get the notice; no token is told."""
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(DeliveryFailed, match=r"1 of 2 .* no\. 2 \(json: refused") as caught,
    ):
        AppriseNotifier().send([url(receiver, 200), url(receiver, 500)], "title", "body")
    assert len(receiver.got) == 2
    assert TOKEN not in f"{caught.value!r} {caught.value.remedy} {caplog.text}"


def test_who_has_taken_it_is_not_told_again(receiver):
    """Only those with the given numbers get it, and who refuses it again has its number of before."""
    with pytest.raises(DeliveryFailed, match=r"no\. 2 \(json: refused") as caught:
        AppriseNotifier().send([url(receiver, 200), url(receiver, 500)], "title", "body", only={2})
    assert caught.value.numbers == (2,)
    assert [path.split("/")[1] for path, _ in receiver.got] == ["500"]


def test_a_redirect_is_not_followed(receiver):
    """A receiver cannot send us anywhere else."""
    with pytest.raises(DeliveryFailed):
        AppriseNotifier().send([url(receiver, 302)], "title", "body")
    assert len(receiver.got) == 1


def test_a_silent_receiver_does_not_hold_anybody_up(receiver, silent):
    """A receiver that never answers is given up at the limit, and the others have their notice."""
    urls = [f"json://127.0.0.1:{silent}/{TOKEN}?rto=60", url(receiver, 200)]
    with pytest.raises(DeliveryFailed, match=r"1 of 2 .* no\. 1 \(json: no answer in time\)"):
        AppriseNotifier(timeout_s=3).send(urls, "title", "body")
    assert len(receiver.got) == 1


def test_silent_receivers_do_not_pile_up(silent):
    """However often a silent receiver is told, a handful of threads wait for it."""
    notifier = AppriseNotifier(timeout_s=0.2)
    for _ in range(5):
        with pytest.raises(DeliveryFailed):
            notifier.send([f"json://127.0.0.1:{silent}/?rto=60"] * 4, "title", "body")
    assert sum(thread.name == "notify" for thread in threading.enumerate()) <= 8 + 1
