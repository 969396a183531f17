"""Runs one command and leaves nothing of it behind: a process of its own, started by `command.py`.

It is a process because it must be the *subreaper* of everything that the command starts, also of daemons that forked
twice and changed their session, and that is a property of a whole process. Few imports: it starts in 30 ms.

Standard input: one line of JSON, then nothing: its end means that our worker is gone, or wants us to end.
Standard output: one line of JSON when all is over: {"status": exit status or -signal or null, "cut": which bound was
broken or null, "gone": bool}.
"""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rollout.releases import kernel, processes
from rollout.releases.limits import Bounds
from rollout.releases.usage import Watch

LATE = "late"

_STEP_MS = 50
_CLEANING_S = 20.0


def main() -> None:
    """Do what standard input says."""
    order = json.loads(sys.stdin.buffer.readline())
    bounds, user = Bounds(**order["bounds"]), order["user"]
    kernel.adopt_orphans()
    _usual_signals()
    if user is not None:
        processes.kill_user(user)  # of a worker that was killed with its helper
        kernel.no_new_rights()
        kernel.private_folders(order["temporary"])
    watch = Watch(order["watched"], bounds, _descendants)
    child = _start(order, bounds, user)
    status, cut = _wait(child.pid, order["limit_s"], watch)
    gone = _kill_all(child.pid, user)
    sys.stdout.write(json.dumps({"status": status, "cut": cut, "gone": gone}) + "\n")


def _start(order: dict[str, Any], bounds: Bounds, user: int | None) -> subprocess.Popen[bytes]:
    """The command, as its user, within its bounds. To be kept: what is forgotten is also waited for (`Popen.__del__`)."""
    _bound(bounds)
    score = _offer_to_oom("500")  # when memory runs out, the kernel takes the command before the worker
    child = subprocess.Popen(
        ["/bin/sh", "-c", order["command"]],
        cwd=order["folder"],
        env=order["environment"],
        stdin=subprocess.DEVNULL,
        stdout=order["output"],
        stderr=order["output"],
        start_new_session=True,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    os.close(order["output"])
    _offer_to_oom(score)
    return child


def _usual_signals() -> None:
    """Ignored and blocked signals are inherited: the command must not see what our worker does with them."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)


def _offer_to_oom(score: str) -> str:
    """Set how readily the kernel kills us and what we start from now on; the score before."""
    path = Path("/proc/self/oom_score_adj")
    before = "0"
    with suppress(OSError):
        before = path.read_text().strip()
        path.write_text(score)
    return before


def _bound(bounds: Bounds) -> None:
    """Inherited by the command."""
    for what, bound in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, bounds.file_bytes),
        (resource.RLIMIT_NPROC, bounds.processes),
    ):
        _, hard = resource.getrlimit(what)
        lower = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(what, (lower, lower))


def _wait(child: int, limit_s: float, watch: Watch) -> tuple[int | None, str | None]:
    """The command's exit status, or the bound that it broke; neither when our worker is gone."""
    until = time.monotonic() + limit_s
    lifeline = select.poll()
    lifeline.register(0, select.POLLIN | select.POLLHUP)
    while True:
        status = _reap(child)
        if status is not None:
            return status, None
        if cut := LATE if time.monotonic() >= until else watch.broken():
            return None, cut
        if lifeline.poll(_STEP_MS):
            return None, None


def _reap(wanted: int | None = None) -> int | None:
    """Bury every child that has ended, orphans too; the exit status of `wanted` when it was among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == wanted:
            found = os.waitstatus_to_exitcode(status)


def _kill_all(child: int, user: int | None) -> bool:
    """Kill the command's group, then whoever is left of its descendants, until there are none."""
    until = time.monotonic() + _CLEANING_S
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    while time.monotonic() < until:
        _reap()
        left = _descendants()
        if not left:
            return True
        if user is None:
            processes.kill(left)
        else:
            processes.kill_user(user)
        time.sleep(0.01)
    return False


def _descendants() -> list[int]:
    """Everything below us now: orphans become our children, since we are their subreaper."""
    return processes.descendants(os.getpid())
