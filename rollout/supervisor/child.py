"""One part of the tree while it runs: its process, its log, its last words, and when it may start again."""

import os
import signal
import subprocess
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from rollout.supervisor.descendants import die_with
from rollout.supervisor.logfile import LogFile
from rollout.supervisor.part import Part

LONGEST_PAUSE_S = 30.0
SETTLED_S = 10.0  # who ran this long has not failed "again"


def pause(failures: int) -> float:
    """Seconds to wait before a restart after `failures` deaths in a row: 1, 2, 4 … 30."""
    return float(min(LONGEST_PAUSE_S, 2 ** min(failures - 1, 10)))


class Child:
    """Starts, watches and ends the process of one part. All of it from the supervisor's only thread."""

    def __init__(self, part: Part, log_folder: Path) -> None:
        self.part = part
        self.log = LogFile(log_folder / f"{part.name.replace(' ', '-')}.log")
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.start_at = 0.0  # monotonic; not before
        self.failures = 0
        self.ready = False
        self._last_words: deque[bytes] = deque(maxlen=40)

    @property
    def last_words(self) -> str:
        """The newest output, without empty lines."""
        lines = b"".join(self._last_words).decode(errors="replace").splitlines()
        return "\n".join(line.rstrip() for line in lines[-20:] if line.strip())

    def start(self) -> None:
        """Start the process in a session of its own, with a pipe for its output."""
        self.part.prepare()
        self._last_words.clear()
        supervisor = os.getpid()

        def before_exec() -> None:
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            die_with(supervisor, signal.SIGKILL)

        self.process = subprocess.Popen(
            self.part.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            umask=0o077,
            start_new_session=True,
            preexec_fn=before_exec,  # noqa: PLW1509  # this process has one thread
        )
        os.set_blocking(self.output, False)
        self.started_at = time.monotonic()
        self.ready = self.part.ready is None

    @property
    def output(self) -> int:
        """The descriptor to read its output from."""
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def forward(self) -> int | None:
        """Move some output into the log: the bytes moved, 0 at its end, None when there is none at the moment."""
        try:
            data = os.read(self.output, 65536)
        except BlockingIOError:
            return None
        self._last_words.append(data[-4096:])
        self.log.write(data)
        return len(data)

    def ended(self) -> int | None:
        """The exit status of a process that has just ended (what it left in its group is killed), else None."""
        if self.process is None or (status := self.process.poll()) is None:
            return None
        self._kill_group()
        for _ in range(64):  # enough for a pipe; somebody else may still hold its other end and write
            if not self.forward():
                break
        self._forget()
        if time.monotonic() - self.started_at > SETTLED_S:
            self.failures = 0
        self.failed()
        return status

    def failed(self) -> None:
        """Wait before the next start, longer from time to time."""
        self.failures += 1
        self.start_at = time.monotonic() + pause(self.failures)

    def signal(self, sign: signal.Signals) -> None:
        """Signal the process, not its group: a prefork worker ends its own children."""
        if self.process is not None:
            self.process.send_signal(sign)

    def kill(self) -> None:
        """End the process and its group at once."""
        if self.process is not None:
            self._kill_group()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=5)

    def _kill_group(self) -> None:
        assert self.process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _forget(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        self.ready = False
