"""Whose tests come next, when more commits of an app wait than may be tested at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

TOO_MANY = 10  # that wait: from then on the newest ones come first
NEXT_OUT = 3  # the oldest that wait: what can be shipped next


@dataclass(frozen=True, slots=True)
class Waiting:
    """A commit that waits for its tests."""

    id: int
    position: int | None  # on the branch; None while nobody has placed it there: then it is newer than all


def in_turn(waiting: Sequence[Waiting], tried: int | None) -> list[Waiting]:
    """All of `waiting`, whose tests come first in front. `tried`: the highest position that was or is in test.

    Oldest first, as they are shipped, while few wait. Of many the head comes first if none of the TOO_MANY newest was
    tried, so that a branch that is red now says so; then what can be shipped next; then the rest, newest first. However
    fast commits come, the oldest ones have their turn.
    """
    old_to_new = sorted(waiting, key=_age)
    if len(old_to_new) <= TOO_MANY:
        return old_to_new
    head = old_to_new[-1]
    next_out, rest = old_to_new[:NEXT_OUT], old_to_new[: NEXT_OUT - 1 : -1]
    if head.position is not None and (tried is None or head.position - tried >= TOO_MANY):
        return [head, *next_out, *rest[1:]]
    return [*next_out, *rest]


def _age(one: Waiting) -> tuple[bool, int, int]:
    return one.position is None, one.position or 0, one.id
