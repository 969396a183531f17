"""How long a CI server's run of a check took, by what was said of it and when; and from when on nothing more is to be said."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf

import pytest

from rollout.domain.checks import UNHEARD_S, answered, silent_from_s, timed, took_s
from rollout.domain.model import Check, CheckState

CAME = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
P, S, F, C = CheckState.PENDING, CheckState.SUCCESS, CheckState.FAILURE, CheckState.CANCELLED


def told(*words, came_at=CAME):
    """What is known of a check after these words, each a minute after the one before it, the first one after the commit."""
    known = []
    for minutes, state in enumerate(words, start=1):
        known = [timed(Check("unit", state), known, CAME + timedelta(minutes=minutes), came_at)]
    return known[0].took_s


@pytest.mark.parametrize(
    ("words", "minutes"),
    [
        ((P, S), 1),
        ((P, P, P, S), 3),  # queued, then under way: one run
        ((P, F), 1),
        ((P, C, P, S), 1),  # another run: nobody counts the one that was cancelled
        ((P, F, P, P, S), 2),
        ((P, S, S), 1),  # sent again
        ((S,), 1),  # nobody said when it began: the commit has waited for it all the time
        ((P,), None),
        ((P, C), None),
        ((C, S), None),
        ((F, S), None),  # run again, nobody knows since when
        ((P, F, S), None),
    ],
)
def test_a_run_takes_from_its_first_word_to_its_result(words, minutes):
    """Of one that began again, from then; where nobody knows, nothing is guessed."""
    assert told(*words) == (None if minutes is None else minutes * 60.0)


def test_a_result_that_comes_before_its_commit_is_known_has_no_time():
    """With nothing to count from; and where a clock was set back no time is negative."""
    assert told(S, came_at=None) is None
    assert told(S, came_at=CAME + timedelta(hours=1)) == 0.0


def test_the_slowest_required_check_is_what_a_commit_waits_for():
    """The others run beside it, and what is not required decides nothing."""
    reported = [
        replace(Check(name, S), took_s=took)
        for name, took in (("unit", 60.0), ("lint", 90.0), ("docs", 900.0), ("e2e", None))
    ]
    assert took_s(["unit", "lint", "e2e"], reported) == 90.0
    assert took_s(["e2e"], reported) is None


def at(name, state, minute):
    """A word on this check, so long after the commit came."""
    return Check(name, state, reported_at=CAME + timedelta(minutes=minute))


@pytest.mark.parametrize(
    ("here", "newer", "minute"),
    [
        ([], [], None),
        ([], [("unit", P)], None),
        ([], [("unit", C)], None),
        ([], [("unit", S)], 5),
        ([], [("unit", F)], 5),
        ([], [("docs", S)], None),  # not required
        ([("docs", P)], [("unit", S)], 5),
        ([("lint", S)], [("unit", S)], 7),
        ([("lint", P)], [("unit", S)], None),
        ([("lint", F)], [("unit", S)], None),
        ([("unit", S)], [("unit", S)], None),
        ([("unit", C), ("lint", P)], [], 0),
    ],
)
def test_what_ci_said_of_a_newer_commit_and_not_of_this_one_is_not_to_come(here, newer, minute):
    """A minute later, counted from that word and from the last one here, as jobs follow each other; what goes on is waited for."""
    required = ("unit", "lint")
    of_newer = answered(required, [at(name, state, 5) for name, state in newer])
    from_s = silent_from_s(required, [at(name, state, 7) for name, state in here], CAME, of_newer)
    assert from_s == (inf if minute is None else 60.0 * minute + (UNHEARD_S if minute else 0.0))


def test_a_commit_has_its_minute_after_a_newer_one_that_was_pushed_later_was_red_at_once():
    """How fast a check has failed there says nothing of how long it takes here."""
    came_at = CAME - timedelta(minutes=9)
    of_newer = answered(["unit"], [at("unit", F, 0.5)])
    assert silent_from_s(["unit"], [], came_at, of_newer) == 60.0 * 9.5 + UNHEARD_S
