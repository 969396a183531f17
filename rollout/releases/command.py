"""Runs a commit's test or build command, contained: its user, its time, its output, its processes, its environment.

What it is not: a jail. docs/containment.md says what is promised, and what is not when the worker is not root.
"""

import json
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rollout.errors import LeaseLost
from rollout.releases import processes
from rollout.releases.limits import Bounds
from rollout.releases.output import Output
from rollout.releases.workplace import Workplace

_ASK_S = 0.5  # how often `go_on` is asked
_ENDING_S = 25.0  # what the helper may need to kill everything
_MARK = "ROLLOUT_CONTAINED"  # in the environment of everything the command starts
_PACKAGES = str(Path(__file__).parents[2])
_HELPER = f"import sys; sys.path.insert(0, {_PACKAGES!r}); from rollout.releases.contain import main; main()"


@dataclass(frozen=True, slots=True)
class Ended:
    """How the command ended: the bound `cut` that it broke; an exit status or -signal, None when we or it ended the container."""

    status: int | None
    cut: str | None
    took_s: float
    output: Output


def run(
    command: str,
    place: Workplace,
    environment: Mapping[str, str],
    *,
    limit_s: float,
    go_on: Callable[[], bool],
    bounds: Bounds | None = None,
) -> Ended:
    """Run `sh -c command`. LeaseLost when `go_on` says so; in every case nothing of it is left running."""
    started = time.monotonic()
    mark = f"{_MARK}={secrets.token_hex(16)}"
    output, result = Output(), bytearray()
    read_end, write_end = os.pipe()
    order = {
        "command": command,
        "folder": str(place.tree),
        "watched": str(place.folder),
        "home": str(place.home),
        "temporary": str(place.temporary),
        "user": place.user,
        "environment": {**environment, _MARK: mark.partition("=")[2]},
        "limit_s": limit_s,
        "output": write_end,
        "bounds": asdict(bounds or Bounds()),
    }
    try:
        helper = _start(order, write_end)
    finally:
        os.close(write_end)
    try:
        _follow(helper, read_end, output, result, started + limit_s + _ENDING_S, go_on)
    finally:
        _end(helper)
        if b'"gone": true' not in result:
            _kill_left(place.user, mark.encode())
        _drain(read_end, output)
        os.close(read_end)
    status, cut = _report(bytes(result))
    return Ended(status, cut, time.monotonic() - started, output)


def _start(order: Mapping[str, object], output: int) -> subprocess.Popen[bytes]:
    helper = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _HELPER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=output,
        env={"LC_ALL": "C.UTF-8"},
        cwd="/",
        pass_fds=(output,),
        start_new_session=True,
    )
    assert helper.stdin is not None
    with suppress(BrokenPipeError):
        helper.stdin.write(json.dumps(order).encode() + b"\n")
        helper.stdin.flush()
    return helper


def _follow(
    helper: subprocess.Popen[bytes],
    read_end: int,
    output: Output,
    result: bytearray,
    until: float,
    go_on: Callable[[], bool],
) -> None:
    """Gather output until the helper has reported, asking twice a second whether to go on."""
    assert helper.stdout is not None
    report = helper.stdout.fileno()
    ready = select.poll()
    for file in (read_end, report):
        ready.register(file, select.POLLIN | select.POLLHUP)
    ask_at = 0.0
    while time.monotonic() < until:
        if time.monotonic() >= ask_at:
            if not go_on():
                raise LeaseLost("the tests were cut off: another worker has this commit, or this one ends")
            ask_at = time.monotonic() + _ASK_S
        for file, _ in ready.poll(_ASK_S * 1000):
            chunk = os.read(file, 256 * 1024)
            if file == report:
                result += chunk
                if not chunk:
                    return
            elif chunk:
                output.add(chunk)
            else:
                ready.unregister(file)


def _end(helper: subprocess.Popen[bytes]) -> None:
    """Let go of the lifeline; a helper that cannot end its work (killed, stopped) is killed."""
    assert helper.stdin is not None
    assert helper.stdout is not None
    with suppress(BrokenPipeError):
        helper.stdin.close()
    try:
        helper.wait(_ENDING_S)
    except subprocess.TimeoutExpired:
        helper.kill()
        helper.wait()
    helper.stdout.close()


def _kill_left(user: int | None, mark: bytes) -> None:
    """Do what the helper could not: kill by the command's own user, else by the mark, until a look finds nobody."""
    for _ in range(100):
        left = processes.with_environment(mark) if user is None else processes.of_user(user)
        if not left:
            return
        if user is None:
            processes.kill(left)
        else:
            processes.kill_user(user)
        time.sleep(0.02)


def _drain(read_end: int, output: Output) -> None:
    """What is still in the pipe; nobody is left to write more."""
    os.set_blocking(read_end, False)
    with suppress(BlockingIOError):
        while chunk := os.read(read_end, 256 * 1024):
            output.add(chunk)


def _report(result: bytes) -> tuple[int | None, str | None]:
    """What the helper said; nothing when the command has killed it."""
    try:
        told = json.loads(result)
    except ValueError:
        return None, None
    return told["status"], told["cut"]
