"""From a push to the answer that says it is stored: so many a second, each on a connection of its own, as a git server has it."""

import asyncio
import hashlib
import hmac
import json
import sys
import time
from dataclasses import asdict, dataclass

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
    return asyncio.run(_at_a_steady_pace(requests, port, rate))


async def _at_a_steady_pace(requests, port, rate):
    begin = time.monotonic() + 0.2
    waits = [_one(request, port, begin + number / rate) for number, request in enumerate(requests)]
    took = sorted(await asyncio.gather(*waits))
    refused = sum(one == NEVER for one in took)
    return Latency(share(took, 0.5), share(took, 0.99), round(took[-1], 1), len(took), refused)


async def _one(request, port, due):
    """When a request goes out late, its lateness counts: a server that stalls is not excused."""
    await asyncio.sleep(max(0.0, due - time.monotonic()))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        answer = await reader.read()
    finally:
        writer.close()
    if answer.startswith(b"HTTP/1.1 503 "):
        return NEVER
    assert answer.startswith(b"HTTP/1.1 202 "), answer[:300]
    assert b'"accepted"' in answer, answer[-300:]
    return (time.monotonic() - due) * 1000


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
