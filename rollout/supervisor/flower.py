"""Flower, read-only: its pages for people with the password; no API, no control, no metrics, nothing but GET.

Flower's own `read_only` hides the buttons and refuses what it knows; this refuses before Flower is asked, and
whatever is not on the list of pages does not exist. The password never is in a command line or in the environment.
"""

import asyncio
import base64
import hmac
import os
import re
import secrets
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from celery.app.utils import find_app
from flower.app import Flower
from flower.options import options
from flower.urls import settings
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import RequestHandler

from rollout.errors import ServiceUnavailable

USER = "rollout"
PAGES = re.compile(r"/|/workers|/worker/[^/]+|/tasks|/tasks/datatable|/task/[^/]+|/broker|/static/.+")
SCRIPT = "/static/js/flower.js"
COLUMNS = "name,args,state,received,started,runtime,worker,uuid"
# The table of tasks asks with POST, because its question is long. It is a question all the same.
ASK_WITH_GET = """
jQuery.ajaxPrefilter(function (options) {
    if (/\\/tasks\\/datatable$/.test(options.url)) { options.type = 'GET'; }
});
"""


def password(state_dir: Path) -> str:
    """The password of Flower's one user, kept in `flower.password`; made on first use."""
    path = state_dir / "flower.password"
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = state_dir / f".flower.password.{os.getpid()}"
    try:
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(18) + "\n")
        os.link(draft, path)  # atomic, and only the first one wins
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
    return path.read_text().strip()


def serve(address: str, port: int, secret: str, application: str = "workers.app:app") -> None:
    """Show the tasks of the Celery `application` ("module:name") at `address` until TERM or INT."""
    options.read_only = True
    options.basic_auth = [f"{USER}:{secret}"]
    options.address = address
    options.port = port
    options.tasks_columns = COLUMNS
    options.max_tasks = 10_000
    options.max_workers = 500
    asyncio.run(_serve(application))


async def _serve(application: str) -> None:
    loop = IOLoop.current()
    site = ReadOnlyFlower(capp=find_app(application), options=options, io_loop=loop, **settings)
    try:
        sockets = bind_sockets(options.port, address=options.address)
    except OSError as exc:
        raise ServiceUnavailable(
            f"flower: {options.address}:{options.port} cannot be listened on: {exc.strerror or exc}",
            remedy='set [server] flower to a free address, or to "" to go without',
        ) from exc
    HTTPServer(site, max_body_size=65536).add_sockets(sockets)
    ended = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, ended.set)
    site.events.start()
    site.update_workers()
    await ended.wait()
    site.events.stop()
    os._exit(0)  # its event thread waits for the broker, which may be gone already


class ReadOnlyFlower(Flower):  # type: ignore[misc]  # Flower has no types
    """Flower behind a door: first the password, then GET, then the list of pages."""

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """The handler of a page, or the refusal."""
        if not _knows(request.headers.get("Authorization", ""), self.options.basic_auth):
            return self.get_handler_delegate(request, Refusal, {"status": 401})
        if request.method != "GET":
            return self.get_handler_delegate(request, Refusal, {"status": 403})
        if not PAGES.fullmatch(request.path) or ".." in request.path:
            return self.get_handler_delegate(request, Refusal, {"status": 404})
        if request.path == SCRIPT:
            return self.get_handler_delegate(request, Script)
        return super().find_handler(request, **kwargs)


class Refusal(RequestHandler):
    """The same short answer to every method."""

    def initialize(self, status: int) -> None:
        """Remember what to answer."""
        self._status = status

    def prepare(self) -> None:
        """Answer before any method is looked at."""
        self.set_status(self._status)
        if self._status == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="rollout"')
        self.finish("Flower is read-only here; use the command `rollout`.\n" if self._status == 403 else "")


class Script(RequestHandler):
    """Flower's own script, and after it the lines that make it ask with GET."""

    def get(self) -> None:
        """Send both."""
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        source = Path(settings["static_path"]) / "js" / "flower.js"
        self.finish(source.read_text(encoding="utf-8") + ASK_WITH_GET)


def _knows(header: str, users: Iterable[str]) -> bool:
    scheme, _, given = header.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        credentials = base64.b64decode(given.strip(), validate=True)
    except ValueError:
        return False
    return any(hmac.compare_digest(credentials, user.encode()) for user in users)
