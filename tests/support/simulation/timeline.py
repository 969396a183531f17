"""Virtual time: tasks that take turns, in an order that the seed decides, and processes that stand still or are killed.

A task is a greenlet: the services run in it as they are, and let others come between where this module's `step` or
`sleep` is called (around every transaction, and wherever something travels to a host). Never inside a transaction.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Self

from greenlet import greenlet

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SOON_S = 0.02


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Process:
    """Something that can be killed, or stopped for a while, with all that it does."""

    name: str
    alive: bool = True
    stands_until: float = 0.0
    tasks: dict[int, "Task"] = field(default_factory=dict)


class Task:
    """Work that takes turns with other work."""

    def __init__(self, timeline: "Timeline", work: Callable[[], Any], process: Process | None) -> None:
        self.process, self.done, self.result = process, False, None
        self.token = 0  # of the turn that it waits for; an older one is no longer meant
        self.waiters: list[Task] = []
        self.number = timeline.count
        timeline.count += 1
        self.greenlet = greenlet(self._run, timeline.hub)
        self._work, self._timeline = work, timeline
        if process is not None:
            process.tasks[self.number] = self

    def _run(self) -> None:
        try:
            self.result = self._work()
        except Killed:
            pass
        finally:
            self.done = True
            if self.process is not None:
                self.process.tasks.pop(self.number, None)
            for waiter in self.waiters:
                self._timeline.wake(waiter)

    def kill(self) -> None:
        """It ends where it stands."""
        self.token += 1
        if self.greenlet is greenlet.getcurrent():
            raise Killed
        if not self.greenlet:  # has not begun
            self.done = True
            if self.process is not None:
                self.process.tasks.pop(self.number, None)
            return
        self.greenlet.parent = greenlet.getcurrent()  # where it goes when it has ended
        self.greenlet.throw(Killed)


class Timeline:
    """The clock, and everything that waits for it."""

    def __init__(self, chance: Random) -> None:
        self.chance, self.seconds = chance, 1000.0
        self.hub = greenlet.getcurrent()
        self.count = self.ticks = 0
        self.open_transactions = 0
        self.disturb: Callable[[], None] = lambda: None  # asked at every step
        self._heap: list[tuple[float, float, int, Task, int]] = []

    def today(self) -> datetime:
        """The time of day: no two moments are the same."""
        self.ticks += 1
        return BEGIN + timedelta(seconds=self.seconds, microseconds=self.ticks)

    # -- what a task may do ------------------------------------------------------------------------------------------------

    def current(self) -> Task | None:
        """The task that runs now; None outside of any."""
        found = greenlet.getcurrent()
        return None if found is self.hub else found.run_by

    def spawn(self, work: Callable[[], Any], process: Process | None = None, after_s: float = 0.0) -> Task:
        """Begin something beside what runs now."""
        task = Task(self, work, process)
        task.greenlet.run_by = task
        self._push(task, self.seconds + after_s)
        return task

    def sleep(self, seconds: float) -> None:
        """Let others come before."""
        task = self.current()
        if task is None or self.open_transactions:
            return
        self._push(task, self.seconds + seconds)
        self.hub.switch()

    def step(self) -> None:
        """A place where others may come between, and where things may happen to this process."""
        if self.current() is None or self.open_transactions:
            return
        self.disturb()
        if self.chance.random() < 0.4:
            self.sleep(self.chance.random() * SOON_S)

    def wait_for(self, other: Task, timeout_s: float) -> bool:
        """Sleep until the other has ended; False when the time is up first."""
        task, until = self.current(), self.seconds + timeout_s
        assert task is not None
        other.waiters.append(task)
        while not other.done and self.seconds < until:
            self.sleep(until - self.seconds)
        return other.done

    def wake(self, task: Task) -> None:
        """It need not sleep any longer."""
        self._push(task, self.seconds)

    # -- from outside ------------------------------------------------------------------------------------------------------

    def kill(self, process: Process) -> None:
        """Kill -9. When it is the one that runs, Killed comes out of here."""
        process.alive = False
        mine = self.current()
        for task in list(process.tasks.values()):
            if task is not mine:
                task.kill()
        if mine is not None and mine.process is process:
            mine.kill()

    def run(self, until: Callable[[], bool], seconds: float) -> None:
        """Give everything its turns."""
        end = self.seconds + seconds
        while self._heap and not until():
            at, _, _, task, token = self._heap[0]
            if at > end:
                break
            heapq.heappop(self._heap)
            if task.done or token != task.token:
                continue
            if task.process is not None and task.process.stands_until > max(at, self.seconds):
                self._push(task, task.process.stands_until)
                continue
            self.seconds = max(self.seconds, at)
            task.token += 1
            task.greenlet.switch()

    def end(self) -> None:
        """Whatever still waits never goes on."""
        for _, _, _, task, _ in sorted(self._heap, key=lambda entry: entry[3].number):
            if not task.done:
                task.kill()
        self._heap.clear()

    def _push(self, task: Task, at: float) -> None:
        self.count += 1
        heapq.heappush(self._heap, (at, self.chance.random(), self.count, task, task.token))


@dataclass(frozen=True, eq=False)
class TaskFuture:
    """What a pool's `submit` gives."""

    task: Task

    def done(self) -> bool:
        """It has ended."""
        return self.task.done

    def exception(self) -> None:
        """Whatever a task raises ends the simulation."""

    def result(self) -> Any:
        """Of a task that has ended."""
        return self.task.result


def wait(timeline: Timeline, futures: Iterable[TaskFuture], timeout: float) -> None:
    """As concurrent.futures.wait: until all have ended, or the time is up."""
    until = timeline.seconds + timeout
    for future in futures:
        timeline.wait_for(future.task, max(0.0, until - timeline.seconds))


class TaskPool:
    """A ThreadPoolExecutor whose threads are tasks of the process that made it."""

    def __init__(self, timeline: Timeline, *_: object, **__: object) -> None:
        self._timeline, self._tasks = timeline, list[Task]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._join()

    def submit(self, work: Callable[..., Any], *arguments: Any) -> TaskFuture:
        """Begin it."""
        mine = self._timeline.current()
        process = mine.process if mine is not None else None
        self._tasks.append(self._timeline.spawn(lambda: work(*arguments), process))
        return TaskFuture(self._tasks[-1])

    def shutdown(self, *, wait: bool) -> None:
        """What was begun goes on."""
        assert not wait

    def map(self, work: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        """The results, in order, when all are there."""
        for item in items:
            self.submit(work, item)
        self._join()
        return [task.result for task in self._tasks]

    def _join(self) -> None:
        for task in self._tasks:
            self._timeline.wait_for(task, float("inf"))
