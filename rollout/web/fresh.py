"""Something looked up at most once in so long, however many ask."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Fresh(Generic[T]):
    """The last value while it is younger than `for_s`; one lookup at a time."""

    def __init__(self, look: Callable[[], Awaitable[T]], for_s: float) -> None:
        self._look = look
        self._for_s = for_s
        self._lock = asyncio.Lock()
        self._known: tuple[float, T] | None = None

    async def get(self) -> T:
        """The value, or what looking it up raises."""
        async with self._lock:
            if self._known is not None and time.monotonic() - self._known[0] < self._for_s:
                return self._known[1]
            value = await self._look()
            self._known = (time.monotonic(), value)
            return value
