"""uvicorn's HTTP connection, in a hurry: with a deadline for the request's head and a bound on its size, which uvicorn has none for.

A client that connects and says nothing, or a letter a second, is cut off. It would never cost a thread, but a file
descriptor each, and those run out. And when there are too many connections, the answer says when to come again, which
uvicorn's own does not.
"""

import asyncio
import sys
from collections.abc import Sized
from contextlib import suppress
from functools import partial
from typing import Any

from httptools import HttpRequestParser
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rollout.web.errors import Busy, answer
from rollout.web.together import ends

HEAD_S = 10.0
HEAD_BYTES = 16_384  # request line and headers, if they do not come at once
_REFUSAL = answer(
    Busy("too many connections at once", remedy="try again in a moment"), {"Connection": "close"}
)
_GOODBYE = answer(ends(), {"Connection": "close"})


class Connection(HttpToolsProtocol):
    """One TCP connection; `head_s` from its start, or from the first byte of a further request, to the end of the head."""

    head_s = HEAD_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = False
        self._unread_bytes = 0  # of a head, or behind a body, of which nothing has come yet
        self._piece = b""  # what has just come
        if (most := self.limit_concurrency) is not None:
            self.limit_concurrency = None
            # Of the server's connections, not of this one: what holds itself is freed by the collector only.
            self.app = partial(_answer_or_refuse, self.app, self.connections, most)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """The clock runs."""
        super().connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        """The clock runs while a head is incomplete, or what is left of a body that was refused."""
        self._unread_bytes += len(data)
        self._piece = data
        super().data_received(data)
        self._piece = b""
        if self._unread_bytes > HEAD_BYTES:
            self.send_400_response("The request's head is too large.")
        elif self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._deadline is None:
            self._start()

    def on_message_begin(self) -> None:
        """A request's first byte; what comes before the last one's answer is refused, as its parser would keep all of it."""
        if self.cycle is not None and not self.cycle.response_complete:
            raise ConnectionError("requests come one after another")
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the head; those behind a body are nobody's."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The end of its head; one Host is in it (RFC 9112, 3.2), or none where HTTP/1.0 asks."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ConnectionError("a request is for one host")
        self._in_head, self._unread_bytes = False, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of its body, which whoever reads it counts."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Its end."""
        self._unread_bytes = 0
        super().on_message_complete()

    def _should_upgrade(self) -> bool:
        return any(name == b"upgrade" for name, _ in self.headers)

    def handle_websocket_upgrade(self) -> None:
        """Nobody is upgraded, and who asks for it is answered all the same, as `curl --http2` and Java's own client do with each first request.

        Its parser takes what follows the head for another protocol, a body too: so it is read anew, as if it had not asked.
        """
        rest = self._piece[sys.exception().args[0] :]  # type: ignore[union-attr]  # the parser's, with the end of the head
        kept = b"".join(b"%b: %b\r\n" % its for its in self.headers if its[0] != b"upgrade")
        what = (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        self.parser = HttpRequestParser(self)
        super().data_received(b"%b %b HTTP/%b\r\n%b\r\n%b" % (*what, kept, rest))

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing is missing: CONNECT is answered like any other method that is not ours."""

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
    try:
        await (app if len(connections) < most else _REFUSAL)(scope, receive, send)
    except asyncio.CancelledError:  # the goodbye is over; uvicorn would log it as an error of ours
        with suppress(asyncio.CancelledError):  # who does not read does not hear of it
            await _GOODBYE(scope, receive, send)
