"""Listening: uvicorn with limits on what a stranger can make it do."""

import os
import socket
from pathlib import Path

import structlog
import uvicorn
from starlette.types import ASGIApp

from rollout import logs, wiring
from rollout.config import places
from rollout.config.server import ServerConfig
from rollout.errors import Conflict
from rollout.web.app import build
from rollout.web.connection import Connection

log = structlog.get_logger()
CONNECTIONS = 500
GOODBYE_S = 5  # for requests that are under way when we are asked to end
UNREAD_S = 30.0  # so long a client may take nothing of its answer


def serve(path: Path | None = None) -> None:
    """Answer until SIGINT or SIGTERM; ConfigError, ServiceUnavailable, or Conflict when the address is taken."""
    deps = wiring.configured(path, role="web")
    logs.configure(deps.settings)
    wiring.tell_left_out(deps.config)
    app = build(deps)
    listening = listen(deps.config.server)
    wiring.collect_less()
    uvicorn.Server(configured(app)).run(sockets=[listening, *inside(deps.config.server)])


def configured(app: ASGIApp) -> uvicorn.Config:
    """Settings of uvicorn. No access log: an address may hold what is not for logs."""
    return uvicorn.Config(
        app,
        http=Connection,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=GOODBYE_S,
    )


def inside(server: ServerConfig) -> list[socket.socket]:
    """The socket for commands of this machine, which nobody but the owner may open; none where it cannot be had: they do without."""
    door = places.door(server.state_dir, server.database)
    listening = socket.socket(socket.AF_UNIX)
    try:
        door.unlink(missing_ok=True)  # of a web process that has ended, or is being replaced
        before = os.umask(0o177)
        try:
            listening.bind(str(door))
        finally:
            os.umask(before)
        listening.listen(64)
    except OSError as error:
        listening.close()
        log.warning("no_socket_for_commands", socket=str(door), why=str(error), what="a stop takes longer")
        return []
    return [listening]


def listen(server: ServerConfig) -> socket.socket:
    """The socket of server.listen; Conflict when it cannot be had."""
    host, port = server.listen_host, server.listen_port
    try:
        listening = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except OSError as error:
        raise Conflict(
            f"server.listen: {server.listen} cannot be listened on: {error.strerror or error}",
            remedy="end the program that uses it, or set [server] listen to another address",
        ) from error
    # For each connection: else the kernel asks for ever whether there is room for more, and uvicorn waits for that.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_S * 1000))
    return listening
