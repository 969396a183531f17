"""Intervals from a file: JSON lines, one for each host and bin of time. docs/judge.md has the format."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rollout.cli.failures import WrongUsage
from rollout.domain.verdict import Interval

ROLES = ("canary", "baseline")
SOURCES = ("log", "prometheus", "probe")
DT_S = 2.0
# What no measurement is beyond; the judge's arithmetic is never asked about more.
MOST_T_S = 100_000_000  # three years, before readiness and after it
LEAST_DT_S, MOST_DT_S = 0.001, 86_400
MOST_REQUESTS = 1_000_000_000_000  # of a class in a bin
CLASS = re.compile(r"[1-5](xx|[0-9][0-9])")


def read(lines: Iterable[str], name: str) -> Iterator[Interval]:
    """The intervals, in the order of the lines; empty lines are passed over. WrongUsage names the first line that is none."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _interval(json.loads(line, parse_int=_whole))
        except (ValueError, RecursionError) as error:
            why = str(error) if isinstance(error, _Unfit) else "this is no JSON"
            raise WrongUsage(
                f"{name}, line {number}: {why}", remedy="docs/judge.md has the format of a line"
            ) from error


class _Unfit(ValueError):
    """JSON, but no interval."""


def _interval(given: Any) -> Interval:
    """_Unfit says which key, what was found and what was expected. Keys that are not known are passed over."""
    if not isinstance(given, dict):
        raise _wrong("an interval", given, "an object with t, dt, host, role, observed, counts")
    observed = given.get("observed", True)
    if not isinstance(observed, bool):
        raise _wrong("observed", observed, "true or false")
    return Interval(
        t=_number(given, "t", None, -MOST_T_S, MOST_T_S),
        dt=_number(given, "dt", DT_S, LEAST_DT_S, MOST_DT_S),
        host=_host(given),
        role=_one_of(given, "role", ROLES, None),
        observed=observed,
        counts=_counts(given.get("counts"), needed=observed),
        source=_one_of(given, "source", SOURCES, SOURCES[0]),
        flags=_flags(given.get("flags")),
    )


def _whole(digits: str) -> int | float:
    """Numbers of thousands of digits are read too, so that the line says what is wrong with them."""
    return int(digits) if len(digits) < 400 else float(digits)


def _number(given: Mapping[str, Any], key: str, default: float | None, least: float, most: float) -> float:
    value = given.get(key, default)
    if not _is_number(value) or not least <= value <= most:
        raise _wrong(key, value, f"a number of seconds from {least:,} to {most:,}")
    return float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _host(given: Mapping[str, Any]) -> str:
    value = given.get("host")
    if not isinstance(value, str) or not value or not value.isprintable():
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
    counts = {_class(name): _count(name, count) for name, count in given.items()}
    return {name: count for name, count in counts.items() if name[0] != "1"}  # no answers, as in every source


def _class(name: str) -> str:
    if not CLASS.fullmatch(name):
        raise _wrong("counts", name, 'a class such as "2xx", or a status such as "404"')
    return name


def _count(name: str, count: Any) -> int:
    if not _is_number(count) or not 0 <= count <= MOST_REQUESTS or count != int(count):
        raise _wrong(f"counts.{name}", count, f"a number of requests, {MOST_REQUESTS:,} at most")
    return int(count)


def _flags(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(flag, str) for flag in given):
        raise _wrong("flags", given, 'a list such as ["late"]')
    return tuple(given)


def _wrong(key: str, found: object, expected: str) -> _Unfit:
    told = "nothing" if found is None else repr(found)[:80]
    return _Unfit(f"{key}: found {told}, expected {expected}")
