"""Runs a commit's test or build command, contained: its time, its output, its processes and its environment.

What it is not: a jail. The command runs as the worker's user. A command that is hostile belongs on a machine, or under a
user, of its own (`rollout worker` for the queue `tests` may run there).
"""

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rollout.errors import LeaseLost
from rollout.releases import contain
from rollout.releases.limits import MAX_FILE_BYTES, MAX_PROCESSES
from rollout.releases.output import Output

_ASK_S = 0.5  # how often `go_on` is asked
_ENDING_S = 25.0  # what the helper may need to kill everything
_MARK = "ROLLOUT_CONTAINED"  # in the environment of everything the command starts


@dataclass(frozen=True, slots=True)
class Ended:
    """How the command ended: an exit status or -signal; None when it was late, or killed its container."""

    status: int | None
    late: bool
    took_s: float
    output: Output


def run(
    command: str,
    folder: Path,
    environment: Mapping[str, str],
    *,
    limit_s: float,
    go_on: Callable[[], bool],
) -> Ended:
    """Run `sh -c command`. LeaseLost when `go_on` says so; in every case nothing of it is left running."""
    started = time.monotonic()
    mark = secrets.token_hex(16)
    output, result = Output(), bytearray()
    read_end, write_end = os.pipe()
    try:
        helper = _start(command, folder, {**environment, _MARK: mark}, limit_s, write_end)
    finally:
        os.close(write_end)
    try:
        _follow(helper, read_end, output, result, started + limit_s + _ENDING_S, go_on)
    finally:
        _end(helper, result, mark)
        _drain(read_end, output)
        os.close(read_end)
    status, late = _report(bytes(result))
    return Ended(status, late, time.monotonic() - started, output)


def _start(
    command: str, folder: Path, environment: Mapping[str, str], limit_s: float, output: int
) -> subprocess.Popen[bytes]:
    order = {
        "command": command,
        "folder": str(folder),
        "environment": dict(environment),
        "limit_s": limit_s,
        "output": output,
        "file_bytes": MAX_FILE_BYTES,
        "processes": MAX_PROCESSES,
    }
    helper = subprocess.Popen(
        [sys.executable, "-I", "-S", contain.__file__],
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


def _end(helper: subprocess.Popen[bytes], result: bytearray, mark: str) -> None:
    """Let go of the lifeline; when the helper cannot end its work (killed, stopped), do it here."""
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
    if b'"gone": true' not in result:
        _kill_marked(mark)


def _kill_marked(mark: str) -> None:
    """Kill by the mark in the environment, until a look finds none."""
    wanted = f"{_MARK}={mark}".encode()
    for _ in range(100):
        left = [pid for pid in _pids() if wanted in _environment(pid)]
        if not left:
            return
        for sent in (signal.SIGSTOP, signal.SIGKILL):
            for pid in left:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, sent)
        time.sleep(0.02)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _drain(read_end: int, output: Output) -> None:
    """What is still in the pipe; nobody is left to write more."""
    os.set_blocking(read_end, False)
    with suppress(BlockingIOError):
        while chunk := os.read(read_end, 256 * 1024):
            output.add(chunk)


def _report(result: bytes) -> tuple[int | None, bool]:
    """What the helper said; nothing when the command has killed it."""
    try:
        told = json.loads(result)
    except ValueError:
        return None, False
    return told["status"], told["late"]
