"""The kinds of values in rollout.toml, as annotated types. A ValueError's text is what was expected."""

import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, NewType

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, StrictInt, StrictStr, ValidationInfo

from rollout.config import addresses, branches, durations
from rollout.domain.checks import NAME
from rollout.domain.share import Share, percent_text

LATER = "later"
"""Starts the text of a ValueError about a value that the contract names and nobody has built; a hint may follow."""

Seconds = NewType("Seconds", float)
HOST_NAME = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._:-]{0,252}")
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}")
FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def base_of(info: ValidationInfo) -> Path | None:
    """The folder of rollout.toml while it is being read; None for a stored policy, whose paths are absolute."""
    return (info.context or {}).get("base")


def _share(given: object) -> Share:
    return given if isinstance(given, Share) else Share.parse(given)


def _some(share: Share) -> Share:
    if not (share.part or share.count):
        raise ValueError("more than nothing")
    return share


def _duration(given: object) -> float:
    return given if type(given) is float else durations.parse(given)


def _percent(given: object) -> float:
    if type(given) is float and 0 <= given <= 1:
        return given
    try:
        share = Share.parse(given)
    except ValueError:
        share = Share(count=0)
    if share.part is None:
        raise ValueError('a percentage such as "95%"')
    return float(share.part)


def _percent_text(part: float) -> str:
    return f"{percent_text(Fraction(Decimal(repr(part))))}%"


def _share_plain(share: Share) -> str | int:
    return str(share) if share.count is None else share.count


def _path(given: object, info: ValidationInfo) -> Path:
    if not isinstance(given, str | Path) or not str(given) or "\x00" in str(given):
        raise ValueError("a path")
    return addresses.absolute(Path(given), base_of(info))


def _optional_path(given: object, info: ValidationInfo) -> Path | None:
    return None if given in ("", None) else _path(given, info)


def _repository(given: str, info: ValidationInfo) -> str:
    return addresses.repository(given, base_of(info))


def _command(given: str) -> str:
    if FORBIDDEN.search(given):
        raise ValueError("a command without control characters")
    return given.strip()


def within(least: float, most: float, expected: str) -> Callable[[Any], Any]:
    """A check that a value is neither below `least` nor above `most`."""

    def check(value: float) -> float:
        if not least <= value <= most:
            raise ValueError(expected)
        return value

    return check


def at_least(least: float, expected: str) -> Callable[[Any], Any]:
    """A check that a value is not below `least`."""

    def check(value: float) -> float:
        if value < least:
            raise ValueError(expected)
        return value

    return check


def above_zero(value: float) -> float:
    """The duration itself; ValueError for no time at all."""
    if value <= 0:
        raise ValueError("a duration longer than 0s")
    return value


def matching(pattern: str, expected: str) -> Callable[[str], str]:
    """A check that a text has the form of `pattern`."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(expected)
        return value

    return check


def port(value: int) -> int:
    """The port itself, when it is one."""
    if not 1 <= value <= 65535:
        raise ValueError("a port from 1 to 65535")
    return value


Duration = Annotated[
    float, BeforeValidator(_duration), PlainSerializer(durations.text, return_type=str, when_used="json")
]
SomeTime = Annotated[Duration, AfterValidator(above_zero)]
Percent = Annotated[
    float, BeforeValidator(_percent), PlainSerializer(_percent_text, return_type=str, when_used="json")
]
AnyShare = Annotated[
    Share, BeforeValidator(_share), PlainSerializer(_share_plain, return_type=str | int, when_used="json")
]
SomeShare = Annotated[AnyShare, AfterValidator(_some)]
FilePath = Annotated[Path, BeforeValidator(_path)]
OptionalFilePath = Annotated[Path | None, BeforeValidator(_optional_path)]
Repository = Annotated[StrictStr, AfterValidator(_repository)]
Branch = Annotated[StrictStr, AfterValidator(branches.branch)]
Command = Annotated[StrictStr, AfterValidator(_command)]
CheckName = Annotated[StrictStr, AfterValidator(matching(NAME.pattern, "the name of a check"))]
Port = Annotated[StrictInt, AfterValidator(port)]
User = Annotated[
    StrictStr, AfterValidator(matching(USER.pattern, "a user name of letters, digits and . _ @ -"))
]
