"""The source `prometheus` on a real server that scrapes a real exporter each second."""

import shutil
import socket
import subprocess
import time
import urllib.request

import pytest

from rollout.errors import MetricUnavailable
from rollout.metrics.prometheus import Prometheus
from tests.support.local_fleet import a_target
from tests.support.prometheus import Exporter, served
from tests.support.sources import an_app

pytestmark = pytest.mark.needs("prometheus")

CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: shop
    static_configs: [{{targets: ["{target}"], labels: {{instance: web001}}}}]
"""


class Server:
    """A Prometheus in a folder, and the exporter that it scrapes."""

    def __init__(self, folder, target):
        self.folder, self.target = folder, target
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"

    def __enter__(self):
        (self.folder / "prometheus.yml").write_text(CONFIG.format(target=self.target.removeprefix("http://")))
        self.process = subprocess.Popen(
            [
                shutil.which("prometheus"),
                f"--config.file={self.folder}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/data",
                f"--web.listen-address={self.address}",
                "--log.level=error",
            ],
            cwd=self.folder,
        )
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False


def until(what, seconds=40.0):
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return answer


@pytest.fixture
def exporter():
    one = Exporter()
    one.answer(200, 1000)
    return one


@pytest.fixture
def server(tmp_path, exporter):
    def respond(_path, _headers):
        if not exporter.up:
            return 503, b""
        lines = [
            f'http_requests_total{{code="{code}"}} {count}' for code, count in dict(exporter.counters).items()
        ]
        return 200, "\n".join(["# TYPE http_requests_total counter", *lines, ""]).encode()

    with served(respond) as target, Server(tmp_path, target) as server:
        until(server.ready)
        yield server


def an_app_of(server, selector='http_requests_total{instance="web001",job=~"{name}|shop"}', **canary):
    given = {"source": "prometheus", "prometheus": f"http://{server.address}", "selector": selector}
    return an_app("/nowhere", canary=given | canary)


class Watch:
    def __init__(self, server, **canary):
        self.app, self.cursor, self.intervals, self.began = an_app_of(server, **canary), None, [], None

    def read(self, role="baseline"):
        """As a tick; False when there is nothing to be read yet."""
        self.began = self.began or time.monotonic()
        try:
            new, self.cursor = Prometheus().read(
                a_target(), role, self.app, self.cursor, elapsed=time.monotonic() - self.began
            )
        except MetricUnavailable:
            self.began = None
            return False
        self.intervals += new
        return True

    def counted(self, *, after=-1000.0):
        total = {}
        for one in self.intervals:
            for name, count in one.counts.items() if one.t > after else ():
                total[name] = total.get(name, 0) + count
        return {name: count for name, count in total.items() if count}

    def counts(self, expected):
        def so():
            self.read()
            return self.counted() == expected

        until(so)


def test_real_counters_are_counted_to_the_last_request(server, exporter):
    """A real server's samples: the first 500 of a process too, which increase() would miss; each once."""
    watch = Watch(server)
    until(watch.read)
    exporter.answer(200, 321)
    exporter.answer(500, 3)
    exporter.answer(404, 1)
    watch.counts({"2xx": 321, "5xx": 3, "4xx": 1})
    assert {one.dt for one in watch.intervals} == {1.0}
    assert all(one.source == "prometheus" for one in watch.intervals)


def test_real_restart_is_a_reset(server, exporter):
    """The canary's process is another one: what it shows has been counted since, and history ends with the old one's."""
    until(Watch(server).read)
    exporter.answer(200, 50)
    seen = Watch(server)
    until(lambda: seen.read() and seen.counted().get("2xx"))
    exporter.restart()
    exporter.answer(200, 7)
    watch = Watch(server)
    until(lambda: watch.read("canary") and any(one.t > 0 for one in watch.intervals))
    exporter.answer(500, 4)
    until(lambda: watch.read("canary") and watch.counted(after=0.0).get("5xx") == 4)
    history = [one for one in watch.intervals if one.t <= 0]
    assert sum(one.counts["2xx"] for one in history) == 50
    assert watch.counted(after=0.0)["2xx"] in {0, 7}


def test_real_target_that_is_down_is_unobserved(server, exporter):
    """Scrapes fail: no interval is made up, and time goes on."""
    watch = Watch(server)
    until(lambda: watch.read() and any(one.t > 0 and one.observed for one in watch.intervals))
    exporter.up = False
    until(lambda: watch.read() and len([one for one in watch.intervals if not one.observed]) > 2)
    exporter.up = True
    exporter.answer(500, 2)
    watch.counts({"5xx": 2})


def test_real_server_says_what_is_wrong_with_a_selector(server):
    """Its own words reach the person who wrote the selector."""
    app = an_app_of(server, selector='x{instance=~"{name}(["}')
    with pytest.raises(MetricUnavailable, match=r"says to x.*(parse error|invalid|missing)"):
        Prometheus().read(a_target(), "canary", app, None)
    with pytest.raises(MetricUnavailable, match="no samples of nothing"):
        Prometheus().read(
            a_target(), "canary", an_app_of(server, selector='nothing{instance="{name}"}'), None
        )
