"""Deadlines on the monotonic clock, and one thread that acts when they pass."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

_MANY = 256  # cancelled alarms that are worth a sweep


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on this process's monotonic clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """That many seconds from now."""
        return cls(time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds until then, never negative."""
        return max(0.0, self.at - time.monotonic())

    def within(self, seconds: float) -> "Deadline":
        """This one, or that many seconds from now if that is sooner."""
        return Deadline(min(self.at, time.monotonic() + seconds))

    def later(self, seconds: float) -> "Deadline":
        """That many seconds after this one."""
        return Deadline(self.at + seconds)

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return time.monotonic() >= self.at


class Alarm:
    """An action that runs at its deadline unless it is cancelled first."""

    __slots__ = ("_owner", "action", "at")

    def __init__(self, at: float, action: Callable[[], None], owner: "Alarms") -> None:
        self.at = at
        self.action: Callable[[], None] | None = action
        self._owner = owner

    def cancel(self) -> None:
        """Forget it; harmless when it has run already."""
        self._owner.cancel(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.cancel()


class Alarms:
    """Our own timers. Actions must not block: they run one after another in one daemon thread."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._cancelled = 0
        self._closed = False

    def at(self, deadline: Deadline, action: Callable[[], None]) -> Alarm:
        """Run `action` at `deadline`. Use it as a context manager to cancel it on the way out."""
        alarm = Alarm(deadline.at, action, self)
        with self._changed:
            first = not self._heap or alarm.at < self._heap[0][0]
            heapq.heappush(self._heap, (alarm.at, next(self._numbers), alarm))
            self._start()
            if first:
                self._changed.notify()
        return alarm

    def cancel(self, alarm: Alarm) -> None:
        """Take it out, at once or with the next sweep."""
        with self._changed:
            if alarm.action is None:
                return
            alarm.action = None
            self._cancelled += 1
            if self._cancelled > _MANY and self._cancelled * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2].action is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap)

    def close(self) -> None:
        """End the thread; nothing runs any more."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def _start(self) -> None:
        """Begin late, and again in a forked child, where the parent's thread is not."""
        if not self._closed and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name="ssh-deadlines", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (action := self._next()) is not None:
            action()

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next action that is due; None when closed."""
        with self._changed:
            while not self._closed:
                if not self._heap:
                    self._changed.wait()
                    continue
                wait = self._heap[0][0] - time.monotonic()
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                alarm = heapq.heappop(self._heap)[2]
                action, alarm.action = alarm.action, None
                if action is not None:
                    return action
                self._cancelled = max(0, self._cancelled - 1)
            return None
