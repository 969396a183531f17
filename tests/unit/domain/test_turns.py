"""Whose tests come next: oldest first, but of too many the newest ones, and nobody waits for ever."""

from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.turns import TOO_MANY, Waiting, in_turn


def waiting(*positions):
    return [Waiting(number, position) for number, position in enumerate(positions)]


def order(positions, tried, runs=0, next_out=3):
    return [one.position for one in in_turn(waiting(*positions), tried, runs, next_out)]


def test_few_are_tested_in_the_order_in_which_they_ship():
    """While no more than TOO_MANY wait, the oldest comes first, whatever order they were received in."""
    assert order([5, 3, 4], 2) == [3, 4, 5]
    assert order(range(1, TOO_MANY + 1), None) == list(range(1, TOO_MANY + 1))


def test_of_too_many_the_head_comes_first_when_nothing_near_it_was_tried():
    """A branch that is red now says so after one suite, not after a hundred."""
    assert order(range(1, 21), None) == [20, 1, 2, 3, *range(19, 3, -1)]


def test_after_the_head_come_those_that_can_ship_and_then_the_newest():
    """With a result near the head, the oldest ones have their turn: a flood cannot hold them up."""
    assert order(range(1, 21), 21) == [1, 2, 3, *range(20, 3, -1)]


def test_when_what_can_ship_next_is_tested_the_newest_come_first():
    """One place is free after the other: what lies between waits, until what runs comes near it."""
    assert order(range(4, 24), 24) == list(range(23, 3, -1))
    assert order(range(4, 24), 24, runs=2) == [4, 5, *range(23, 5, -1)]
    assert order(range(4, 24), 13, runs=None) == list(range(23, 3, -1))


def test_as_many_can_ship_next_as_go_out_at_once():
    """With `queue.most = 5` the fifth one is waited for as the third is with 3."""
    assert order(range(1, 21), 21, next_out=5) == [1, 2, 3, 4, 5, *range(20, 5, -1)]
    assert order(range(1, 21), 21, next_out=1) == [1, *range(20, 1, -1)]


def test_a_commit_without_a_place_is_the_newest():
    """A webhook is faster than git: its commit is not taken for an old one."""
    assert order([None, 7], 6) == [7, None]


def test_heads_that_the_branch_may_not_have_do_not_keep_it_waiting():
    """However many have no place: the branch's own head comes before them, and what can ship next; the crowd does not."""
    unplaced = [None] * 60
    assert order([*unplaced, 1], None) == [1, *unplaced]
    assert order([*unplaced, *range(1, 21)], None) == [20, 1, 2, 3, *unplaced, *range(19, 3, -1)]
    assert order([*unplaced, *range(1, 21)], 21) == [1, 2, 3, *unplaced, *range(20, 3, -1)]


@given(st.sets(st.integers(1, 400)), st.none() | st.integers(1, 400), st.integers(0, 400))
def test_everybody_has_a_turn_and_what_can_ship_next_has_it_soon(positions, tried, runs):
    """Nobody is left out or named twice, and what lies next above what runs is first or second."""
    turns = order(positions, tried, runs)
    assert sorted(turns) == sorted(positions)
    assert runs + 1 not in positions or min(positions) <= runs or runs + 1 in turns[:2]
