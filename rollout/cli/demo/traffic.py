"""The demo's traffic: real HTTP requests to every host, a steady number a second, counted by what came back.

`python -m rollout.cli.demo.traffic PORT HOST…` sends until it is ended; docker-compose.yml does so.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

PAGES = ("/", "/cart", "/checkout")
AGAIN_S = 0.25  # after a host did not answer
ANSWER_S = 2.0
REQUEST = "GET {page} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: demo-traffic\r\n\r\n"


class Traffic:
    """One kept-alive connection to each host; `counts` holds "2xx", "5xx" and "none" (no answer)."""

    def __init__(self, addresses: Sequence[str], port: int, rate: float = 20) -> None:
        self.counts: Counter[str] = Counter()
        self._addresses = addresses
        self._port = port
        self._pause = 1 / rate

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number, address in enumerate(self._addresses):
                group.create_task(self._visit(address, number * self._pause / len(self._addresses)))

    async def _visit(self, address: str, start_after: float) -> None:
        await asyncio.sleep(start_after)
        while True:
            try:
                await self._browse(address)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                self.counts["none"] += 1
            await asyncio.sleep(AGAIN_S)

    async def _browse(self, address: str) -> None:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(address, self._port)
        clock = asyncio.get_running_loop().time
        due = clock()
        try:
            for number in range(10**9):
                writer.write(REQUEST.format(page=PAGES[number % len(PAGES)], host=address).encode())
                async with asyncio.timeout(ANSWER_S):
                    self.counts[await _answer(reader)] += 1
                due = max(due + self._pause, clock())
                await asyncio.sleep(due - clock())
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> str:
    """Read one answer; its class."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.partition("content-length:")[2].split("\r\n")[0])
    await reader.readexactly(length)
    return f"{head.split()[1][0]}xx"


if __name__ == "__main__":
    asyncio.run(Traffic(sys.argv[2:], int(sys.argv[1])).run())
