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
from rollout.releases.group import Group
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
        kernel.private_places(user, order["watched"], order["home"], order["temporary"])
    group = Group.made(bounds)
    watch = Watch(order["watched"], bounds, group, user)
    group.enter()
    child = _start(order, bounds, user)
    group.leave()
    status, cut = _wait(child, order["limit_s"], watch)
    gone = _kill_all(user)
    group.remove()
    sys.stdout.write(json.dumps({"status": status, "cut": cut, "gone": gone}) + "\n")


def _start(order: dict[str, Any], bounds: Bounds, user: int | None) -> int:
    """The command, as its user, within its bounds; a go-between to wait for: who kills `$PPID` has not killed the subreaper."""
    pid = os.fork()
    if pid == 0:
        try:
            _bound(bounds)
            _let_others_go_first()
            _end_like(_command(order, user).wait())
        except OSError as error:
            os.write(order["output"], f"{error}\n".encode())
        finally:
            os._exit(126)
    os.close(order["output"])
    return pid


def _command(order: dict[str, Any], user: int | None) -> subprocess.Popen[bytes]:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the lifeline and the report are the subreaper's alone
    os.dup2(order["output"], 1)
    os.dup2(order["output"], 2)
    return subprocess.Popen(
        ["/bin/sh", "-c", order["command"]],
        cwd=order["folder"],
        env=order["environment"],
        start_new_session=True,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


def _end_like(status: int) -> None:
    """End with the exit status or by the signal of the command."""
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


def _usual_signals() -> None:
    """Ignored and blocked signals are inherited: the command must not see what our worker does with them."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)


def _let_others_go_first() -> None:
    """Stopping, switching and counting have the processor before the command; and when memory runs out, the kernel takes the command."""
    os.nice(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


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
    """The command's exit status, and the bound that it broke; neither when our worker is gone."""
    until = time.monotonic() + limit_s
    lifeline = select.poll()
    lifeline.register(0, select.POLLIN | select.POLLHUP)
    while True:
        status = _reap(child)
        if status is not None:
            return status, watch.killed()
        if cut := LATE if time.monotonic() >= until else watch.broken():
            return None, cut
        if lifeline.poll(_STEP_MS):
            return None, None


def _reap(wanted: int = 0) -> int | None:
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


def _kill_all(user: int | None) -> bool:
    """Kill whatever is below us, until nothing is."""
    until = time.monotonic() + _CLEANING_S
    while time.monotonic() < until:
        _reap()
        left = processes.descendants(os.getpid())  # orphans too: we are their subreaper
        if not left:
            return True
        if user is not None:
            processes.kill_user(user)
        processes.kill(left)
        time.sleep(0.01)
    return False
