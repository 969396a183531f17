"""What every metric source keeps to, whatever befalls the numbers: the program in a real shell, HTTP over real sockets."""

import shutil
import threading
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from rollout.config.settings import Settings
from rollout.errors import HostError, MetricUnavailable
from rollout.metrics.sources import SOURCES, source
from rollout.services.canaries import on_this_host
from tests.support.local_fleet import LocalFleet, a_target
from tests.support.prometheus import Exporter, FakePrometheus, served
from tests.support.sources import an_app

if TYPE_CHECKING:
    from rollout.services.ports import MetricSource

CLASSES = {"2xx", "3xx", "4xx", "499", "5xx"}


class Stage:
    """A host and its source. `true` is what should be counted in the end; time goes by hand."""

    name = ""
    is_told_late = sees_resets = sees_garbage = True

    def __init__(self, fleet, config):
        self.fleet, self.config = fleet, config
        self.source = source(self.name, fleet, Settings())
        self.intervals, self.cursor, self.begun_at = [], None, fleet.now
        self.unread = 0
        self.true = Counter()

    def wait(self, seconds):
        self.fleet.now += seconds

    def read(self):
        """As a tick does."""
        since = self.fleet.now - self.begun_at
        try:
            new, self.cursor = self.source.read(
                a_target(), "baseline", self.config, self.cursor, elapsed=since
            )
        except (MetricUnavailable, HostError):
            self.unread += 1
            return
        self.intervals += [one for one in new if one.t > 0]

    def go_on(self, seconds):
        for _ in range(seconds // 2):
            self.wait(2)
            self.read()

    def counted(self):
        return +sum((Counter(one.counts) for one in self.intervals if one.observed), Counter())

    def flags(self):
        return {flag for one in self.intervals for flag in one.flags}


class LogStage(Stage):
    name = "access-log"
    target = "/"

    def __init__(self, fleet, folder):
        self.log = folder / "access.log"
        self.log.write_text("")
        super().__init__(fleet, an_app("/nowhere", log=str(self.log)))

    def lines(self, status, count, ago=0):
        at = datetime.fromtimestamp(self.fleet.now - ago, UTC)
        stamp = f"{at:%d/%b/%Y:%H:%M:%S} +0000"
        line = f'10.0.0.1 - - [{stamp}] "GET {self.target} HTTP/1.1" {status} 12 "-" "browser"\n'
        with self.log.open("a") as file:
            file.write(line * count)

    def answer(self, status, count):
        self.lines(status, count)
        self.true[f"{status // 100}xx"] += count

    def answer_late(self, status, count):
        self.lines(status, count, ago=12)
        self.true[f"{status // 100}xx"] += count

    def garble(self):
        with self.log.open("ab") as file:
            file.write(b"\x00\xff not a line\n{\n\n")

    def reset(self):
        self.log.write_text("")


class PrometheusStage(Stage):
    name = "prometheus"

    def __init__(self, fleet, address):
        self.exporter = Exporter()
        self.prometheus = FakePrometheus(self.exporter, now=float(fleet.now))
        self.address = address
        config = an_app(
            "/nowhere",
            canary={
                "source": "prometheus",
                "prometheus": address,
                "selector": 'http_requests_total{instance="{name}"}',
            },
        )
        here = SimpleNamespace(name="web001", address="127.0.0.1", variables={})
        super().__init__(fleet, on_this_host(config, here))

    def respond(self, path, headers):
        return self.prometheus.respond(path, headers)

    def wait(self, seconds):
        super().wait(seconds)
        self.prometheus.pass_time(seconds)

    def answer(self, status, count):
        self.exporter.answer(status, count)
        self.true[f"{status // 100}xx"] += count

    def answer_late(self, status, count):
        """Scraped in time, and seen a quarter of a minute later: the server was busy."""
        self.answer(status, count)
        self.exporter.hidden_s = 16.0
        self.go_on(16)
        self.exporter.hidden_s = 0.0

    def garble(self):
        self.exporter.answer("<none>", 7)

    def reset(self):
        self.exporter.restart()


class ProbeStage(Stage):
    """The requests are the source's own; what others ask is not seen, so it can be neither late nor reset."""

    name = "probe"
    is_told_late = sees_resets = False

    def __init__(self, fleet, address):
        self.lock, self.status = threading.Lock(), 200
        super().__init__(fleet, an_app("/nowhere", canary={"source": "probe", "probe": f"{address}/"}))

    def respond(self, _path, headers):
        assert headers["User-Agent"].startswith("rollout-probe/")
        with self.lock:
            if self.status // 100 in range(1, 6):
                self.true[f"{self.status // 100}xx"] += 1
            return self.status, b"page"

    def answer(self, status, count):
        self.status = status

    answer_late = answer

    def garble(self):
        self.status = 799
        self.read()
        self.status = 200

    def reset(self):
        pass


@pytest.fixture(params=SOURCES)
def stage(request, tmp_path):
    """A host that has answered one request of each class, and has been read once."""
    fleet = LocalFleet(tmp_path, ["/bin/sh"], [shutil.which("awk")], more=("curl", "timeout", "sed"))
    if request.param == "access-log":
        yield LogStage(fleet, tmp_path)
        return
    on_stage = []

    def respond(path, headers):
        return on_stage[0].respond(path, headers)

    with served(respond) as address:
        on_stage += [{"prometheus": PrometheusStage, "probe": ProbeStage}[request.param](fleet, address)]
        yield on_stage[0]


def warm(stage):
    """Every code is known, and the first reading is done: from now on every request is to be counted."""
    for status in (200, 302, 404, 503):
        stage.answer(status, 1)
    stage.wait(4)
    stage.true.clear()
    if stage.name == "access-log":
        stage.log.write_text("")
    stage.begun_at = stage.fleet.now
    stage.read()
    stage.go_on(4)
    return stage


def is_sound(stage):
    """True of every series of intervals."""
    times = [one.t for one in stage.intervals]
    assert times == sorted(set(times))
    for one in stage.intervals:
        assert (one.host, one.role, one.dt) == ("web001", "baseline", 2.0)
        assert one.source == {"access-log": "log"}.get(stage.name, stage.name)
        assert all(count >= 0 for count in one.counts.values())
        assert set(one.counts) == CLASSES or not one.observed


@pytest.mark.needs("curl")
def test_every_request_is_counted_once_in_its_class(stage):
    """What was answered is what is counted: each class, each request, whenever it is read."""
    warm(stage)
    for status in (200, 302, 404, 503, 200):
        stage.answer(status, 3)
        stage.go_on(4)
    stage.go_on(8)
    is_sound(stage)
    assert stage.counted() == stage.true
    assert set(stage.true) == {"2xx", "3xx", "4xx", "5xx"}
    assert stage.flags() == set()
    assert stage.unread == 0


@pytest.mark.needs("curl")
def test_no_data_is_never_a_good_answer(stage):
    """Nobody asked, or nothing is there to be read: no interval counts a request."""
    if stage.name == "probe":
        stage.config = an_app("/nowhere", canary={"source": "probe", "probe": "http://127.0.0.1:9/"})
    stage.read()
    stage.go_on(20)
    is_sound(stage)
    assert stage.counted()["2xx"] == 0
    if stage.name == "access-log":  # it was read, and says zero, which is something
        assert all(one.observed for one in stage.intervals)
    if stage.name == "prometheus":  # no series: nothing was read
        assert (stage.unread, stage.intervals) == (11, [])
    if stage.name == "probe":  # the app is silent, and that is no network's fault
        assert all(one.flags == ("unanswered",) for one in stage.intervals if one.observed)


@pytest.mark.needs("curl")
def test_gap_in_reading_loses_and_doubles_nothing(stage):
    """A minute without a connection, then everything is there, or said to be unobserved."""
    warm(stage)
    for _ in range(30):
        stage.answer(200, 5)
        stage.wait(2)
    stage.go_on(12)
    is_sound(stage)
    assert stage.counted() == stage.true
    assert stage.intervals[-1].t > 60


@pytest.mark.needs("curl")
def test_same_cursor_asks_for_the_same_again(stage):
    """An answer that was lost on its way, or not stored, is not lost."""
    warm(stage)
    stage.answer(200, 5)
    stage.go_on(6)
    before, stage.intervals = stage.cursor, []
    stage.answer(500, 5)
    stage.wait(8)
    stage.read()
    first, stage.intervals, stage.cursor = stage.intervals, [], before
    stage.read()
    assert first
    assert stage.intervals == first


@pytest.mark.needs("curl")
def test_reset_is_seen_and_counts_nothing_twice(stage):
    """A log that was truncated, counters that begin anew: never more than was answered, and never in silence."""
    warm(stage)
    stage.answer(200, 50)
    stage.answer(503, 50)
    stage.go_on(6)
    stage.reset()
    stage.answer(200, 7)
    stage.go_on(12)
    is_sound(stage)
    assert stage.counted() <= stage.true
    assert stage.counted()["2xx"] >= min(stage.true["2xx"], 50)
    if stage.sees_resets:
        assert stage.flags() & {"reset", "rotated"}


@pytest.mark.needs("curl")
def test_late_requests_count_in_the_next_bin(stage):
    """What comes when its bin was given out is not lost, and the bin that has it says so."""
    warm(stage)
    stage.go_on(20)
    stage.answer_late(503, 9)
    stage.go_on(12)
    is_sound(stage)
    assert stage.counted() == stage.true
    if stage.is_told_late:
        assert "late" in stage.flags()


@pytest.mark.needs("curl")
def test_garbage_loses_no_request_beside_it(stage):
    """What cannot be understood is no request, no error, and flagged."""
    warm(stage)
    stage.answer(200, 5)
    stage.garble()
    stage.answer(200, 5)
    stage.go_on(12)
    is_sound(stage)
    assert stage.counted() == stage.true
    assert "garbage" in stage.flags()


@pytest.mark.needs("curl")
def test_nothing_that_a_client_asks_for_hides_its_failure(stage):
    """Errors are counted whatever the address that was asked for says, also where it looks like a request time."""
    warm(stage)
    if stage.name == "access-log":
        stage.target = "/pay?cart=199.95&rt=999.9 request_time=5.5"
    stage.answer(503, 9)
    stage.go_on(12)
    is_sound(stage)
    assert stage.counted() == stage.true
    assert stage.counted()["5xx"] >= 9


@pytest.mark.needs("curl")
def test_five_thousand_requests_a_second(stage):
    """20 s of them are counted to the last one."""
    warm(stage)
    for _ in range(10):
        stage.answer(200, 9_900)
        stage.answer(500, 100)
        stage.go_on(2)
    stage.go_on(10)
    is_sound(stage)
    assert stage.counted() == stage.true
    if stage.name != "probe":
        assert stage.true == {"2xx": 99_000, "5xx": 1_000}


def test_sources_are_what_the_services_ask_for():
    """Each name of the table makes a metric source."""
    made: list[MetricSource] = [source(name, None, Settings()) for name in SOURCES]
    assert len(made) == 3
