"""Shares of a fleet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.share import Share


@pytest.mark.parametrize(
    ("given", "total", "expected"),
    [
        ("1%", 100, 1),
        ("1%", 99, 0),
        ("1%", 300, 3),
        ("29%", 100, 29),
        ("0.5%", 200, 1),
        ("100%", 7, 7),
        (3, 100, 3),
        (0, 5, 0),
    ],
)
def test_a_share_is_rounded_down_exactly(given, total, expected):
    """A share of a fleet is exact and rounded down; a number is what it is."""
    assert Share.parse(given).of(total) == expected


@pytest.mark.parametrize(
    "given", ["1", "-1%", "101%", "1 %", "%", "1e1%", "", -1, True, 1.5, None, [1], "\u0661%"]
)
def test_what_is_no_share_is_refused(given):
    """Only a percentage from 0 to 100 or a number of hosts is a share."""
    with pytest.raises(ValueError):
        Share.parse(given)


@given(st.one_of(st.integers(0, 10**6), st.decimals(0, 100, places=3).map(lambda d: f"{d}%")))
def test_a_share_survives_being_written(text):
    """What `str` writes, `parse` reads back as the same share."""
    share = Share.parse(text)
    written = int(str(share)) if share.part is None else str(share)
    assert Share.parse(written) == share
