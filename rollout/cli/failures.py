"""What a failure is to the shell: one table from error class to exit code, and how it is told.

0 done as asked · 1 it failed, halted or was rolled back · 2 usage or configuration · 3 not found
· 4 conflicts with the present state · 5 a needed service is unreachable.
"""

import os
import re
import sys
import traceback
from collections.abc import Mapping
from typing import ClassVar

from rollout.cli import output
from rollout.errors import ConfigError, Conflict, NotFound, RolloutError, ServiceUnavailable

OK, FAILED, USAGE = 0, 1, 2
EXIT_CODES: Mapping[type[RolloutError], int] = {
    RolloutError: FAILED,
    ConfigError: USAGE,
    NotFound: 3,
    Conflict: 4,
    ServiceUnavailable: 5,
}
MORE = "ROLLOUT_LOG_LEVEL"  # debug: tracebacks too
_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s@/]+@")


class WrongUsage(RolloutError):
    """The command was not given what it needs."""


class TimedOut(RolloutError):
    """It did not end in the time that `--timeout` gave."""

    retryable: ClassVar[bool] = True


def exit_code(error: RolloutError) -> int:
    """The exit code of the nearest class that is in the table."""
    if isinstance(error, WrongUsage):
        return USAGE
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def tell(error: RolloutError, *, as_json: bool) -> int:
    """Say what, where and what now; the exit code."""
    _tell(type(error).__name__, str(error), error.remedy, as_json=as_json)
    return exit_code(error)


def tell_usage(message: str, remedy: str, *, as_json: bool) -> int:
    """As `tell`, for words on the command line that make no sense."""
    _tell("UsageError", message, remedy, as_json=as_json)
    return USAGE


def tell_unexpected(error: Exception, *, as_json: bool) -> int:
    """A mistake of ours: short, and how to see more."""
    if os.environ.get(MORE, "").lower() == "debug":
        traceback.print_exception(error, file=sys.stderr)
    lines = str(error).strip().splitlines()
    first = _PASSWORD.sub(r"\1***@", lines[0]) if lines else "no details"
    _tell(
        type(error).__name__,
        f"unexpected: {type(error).__name__}: {first}",
        f"this is a bug; repeat with {MORE}=debug to see where, and report it",
        as_json=as_json,
    )
    return FAILED


def _tell(kind: str, message: str, remedy: str, *, as_json: bool) -> None:
    if as_json:
        output.document({"error": kind, "message": message, "remedy": remedy})
        return
    first, *more = output.clean(message, lines=True).splitlines() or [kind]
    output.warn(f"{output.paint('rollout:', 'red', sys.stderr)} {first}")
    for line in more:
        output.warn(f"  {line}")
    for number, line in enumerate(output.clean(remedy, lines=True).splitlines()):
        output.warn(f"{'    now: ' if number == 0 else '         '}{line}")
