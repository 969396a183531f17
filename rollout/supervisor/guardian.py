"""Two processes that watch each other, so that `kill -9` of either leaves nothing behind.

The guardian is what the user started: it hands signals on and, when the supervisor is gone for whatever reason, kills
every process that is left below it. The supervisor gets TERM when the guardian dies. What the supervisor starts gets
KILL when the supervisor dies.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from rollout.supervisor.descendants import adopt_orphans, die_with, end_descendants

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def guarded(supervise: Callable[[], int]) -> int:
    """Run `supervise` in a forked process and return its exit status when nothing is left below it.

    To be called from the main thread of a process without other threads.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until somebody is there to handle them
    guardian = os.getpid()
    supervisor = os.fork()
    if supervisor == 0:
        _be_supervisor(guardian, supervise)
    adopt_orphans()
    for sign in ENDING:
        if signal.getsignal(sign) is not signal.SIG_IGN:  # `nohup` stays in force
            signal.signal(sign, lambda received, _frame: _hand_on(supervisor, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    status = _wait_for(supervisor)
    end_descendants()
    return status


def _be_supervisor(guardian: int, supervise: Callable[[], int]) -> None:
    status = 1
    try:
        os.setpgid(0, 0)  # Ctrl-C comes through the guardian, once
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a background group may go on writing to the terminal
        adopt_orphans()
        die_with(guardian, signal.SIGTERM)
        status = supervise()
    except BaseException:  # noqa: BLE001  # whatever it is, it must not run on in the guardian's code
        traceback.print_exc()
    finally:
        end_descendants()
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _hand_on(supervisor: int, sign: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(supervisor, sign)


def _wait_for(supervisor: int) -> int:
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == supervisor:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
