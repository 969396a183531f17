"""uvicorn's HTTP connection, in a hurry: with a deadline for the request's head, which uvicorn has none for.

A client that connects and says nothing, or a letter a second, is cut off. It would never cost a thread, but a file
descriptor each, and those run out. And when there are too many connections, the answer says when to come again, which
uvicorn's own does not.
"""

import asyncio
import socket
from collections.abc import Sized
from functools import partial
from typing import Any

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from rollout.web.errors import Busy, answer

HEAD_S = 10.0
_REFUSAL = answer(
    Busy("too many connections at once", remedy="try again in a moment"), {"Connection": "close"}
)


class Connection(H11Protocol):
    """One TCP connection; `head_s` from its start, or from the first byte of a further request, to the end of the head."""

    head_s = HEAD_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        if (most := self.limit_concurrency) is not None:
            self.limit_concurrency = None
            # Of the server's connections, not of this one: what holds itself is freed by the collector only.
            self.app = partial(_answer_or_refuse, self.app, self.connections, most)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """The clock runs."""
        super().connection_made(transport)
        _send_at_once(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        """The clock runs while a head is incomplete."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._deadline is None:
            self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._stop()
        super().connection_lost(exc)

    def _start(self) -> None:
        self._deadline = self.loop.call_later(self.head_s, self.transport.abort)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


async def _answer_or_refuse(
    app: ASGIApp, connections: Sized, most: int, scope: Scope, receive: Receive, send: Send
) -> None:
    await (app if len(connections) < most else _REFUSAL)(scope, receive, send)


def _send_at_once(transport: asyncio.Transport) -> None:
    """Head and body are two writes, and the second would wait 40 ms for the first one's acknowledgement.

    asyncio sees to it only for sockets that say which protocol they speak, and those of `socket.create_server` do not.
    """
    plain: socket.socket | None = transport.get_extra_info("socket")
    if plain is not None and plain.family in {socket.AF_INET, socket.AF_INET6}:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
