"""A Prometheus server's HTTP API, played: raw samples of counters that a test adds to, on a clock that a test moves.

What it answers is what `tests/integration/test_prometheus_real.py` sees a real server answer.
"""

import contextlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

_RANGE = re.compile(r"(?P<name>[a-z_]+)\{instance=\"(?P<instance>[^\"]+)\"\}\[(?P<seconds>[0-9]+)s\]")


class Exporter:
    """One process and its counters, by code; `up` is False while it does not answer scrapes."""

    def __init__(self, instance="web001", label="code"):
        self.instance, self.label, self.counters, self.up = instance, label, {}, True
        self.hidden_s = 0.0  # scrapes of it that are younger are not to be seen yet

    def answer(self, code, count=1):
        self.counters[str(code)] = self.counters.get(str(code), 0) + count

    def restart(self):
        self.counters = {}


class FakePrometheus:
    """Scrapes its exporters whenever its clock passes a multiple of `interval`, `phase` seconds later."""

    def __init__(self, *exporters, interval=2.0, phase=0.5, now=1_800_000_000.0):
        self.exporters, self.interval, self.phase, self.now = list(exporters), interval, phase, now
        self.samples = {}  # (instance, label, code) -> [(time, value)]
        self.asked, self.answer = [], None  # `answer`: (status, body) in place of everything

    def pass_time(self, seconds):
        """The clock goes on, scrape by scrape."""
        end, number = self.now + seconds, int((self.now - self.phase) // self.interval)
        while (at := (number := number + 1) * self.interval + self.phase) <= end:
            self.now = at
            for one in self.exporters:
                self._scrape(one)
        self.now = end

    def _scrape(self, exporter):
        for code, value in exporter.counters.items() if exporter.up else ():
            self.samples.setdefault((exporter.instance, exporter.label, code), []).append((self.now, value))

    def _result(self, query, at):
        if query == "time()":
            return {"resultType": "scalar", "result": [self.now, f"{self.now:.3f}"]}
        wanted = _RANGE.fullmatch(query)
        since = at - int(wanted["seconds"])
        seen_until = {one.instance: min(at, self.now - one.hidden_s) for one in self.exporters}
        found = []
        for (instance, label, code), samples in self.samples.items():
            inside = [[t, f"{v:g}"] for t, v in samples if since < t <= seen_until[instance]]
            if instance.split(":")[0] == wanted["instance"] and inside:
                labels = {"__name__": wanted["name"], "instance": instance, "job": "shop", label: code}
                found.append({"metric": labels, "values": inside})
        return {"resultType": "matrix", "result": found}

    def respond(self, path, headers):
        self.asked.append((path, headers))
        if self.answer is not None:
            return self.answer
        asked = {key: values[0] for key, values in parse_qs(urlsplit(path).query).items()}
        data = self._result(asked["query"], float(asked.get("time", self.now)))
        return 200, json.dumps({"status": "success", "data": data}).encode()


@contextlib.contextmanager
def served(respond):
    """The address of an HTTP server that answers GETs with what `respond(path, headers)` says: (status, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = respond(self.path, dict(self.headers))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
