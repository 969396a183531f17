"""When to try again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.retry import backoff_s, may_retry
from tests.support.walks import WALK


@pytest.mark.parametrize(
    ("attempt", "retries", "retryable", "expected"),
    [
        (1, 1, True, True),
        (2, 1, True, False),
        (1, 0, True, False),
        (3, 3, True, True),
        (4, 3, True, False),
        (1, 5, False, False),
    ],
)
def test_retries_are_counted_from_the_first_attempt(attempt, retries, retryable, expected):
    """A host gets `retries` more attempts after its first, and none for what is not worth trying again."""
    assert may_retry(attempt, retries, retryable) is expected


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(0, 0.0), (1, 2.0), (2, 4.0), (3, 8.0), (5, 32.0), (6, 60.0), (7, 60.0), (10_000, 60.0)],
)
def test_the_wait_doubles_up_to_its_limit(failures, seconds):
    """2, 4, 8 … 60 seconds, however often it failed; none before the first failure."""
    assert backoff_s(failures) == seconds


def test_first_and_most_can_be_given():
    """Both ends of the back-off are the caller's."""
    assert [backoff_s(n, first=0.5, most=3.0) for n in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 3.0]


@WALK
@given(st.integers(0, 10**9))
def test_the_wait_never_shrinks_with_more_failures(failures):
    """One more failure waits as long or longer, and never beyond the limit."""
    assert backoff_s(failures) <= backoff_s(failures + 1) <= 60.0
