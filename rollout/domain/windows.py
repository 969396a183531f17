"""Weekly windows in which nothing starts: "Fri 16:00 - Mon 08:00", or every day "22:00 - 06:00".

They go by the clock on the wall of their time zone. Where it is moved, the longer reading holds: a time that comes twice
begins a window at the first and ends it at the second, and one that is left out never cuts a window short.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY, WEEK = 24 * 60, 7 * 24 * 60  # minutes
LONGEST = timedelta(
    minutes=2 * WEEK
)  # of windows that go over into each other: one that is asked for longer has no gap
_POINT = r"(?:(Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?([01][0-9]|2[0-3]):([0-5][0-9])"
_WINDOW = re.compile(rf"{_POINT} ?- ?{_POINT}")
EXPECTED = 'a window such as "Fri 16:00 - Mon 08:00", or every day "22:00 - 06:00"'


@dataclass(frozen=True, slots=True)
class Window:
    """From `start`, so many minutes: in a week that begins on Monday, or in each day."""

    start: int
    minutes: int
    weekly: bool

    @classmethod
    def parse(cls, text: str) -> "Window":
        """ValueError says what was expected."""
        found = _WINDOW.fullmatch(text)
        if found is None or (found[1] is None) != (found[4] is None):
            raise ValueError(EXPECTED)
        weekly = found[1] is not None
        start, end = _minute(*found.group(1, 2, 3)), _minute(*found.group(4, 5, 6))
        length = (end - start) % (WEEK if weekly else DAY)
        if length == 0:
            raise ValueError(f"{EXPECTED}, whose end is not its beginning")
        return cls(start, length, weekly)

    def ends(self, now: datetime) -> datetime | None:
        """When the window that `now` (with its time zone) is in ends; None outside of it."""
        period = WEEK if self.weekly else DAY
        wall = now.replace(tzinfo=None, second=0, microsecond=0)
        passed = (wall.weekday() * DAY + wall.hour * 60 + wall.minute - self.start) % period
        latest = wall - timedelta(minutes=passed)
        again = latest + timedelta(minutes=period)  # begun already where the clock was set back since
        for begin in (latest, again):
            end = max(_readings(begin + timedelta(minutes=self.minutes), now))
            if min(_readings(begin, now)) <= now.astimezone(UTC) < end:
                return end.astimezone(now.tzinfo)
        return None


def ends(windows: Sequence[Window], now: datetime) -> datetime | None:
    """When whatever windows `now` is in have ended, also those that begin before one of them ends; None outside of all.

    Windows that leave no gap have no end: then it is a moment more than a week away.
    """
    end: datetime | None = None
    while end is None or end - now < LONGEST:
        later = [one for window in windows if (one := window.ends(end or now)) is not None]
        if not later:
            break
        end = max(later)
    return end


def leave_no_gap(windows: Sequence[Window]) -> bool:
    """Whether nothing could ever start."""
    monday = datetime(2024, 1, 1, tzinfo=UTC)
    end = ends(windows, monday)
    return end is not None and end - monday > timedelta(minutes=2 * WEEK - 1)


def _readings(wall: datetime, now: datetime) -> list[datetime]:
    """The moments that this time may mean in `now`'s zone: two where it comes twice or is left out."""
    return [wall.replace(tzinfo=now.tzinfo, fold=fold).astimezone(UTC) for fold in (0, 1)]


def _minute(day: str | None, hour: str, minute: str) -> int:
    return (DAYS.index(day) if day else 0) * DAY + int(hour) * 60 + int(minute)
