"""`rollout stop N` asks the web process first: that has in its memory what this command takes most of a second to import.

An accelerator, and no more. Whatever becomes of it the command goes its whole way, and writes and tells the stop itself if
that is not done; and words that are not understood without doubt here are left to it.
"""

import json
import os
import socket
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from rollout.cli import output
from rollout.cli.call import who
from rollout.config import places
from rollout.config.addresses import absolute

ANSWER_S = 1.0  # to write it ourselves takes as long
FLAGS, OPTIONS = ("--keep", "--wait", "--json"), ("--reason", "--config")
_heard: dict[int, float] = {}


def heard(rollout: int) -> float | None:
    """When (monotonic) the web process was asked by this one for the stop of this rollout, which it then wrote; None when it was not."""
    return _heard.get(rollout)


def stop(words: Sequence[str], environ: Mapping[str, str] = os.environ) -> None:
    """Ask, when the words behind `stop` name one rollout."""
    began = time.monotonic()
    # No web process is there, or none that answers in time; what else may be wrong the command will tell.
    with suppress(Exception):
        asked = _understood(words)
        found = _ask(*asked, environ) if asked else {}
        if asked and found["new"]:
            number, given = asked
            _heard[number] = began
            # The one document on standard output is the command's.
            stream = sys.stderr if "--json" in given else sys.stdout
            for line in accepted(number, found["leased"], found["longest_s"]):
                print(line, file=stream, flush=True)


def accepted(number: int, leased: Sequence[str], longest_s: float) -> list[str]:
    """What is said of a stop that is in the store."""
    said = f"accepted: rollout {number} starts nothing any more"
    if not leased:
        return [said, "  no host is being switched; the acknowledgement comes within seconds"]
    return [
        said,
        f"  being switched now: {output.names(leased)}",
        f"  the acknowledgement takes at most {longest_s:.0f} s, if they do not answer",
    ]


def _understood(words: Sequence[str]) -> tuple[int, dict[str, str]] | None:
    """The rollout's number, and the options; None for mistakes, and what is not known here."""
    numbers, given, rest = [], {}, list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word in FLAGS:
            given[word] = ""
        elif name in OPTIONS and name not in given and (equals or rest):
            given[name] = value if equals else rest.pop(0)
        elif word.isascii() and word.isdigit():
            numbers.append(int(word))
        else:
            return None
    return (numbers[0], given) if len(numbers) == 1 else None


def _ask(number: int, given: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, Any]:
    """What the web process says of the stop; an exception when it does not take it."""
    file = places.find(Path(given["--config"]) if "--config" in given else None, environ)
    server = tomllib.loads(file.read_text()).get("server", {})
    token = (
        environ.get("ROLLOUT_API_TOKEN")
        or absolute(Path(server.get("api_token_file", places.API_TOKEN_FILE)), file.parent)
        .read_text()
        .split()[0]
    )
    person = who()
    reason = given.get("--reason") or f"stopped by {person}"
    order = {"reason": reason, "keep": "--keep" in given, "who": person}
    door = places.door(
        absolute(Path(server.get("state_dir", places.STATE_DIR)), file.parent),
        environ.get("ROLLOUT_DATABASE") or server.get("database", places.DATABASE),
    )
    inside = _Inside(door)
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        inside.request("POST", f"/api/rollouts/{number}/stop", json.dumps(order), headers)
        found: dict[str, Any] = json.load(inside.getresponse())
        return found
    finally:
        inside.close()


class _Inside(HTTPConnection):
    """HTTP over a Unix socket: who may use it, its folder says."""

    def __init__(self, door: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._door = door

    def connect(self) -> None:
        """To the web process."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._door))
