"""May another host start, and how many can be hurt at most."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.budget import (
    Counters,
    Limits,
    Mode,
    allowed,
    may_start,
    must_halt,
    room,
    window_after_done,
    window_after_failure,
    worst_case,
    worst_case_after,
)
from tests.support.walks import WALK


def counters(*, done=0, failed=0, unreadable=0, unknown=0, in_flight=0, window=1):
    """A rollout in which nothing has happened yet, but for what is given."""
    return Counters(done, failed, unreadable, unknown, in_flight, window)


def limits(k=1, concurrency=10, mode=Mode.RAMP):
    """Limits of a fleet of a hundred hosts, but for what is given."""
    return Limits(k, concurrency, mode)


LIMITS = st.builds(Limits, st.integers(0, 20), st.integers(1, 30), st.sampled_from(Mode))
COUNTERS = st.builds(
    lambda done, failed, unreadable, more, in_flight, window: Counters(
        done, failed, unreadable, unreadable + more, in_flight, window
    ),
    *([st.integers(0, 15)] * 5),
    st.integers(1, 30),
)


@pytest.mark.parametrize(
    ("now", "policy", "free"),
    [
        (counters(), limits(k=0), 1),
        (counters(), limits(k=1), 2),
        (counters(in_flight=1), limits(k=1), 1),
        (counters(in_flight=2), limits(k=1), 0),
        (counters(failed=1), limits(k=1), 1),
        (counters(failed=1, in_flight=1), limits(k=1), 0),
        (counters(unknown=1), limits(k=1), 1),
        (counters(unknown=2), limits(k=1), 0),
        (counters(unknown=1, unreadable=1), limits(k=1), 1),
        (counters(window=5), limits(k=1), 6),
        (counters(window=5, in_flight=2), limits(k=1), 4),
        (counters(window=10), limits(k=1), 10),
        (counters(window=10, in_flight=9), limits(k=1), 1),
        (counters(window=10, in_flight=10), limits(k=1), 0),
        (counters(window=10, unknown=5), limits(k=1), 5),
        (counters(window=10, unknown=5, unreadable=1), limits(k=1), 6),
        (counters(window=10, unknown=3, in_flight=7), limits(k=9), 0),
        (counters(), limits(k=50), 10),
        (counters(done=90, window=4, in_flight=9), limits(k=1), 0),
    ],
)
def test_room_is_what_tokens_and_slots_leave(now, policy, free):
    """As many hosts may start as keep failed + unknown + in flight within K + window, and in flight within the slots."""
    assert room(now, policy) == free
    assert may_start(now, policy) is (free > 0)


def test_allowed_is_k_and_the_window():
    """K hosts may fail, and the window is what may be found out beyond."""
    assert allowed(counters(window=4), limits(k=3)) == 7


@pytest.mark.parametrize(
    ("failed", "unreadable", "halts"),
    [(0, 0, False), (1, 0, False), (0, 1, False), (1, 1, True), (2, 0, True)],
)
def test_more_than_k_failed_or_unreadable_hosts_halt(failed, unreadable, halts):
    """K itself is still within the budget; one more is not."""
    assert must_halt(counters(failed=failed, unreadable=unreadable, unknown=unreadable), limits(k=1)) is halts


def test_unknown_hosts_alone_do_not_halt():
    """A host whose worker went silent is read before it counts."""
    assert not must_halt(counters(unknown=10), limits(k=0))


def test_a_wide_window_starts_nothing_once_it_must_halt():
    """Between the outcome that exceeds K and the halt itself, no host slips through a wide window."""
    now = counters(done=50, failed=2, window=10)
    assert must_halt(now, limits(k=1))
    assert not may_start(now, limits(k=1))


@WALK
@given(COUNTERS, LIMITS)
def test_nothing_starts_once_it_must_halt(now, policy):
    """Whatever the counters say."""
    assert not (must_halt(now, policy) and may_start(now, policy))


@WALK
@given(COUNTERS, LIMITS)
def test_using_up_the_room_stays_within_what_is_allowed(now, policy):
    """After `room` more hosts started there is no room, and neither bound is exceeded."""
    free = room(now, policy)
    after = Counters(now.done, now.failed, now.unreadable, now.unknown, now.in_flight + free, now.window)
    assert room(after, policy) == 0
    if free:
        assert after.failed + after.unknown + after.in_flight <= allowed(after, policy)
        assert after.in_flight <= policy.concurrency


@WALK
@given(COUNTERS, LIMITS)
def test_within_the_budget_and_with_every_outcome_known_something_can_start(now, policy):
    """A rollout that need not halt is never stuck: without hosts in flight or waiting to be read there is room."""
    settled = Counters(now.done, now.failed, now.unreadable, now.unreadable, 0, now.window)
    assert must_halt(settled, policy) or may_start(settled, policy)


@pytest.mark.parametrize(
    ("window", "done", "failed"), [(1, 2, 1), (2, 3, 1), (3, 4, 1), (4, 5, 2), (9, 10, 4), (10, 10, 5)]
)
def test_the_ramp_grows_by_one_and_is_halved(window, done, failed):
    """Up to the concurrency, and down to one."""
    assert window_after_done(window, limits()) == done
    assert window_after_failure(window, limits()) == failed


def test_strict_keeps_the_window_at_one():
    """In strict mode no success earns a wider window."""
    policy = limits(mode=Mode.STRICT)
    assert window_after_done(1, policy) == window_after_failure(1, policy) == 1


@pytest.mark.parametrize(
    ("policy", "total", "hurt"),
    [
        (limits(k=1), 100, 11),
        (limits(k=0), 12, 10),
        (limits(k=1, mode=Mode.STRICT), 100, 2),
        (limits(k=0, mode=Mode.STRICT), 12, 1),
        (limits(k=1), 5, 5),
        (limits(k=5, mode=Mode.STRICT), 5, 5),
        (limits(k=10, concurrency=100), 1000, 110),
    ],
)
def test_the_worst_case_of_a_plan(policy, total, hurt):
    """Strict K + 1, ramp K + concurrency, and never more than there are."""
    assert worst_case(policy, total) == hurt


@pytest.mark.parametrize(
    ("successes", "hurt"), [(0, 2), (1, 3), (5, 7), (9, 11), (10, 11), (50, 11), (95, 5), (100, 0)]
)
def test_the_worst_case_after_successes(successes, hurt):
    """K + 1 when broken from the first host on, one more with each success, K + concurrency at most."""
    assert worst_case_after(limits(), successes, 100) == hurt


def test_the_strict_worst_case_does_not_grow():
    """Strict hurts K + 1 hosts, whenever the release begins to fail."""
    assert {worst_case_after(limits(mode=Mode.STRICT), done, 100) for done in range(99)} == {2}


@WALK
@given(LIMITS, st.integers(0, 200), st.integers(0, 200))
def test_the_worst_case_covers_every_number_of_successes(policy, successes, total):
    """What the plan prints is never exceeded later, and broken from the first host on means K + 1."""
    assert 0 <= worst_case_after(policy, successes, total) <= worst_case(policy, total) <= total
    assert worst_case_after(policy, 0, total) == min(total, policy.max_failed + 1)
