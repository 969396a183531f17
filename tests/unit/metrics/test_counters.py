"""From raw counters to what was added: resets, new labels, gaps."""

import math

import pytest

from rollout.metrics.counters import Series, increments, scrape_interval
from rollout.metrics.statuses import classified, counted_apart


def series(code, *values, instance="web1", begin=0.0, step=15.0):
    """A counter scraped every `step` seconds; None: it was not in that scrape."""
    samples = tuple(
        (begin + number * step, value) for number, value in enumerate(values) if value is not None
    )
    return Series(instance, f"{instance}/{code}", code, samples)


def added(*all_series, seen=None):
    return [
        (one.end, dict(one.counts), one.reset, one.restarted) for one in increments(all_series, seen or {})
    ]


def test_what_was_added_is_the_difference():
    """Between two scrapes, by code; the first scrape alone says nothing."""
    assert added(series("200", 100, 130, 130), series("500", 1, 1, 4)) == [
        (15.0, {"200": 30, "500": 0}, False, False),
        (30.0, {"200": 0, "500": 3}, False, False),
    ]
    assert added(series("200", 100)) == []


def test_counter_that_went_down_has_been_counted_anew():
    """What it shows is a lower bound of what was answered since: flagged, and never negative."""
    assert added(series("200", 100, 7)) == [(15.0, {"200": 7}, True, True)]


def test_code_that_appears_beside_others_began_at_zero():
    """The first 500 of a process is one error, not an unknown number; increase() would miss it."""
    assert added(series("200", 10, 20), series("500", None, 3)) == [
        (15.0, {"200": 10, "500": 3}, False, False)
    ]


def test_instance_that_appears_is_unknown_at_first():
    """Its counters may be a year old: only its second scrape tells."""
    other = series("200", None, 5000, 5002, instance="web1b")
    assert added(series("200", 1, 2, 3), other)[-1] == (30.0, {"200": 2}, False, False)
    assert len(added(series("200", 1, 2, 3), other)) == 3


def test_vanished_code_shows_a_restart_and_comes_back_from_zero():
    """A process that began anew has only the codes that it has answered with."""
    assert added(series("200", 10, 20, 21), series("500", 9, None, 12)) == [
        (15.0, {"200": 10}, False, True),
        (30.0, {"200": 1, "500": 12}, False, False),
    ]


def test_gap_has_the_counts_of_all_of_it():
    """A scrape that was missed loses nothing."""
    assert added(series("200", 1, None, 31)) == [(30.0, {"200": 30}, False, False)]


@pytest.mark.parametrize("strange", [math.nan, math.inf])
def test_scrape_that_is_no_number_is_no_scrape(strange):
    """NaN is not zero: the next scrape has it all."""
    assert added(series("200", 1, strange, 5), series("500", 0, 0, 2)) == [
        (30.0, {"200": 4, "500": 2}, False, False)
    ]


def test_what_was_counted_is_not_counted_again():
    """Each instance goes on from its own last scrape."""
    both = [series("200", 1, 2, 4), series("200", 1, 3, 9, instance="web1b", begin=5.0)]
    assert [one[:2] for one in added(*both, seen={"web1": 15.0, "web1b": 20.0})] == [
        (30.0, {"200": 2}),
        (35.0, {"200": 6}),
    ]


def test_scrape_interval_is_the_usual_distance():
    """In whole seconds; a missed scrape does not change it."""
    assert scrape_interval([series("200", 1, 2, None, 4, 5, step=15.002)]) == 15.0
    assert scrape_interval([series("200", 1, 2, step=0.2)]) == 1.0
    assert scrape_interval([series("200", 1)]) is None


def test_statuses_have_classes():
    """Codes and ready-made classes; 1xx are no answers, and what is no status is garbage."""
    codes = {"200": 1, "204": 2, "101": 9, "404": 3, "403": 4, "499": 5, "5xx": 6, "3XX": 7}
    assert classified(codes, counted_apart(["2xx", "404"])) == (
        {"2xx": 3, "3xx": 7, "4xx": 4, "404": 3, "499": 5, "5xx": 6},
        False,
    )
    assert classified({"<none>": 1, "600": 2, "200": 1}, ())[1]
    assert not classified({"<none>": 0}, ())[1]
