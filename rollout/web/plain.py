"""Text from elsewhere (commits, hosts, tests) made harmless to show: no character that a terminal or a page acts on."""

import unicodedata
from collections.abc import Mapping
from typing import Any

KEPT = frozenset("\n\t")
# Cc: control, ANSI's escape among them. Cf: invisible, those that turn the direction of writing among them.
# Cs: half a character, which cannot be encoded. Zl, Zp: line ends that not everybody knows.
ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def plain(text: str) -> str:
    """The text without what acts instead of being seen; line ends and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(one for one in text if one in KEPT or unicodedata.category(one) not in ACTING)


def cleaned(value: Any) -> Any:
    """The same JSON value with every text in it, keys too, made plain."""
    match value:
        case str():
            return plain(value)
        case Mapping():
            return {plain(str(key)): cleaned(one) for key, one in value.items()}
        case list() | tuple():
            return [cleaned(one) for one in value]
        case _:
            return value
