"""Ranges in names, as Ansible writes them: `web[001:100].example.com`, `db-[a:c]`, `rack[1:9:2]`."""

import itertools
import re
import string
from collections.abc import Iterator

RANGE = re.compile(r"\[([^\[\]]*)\]")
MOST = 10_000  # hosts that one pattern may stand for
EXPECTED = 'a name, with ranges such as "web[001:100]" or "db-[a:c]"'


def expand(pattern: str) -> Iterator[str]:
    """Every name that the pattern stands for, in order; ValueError says what was expected."""
    count(pattern)
    texts, ranges = _parts(pattern)
    for values in itertools.product(*ranges):
        yield "".join(itertools.chain.from_iterable(itertools.zip_longest(texts, values, fillvalue="")))


def count(pattern: str) -> int:
    """How many names the pattern stands for; ValueError when there are too many or it is no pattern."""
    texts, ranges = _parts(pattern)
    if not pattern or any("[" in text or "]" in text for text in texts):
        raise ValueError(EXPECTED)
    total = 1
    for values in ranges:
        total *= len(values)
    if total > MOST:
        raise ValueError(f"at most {MOST} hosts in one pattern")
    return total


def _parts(pattern: str) -> tuple[list[str], list[list[str]]]:
    pieces = RANGE.split(pattern)
    return pieces[::2], [_values(inside) for inside in pieces[1::2]]


def _values(inside: str) -> list[str]:
    first, *rest = inside.split(":")
    if not 1 <= len(rest) <= 2 or not rest[0]:
        raise ValueError(EXPECTED)
    last, step = rest[0], rest[1] if len(rest) == 2 else "1"
    if not re.fullmatch(r"[1-9][0-9]{0,8}", step):
        raise ValueError(EXPECTED)
    if re.fullmatch(r"[0-9]{0,9}", first) and re.fullmatch(r"[0-9]{1,9}", last):
        return _numbers(first or "0", last, int(step))
    letters = string.ascii_letters
    if len(first) == len(last) == 1 and first in letters and last in letters:
        chosen = letters[letters.index(first) : letters.index(last) + 1 : int(step)]
        if chosen:
            return list(chosen)
    raise ValueError(EXPECTED)


def _numbers(first: str, last: str, step: int) -> list[str]:
    width = len(first) if len(first) > 1 and first.startswith("0") else 0
    if width and len(last) != width:
        raise ValueError("the two ends of a range with leading zeros in the same width")
    numbers = range(int(first), int(last) + 1, step)
    if not numbers:
        raise ValueError("a range that goes up")
    if len(numbers) > MOST:
        raise ValueError(f"at most {MOST} hosts in one pattern")
    return [str(number).zfill(width) for number in numbers]
