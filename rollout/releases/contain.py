"""Runs one command and leaves nothing of it behind: a small program of its own, started by `command.py`.

It is a program because it must be the *subreaper* of everything that the command starts, also of daemons that forked
twice and changed their session, and that is a property of a whole process. Standard library only: it starts in 20 ms.

Standard input: one line of JSON, then nothing: its end means that our worker is gone, or wants us to end.
Standard output: one line of JSON when all is over: {"status": exit status or -signal or null, "late": bool, "gone": bool}.
"""

import ctypes
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

_PR_SET_CHILD_SUBREAPER = 36
_STEP_MS = 50
_CLEANING_S = 20.0


def main() -> None:
    """Do what standard input says."""
    order = json.loads(sys.stdin.buffer.readline())
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    _usual_signals()
    _bound(order["file_bytes"], order["processes"])
    score = _offer_to_oom("500")  # when memory runs out, the kernel takes the command before the worker
    child = subprocess.Popen(
        ["/bin/sh", "-c", order["command"]],
        cwd=order["folder"],
        env=order["environment"],
        stdin=subprocess.DEVNULL,
        stdout=order["output"],
        stderr=order["output"],
        start_new_session=True,
    )
    os.close(order["output"])
    _offer_to_oom(score)
    status, late = _wait(child.pid, order["limit_s"])
    gone = _kill_all(child.pid)
    sys.stdout.write(json.dumps({"status": status, "late": late, "gone": gone}) + "\n")


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


def _bound(file_bytes: int, processes: int) -> None:
    """Inherited by the command."""
    for what, bound in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NPROC, processes),
    ):
        _, hard = resource.getrlimit(what)
        lower = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(what, (lower, lower))


def _wait(child: int, limit_s: float) -> tuple[int | None, bool]:
    """The command's exit status and whether it was late; None when our worker is gone."""
    until = time.monotonic() + limit_s
    lifeline = select.poll()
    lifeline.register(0, select.POLLIN | select.POLLHUP)
    while True:
        status = _reap(child)
        if status is not None:
            return status, False
        if time.monotonic() >= until:
            return None, True
        if lifeline.poll(_STEP_MS):
            return None, False


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


def _kill_all(child: int) -> bool:
    """Kill the command's group, then whoever is left of its descendants, until there are none."""
    until = time.monotonic() + _CLEANING_S
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    while time.monotonic() < until:
        _reap()
        left = _descendants()
        if not left:
            return True
        for sent in (
            signal.SIGSTOP,
            signal.SIGKILL,
        ):  # stopped first, so that none forks while others are killed
            for pid in left:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, sent)
        time.sleep(0.01)
    return False


def _descendants() -> list[int]:
    """Everything below us now: orphans become our children, since we are their subreaper."""
    parents = _parents()
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return sorted(below - {os.getpid()})


def _parents() -> dict[int, int]:
    found = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  # names, not paths: this runs while a fork bomb does
        if entry.isdigit():
            with suppress(OSError):
                stat = Path(f"/proc/{entry}/stat").read_bytes()
                found[int(entry)] = int(stat.rpartition(b")")[2].split()[1])
    return found


if __name__ == "__main__":
    main()
