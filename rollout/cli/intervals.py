"""Intervals from a file: JSON lines, one for each host and bin of time. docs/judge.md has the format."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rollout.cli.failures import WrongUsage
from rollout.domain.verdict import Interval

ROLES = ("canary", "baseline")
SOURCES = ("log", "prometheus", "probe")
DT_S = 2.0
_CLASS = re.compile(r"[1-5](xx|[0-9][0-9])")


def read(lines: Iterable[str], name: str) -> Iterator[Interval]:
    """The intervals, in the order of the lines; empty lines are passed over. WrongUsage names the first line that is none."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _interval(json.loads(line))
        except (ValueError, RecursionError) as error:
            why = (
                "this is no JSON" if isinstance(error, (json.JSONDecodeError, RecursionError)) else str(error)
            )
            raise WrongUsage(
                f"{name}, line {number}: {why}", remedy="docs/judge.md has the format of a line"
            ) from error


def _interval(given: Any) -> Interval:
    """ValueError says which key, what was found and what was expected. Keys that are not known are passed over."""
    if not isinstance(given, dict):
        raise _wrong("an interval", given, "an object with t, dt, host, role, observed, counts")
    observed = given.get("observed", True)
    if not isinstance(observed, bool):
        raise _wrong("observed", observed, "true or false")
    dt = _number(given, "dt", DT_S)
    if dt <= 0:
        raise _wrong("dt", dt, "a number of seconds above 0")
    return Interval(
        t=_number(given, "t", None),
        dt=dt,
        host=_host(given),
        role=_one_of(given, "role", ROLES, None),
        observed=observed,
        counts=_counts(given.get("counts"), needed=observed),
        source=_one_of(given, "source", SOURCES, SOURCES[0]),
        flags=tuple(str(flag) for flag in given.get("flags") or ()),
    )


def _number(given: Mapping[str, Any], key: str, default: float | None) -> float:
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _wrong(key, value, "a number of seconds")
    return float(value)


def _host(given: Mapping[str, Any]) -> str:
    value = given.get("host")
    if not isinstance(value, str) or not value:
        raise _wrong("host", value, "a name")
    return value


def _one_of(given: Mapping[str, Any], key: str, known: tuple[str, ...], default: str | None) -> str:
    value = given.get(key, default)
    if value not in known:
        raise _wrong(key, value, " or ".join(f'"{name}"' for name in known))
    return str(value)


def _counts(given: Any, *, needed: bool) -> dict[str, int]:
    if given is None and not needed:
        return {}
    if not isinstance(given, dict):
        raise _wrong("counts", given, 'an object such as {"2xx": 1980, "5xx": 3}')
    return {_class(name): _count(name, count) for name, count in given.items()}


def _class(name: str) -> str:
    if not _CLASS.fullmatch(name):
        raise _wrong("counts", name, 'a class such as "2xx", or a status such as "404"')
    return name


def _count(name: str, count: Any) -> int:
    if (
        isinstance(count, bool)
        or not isinstance(count, int | float)
        or count < 0
        or count != math.floor(count)
    ):
        raise _wrong(f"counts.{name}", count, "a number of requests")
    return int(count)


def _wrong(key: str, found: object, expected: str) -> ValueError:
    told = "nothing" if found is None else repr(found)[:80]
    return ValueError(f"{key}: found {told}, expected {expected}")
