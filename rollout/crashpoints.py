"""Named places where a process can be made to die or to stand still: for tests/faults, which prove what is promised.

Off unless ROLLOUT_CRASHPOINTS names a folder; then whoever reaches point P in stage S and can rename the folder's file
`S.P` to `S.P.<pid>` does what is written in it: `kill` (SIGKILL to itself), `kill-parent` (to its parent and itself)
or `stop` (SIGSTOP). A rename succeeds once, so of all processes exactly one does it, once; the renamed file is the proof.
"""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import ContextDecorator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

POINTS = {
    "before-claim": "a message has come, nothing is read or written yet",
    "in-claim": "the claim is written and not committed",
    "after-claim": "the claim is committed, nothing is done yet",
    "before-renewal": "leases are about to be renewed",
    "tests-running": "the test command has started",
    "after-tests": "the tests have passed, the release is not built",
    "after-build": "the release lies on the shelf, nobody knows",
    "before-connect": "no connection to the host yet",
    "after-connect": "the channel is open, nothing is sent",
    "mid-install": "host.sh is sent, its answer not read",
    "mid-upload": "some of the archive is sent",
    "after-upload": "all of the archive is sent",
    "after-greeting": "the host has greeted, the lease is not checked",
    "after-permit": "the lease is checked, the answer not sent",
    "after-permission": "the host may switch now",
    "after-answer": "the host has said what came of it",
    "after-reading": "the canary's log is read, nothing is stored",
    "before-report": "the outcome is known here, and nowhere else",
    "in-report": "the outcome is written and not committed",
    "in-decision": "a stage's next step is written and not committed",
    "before-ring": "committed, and no message sent",
    "mid-ring": "one message of several is sent",
    "after-ring": "all messages are sent",
    "before-revoke": "a stop is committed, the queue not emptied",
    "after-seal": "a host is sealed, the store does not know",
    "in-acknowledgement": "an acknowledgement is written and not committed",
}
STAGES = (
    "webhook",
    "tests",
    "plan",
    "prepare",
    "canary",
    "evaluation",
    "activate",
    "count",
    "read",
    "stop",
    "rollback",
    "leases",
)
_SENT = {"kill": signal.SIGKILL, "kill-parent": signal.SIGKILL, "stop": signal.SIGSTOP}

_Function = TypeVar("_Function", bound=Callable[..., object])
_folder = os.environ.get("ROLLOUT_CRASHPOINTS")
_here = threading.local()


class stage(ContextDecorator):  # noqa: N801  # used as a word: `with crashpoints.stage("tests"):`
    """What this thread is at, until the end of the block or of the function."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._before = getattr(_here, "stage", "")
        _here.stage = self._name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _here.stage = self._before

    def __call__(self, function: _Function) -> _Function:
        """The function itself while nothing is armed."""
        return super().__call__(function) if _folder is not None else function

    def _recreate_cm(self) -> "stage":
        return stage(self._name)  # a decorator's is used by many threads at once


def carried(work: _Function) -> _Function:
    """The same work, at our stage in whatever thread it is done."""
    return stage(getattr(_here, "stage", ""))(work)


def reach(point: str) -> None:
    """Nothing, unless the point is armed in this thread's stage."""
    if _folder is not None:
        _reach(Path(_folder) / f"{getattr(_here, 'stage', '')}.{point}")


def _reach(armed: Path) -> None:
    mine = armed.with_name(f"{armed.name}.{os.getpid()}")
    try:
        armed.rename(mine)
    except FileNotFoundError:
        return
    action = mine.read_text().strip()
    if action == "kill-parent":
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), _SENT[action])
