"""Whose tests come next, when more commits of an app wait than may be tested at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

TOO_MANY = 10  # that wait: from then on the newest ones come first


@dataclass(frozen=True, slots=True)
class Waiting:
    """A commit that waits for its tests."""

    id: int
    position: int | None  # on the branch; None while nobody has placed it there: then it is newer than all


def in_turn(waiting: Sequence[Waiting], tried: int | None, runs: int | None, next_out: int) -> list[Waiting]:
    """All of `waiting`, whose tests come first in front.

    `tried`: the highest position that was or is in test; `runs`: that of what is on its way to the fleet, or on it;
    `next_out`: so many above that can be shipped next, as many as go out at once (`queue.most`).

    Oldest first, as they are shipped, while few wait. Of many the head comes first if none of the TOO_MANY newest was
    tried, so that a branch that is red now says so; then what can be shipped next, however fast commits come; then the
    rest, newest first.
    """
    old_to_new = sorted(waiting, key=_age)
    if len(old_to_new) <= TOO_MANY:
        return old_to_new
    head, limit = old_to_new[-1], (runs or 0) + next_out
    first = [one for one in old_to_new if one.position is not None and one.position <= limit]
    turns = [*first, *reversed(old_to_new[len(first) :])]
    if head.position is not None and (tried is None or head.position - tried >= TOO_MANY):
        return [head, *(one for one in turns if one is not head)]
    return turns


def _age(one: Waiting) -> tuple[bool, int, int]:
    return one.position is None, one.position or 0, one.id
