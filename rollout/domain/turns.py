"""Whose tests come next, when more commits of an app wait than may be tested at a time."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

TOO_MANY = 10  # that wait: from then on the newest ones come first


@dataclass(frozen=True, slots=True)
class Waiting:
    """A commit that waits for its tests."""

    id: int
    position: int | None  # on the branch; None while nobody has placed it there, or when it has left it


def in_turn(waiting: Sequence[Waiting], tried: int | None, runs: int | None, next_out: int) -> list[Waiting]:
    """All of `waiting`, whose tests come first in front.

    `tried`: the highest position that was or is in test; `runs`: that of what is on its way to the fleet, or on it;
    `next_out`: so many above that can be shipped next, as many as go out at once (`queue.most`).

    Oldest first, as they are shipped, while few wait. Of many the head comes first if none of the TOO_MANY newest was
    tried, so that a branch that is red now says so; then what can be shipped next, however fast commits come; then the
    rest, newest first. One that nobody has placed is newer than all, and comes before that rest: it takes a moment, for git
    is not asked for it again and again. It does not keep the branch waiting, which may not have it at all.
    """
    line = sorted((one for one in waiting if one.position is not None), key=_position)
    elsewhere = sorted((one for one in waiting if one.position is None), key=lambda one: one.id)
    if len(line) <= TOO_MANY:
        return [*line, *elsewhere]
    head = line[-1:] if tried is None or _position(line[-1]) - tried >= TOO_MANY else []
    others = line[: len(line) - len(head)]
    ready = bisect_right(others, (runs or 0) + next_out, key=_position)
    return [*head, *others[:ready], *elsewhere, *reversed(others[ready:])]


def _position(one: Waiting) -> int:
    return one.position or 0
