"""What the process tree is made of: one part is one program that has to run."""

from collections.abc import Callable
from dataclasses import dataclass


def nothing() -> None:
    """Nothing to prepare."""


def no_remedy(_last_words: str) -> str | None:
    """Nothing to heal."""
    return None


@dataclass(frozen=True, slots=True)
class Part:
    """A program of the tree. No secret may be in `command`: every user of the machine can read it."""

    name: str
    command: tuple[str, ...]
    prepare: Callable[[], None] = nothing  # before each start
    ready: Callable[[], bool] | None = None  # None: ready when started
    heal: Callable[[str], str | None] = no_remedy  # after a death, given its last words; says what it did
    first: bool = False  # the others start when it is ready, and end before it
