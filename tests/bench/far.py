"""Hosts that are far away: a TCP proxy that holds everything back for half a round trip, each way. A process of its own.

Whoever connects to an address of this machine at its port is forwarded to the same address at the server's port.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections import deque
from collections.abc import Iterator

import uvloop

BACKLOG = 2048
CHUNK = 65536


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, half_s: float) -> None:
    """Each piece leaves half a round trip after it came; the end too."""
    loop = asyncio.get_running_loop()
    waiting: deque[tuple[float, bytes]] = deque()
    came = asyncio.Event()

    async def deliver() -> None:
        while True:
            while not waiting:
                came.clear()
                await came.wait()
            due, data = waiting.popleft()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                return
            writer.write(data)
            await writer.drain()

    delivering = asyncio.create_task(deliver())
    with contextlib.suppress(OSError):
        data = b"-"
        while data:
            data = await reader.read(CHUNK)
            waiting.append((loop.time() + half_s, data))
            came.set()
    with contextlib.suppress(OSError):
        await delivering
    with contextlib.suppress(OSError, RuntimeError):
        writer.close()


async def _serve(upstream: int, half_s: float, down: set[str]) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("sockname")[0]
        if address in down:
            writer.close()
            return
        try:
            await asyncio.sleep(2 * half_s)  # what the handshake of TCP would have taken
            there_reader, there_writer = await asyncio.open_connection(address, upstream)
        except OSError:
            writer.close()
            return
        open_now.setdefault(address, []).append(writer)
        await asyncio.gather(_carry(reader, there_writer, half_s), _carry(there_reader, writer, half_s))

    async def listen() -> None:
        """Addresses on standard input, one a line: they are down from now on."""
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
        )
        while line := await lines.readline():
            address = line.decode().strip()
            down.add(address)
            for writer in open_now.pop(address, []):
                writer.transport.abort()

    open_now: dict[str, list[asyncio.StreamWriter]] = {}
    server = await asyncio.start_server(accept, "0.0.0.0", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await listen()  # until whoever started us is gone


class Far:
    """The running proxy."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.port = int(process.stdout.readline())

    def take_down(self, addresses: list[str]) -> None:
        """These hosts are down from now on: open connections break, new ones are closed."""
        self._process.stdin.write("".join(f"{address}\n" for address in addresses))
        self._process.stdin.flush()


@contextlib.contextmanager
def far(upstream: int, round_trip_s: float) -> Iterator[Far]:
    """A proxy that is gone at the end."""
    words = [sys.executable, "-m", "tests.bench.far", str(upstream), str(round_trip_s)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Far(process)
        finally:
            process.kill()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), float(sys.argv[2]) / 2, set()))
