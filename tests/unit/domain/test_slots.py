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
    assert share(slots, apps, taken, configured=apps) == most


@pytest.mark.parametrize(
    ("slots", "apps", "taken", "most"),
    [(40, 2, 0, 32), (40, 2, 32, 16), (40, 8, 100, 4), (2, 5, 50, 1)],
)
def test_an_equal_part_is_smaller_while_an_app_may_come(slots, apps, taken, most):
    """Apps that are configured, and have nothing to do now, have a fifth of the slots between them."""
    assert share(slots, apps, taken, configured=apps + 1) == most


def settled(slots, apps, configured, chance):
    """What each has under way when all are done with what they had too much of, whoever came first and however often each was asked."""
    taken = [0] * apps
    for number in [*chance.choices(range(apps), k=20), *range(apps), *range(apps)]:
        taken[number] = share(slots, apps, sum(taken) - taken[number], configured=configured)
    return taken


@given(st.integers(1, 200), st.integers(2, 9), st.randoms(use_true_random=False))
def test_apps_that_take_what_they_may_leave_each_other_their_part(slots, apps, chance):
    """When every app is at work each has its equal part of the slots, and all fit."""
    taken = settled(slots, apps, apps, chance)
    assert min(taken) >= max(1, slots // apps)
    assert sum(taken) <= max(slots, apps)


@given(st.integers(1, 200), st.integers(2, 9), st.integers(1, 50), st.randoms(use_true_random=False))
def test_apps_that_take_what_they_may_leave_a_place_for_one_that_comes(slots, apps, idle, chance):
    """While an app has nothing to do those at work leave a fifth of the slots, and none of them is left without."""
    taken = settled(slots, apps, apps + idle, chance)
    assert min(taken) >= max(1, slots * 4 // 5 // apps)
    assert sum(taken) <= max(slots * 4 // 5, apps)
