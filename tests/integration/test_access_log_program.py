"""The program that reads access logs, in real shells with every awk of this machine, as the source calls it."""

import gzip
import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import pytest

from rollout.errors import MetricUnavailable
from rollout.metrics import access_log
from rollout.metrics.access_log import AccessLog
from tests.support.local_fleet import LocalFleet, a_target
from tests.support.sources import an_app

PROGRAM = Path(access_log.__file__).with_name("access_log.sh")
AWKS = [name for name in ("mawk", "gawk", "original-awk") if shutil.which(name)]


@pytest.fixture(
    params=[
        *(pytest.param(name, marks=pytest.mark.one_of(name)) for name in AWKS),
        pytest.param("busybox", marks=[pytest.mark.needs("busybox"), pytest.mark.one_of("busybox")]),
    ]
)
def fleet(request, tmp_path):
    """A host with this awk; the last one has nothing but BusyBox."""
    box = shutil.which("busybox")
    if request.param == "busybox":
        return LocalFleet(tmp_path, [box, "sh"], [box, "awk"], box)
    return LocalFleet(tmp_path, ["/bin/sh"], [shutil.which(request.param)])


@pytest.fixture
def log(tmp_path):
    """An access log with some past."""
    path = tmp_path / "logs dir" / "access.log"
    path.parent.mkdir()
    path.write_text('10.0.0.1 - - [01/Jan/2020:00:00:00 +0000] "GET / HTTP/1.1" 500 1 "-" "old"\n')
    return path


class Watch:
    """A canary that is watched: time goes on by hand, lines are written at that time."""

    def __init__(self, fleet, log, **config):
        self.fleet, self.log = fleet, log
        self.source = AccessLog(fleet)
        self.config = an_app("/nowhere", log=str(log), **config)
        self.start = fleet.now
        self.intervals, self.cursor = self.source.read(a_target(), "canary", self.config, None)
        assert self.intervals == []

    def write(self, *lines, to=None):
        with (to or self.log).open("ab") as file:
            for line in lines:
                file.write(line if isinstance(line, bytes) else line.encode() + b"\n")

    def combined(self, status, after=0.0, request="GET / HTTP/1.1", agent="browser", more=""):
        at = datetime.fromtimestamp(self.start + int(after) + self.fleet.step, UTC)
        return f'10.0.0.1 - - [{at:%d/%b/%Y:%H:%M:%S} +0000] "{request}" {status} 12 "-" "{agent}"{more}'

    def read(self, after):
        """Read at this time; the new intervals."""
        self.fleet.now = self.start + after
        new, self.cursor = self.source.read(a_target(), "canary", self.config, self.cursor)
        self.intervals += new
        return new

    def counts(self):
        """What was counted in all: class -> requests, without zeros."""
        total = {}
        for interval in self.intervals:
            for name, count in interval.counts.items():
                total[name] = total.get(name, 0) + count
        return {name: count for name, count in total.items() if count}

    def flags(self):
        return {flag for interval in self.intervals for flag in interval.flags}


@pytest.fixture
def watch(fleet, log):
    return Watch(fleet, log)


def test_program_is_clean_shell():
    """Shellcheck has nothing to say about it."""
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not here")
    done = subprocess.run(["shellcheck", "-s", "sh", PROGRAM], capture_output=True, text=True)
    assert done.stdout == ""


def test_requests_are_counted_by_class_in_the_bin_of_their_time(watch):
    """2 s bins, closed 3 s after their end, each given out once; history and 1xx are not counted."""
    statuses = [(0, 200), (1, 301), (1, 101), (2, 404), (3, 499), (4, 503), (5, 200)]
    watch.write(*(watch.combined(status, after) for after, status in statuses))
    assert [one.t for one in watch.read(5)] == [2.0]
    assert [one.t for one in watch.read(6)] == []
    assert [one.t for one in watch.read(9)] == [4.0, 6.0]
    assert watch.read(9) == []
    assert [{k: n for k, n in one.counts.items() if n} for one in watch.intervals] == [
        {"2xx": 1, "3xx": 1},
        {"4xx": 1, "499": 1},
        {"2xx": 1, "5xx": 1},
    ]
    first = watch.intervals[0]
    assert (first.dt, first.host, first.role, first.observed, first.source, first.flags) == (
        2.0, "web001", "canary", True, "log", (),
    )  # fmt: skip


def test_no_lines_is_no_traffic(watch):
    """A log that was read and has nothing new says zero, which is not the same as unread."""
    new = watch.read(9)
    assert [one.t for one in new] == [2.0, 4.0, 6.0]
    assert all(one.observed and sum(one.counts.values()) == 0 for one in new)


def test_only_whole_lines_are_taken(watch):
    """Half a line waits for its other half."""
    line = watch.combined(200, 1)
    watch.write(watch.combined(200, 1), line[:40].encode())
    watch.read(1)
    watch.write(line[40:].encode() + b"\n")
    watch.read(9)
    assert watch.counts() == {"2xx": 2}
    assert watch.flags() == set()


def test_line_that_was_half_written_at_the_first_reading_counts_by_its_time(fleet, log):
    """Half a line is no garbage: whole, it is a request of before readiness, or of after it."""
    watch = Watch(fleet, log)
    for after, counted in ((-1, {}), (1, {"2xx": 1})):
        line = watch.combined(200, after)
        with log.open("a") as file:
            file.write(line[:30])
        watch = Watch(fleet, log)
        watch.write(line[30:])
        watch.read(9)
        fleet.now = watch.start
        assert watch.counts() == counted
        assert watch.flags() == set()


@pytest.fixture
def switched(tmp_path, fleet):
    """A host whose `current` was switched 10 s before now."""
    path = tmp_path / "srv"
    path.mkdir()
    (path / "current").symlink_to("releases/new")
    os.utime(path / "current", (fleet.now - 10, fleet.now - 10), follow_symlinks=False)
    return replace(a_target(), path=str(path))


def history(fleet, log, role, target, elapsed=0.0):
    """What is known of before readiness: t -> counts without zeros, for bins that were observed."""
    intervals, cursor = AccessLog(fleet).read(
        target, role, an_app("/nowhere", log=str(log)), None, elapsed=elapsed
    )
    assert [one.t for one in intervals] == sorted({one.t for one in intervals})
    assert all(one.observed and one.role == role for one in intervals)
    return {one.t: {k: n for k, n in one.counts.items() if n} for one in intervals}, cursor


def test_history_of_a_baseline_host_is_its_last_ten_minutes(fleet, log, switched):
    """300 bins up to t = 0, quiet ones too; what is older is left out."""
    watch = Watch(fleet, log)
    log.write_text("")
    watch.write(
        *(watch.combined(status, at) for at, status in [(-700, 500), (-600, 404), (-3, 301), (-1, 200)])
    )
    found, _ = history(fleet, log, "baseline", switched)
    assert (len(found), min(found), max(found)) == (300, -598.0, 0.0)
    assert {t: counts for t, counts in found.items() if counts} == {
        -598.0: {"4xx": 1},
        -2.0: {"3xx": 1},
        0.0: {"2xx": 1},
    }


def test_history_of_the_canary_ends_at_its_switch(fleet, log, switched):
    """What was answered while it was restarted, and by the new release since, is no history of the old one."""
    watch = Watch(fleet, log)
    watch.write(
        *(
            watch.combined(status, at)
            for at, status in [(-13, 200), (-10, 500), (-9, 500), (-1, 500), (0, 200)]
        )
    )
    watch.write(
        watch.combined(500, -9, more=" 9.000")
    )  # begun under the old release, and cut off by the switch
    found, cursor = history(fleet, log, "canary", switched)
    assert {t: counts for t, counts in found.items() if counts} == {-12.0: {"2xx": 1}}
    assert max(found) == -10.0
    assert json.loads(cursor)["open"] == {"0": {"2xx": 1}}


def test_canary_whose_switch_cannot_be_seen_has_no_history(fleet, log):
    """Rather none than the new release's own answers."""
    watch = Watch(fleet, log)
    watch.write(watch.combined(500, -5))
    assert history(fleet, log, "canary", a_target())[0] == {}


def test_history_begins_where_the_log_does(fleet, log, switched):
    """A log that was rotated 20 s ago says nothing of the time before, which is not the same as no traffic."""
    watch = Watch(fleet, log)
    log.write_text("no time\n")
    watch.write(watch.combined(200, -20), watch.combined(200, -5))
    found, cursor = history(fleet, log, "baseline", switched)
    assert (min(found), max(found)) == (-16.0, 0.0)
    assert json.loads(cursor)["flags"] == []  # garbage of the past is not the first bin's
    log.write_text("")
    assert history(fleet, log, "baseline", switched)[0] == {}


def test_history_of_a_huge_log_is_its_newest_part(fleet, log, switched, monkeypatch):
    """The work is bounded, and the newest lines are those that are read."""
    monkeypatch.setattr(access_log, "MOST_BYTES", 1000)
    watch = Watch(fleet, log)
    watch.write(*(watch.combined(200, at) for at in range(-300, 0)))
    found, cursor = history(fleet, log, "baseline", switched)
    assert max(found) == 0.0
    assert -12 < min(found) < -4
    assert all(counts == {"2xx": 2} for counts in found.values())
    assert json.loads(cursor)["offset"] == log.stat().st_size


def test_late_first_reading_puts_t_0_where_readiness_was(fleet, log, switched):
    """A host that is read for the first time 9 s after readiness has the bins that all others have."""
    watch = Watch(fleet, log)
    watch.write(watch.combined(200, 0), watch.combined(200, 2), watch.combined(500, 8))
    fleet.now += 9
    found, cursor = history(fleet, log, "baseline", switched, elapsed=9.2)
    assert {t: counts for t, counts in found.items() if t > 0} == {2.0: {"2xx": 1}, 4.0: {"2xx": 1}, 6.0: {}}
    assert json.loads(cursor)["open"] == {"4": {"5xx": 1}}


def test_long_request_across_readiness_is_nobodys(fleet, log, switched):
    """Begun before readiness and answered after it: neither history nor the new release's."""
    watch = Watch(fleet, log)
    fleet.now += 4
    watch.write(watch.combined(500, 1, more=" 30.000"), watch.combined(200, 3))
    found, cursor = history(fleet, log, "canary", switched, elapsed=4)
    assert [counts for counts in found.values() if counts] == []
    assert json.loads(cursor)["open"] == {"1": {"2xx": 1}}


@pytest.mark.parametrize(
    "request_line",
    [
        r"GET /\"quoted\" 500 HTTP/1.1",
        r"GET /back\\",
        r"GET /a?b=\" 500 \"",
        "",
        "-",
        r"\x16\x03\x01",
        "GET /" + "x" * 9000,
    ],
)
def test_status_is_the_field_after_the_quoted_request(watch, request_line):
    """Quotes in the request, escaped, do not move the status."""
    watch.write(watch.combined(204, 1, request=request_line))
    watch.read(9)
    assert watch.counts() == {"2xx": 1}


@pytest.mark.parametrize(
    "make",
    [
        lambda at: {"time": at.isoformat(), "status": 502},
        lambda at: {"status": "502", "time_iso8601": at.isoformat(timespec="seconds")},
        lambda at: {"msec": f"{at.timestamp():.3f}", "request": "GET / HTTP/1.1", "status": 502, "x": 1},
        lambda at: {"ts": at.timestamp(), "level": "info", "status": 502},
        lambda at: {"timestamp": int(at.timestamp() * 1000), "status": 502},
        lambda at: {"time_local": f"{at:%d/%b/%Y:%H:%M:%S +0000}", "agent": '","status":200', "status": 502},
        lambda at: {"@timestamp": f"{at:%Y-%m-%dT%H:%M:%S.250Z}", "status": 502},
        lambda at: {
            "time": at.astimezone(timezone(timedelta(hours=-3, minutes=-30))).isoformat(),
            "status": 502,
        },
    ],
)
def test_json_lines_are_read_with_their_time(watch, make):
    """The status and the time of JSON lines, in the shapes that servers write; values cannot play keys."""
    at = datetime.fromtimestamp(watch.start + 5, UTC)
    watch.write(json.dumps(make(at)), json.dumps(make(at), separators=(",", ":")))
    watch.read(20)
    assert {one.t: one.counts["5xx"] for one in watch.intervals if one.counts["5xx"]} == {6.0: 2}


HIDING = (
    "/pay?cart=199.95",
    "/list?rt=999.9",
    "/list?a=1&rt=999.9",
    "/at?start=48.20",
    "/x request_time=77.5 y",
    "/ rt:88.5",
)


@pytest.mark.parametrize("more", ["", " 0.010", " rt=0.010", ' "10.0.0.9" rt=0.010', ' rt="0.010"'])
@pytest.mark.parametrize("hiding", [*HIDING, r"/a\" rt=55.5 \""])
def test_what_a_client_writes_is_no_request_time(watch, hiding, more):
    """A failing request is counted whatever its URL, its referrer and its agent say, with a true request time and without."""
    line = watch.combined(503, 1, more=more)
    watch.write(
        watch.combined(503, 1, request=f"POST {hiding} HTTP/1.1", more=more),
        line.replace('"-"', f'"http://shop.example{hiding}"'),
        watch.combined(503, 1, agent=hiding, more=more),
    )
    watch.read(9)
    assert watch.counts() == {"5xx": 3}
    assert watch.flags() == set()


@pytest.mark.parametrize(
    "more", [" urt=50.5", " cart=50.5", " upstream_request_time=50.5", " x?rt=50.5", ' u="rt=50.5"']
)
def test_request_time_is_a_word_of_its_own(watch, more):
    """A key that only ends in `rt` or `request_time` is another one, and nothing is taken off for it."""
    watch.write(watch.combined(503, 1, more=more))
    watch.read(9)
    assert watch.counts() == {"5xx": 1}


@pytest.mark.parametrize("spent", ["3.000", 3.25, "3"])
def test_json_request_begun_before_readiness_is_not_counted(watch, spent):
    """The request time of a JSON line is taken off, as a number and as a text; a whole number may be anything and is not."""
    at = datetime.fromtimestamp(watch.start + 1, UTC).isoformat()
    watch.write(json.dumps({"time": at, "status": 500, "request_time": spent}))
    watch.write(json.dumps({"time": at, "status": 200, "request_time": "0.010"}))
    watch.read(9)
    assert watch.counts() == {"2xx": 1} | ({"5xx": 1} if spent == "3" else {})


@pytest.mark.parametrize(
    "nested",
    [
        {"upstream": {"status": 200, "request_time": 60.5, "time": "2026-01-01T00:00:00Z"}},
        {"upstream": [{"status": 200, "odd": '}]"{'}, {"request_time": 60.5}], "url": '/?a={"status":200}'},
        {"deep": {"er": {"status": 200}, "request_time": 60.5}, "more": [[{"status": 200}]]},
    ],
)
def test_json_keys_of_the_top_level_win(watch, nested):
    """A status, a time and a request time that are nested, and come earlier, are another request's."""
    at = datetime.fromtimestamp(watch.start + 1, UTC).isoformat()
    line = {**nested, "time": at, "status": 503, "request_time": 0.25}
    watch.write(json.dumps(line), json.dumps(line, separators=(",", ":")))
    watch.read(9)
    assert watch.counts() == {"5xx": 2}
    assert watch.intervals[0].counts["5xx"] == 2


def test_json_status_that_is_only_nested_is_the_status(watch):
    """A log that has everything in an object of its own is read all the same."""
    at = datetime.fromtimestamp(watch.start + 1, UTC).isoformat()
    watch.write(json.dumps({"time": at, "response": {"status": 503}}))
    watch.read(9)
    assert watch.counts() == {"5xx": 1}


@pytest.mark.parametrize(
    ("more", "t"),
    [("", 10.0), (" 4.250", 6.0), (' "10.0.0.9" rt=4.250', 6.0), (' request_time="4.25"', 6.0), (" 4", 10.0)],
)
def test_request_time_is_taken_off(watch, more, t):
    """A request counts where it began."""
    watch.write(watch.combined(200, 9, more=more))
    watch.read(20)
    assert [one.t for one in watch.intervals if one.counts["2xx"]] == [t]


def test_requests_begun_before_readiness_are_not_counted(watch):
    """What the old release answered late is not the new one's."""
    watch.write(watch.combined(500, 1, more=" 3.000"), watch.combined(200, 1, more=" 0.010"))
    watch.read(9)
    assert watch.counts() == {"2xx": 1}


def test_other_time_zones_are_understood(watch):
    """The offset of the time stamp counts."""
    local = datetime.fromtimestamp(watch.start + 3, timezone(timedelta(hours=5, minutes=45)))
    watch.write(f'- - - [{local:%d/%b/%Y:%H:%M:%S %z}] "GET / HTTP/1.1" 200 1')
    watch.read(20)
    assert [one.t for one in watch.intervals if one.counts["2xx"]] == [4.0]


@pytest.mark.parametrize(
    "stamp", ["[no time]", "[01/Jan/2020:00:00:00 +0000]", "[01/Jan/2099:00:00:00 +0000]", ""]
)
def test_lines_without_a_time_that_makes_sense_count_when_they_are_read(watch, stamp):
    """An unknown or absurd time does not lose the request."""
    watch.write(f'10.0.0.1 - - {stamp} "GET / HTTP/1.1" 200 1 "-" "x"')
    watch.read(5)
    watch.read(20)
    assert [one.t for one in watch.intervals if one.counts["2xx"]] == [6.0]


def test_leap_days_and_year_ends_are_days(fleet, log):
    """The calendar is right on its odd days."""
    for moment in (
        "2028-02-29T23:59:58",
        "2027-12-31T23:59:58",
        "2030-03-01T00:00:00",
        "2027-06-30T12:00:00",
    ):
        fleet.now = int(datetime.fromisoformat(f"{moment}+00:00").timestamp())
        watch = Watch(fleet, log)
        watch.write(watch.combined(200, 3))
        watch.read(20)
        assert [one.t for one in watch.intervals if one.counts["2xx"]] == [4.0]


DAYS = [*(f"2027-{month:02}-17T12:00:01" for month in range(1, 13)), "2028-02-29T23:59:58", "2027-12-31T23:59:59",
    "2027-01-01T00:00:00", "2100-02-28T23:59:59", "2027-02-28T23:59:59"]  # fmt: skip


@pytest.mark.parametrize("moment", DAYS)
def test_iso_times_are_right_in_every_month(fleet, log, moment):
    """A line counts in the bin of its ISO 8601 time: each month, leap days and year ends, zones, fractions and `Z`."""
    fleet.now = int(datetime.fromisoformat(f"{moment}+00:00").timestamp()) + 1
    watch = Watch(fleet, log)
    at = datetime.fromtimestamp(watch.start + 3, UTC)
    west, east = (at.astimezone(timezone(timedelta(hours=hours, minutes=30))) for hours in (-9, 13))
    stamps = [
        f"{at:%Y-%m-%dT%H:%M:%S}Z", f"{at:%Y-%m-%dT%H:%M:%S}.750Z", at.isoformat(), west.isoformat(),
        f"{east:%Y-%m-%d %H:%M:%S.123456%z}",
    ]  # fmt: skip
    watch.write(*(json.dumps({"time": stamp, "status": 502}) for stamp in stamps))
    watch.write(*(f'10.0.0.1 - - [{stamp}] "GET / HTTP/1.1" 404 1 "-" "x"' for stamp in stamps))
    watch.read(20)
    found = {one.t: (one.counts["5xx"], one.counts["4xx"]) for one in watch.intervals}
    assert {t: counts for t, counts in found.items() if any(counts)} == {4.0: (5, 5)}


@pytest.mark.parametrize(
    ("agent", "request_line", "counted"),
    [
        ("kube-probe/1.29", "GET / HTTP/1.1", False),
        ("ELB-HealthChecker/2.0", "GET / HTTP/1.1", False),
        ("GoogleHC/1.0", "GET / HTTP/1.1", False),
        ("rollout-probe/1", "GET / HTTP/1.1", False),
        ("curl/8.5.0", "GET /health HTTP/1.1", False),
        ("curl/8.5.0", "GET /healthz?full=1 HTTP/1.1", False),
        ("curl/8.5.0", "GET /healthy-food HTTP/1.1", True),
        ("curl/8.5.0", "GET / HTTP/1.1", True),
        ("browser", "GET /health HTTP/1.1", True),
        ("browser", "GET /kube-probe/ HTTP/1.1", True),
    ],
)
def test_health_checkers_are_not_traffic(watch, agent, request_line, counted):
    """Known checkers by their agent, curl only where it asks for health; everybody else is a user."""
    watch.write(watch.combined(500, 1, request=request_line, agent=agent))
    watch.write(json.dumps({"status": 500, "request": request_line, "http_user_agent": agent, "time": "x"}))
    watch.read(20)
    watch.read(30)
    assert watch.counts() == ({"5xx": 2} if counted else {})


def test_lines_that_are_no_requests_are_passed_over_and_flagged(watch):
    """Garbage of every kind loses no request beside it."""
    watch.write(
        "", "garbage", '"unclosed', '{"status":', "{}", b"\x00\xff\xfe\n", '"x" 999 1', "\\", "x" * 5000,
        watch.combined(200, 1), "%s %d \\ $(id) `id`",
    )  # fmt: skip
    watch.read(9)
    assert watch.counts() == {"2xx": 1}
    assert watch.flags() == {"garbage"}


def test_statuses_that_good_names_are_counted_by_themselves(fleet, log):
    """`good = ["2xx", "404"]` needs the 404s apart from the other 4xx."""
    watch = Watch(fleet, log, good=("2xx", "404"))
    watch.write(*(watch.combined(status, 1) for status in (404, 403, 499, 200)))
    watch.read(9)
    assert watch.counts() == {"404": 1, "4xx": 1, "499": 1, "2xx": 1}


def test_renamed_log_is_read_to_its_end_and_then_the_new_one(watch):
    """A rotation by rename loses nothing, also of what the writer adds to the old file before it opens the new one."""
    watch.write(watch.combined(200, 1))
    watch.read(2)
    watch.write(watch.combined(201, 3))
    old = watch.log.with_name("access.log.1")
    watch.log.rename(old)
    watch.read(4)
    watch.write(watch.combined(202, 5), to=old)
    watch.log.touch()
    watch.read(6)
    watch.write(watch.combined(203, 6), to=old)
    watch.write(watch.combined(500, 7))
    watch.read(8)
    watch.write(watch.combined(500, 9))
    watch.read(20)
    assert watch.counts() == {"2xx": 4, "5xx": 2}
    assert all(one.observed for one in watch.intervals)
    assert watch.flags() == {"rotated"}


def rotate(watch, names, *lines):
    """Older logs move on by one, the log gets the first of these names, and a new one has these lines."""
    here = [watch.log, *(watch.log.with_name(name) for name in names)]
    for old, new in reversed(list(pairwise(here))):
        if old.exists():
            old.rename(new)
    watch.write(*lines)


@pytest.mark.parametrize(
    "names",
    [["access.log.1", "access.log.2", "access.log.3"], ["access.log-2", "access.log-1", "access.log-0"]],
)
@pytest.mark.parametrize("most", [8_000_000, 300])
def test_logs_that_came_and_went_between_two_readings_are_read(watch, names, most, monkeypatch):
    """Each file is read to its end, in its turn, whatever it is called by now and however little is read at once."""
    monkeypatch.setattr(access_log, "MOST_BYTES", most)
    watch.write(watch.combined(200, 1))
    watch.read(2)
    watch.write(watch.combined(200, 3))
    for age, after in ((30, 5), (20, 7), (10, 9)):
        os.utime(watch.log, (time.time() - age,) * 2)
        rotate(watch, names, *[watch.combined(500 + after, after)] * 3)
    neighbour = watch.log.with_name("access.log.9.gz")  # is being packed
    neighbour.write_text(watch.combined(404, 5))
    for _ in range(9):
        watch.read(20)
    assert {one.t: one.counts["5xx"] for one in watch.intervals if one.counts["5xx"]} == {
        6.0: 3,
        8.0: 3,
        10.0: 3,
    }
    assert watch.counts() == {"2xx": 2, "5xx": 9}
    assert all(one.observed for one in watch.intervals)
    assert watch.flags() == {"rotated"}


@pytest.mark.parametrize("away", [False, True])
def test_log_that_was_written_anew_under_the_same_inode_has_lost_lines(watch, away):
    """An inode that is used again, or a log that was truncated and has grown since, is another file by its first bytes."""
    watch.write(*[watch.combined(200, 1)] * 2)
    watch.read(5)
    before = watch.log.stat()
    if away:  # renamed, removed, and its inode is a neighbour's now
        log, watch.log = watch.log, watch.log.with_name("error.log")
        log.rename(watch.log)
    watch.log.write_bytes(b"")
    watch.write(*[watch.combined(500, 6)] * 9)
    assert (watch.log.stat().st_ino, watch.log.stat().st_size > before.st_size) == (before.st_ino, True)
    if away:
        watch.log = log
        watch.write(*[watch.combined(500, 6)] * 9)
    watch.read(6)
    watch.write(watch.combined(200, 9))
    watch.read(20)
    assert [one.t for one in watch.intervals if not one.observed] == [4.0, 6.0, 8.0]
    assert watch.counts() == {"2xx": 3, "5xx": 9}
    assert watch.flags() == {"rotated"}


def test_cursor_without_a_mark_goes_on(watch):
    """What a process of before kept knows nothing of first bytes: nothing is lost, and from now on they are known."""
    watch.write(watch.combined(200, 1))
    watch.read(2)
    old = json.loads(watch.cursor)
    assert old.pop("mark")
    watch.cursor = json.dumps(old)
    watch.write(watch.combined(500, 3))
    watch.read(20)
    assert (watch.counts(), watch.flags()) == ({"2xx": 1, "5xx": 1}, set())
    assert json.loads(watch.cursor)["mark"]


def test_log_renamed_out_of_sight_leaves_unobserved_bins(watch):
    """When the rest of the old file cannot be found, the bins since the last reading are not observed."""
    watch.write(watch.combined(200, 1))
    watch.read(5)
    with gzip.open(watch.log.with_name("access.log.1.gz"), "wb") as packed:
        packed.write(watch.log.read_bytes())
    keep = watch.log.open()  # so that the inode is not used again at once
    watch.log.unlink()
    watch.write(watch.combined(500, 9))
    watch.read(10)
    watch.write(watch.combined(200, 13))
    watch.read(20)
    keep.close()
    assert [one.t for one in watch.intervals if not one.observed] == [4.0, 6.0, 8.0, 10.0, 12.0]
    assert watch.flags() == {"rotated"}
    assert watch.intervals[0].observed
    assert watch.intervals[-1].observed


def test_truncated_log_is_read_from_its_beginning_and_bins_are_unobserved(watch):
    """After copytruncate the lines since the last reading are lost, and it is said."""
    watch.write(*[watch.combined(200, 1)] * 5)
    watch.read(5)
    watch.log.write_bytes(b"")
    watch.write(watch.combined(500, 6))
    watch.read(6)
    watch.write(watch.combined(200, 9))
    watch.read(20)
    assert [one.t for one in watch.intervals if not one.observed] == [4.0, 6.0, 8.0]
    assert {one.t: one.counts["2xx"] for one in watch.intervals if one.counts["2xx"]} == {2.0: 5, 10.0: 1}
    assert watch.flags() == {"rotated"}


def test_log_that_vanished_is_an_error_and_comes_back(watch):
    """A missing log is not zero traffic; when it is there again, reading goes on."""
    watch.write(watch.combined(200, 1))
    watch.read(2)
    away = watch.log.parent.with_name("away.log")
    watch.log.rename(away)
    with pytest.raises(MetricUnavailable, match=f"web001: there is no access log: {watch.log}"):
        watch.read(6)
    away.rename(watch.log)
    watch.write(watch.combined(200, 7))
    watch.read(20)
    assert watch.counts() == {"2xx": 2}
    assert all(one.observed for one in watch.intervals)


def test_missing_log_is_named(fleet, tmp_path):
    """The error has the host and the path."""
    with pytest.raises(MetricUnavailable, match=r"web001: there is no access log: .*/none\.log"):
        Watch(fleet, tmp_path / "none.log")


def test_folder_in_place_of_a_log_is_unreadable(fleet, tmp_path):
    """What is no file is not read."""
    with pytest.raises(MetricUnavailable, match="cannot be read"):
        Watch(fleet, tmp_path)


def test_work_of_one_reading_is_bounded(watch, monkeypatch):
    """More than may be read at once is read by and by, and no bin is closed before its lines were read."""
    monkeypatch.setattr(access_log, "MOST_BYTES", 1000)
    watch.write(*(watch.combined(200, after) for after in range(40) for _ in range(2)))
    while json.loads(watch.cursor)["offset"] < watch.log.stat().st_size:
        before = json.loads(watch.cursor)["offset"]
        watch.read(60)
        assert 0 < json.loads(watch.cursor)["offset"] - before <= 1000
    watch.read(60)
    assert [one.counts["2xx"] for one in watch.intervals][:20] == [4] * 20
    assert watch.flags() == set()


def test_line_longer_than_a_reading_is_passed_over(watch, monkeypatch):
    """A line without end does not hold the log up."""
    monkeypatch.setattr(access_log, "MOST_BYTES", 1000)
    watch.write("x" * 3500, watch.combined(200, 1))
    for _ in range(8):
        watch.read(9)
    assert watch.counts() == {"2xx": 1}
    assert "garbage" in watch.flags()


def test_late_lines_go_to_the_next_bin_with_a_flag(watch):
    """A line that was written after its bin was given out is not lost."""
    watch.read(9)
    watch.write(watch.combined(500, 1))
    new = watch.read(20)
    assert new[0].counts["5xx"] == 1
    assert new[0].flags == ("late",)
    assert [one.flags for one in new[1:]] == [()] * (len(new) - 1)


def test_a_gap_in_reading_is_no_gap_in_the_log(watch):
    """After a minute without a connection, the log still has it all, bin by bin."""
    watch.write(*(watch.combined(200, after) for after in range(60)))
    watch.read(63)
    assert [(one.counts["2xx"], one.observed) for one in watch.intervals] == [(2, True)] * 30


def test_log_path_may_have_blanks_quotes_and_the_hosts_name(fleet, tmp_path):
    """The path is data, never shell; {name} is the host's."""
    odd = tmp_path / "it's $(id) web001" / "a b.log"
    odd.parent.mkdir()
    odd.touch()
    watch = Watch(fleet, Path(str(odd).replace("web001", "{name}")))
    watch.log = odd
    watch.write(watch.combined(200, 1))
    watch.read(9)
    assert watch.counts() == {"2xx": 1}


def test_symbolic_link_to_the_log_is_followed(fleet, log):
    """A log that is a link is the file that it points to."""
    link = log.with_name("current.log")
    link.symlink_to(log)
    watch = Watch(fleet, link)
    watch.write(watch.combined(200, 1))
    watch.read(9)
    assert watch.counts() == {"2xx": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_log_is_named(fleet, log):
    """A log that our user may not read is said to be unreadable."""
    log.chmod(0)
    with pytest.raises(MetricUnavailable, match="cannot be read"):
        Watch(fleet, log)


def test_every_real_tool_has_the_clock(tmp_path, log):
    """With the host's own `date` the clock is this machine's."""
    fleet = LocalFleet(tmp_path, ["/bin/sh"], [shutil.which("awk")])
    (tmp_path / "tools/date").unlink()
    (tmp_path / "tools/date").symlink_to(shutil.which("date"))
    _, cursor = AccessLog(fleet).read(a_target(), "canary", an_app("/nowhere", log=str(log)), None)
    assert abs(json.loads(cursor)["ready"] - time.time()) < 60


STEPS = [
    3600,
    -86_400,
    -7,
    *(pytest.param(step, marks=pytest.mark.faults) for step in (-3600, 86_400, 7)),
]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_the_hosts_clock_changes_no_interval(fleet, log, step):
    """Lines written before, at and after a jump of its clock lie in the bins in which they were written."""
    watch = Watch(fleet, log)
    watch.write(watch.combined(200, 1), watch.combined(200, 3))
    watch.read(4)
    watch.write(watch.combined(500, 5))  # written before the step, read after it
    fleet.step = step
    watch.write(watch.combined(200, 6), watch.combined(404, 7))
    watch.read(8)
    watch.write(watch.combined(200, 9))
    watch.read(13)
    assert [interval.t for interval in watch.intervals] == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert all(interval.observed for interval in watch.intervals)
    found = [{name: n for name, n in interval.counts.items() if n} for interval in watch.intervals]
    assert found == [{"2xx": 1}, {"2xx": 1}, {"5xx": 1}, {"2xx": 1, "4xx": 1}, {"2xx": 1}]


@pytest.mark.parametrize("step", [0, *STEPS])
def test_a_reboot_does_not_count_the_time_that_the_host_was_down(fleet, log, step):
    """Uptime begins anew and its clock may be any: the canary has been watched for as long as the host has been up."""
    watch = Watch(fleet, log)
    watch.write(watch.combined(200, 1))
    watch.read(4)
    fleet.booted, fleet.step = watch.start + 60, step
    watch.write(watch.combined(200, 62))
    watch.read(64)
    watch.read(70)
    assert [interval.t for interval in watch.intervals][-1] <= 14 - 3
    assert watch.counts() == {"2xx": 2}
