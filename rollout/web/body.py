"""Reading a request's body: so much, so long, and so much of all of them together; no thread waits for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from rollout.web.errors import Busy, TooLarge, TooSlow

LINGER_S = 2.0


class Bodies:
    """The bodies that are in memory now."""

    def __init__(self, *, within_s: float, in_all: int) -> None:
        self._within_s = within_s
        self._in_all = in_all
        self.held = 0  # bytes

    @asynccontextmanager
    async def of(self, request: Request, most: int) -> AsyncIterator[bytes]:
        """The request's body, counted until the end of the block; TooLarge, TooSlow, Busy."""
        reading = _Reading(self, most)
        try:
            try:
                async with asyncio.timeout(self._within_s):
                    body = await reading.all(request)
            except TimeoutError:
                raise TooSlow(
                    f"the body was not there after {self._within_s:g} s", remedy="send it faster, or smaller"
                ) from None
            except ClientDisconnect:
                raise TooSlow("the client went away in the middle of the body") from None
            yield body
        finally:
            self.held -= reading.taken

    def take(self, size: int) -> None:
        """Room for so many bytes more; Busy when there is none."""
        if self.held + size > self._in_all:
            raise Busy("too many large requests at once", remedy="try again in a moment")
        self.held += size


class _Reading:
    def __init__(self, bodies: Bodies, most: int) -> None:
        self._bodies = bodies
        self._most = most
        self.taken = 0

    async def all(self, request: Request) -> bytes:
        chunks: list[bytes] = []
        stream = request.stream()
        if _declared(request) > self._most:
            await self._refuse(stream)
        async for chunk in stream:
            if self.taken + len(chunk) > self._most:
                chunks.clear()
                await self._refuse(stream)
            self._bodies.take(len(chunk))
            self.taken += len(chunk)
            chunks.append(chunk)
        return b"".join(chunks)

    async def _refuse(self, stream: AsyncIterator[bytes]) -> None:
        """Throw away a little more before saying no: a client that is still sending would not hear the answer."""
        thrown = 0
        try:
            async with asyncio.timeout(LINGER_S):
                async for chunk in stream:
                    thrown += len(chunk)
                    if thrown > self._most:
                        break
        except TimeoutError:
            pass
        raise TooLarge(
            f"the body is larger than {self._most} bytes", remedy="nothing that is this large is expected"
        )


def _declared(request: Request) -> int:
    given = request.headers.get("content-length", "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 20 else 0
