"""The slots of a hosts worker are shared among apps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.slots import share


@pytest.mark.parametrize(
    ("slots", "apps", "taken", "most"),
    [
        (40, 2, 0, 32),  # the other one bakes: all but a fifth
        (40, 2, 10, 22),
        (40, 2, 32, 20),  # half of them, whatever the other has
        (40, 2, 200, 20),
        (40, 8, 0, 32),
        (40, 8, 100, 5),
        (2, 5, 50, 1),  # and never none
    ],
)
def test_each_app_has_an_equal_part_and_what_the_others_leave(slots, apps, taken, most):
    """All but a fifth while the others have nothing under way, an equal part when they take what they can."""
    assert share(slots, apps, taken) == most


@given(st.integers(1, 200), st.integers(2, 9), st.randoms(use_true_random=False))
def test_apps_that_take_what_they_may_leave_each_other_their_part(slots, apps, chance):
    """Whoever comes first, and however often each is asked: when all are done with what they had too much of, all fit."""
    taken = [0] * apps
    for number in [*chance.choices(range(apps), k=20), *range(apps), *range(apps)]:
        taken[number] = share(slots, apps, sum(taken) - taken[number])
    assert min(taken) >= max(1, slots // apps)
    assert sum(taken) <= max(slots, apps)
