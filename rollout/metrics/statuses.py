"""Statuses and their classes, as judges count them."""

import re
from collections.abc import Iterable, Mapping

CLASSES = ("2xx", "3xx", "4xx", "499", "5xx")
_STATUS, _CLASS = re.compile(r"[1-5][0-9][0-9]"), re.compile(r"[1-5][xX][xX]")


def counted_apart(good: Iterable[str]) -> tuple[str, ...]:
    """The statuses that are counted by themselves: 499, and those that `good` names one by one."""
    return tuple(sorted({"499", *(name for name in good if name.isdigit())}))


def classified(codes: Mapping[str, int], apart: Iterable[str]) -> tuple[dict[str, int], bool]:
    """Requests by class, every class and status of `apart` named, and whether there were codes that are none.

    1xx are no answers.
    """
    counts = dict.fromkeys((*CLASSES, *apart), 0)
    garbage = False
    for code, count in codes.items():
        if not (_STATUS.fullmatch(code) or _CLASS.fullmatch(code)):
            garbage = garbage or count > 0
        elif code[0] != "1":
            name = code if code in counts else f"{code[0]}xx"
            counts[name] += count
    return counts, garbage
