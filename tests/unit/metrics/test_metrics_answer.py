"""What the program on the host says, parsed; and the cursor that the store keeps."""

import json

import pytest

from rollout.config.settings import Settings
from rollout.errors import MetricUnavailable, UnknownName, Unreachable
from rollout.metrics.access_log import AccessLog
from rollout.metrics.answer import parse
from rollout.metrics.cursor import Cursor
from rollout.metrics.sources import source
from tests.support.local_fleet import a_target
from tests.support.sources import an_app

BEGUN = "rollout_log=1\nnow=1000\nup=50\nready=1000\nfile=1:2\noffset=77\nskip=0\nmore=0\nrotated=0\nlost=0\nend=0\n"


class ScriptedFleet:
    """Answers with the given texts, and remembers what was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def read(self, target, program, lines, *, timeout_s):
        self.asked.append((target.name, list(lines), timeout_s))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def read(fleet, cursor=None):
    return AccessLog(fleet).read(a_target(), "canary", an_app("/x"), cursor)


def test_login_noise_around_the_answer_is_ignored():
    """What a login script prints before, and what comes after the end, are not read."""
    answer = parse("Welcome!\nnow=9\nend=0\n" + BEGUN + "now=5\n")
    assert (answer.now, answer.file, answer.offset) == (1000, "1:2", 77)


def test_bins_of_two_files_are_added():
    """The rest of a renamed log and the new one may have the same bin."""
    answer = parse(
        "rollout_log=1\nnow=1\nup=1\nready=1\nbin=3 2xx 5\nlast=4\nlines=5\nbin=3 2xx 2\nbin=3 5xx 1\nlast=7\nlines=3\nend=0\n"
    )
    assert answer.counts == {3: {"2xx": 7, "5xx": 1}}
    assert answer.last == 7
    assert answer.tallies == {"lines": 8, "garbage": 0, "probes": 0, "before": 0}


@pytest.mark.parametrize(
    "text",
    ["", "Welcome!\n", BEGUN.replace("end=0\n", ""), BEGUN.replace("1000", "x"), "rollout_log=1\nend=0\n"],
)
def test_torn_answers_are_no_data(text):
    """Half an answer, or none, is not zero traffic."""
    with pytest.raises(MetricUnavailable, match=r"web001: the reading of /srv/shop/shared/access\.log"):
        read(ScriptedFleet(text))


def test_first_reading_asks_for_history_and_for_when_the_canary_was_switched():
    """The cursor starts where the log ends, at the host's own time; what the log says of the past is asked for."""
    fleet = ScriptedFleet(BEGUN)
    intervals, cursor = read(fleet)
    assert intervals == []
    assert Cursor.parse(cursor) == Cursor(ready=1000, file="1:2", offset=77, now=1000, up=50)
    asked = [
        "log=/srv/shop/shared/access.log",
        "since=0",
        "history=600",
        "current=/srv/shop/current",
        "apart=499",
        "most=8388608",
        "",
    ]
    assert fleet.asked == [("web001", asked, 10.0)]


def test_history_is_whole_bins_from_the_logs_first_line_to_the_switch():
    """A bin that the log covers in part, or in which the host was switched, says nothing true of the old release."""
    told = BEGUN.replace("file=", "switched=-3\nbegins=-13\nbin=-7 2xx 9\nbin=-4 5xx 2\nbin=0 2xx 1\nfile=")
    intervals, cursor = read(ScriptedFleet(told))
    assert [(one.t, one.counts["2xx"], one.counts["5xx"]) for one in intervals] == [
        (-10.0, 0, 0), (-8.0, 0, 0), (-6.0, 0, 2), (-4.0, 0, 0),
    ]  # fmt: skip
    assert Cursor.parse(cursor).open == {"0": {"2xx": 1}}


def test_begin_that_was_late_closes_what_has_passed_since_readiness():
    """A host that was first read 9 s after readiness has the same t = 0 as one that was read at once."""
    told = BEGUN.replace("now=1000", "now=1009\nbegins=-3\nbin=-1 2xx 3\nbin=1 2xx 7")
    intervals, cursor = read(ScriptedFleet(told))
    assert [(one.t, one.counts["2xx"]) for one in intervals] == [(0.0, 3), (2.0, 0), (4.0, 7), (6.0, 0)]
    assert Cursor.parse(cursor).closed == 3


def test_errors_of_the_host_pass_through():
    """Whoever asked knows what to do about an unreachable host."""
    with pytest.raises(Unreachable):
        read(ScriptedFleet(Unreachable("web001: no route")))


def test_cursor_survives_the_store_and_later_versions():
    """The text is JSON; unknown keys of a newer version are passed over."""
    cursor = Cursor(ready=1, file="1:2", offset=3, closed=4, lost=2, open={"5": {"2xx": 6}}, flags=("late",))
    assert Cursor.parse(cursor.text()) == cursor
    assert Cursor.parse(json.dumps({**json.loads(cursor.text()), "history": [1]})) == cursor


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", "3"])
def test_broken_cursor_is_an_error_and_not_a_new_beginning(text):
    """A new t = 0 would forget what was seen."""
    with pytest.raises(MetricUnavailable, match="cursor"):
        read(ScriptedFleet(), text)


def test_a_bin_is_given_out_once_and_open_ones_are_kept():
    """What is open stays in the cursor until its time has come."""
    fleet = ScriptedFleet(
        BEGUN,
        BEGUN.replace("now=1000", "now=1006\nbin=0 2xx 1\nbin=2 2xx 9"),
        BEGUN.replace("now=1000", "now=1009\nbin=2 5xx 1"),
    )
    _, cursor = read(fleet)
    first, cursor = read(fleet, cursor)
    second, _ = read(fleet, cursor)
    assert [(one.t, one.counts["2xx"]) for one in first] == [(2.0, 1)]
    assert [(one.t, one.counts["2xx"], one.counts["5xx"]) for one in second] == [(4.0, 0, 0), (6.0, 9, 1)]


def test_clock_that_goes_back_gives_no_bin_twice():
    """A host's clock that is set back stops the bins, and repeats none."""
    fleet = ScriptedFleet(BEGUN, BEGUN.replace("now=1000", "now=1020"), BEGUN.replace("now=1000", "now=900"))
    _, cursor = read(fleet)
    first, cursor = read(fleet, cursor)
    assert len(first) == 8
    assert read(fleet, cursor)[0] == []


def test_unknown_source_is_refused_with_the_known_ones():
    """There is no default source."""
    with pytest.raises(UnknownName, match="access-log"):
        source("acess-log", ScriptedFleet(), Settings())
    assert isinstance(source("access-log", ScriptedFleet(), Settings()), AccessLog)
