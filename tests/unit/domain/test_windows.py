"""When weekly windows are open, by the clock on the wall of a time zone."""

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.windows import DAYS, Window, ends, leave_no_gap

BERLIN = ZoneInfo("Europe/Berlin")


def at(text, zone=BERLIN):
    return datetime.fromisoformat(text).replace(tzinfo=zone)


WEEKEND = Window.parse("Fri 16:00 - Mon 08:00")
NIGHT = Window.parse("22:00 - 06:00")


@pytest.mark.parametrize(
    ("window", "now", "end"),
    [
        (WEEKEND, "2026-11-27T15:59", None),
        (WEEKEND, "2026-11-27T16:00", "2026-11-30T08:00"),
        (WEEKEND, "2026-11-29T23:59", "2026-11-30T08:00"),  # across the week's end
        (WEEKEND, "2026-11-30T07:59", "2026-11-30T08:00"),
        (WEEKEND, "2026-11-30T08:00", None),
        (NIGHT, "2026-11-25T21:59", None),
        (NIGHT, "2026-11-25T22:00", "2026-11-26T06:00"),  # across midnight
        (NIGHT, "2026-11-26T05:59", "2026-11-26T06:00"),
        (NIGHT, "2026-11-26T06:00", None),
        (NIGHT, "2026-12-31T23:00", "2027-01-01T06:00"),
    ],
)
def test_a_window_is_open_from_its_first_minute_to_its_last(window, now, end):
    """Whatever it crosses, midnight, the week's end or the year's, it ends when it says."""
    assert window.ends(at(now)) == (at(end) if end else None)


@pytest.mark.parametrize("change", ["2026-03-29", "2026-10-25"], ids=["an hour less", "an hour more"])
def test_daylight_saving_moves_no_end(change):
    """A night with 23 or 25 hours ends at six on the wall all the same."""
    end = NIGHT.ends(at(f"{change}T01:30"))
    assert (end.hour, end.minute, end.date().isoformat()) == (6, 0, change)
    assert WEEKEND.ends(at(f"{change}T12:00")).hour == 8


@pytest.mark.parametrize(
    ("window", "first", "last"),  # the moments in UTC: open from the first, no longer at the last
    [
        # 2026-10-25: 02:00 to 03:00 comes twice, until 01:00 and until 02:00 UTC
        ("22:00 - 02:30", "2026-10-24T20:00", "2026-10-25T01:30"),
        ("02:30 - 04:00", "2026-10-25T00:30", "2026-10-25T03:00"),
        ("02:00 - 03:00", "2026-10-25T00:00", "2026-10-25T02:00"),
        ("Sun 02:15 - Sun 02:45", "2026-10-25T00:15", "2026-10-25T01:45"),
        ("Sat 23:00 - Mon 08:00", "2026-10-24T21:00", "2026-10-26T07:00"),
        # 2026-03-29: 02:00 to 03:00 is left out at 01:00 UTC
        ("22:00 - 02:30", "2026-03-28T21:00", "2026-03-29T01:30"),
        ("02:30 - 04:00", "2026-03-29T00:30", "2026-03-29T02:00"),
        ("Sat 23:00 - Mon 08:00", "2026-03-28T22:00", "2026-03-30T06:00"),
    ],
)
def test_a_clock_that_is_moved_makes_no_hole_and_cuts_nothing_short(window, first, last):
    """Minute by minute: open without a gap from its beginning to the one end that is told all the while."""
    first, last = at(first, UTC), at(last, UTC)
    tried = Window.parse(window)
    moment = first - timedelta(minutes=30)
    while moment < last + timedelta(minutes=30):
        end = tried.ends(moment.astimezone(BERLIN))
        assert (end and end.astimezone(UTC)) == (last if first <= moment < last else None), moment
        moment += timedelta(minutes=1)


def test_windows_that_follow_each_other_are_one():
    """What people are told is when something may start, not when the next window begins."""
    assert ends([WEEKEND, Window.parse("Mon 08:00 - Mon 12:00")], at("2026-11-28T00:00")) == at(
        "2026-11-30T12:00"
    )
    assert ends([], at("2026-11-28T00:00")) is None


@pytest.mark.parametrize(
    "windows",
    [
        ["00:00 - 13:00", "12:00 - 23:30", "Mon 23:00 - Wed 00:30"],
        ["00:00 - 12:00", "11:00 - 18:00", "Mon 17:00 - Tue 00:10", "Tue 00:05 - Wed 18:00"],
        [f"{day} 00:00 - {day} 23:59" for day in DAYS[:5]]
        + [f"{day} 23:58 - {then} 00:01" for day, then in itertools.pairwise(DAYS[:5])],
    ],
)
def test_what_is_told_as_the_end_of_windows_is_outside_of_all(windows):
    """However many times one of them goes over into the next one, from whatever hour of the week."""
    tried = [Window.parse(window) for window in windows]
    for hour in range(7 * 24):
        now = at("2026-11-23T00:00") + timedelta(hours=hour)
        end = ends(tried, now)
        assert end is None or ends(tried, end) is None


def test_windows_that_leave_no_gap_are_known():
    """Whatever covers the week, and only that: a minute is a gap."""
    assert leave_no_gap([Window.parse("00:00 - 12:00"), Window.parse("12:00 - 00:00")])
    assert leave_no_gap([NIGHT, Window.parse("06:00 - 22:00")])
    assert not leave_no_gap([NIGHT, Window.parse("06:01 - 22:00")])
    assert not leave_no_gap([NIGHT, *(Window.parse(f"{day} 05:00 - {day} 23:00") for day in DAYS[:6])])
    assert not leave_no_gap([])


@given(st.integers(0, 10079), st.integers(1, 10079), st.integers(0, 10079))
def test_a_window_is_open_for_as_many_minutes_as_it_has(start, minutes, passed):
    """At any minute of any week, it is open exactly when fewer minutes have passed since its beginning than it has."""
    window = Window(start, minutes, weekly=True)
    now = at("2026-06-01T00:00", ZoneInfo("UTC")) + timedelta(minutes=start + passed)
    assert (window.ends(now) is not None) == (passed < minutes)


@pytest.mark.parametrize(
    "text",
    ["", "Fri 16:00", "Fri 16:00 - 08:00", "Fri 24:00 - Mon 08:00", "Fr 16:00 - Mo 08:00", "10:00 - 10:00"],
)
def test_what_is_no_window_is_refused(text):
    """With what was expected."""
    with pytest.raises(ValueError, match="a window such as"):
        Window.parse(text)
