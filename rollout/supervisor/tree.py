"""The process tree: starts every part, restarts what dies with back-off, and ends all of it within a deadline."""

import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rollout.errors import RolloutError
from rollout.supervisor.child import Child, pause
from rollout.supervisor.descendants import end_strangers, reap_strangers
from rollout.supervisor.guardian import ENDING
from rollout.supervisor.part import Part

TICK_S = 0.5
PATIENCE_S = 15.0  # for the first part; then the others start without it
END_S = 10.0  # from TERM to KILL

Say = Callable[[str], None]


class Supervisor:
    """Keeps the parts running until a signal or `stop()`. One thread: select, then look at every child."""

    def __init__(
        self,
        parts: Sequence[Part],
        log_folder: Path,
        say: Say,
        *,
        when_ready: Callable[[], None] = lambda: None,
        end_s: float = END_S,
    ) -> None:
        log_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log_folder = log_folder
        self._children = [Child(part, log_folder) for part in parts]
        self._say = say
        self._when_ready = when_ready
        self._announced = False
        self._end_s = end_s
        self._signals = 0
        self._selector = selectors.DefaultSelector()
        self._began = time.monotonic()

    def run(self) -> None:
        """Run everything until INT, TERM or HUP; returns when all of it has ended."""
        with self._watching_signals():
            while not self._signals:
                self._start_what_is_due()
                self._tell_when_ready()
                self._wait(self._pause())
                self._restart_the_dead()
            self._end()

    def _watching_signals(self) -> "_Wakeup":
        def received(_sign: int, _frame: object) -> None:
            self._signals += 1

        return _Wakeup(self._selector, received)

    # Starting

    def _start_what_is_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process is None and child.start_at <= now and (child.part.first or self._open()):
                self._start(child)

    def _start(self, child: Child) -> None:
        try:
            child.start()
        except (OSError, RolloutError) as exc:
            child.failed()
            self._say(
                f"{child.part.name}: cannot be started: {exc}; tried again in {pause(child.failures):g} s"
            )
            return
        self._selector.register(child.output, selectors.EVENT_READ, child)

    def _open(self) -> bool:
        """Whether the parts that wait for the first one may start."""
        waited = time.monotonic() - self._began > PATIENCE_S
        return waited or self._announced or all(child.ready for child in self._children if child.part.first)

    def _tell_when_ready(self) -> None:
        for child in self._children:
            if child.process is not None and not child.ready and child.part.ready is not None:
                child.ready = child.part.ready()
        if not self._announced and all(child.ready for child in self._children):
            self._announced = True
            self._when_ready()

    # Watching

    def _pause(self) -> float:
        if not all(child.ready for child in self._children):
            return 0.1
        return TICK_S

    def _wait(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            if isinstance(key.data, Child):
                if key.data.forward() == 0:  # its end; the process may live on for a moment
                    self._selector.unregister(key.fd)
            else:
                with suppress(BlockingIOError):
                    os.read(key.fd, 512)

    def _restart_the_dead(self) -> None:
        died = False
        for child in self._children:
            if self._has_ended(child):
                died = True
        known = self._known()
        if died:
            end_strangers(known)
        else:
            reap_strangers(known)

    def _has_ended(self, child: Child) -> bool:
        if (status := self._collect(child)) is None:
            return False
        self._say(
            f"{child.part.name} ended ({_meaning(status)}); it starts again in {pause(child.failures):g} s"
            f" — its log is {child.log.path}"
        )
        for line in child.last_words.splitlines()[-3:]:
            self._say(f"    {line}")
        if healed := child.part.heal(child.last_words):
            self._say(f"{child.part.name}: {healed}")
        return True

    def _collect(self, child: Child) -> int | None:
        output = child.output if child.process is not None else -1
        if (status := child.ended()) is not None:
            with suppress(KeyError):
                self._selector.unregister(output)
        return status

    def _known(self) -> list[int]:
        return [child.process.pid for child in self._children if child.process is not None]

    # Ending

    def _end(self) -> None:
        """Everything but the first parts, then those; a second signal makes it hurry."""
        self._say("ending …")
        killed: list[str] = []
        for first in (False, True):
            killed += self._end_all([child for child in self._children if child.part.first is first])
        end_strangers(self._known())
        if killed:
            self._say(
                f"ended; did not end within {self._end_s:g} s and had to be killed: {', '.join(killed)}"
            )
        else:
            self._say("ended")

    def _end_all(self, children: list[Child]) -> list[str]:
        deadline = time.monotonic() + self._end_s
        for child in children:
            child.signal(signal.SIGTERM)
        while any(child.process for child in children) and time.monotonic() < deadline and self._signals < 2:
            self._wait(0.1)
            for child in children:
                self._collect(child)
        late = [child for child in children if child.process is not None]
        for child in late:
            child.kill()
            self._collect(child)
        return [child.part.name for child in late]


class _Wakeup:
    """Signals wake the selector while this is entered; as before afterwards."""

    def __init__(self, selector: selectors.BaseSelector, received: Callable[[int, object], None]) -> None:
        self._selector = selector
        self._received = received
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> None:
        self._selector.register(self._read, selectors.EVENT_READ, None)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _sign, _frame: None)
        for sign in ENDING:
            if signal.getsignal(sign) is not signal.SIG_IGN:  # `nohup` stays in force
                signal.signal(sign, self._received)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        self._selector.unregister(self._read)
        os.close(self._read)
        os.close(self._write)


def _meaning(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"
