"""Threads for what blocks (the store, the broker), in lanes: a crowd in one lane is not in the way of another.

A lane has so many threads, so much room to wait, and a time after which the answer is that there is none. Work that is
given up is finished by its thread all the same, and nobody hears of it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Lock
from typing import TypeVar

from rollout.errors import ServiceUnavailable
from rollout.web.errors import Busy

T = TypeVar("T")


class Lane:
    """`threads` at work, at most `waiting` more before them, each at most `within_s`."""

    def __init__(self, name: str, *, threads: int, waiting: int, within_s: float) -> None:
        self._name = name
        self._within_s = within_s
        self._room = threads + waiting
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"web-{name}")

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises; Busy when the lane is full, ServiceUnavailable when it takes too long."""
        self._enter()
        future = self._pool.submit(copy_context().run, work)
        future.add_done_callback(self._leave)
        awaited = asyncio.wrap_future(future)
        await asyncio.wait({awaited}, timeout=self._within_s)
        if awaited.done():
            return awaited.result()
        awaited.add_done_callback(_forget)
        awaited.cancel()
        raise ServiceUnavailable(
            f"no answer within {self._within_s:g} s",
            remedy="nothing is lost; try again. `rollout check` tells more",
        )

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _enter(self) -> None:
        with self._lock:
            if self._room == 0:
                raise Busy(f"too many requests at once ({self._name})", remedy="try again in a moment")
            self._room -= 1

    def _leave(self, _done: Future[T]) -> None:
        with self._lock:
            self._room += 1


def _forget(done: "asyncio.Future[T]") -> None:
    if not done.cancelled():
        done.exception()  # asked for, so that nobody is told of an exception that was never looked at
