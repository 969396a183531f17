"""Work that costs many together little more than one: a transaction of the store.

What comes within a moment goes together, and what comes while that is at work goes next: few when little comes, many at a
time in a flood. Without the moment each would go almost alone, and a core would be busy with commits of one or two. One
thread: two would hand the store's turn to and fro, and wait for each other's commits.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from rollout.errors import ServiceUnavailable
from rollout.web.errors import Busy

One = TypeVar("One")
Result = TypeVar("Result")


class Together(Generic[One, Result]):
    """At work on at most `most`, which came within `gather_s`; at most `waiting` before them, each at most `within_s`. For one event loop.

    `work` gives a result or an exception for each one, in their order.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[One]], Sequence[Result | Exception]],
        *,
        gather_s: float,
        most: int,
        waiting: int,
        within_s: float,
    ) -> None:
        self._name, self._work = name, work
        self._most, self._room, self._within_s = most, waiting, within_s
        self._gather_s, self._gathering = gather_s, False
        self._at_work, self._closed = False, False
        self._waiting: deque[tuple[One, asyncio.Future[Result]]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"web-{name}")

    async def run(self, one: One) -> Result:
        """What the work gives for this one; Busy when there is no room, ServiceUnavailable when it takes too long."""
        if self._closed:
            raise ends()
        if len(self._waiting) >= self._room:
            raise Busy(f"too many requests at once ({self._name})", remedy="try again in a moment")
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((one, answer))
        self._gather()
        try:
            return await asyncio.wait_for(answer, self._within_s)
        except TimeoutError:
            raise ServiceUnavailable(
                f"no answer within {self._within_s:g} s",
                remedy="nothing is lost; try again. `rollout check` tells more",
            ) from None

    def close(self) -> None:
        """Begin nothing more; what is at work is told its end all the same."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        while self._waiting:
            _, answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(ends())

    def _gather(self) -> None:
        if not self._waiting or self._at_work or self._gathering:
            return
        self._gathering = True
        asyncio.get_running_loop().call_later(self._gather_s, self._begin)

    def _begin(self) -> None:
        self._gathering = False
        batch: list[tuple[One, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._most:
            one, answer = self._waiting.popleft()
            if not answer.done():  # else nobody waits for it any more
                batch.append((one, answer))
        if not batch:
            return
        self._at_work = True
        done = asyncio.wrap_future(self._pool.submit(self._work, [one for one, _ in batch]))
        done.add_done_callback(lambda told: self._tell([answer for _, answer in batch], told))

    def _tell(
        self,
        answers: Sequence["asyncio.Future[Result]"],
        told: "asyncio.Future[Sequence[Result | Exception]]",
    ) -> None:
        self._at_work = False
        self._gather()
        broken = told.exception() if not told.cancelled() else ends()
        results = [broken] * len(answers) if broken is not None else told.result()
        for answer, result in zip(answers, results, strict=True):
            if answer.done():
                continue
            if isinstance(result, BaseException):
                answer.set_exception(result)
            else:
                answer.set_result(result)


def ends() -> ServiceUnavailable:
    """What is said of a request that the end of the service leaves undone."""
    return ServiceUnavailable("the service ends", remedy="nothing is lost; try again when it is back")
