"""From a push to the answer that says it is stored: so many a second, each on a connection of its own, as a git server has it."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import sys
import time
from dataclasses import asdict, dataclass

import uvloop

from tests.support.system import SECRET

NEVER = 1e6  # milliseconds


@dataclass(frozen=True)
class Latency:
    """Milliseconds, from the moment at which the request was due."""

    p50: float
    p99: float
    most: float
    requests: int
    refused: int = 0  # answered 503, "come again later": they count as never answered


def measure(folder, port, *, rate, seconds, first):
    """Push `rate` distinct commits a second. Every one is answered 202 or 503; the numbers count from `first`."""
    requests = [request(folder, port, first + number) for number in range(rate * seconds)]
    return uvloop.run(_at_a_steady_pace(requests, port, rate))


async def _at_a_steady_pace(requests, port, rate):
    took = []
    async for answer, late in answers(requests, port, 1 / rate):
        refused = answer.startswith(b"HTTP/1.1 503 ")
        assert refused or answer.startswith(b"HTTP/1.1 202 "), answer[:300]
        assert refused or b'"accepted"' in answer, answer[-300:]
        took.append(NEVER if refused else late)
    took.sort()
    refused = sum(one == NEVER for one in took)
    return Latency(share(took, 0.5), share(took, 0.99), round(took[-1], 1), len(took), refused)


async def answers(requests, port, every_s):
    """Each one's answer (nothing where there was none), and the milliseconds from when it was due until then.

    When a request goes out late, its lateness counts: a server that stalls is not excused.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Queue()
    begin = time.monotonic() + 0.5  # the loop's own clock is a coarse one
    for number, request in enumerate(requests):
        due = begin + number * every_s
        loop.call_later(
            due - time.monotonic(), lambda *its: loop.create_task(_push(*its)), done, request, port, due
        )
    for _ in requests:
        yield await done.get()


async def _push(done, request, port, due):
    answer = b""
    with contextlib.suppress(OSError):
        _, one = await asyncio.get_running_loop().create_connection(lambda: _Push(request), "127.0.0.1", port)
        answer = await one.answer
    done.put_nowait((answer, (time.monotonic() - due) * 1000))


class _Push(asyncio.Protocol):
    """Little beside the sockets: where the client is the slow one, its queue is measured."""

    def __init__(self, request):
        self._request, self._received = request, []
        self.answer = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        transport.write(self._request)

    def data_received(self, data):
        self._received.append(data)

    def connection_lost(self, exc):
        self.answer.set_result(b"".join(self._received))


def share(took, part):
    """The value that so large a part of them does not exceed; they are in order."""
    return round(took[min(len(took) - 1, int(len(took) * part))], 1)


def request(folder, port, number, *, app="shop", sha=None, branch="main", event="push"):
    """The bytes of GitHub's signed push, or report on a check; of a commit that nobody has, if none is given."""
    sha = sha or hashlib.sha1(f"bench {number}".encode()).hexdigest()
    run = {"name": "unit", "head_sha": sha, "status": "completed", "conclusion": "success"}
    told = {"ref": f"refs/heads/{branch}", "after": sha, "deleted": False}
    repository = {"full_name": f"acme/{app}", "clone_url": f"{folder}/{app}.git"}
    told = {"check_run": run} if event == "check_run" else told
    body = json.dumps({**told, "repository": repository}).encode()
    head = [
        "POST /webhooks/github HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-GitHub-Event: {event}",
        f"X-GitHub-Delivery: bench-{number}",
        f"X-Hub-Signature-256: sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}",
        "Connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


if __name__ == "__main__":
    _folder, *_numbers = sys.argv[1:]
    _port, _rate, _seconds, _first = map(int, _numbers)
    print(json.dumps(asdict(measure(_folder, _port, rate=_rate, seconds=_seconds, first=_first))))
