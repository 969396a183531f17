"""A shop: a real HTTP service that runs on a host.

serve.py restart ADDRESS PORT SHARED    end the old process, start a new one, wait until it listens
serve.py health ADDRESS PORT            exit 0 when it answers and is the release that HOST should run
"""

import http.client
import http.server
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

COMMIT = os.environ.get("COMMIT", "")
HOST = os.environ.get("HOST", "")


def total(cents: list[int]) -> int:
    """What a cart costs."""
    return sum(cents)


def page(path: str) -> str:
    """What a page says."""
    if path == "/checkout":
        return f"to pay: {total([250, 199])} cents\n"
    return f"shop on {HOST}, release {COMMIT}\n"


def check_start() -> None:
    """Refuse to start where it cannot work."""


class Answer(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    log: Callable[[str], object] = staticmethod(print)

    def do_GET(self) -> None:
        """Answer with the page; whatever goes wrong is a 500."""
        try:
            status, text = HTTPStatus.OK, page(self.path)
        except ValueError as exc:
            status, text = HTTPStatus.INTERNAL_SERVER_ERROR, f"{exc}\n"
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
        if self.path != "/health":
            self.write_down(status, len(text))

    def write_down(self, status: int, length: int) -> None:
        """One line of the access log, in the combined format."""
        when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
        agent = self.headers.get("User-Agent", "-")
        self.log(
            f'{self.client_address[0]} - - [{when}] "{self.requestline}" {status} {length} "-" "{agent}"\n'
        )

    def log_message(self, *_: object) -> None:
        """The access log says it."""


class Server(http.server.ThreadingHTTPServer):
    """Does not wait for connections that are kept alive."""

    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Bind without asking a name server for our name."""
        socket.socket.setsockopt(self.socket, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)


def run(address: str, port: int, shared: Path) -> None:
    """Serve until TERM."""
    check_start()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    log = os.open(shared / "access.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    Answer.log = staticmethod(lambda line: os.write(log, line.encode()))
    listening(address, port).serve_forever()


def listening(address: str, port: int) -> Server:
    """The server; the last threads of the process before it may hold the port for a moment."""
    for _ in range(100):
        with suppress(OSError):
            return Server((address, port), Answer)
        time.sleep(0.05)
    return Server((address, port), Answer)


def restart(address: str, port: int, shared: Path) -> int:
    """End the old process, start a new one; 0 when that one listens."""
    shared.mkdir(parents=True, exist_ok=True)
    end(shared)
    new = os.fork()
    if new == 0:
        be_daemon(shared)
        run(address, port, shared)
    (shared / "serve.pid").write_text(f"{new}\n")
    for _ in range(200):
        if answer(address, port):
            return 0
        with suppress(ChildProcessError):
            if os.waitpid(new, os.WNOHANG)[0]:
                break
        time.sleep(0.05)
    sys.stderr.write((shared / "serve.log").read_text()[-2000:])
    return 1


def be_daemon(shared: Path) -> None:
    """Leave the terminal, the session and the open files of whoever started us."""
    os.setsid()
    output = os.open(shared / "serve.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((nowhere, 0), (output, 1), (output, 2)):
        os.dup2(old, new)
    os.closerange(3, 256)


def end(shared: Path) -> None:
    """End the process in the pid file, if it still is ours."""
    with suppress(OSError, ValueError):
        pid = int((shared / "serve.pid").read_text())
        if str(shared).encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            if Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z":
                return
            time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)


def answer(address: str, port: int) -> str:
    """What the service says about itself; nothing when it does not answer."""
    connection = http.client.HTTPConnection(address, port, timeout=2)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        return response.read().decode() if response.status == HTTPStatus.OK else ""
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def main(verb: str, address: str, port: str, shared: str = "") -> int:
    """Do what the command line says."""
    if verb == "restart":
        return restart(address, int(port), Path(shared))
    return 0 if COMMIT in answer(address, int(port)) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
