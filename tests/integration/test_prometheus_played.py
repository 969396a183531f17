"""The source `prometheus` over real HTTP, on a server that is played: canaries that restart, scrapes that are missed, errors."""

import json
import logging

import pytest
from pydantic import SecretStr

from rollout.errors import MetricUnavailable
from rollout.metrics import prometheus_api
from rollout.metrics.prometheus import Position, Prometheus
from tests.support.local_fleet import a_target
from tests.support.prometheus import Exporter, FakePrometheus, served
from tests.support.sources import an_app


class Watch:
    """A host that is watched through a Prometheus server that scrapes it every 15 s."""

    def __init__(self, server, address, **canary):
        self.server, self.address = server, address
        given = {"source": "prometheus", "prometheus": address, "selector": 'requests{instance="{name}"}'}
        app = an_app("/nowhere", canary=given | canary)
        here = app.canary.model_copy(update={"selector": app.canary.selector.replace("{name}", "web001")})
        self.app = app.model_copy(update={"canary": here})
        self.cursor, self.intervals, self.began = None, [], server.now
        self.source = Prometheus(SecretStr("s3cret"))

    def read(self, role="canary"):
        new, self.cursor = self.source.read(
            a_target(), role, self.app, self.cursor, elapsed=self.server.now - self.began
        )
        self.intervals += new
        return new

    def go_on(self, seconds, role="canary", **answers):
        """A tick every 5 s, and so many answers in each."""
        for _ in range(seconds // 5):
            for code, count in answers.items():
                self.exporter.answer(code[1:], count)
            self.server.pass_time(5)
            self.read(role)

    @property
    def exporter(self):
        return self.server.exporters[0]

    def table(self):
        """Of each t: counts without zeros; None where nothing was observed."""
        return {
            one.t: {k: n for k, n in one.counts.items() if n} if one.observed else None
            for one in self.intervals
        }


@pytest.fixture
def server():
    return FakePrometheus(Exporter(), interval=15.0, phase=4.0)


@pytest.fixture
def watch(server):
    with served(server.respond) as address:
        yield Watch(server, address)


def an_hour_before(watch, seconds=300):
    """The old release has been answering, one error in twenty, at one request a second."""
    for _ in range(seconds // 5):
        watch.exporter.answer(200, 19)
        watch.exporter.answer(500, 1)
        watch.server.pass_time(5)


def switch(watch):
    """The canary is restarted, and ready 7 s later."""
    watch.exporter.restart()
    watch.exporter.answer(503, 2)
    watch.server.pass_time(7)
    watch.began = watch.server.now


@pytest.mark.parametrize(
    ("waits", "errors", "last"), [(0, 0, -15.0), (5, 2, 0.0)]
)  # scraped before it is ready, or after
def test_history_of_the_canary_is_the_old_releases_and_the_rest_the_new_ones(watch, waits, errors, last):
    """The first restart parts them: nothing that the new process answered is taken for the old one's, or lost."""
    an_hour_before(watch)
    watch.server.pass_time(waits)
    switch(watch)
    assert watch.read() == []  # whether and when it was restarted is not known before it was scraped
    watch.go_on(40, _200=10)
    table = watch.table()
    assert all(counts == {"2xx": 57, "5xx": 3} for t, counts in table.items() if t < 0)
    before = sum(t <= 0 for t in table)
    assert before >= 18
    assert max(t for t in table if t <= 0) == last  # the restart itself is nobody's
    assert table[15.0].get("5xx", 0) == errors
    assert [counts["2xx"] for t, counts in table.items() if t > 15] == [30] * (len(table) - before - 1)
    assert watch.intervals[-1].dt == 15.0


def test_canary_that_shows_no_restart_has_no_history_and_no_first_bin(watch):
    """Nothing tells the old release's answers from the new one's: rather nothing than the wrong ones."""
    an_hour_before(watch)
    watch.began = watch.server.now
    watch.go_on(60, _200=10)
    table = watch.table()
    assert min(table) == 15.0
    assert table[15.0] is None
    assert table[30.0] == {"2xx": 30}


def test_canary_that_is_measured_anew_has_no_history_of_its_own_errors(watch):
    """Resumed long after its switch: what it answered since is not what the old release did."""
    an_hour_before(watch)
    switch(watch)
    watch.read()
    watch.go_on(60, _500=10)
    watch.cursor, watch.intervals, watch.began = None, [], watch.server.now
    watch.go_on(30, _500=10)
    before = {t: counts for t, counts in watch.table().items() if t <= 0}
    assert before
    assert max(before) <= -60
    assert all(counts == {"2xx": 57, "5xx": 3} for counts in before.values())


def test_history_of_a_baseline_host_reaches_readiness(watch):
    """Nobody switched it: its last ten minutes, and the bin across readiness."""
    an_hour_before(watch, 900)
    watch.began = watch.server.now
    watch.go_on(40, role="baseline", _200=10)
    table = watch.table()
    assert (min(table), len([t for t in table if t <= 0])) == (-585.0, 40)
    assert [t for t in table if t > 0] == [15.0, 30.0, 45.0]
    assert all(counts == {"2xx": 57, "5xx": 3} for t, counts in table.items() if t <= 0)
    assert all(one.flags == () for one in watch.intervals)
    assert None not in table.values()


def test_scrape_that_was_missed_leaves_a_bin_unobserved_and_loses_nothing(watch):
    """The bin after it has the counts of both."""
    an_hour_before(watch)
    watch.began = watch.server.now
    watch.go_on(30, role="baseline", _200=1)
    watch.exporter.up = False
    watch.go_on(15, role="baseline", _200=1)
    watch.exporter.up = True
    watch.go_on(30, role="baseline", _200=1)
    late = {t: counts for t, counts in watch.table().items() if t > 30}
    assert late[45.0] is None
    assert late[60.0] == {"2xx": 6}


def test_silent_exporter_becomes_unobserved_after_two_intervals_and_5_s(watch):
    """Stale numbers are no numbers, and time goes on without them."""
    an_hour_before(watch)
    watch.began = watch.server.now
    watch.exporter.up = False
    watch.read("baseline")
    watch.go_on(100, role="baseline")
    after = {t: counts for t, counts in watch.table().items() if t > 0}
    assert after == {15.0: None, 30.0: None, 45.0: None, 60.0: None}


def test_processes_of_one_host_are_counted_together(watch):
    """A bin is given out when all of them have told of it; a new one's first scrape may show anything."""
    an_hour_before(watch)
    watch.began = watch.server.now
    watch.go_on(30, role="baseline", _200=1)
    other = Exporter("web001:2")
    other.counters = {"404": 1_000_000, "500": 0}
    other.hidden_s = 7.0  # the server is late with it, each time
    watch.server.exporters.append(other)
    watch.server.pass_time(15)
    for _ in range(12):
        other.answer(500, 1)
        watch.go_on(5, role="baseline", _200=1)
    other.hidden_s = 0.0
    watch.go_on(20, role="baseline")
    after = [counts for t, counts in watch.table().items() if t > 15]  # that one began before readiness
    assert sum(counts.get("4xx", 0) for counts in after) == 0
    assert sum(counts.get("5xx", 0) for counts in after) == 12
    assert sum(counts["2xx"] for counts in after if "2xx" in counts) == 5 + 12


def test_token_goes_into_the_header_and_nowhere_else(watch, caplog):
    """A secret is in no address, no cursor, no log, no error."""
    caplog.set_level(logging.DEBUG)
    an_hour_before(watch)
    watch.read("baseline")
    assert {headers["Authorization"] for _, headers in watch.server.asked} == {"Bearer s3cret"}
    watch.server.answer = (403, b"no")
    with pytest.raises(MetricUnavailable, match=r"refuses us \(403\)") as caught:
        watch.read("baseline")
    assert "ROLLOUT_PROMETHEUS_TOKEN" in caught.value.remedy
    told = f"{caught.value!r} {caught.value.remedy} {watch.cursor} {caplog.text} {watch.source!r} {watch.server.asked[0][0]}"
    assert "s3cret" not in told


BAD = json.dumps({"status": "error", "errorType": "bad_data", "error": "parse error: unexpected <op:->"})


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((400, BAD.encode()), r"says to time\(\): parse error"),
        ((502, b"<html>bad gateway</html>"), r"does not answer as Prometheus does \(502\): .*bad gateway"),
        ((200, b"{}"), "does not answer as Prometheus does"),
        ((200, b"[1]"), "does not answer as Prometheus does"),
        ((302, b""), r"\(302\)"),
        ((200, b'{"status": "success", "data": {"result": []}}'), "does not answer as Prometheus does"),
        ((503, b"x" * 1000), "503"),
    ],
)
def test_answer_that_is_none_is_an_error_that_names_the_server(watch, answer, says):
    """No answer is not zero traffic; what came instead is said, cut, with the address and what to do."""
    watch.server.answer = answer
    with pytest.raises(MetricUnavailable, match=says) as caught:
        watch.read()
    assert watch.address in str(caught.value)
    assert caught.value.remedy
    assert len(str(caught.value)) < 600


def test_server_that_is_not_there_is_named(watch):
    """The error says where nobody answered, and what to look at."""
    watch.app.canary.__dict__["prometheus"] = "http://127.0.0.1:9"
    with pytest.raises(
        MetricUnavailable, match=r"Prometheus at http://127\.0\.0\.1:9 does not answer"
    ) as caught:
        watch.read()
    assert "canary.prometheus" in caught.value.remedy


def test_answer_without_end_is_cut(watch, monkeypatch):
    """A selector that names a million series does not fill the worker's memory."""
    monkeypatch.setattr(prometheus_api, "MOST_BYTES", 1000)
    an_hour_before(watch)
    with pytest.raises(MetricUnavailable, match="sends more than"):
        watch.read()


def test_selector_without_series_is_named(watch):
    """An empty vector is not zero traffic."""
    with pytest.raises(MetricUnavailable, match=r'no samples of requests\{instance="web001"\}'):
        watch.read()


def test_label_that_is_not_there_is_said_with_those_that_are(watch):
    """Some exporters call it status."""
    watch.exporter.label = "status"
    an_hour_before(watch)
    with pytest.raises(
        MetricUnavailable, match="no label 'code' with the status; they have instance, job, status"
    ):
        watch.read()


def test_one_scrape_is_not_enough(watch):
    """The interval between scrapes is not known from one."""
    watch.exporter.answer(200)
    watch.server.pass_time(15)
    with pytest.raises(MetricUnavailable, match="fewer than two scrapes"):
        watch.read()


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", "3"])
def test_broken_cursor_is_an_error_and_not_a_new_beginning(watch, text):
    """A new t = 0 would forget what was seen."""
    watch.cursor = text
    with pytest.raises(MetricUnavailable, match="cursor"):
        watch.read()


def test_cursor_survives_the_store_and_later_versions():
    """The text is JSON; unknown keys of a newer version are passed over."""
    at = Position(ready=1.5, step=15.0, bin=3, seen={"a": 1.25})
    assert Position.parse(at.text()) == at
    assert Position.parse(json.dumps({**json.loads(at.text()), "more": 1})) == at
