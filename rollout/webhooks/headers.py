"""A request's headers, where one that is there twice is no answer to which one is meant."""

from collections.abc import Iterable, Mapping

from rollout.errors import Unreadable

GivenHeaders = Mapping[str, str] | Iterable[tuple[str, str]]
"""Pairs, or a mapping whose `items()` gives every pair (Starlette's does, doubled ones too)."""


class Doubled(Unreadable):
    """A header that may be there once is there several times."""


def values(headers: GivenHeaders, name: str) -> list[str]:
    """Every value of the header, in order."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [value.strip() for key, value in pairs if key.lower() == name]


def one(headers: GivenHeaders, name: str) -> str:
    """The header's value, "" when it is not there; Doubled."""
    found = values(headers, name)
    if len(found) > 1:
        raise Doubled(f"the header {name} is there {len(found)} times")
    return found[0] if found else ""
