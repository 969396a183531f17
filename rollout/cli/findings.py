"""One thing that `rollout check` has found: fine, a warning, or a problem with its remedy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rollout.cli import output
from rollout.cli.failures import FAILED, exit_code
from rollout.errors import RolloutError


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and what to do about it."""

    what: str
    message: str
    remedy: str = ""
    level: str = "ok"  # ok, warning, problem
    error: str | None = None  # class of the error, for a problem
    code: int = 0  # the exit code that it asks for

    @property
    def ok(self) -> bool:
        """Nothing to do."""
        return self.level == "ok"

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "what": self.what,
            "level": self.level,
            "message": self.message,
            "remedy": self.remedy,
            "error": self.error,
        }

    def say(self) -> None:
        """For people: what was found, and under it what to do."""
        first, *more = output.clean(self.message, lines=True).splitlines() or [""]
        output.say(f"{output.state(self.level, 7)}  {output.clean(self.what)}: {first}")
        for line in more:
            output.say(f"         {line}")
        for line in output.clean(self.remedy, lines=True).splitlines():
            output.say(f"         now: {line}")


def fine(what: str, message: str) -> Finding:
    """As it should be."""
    return Finding(what, message)


def warning(what: str, message: str, remedy: str) -> Finding:
    """Works, and should not stay so."""
    return Finding(what, message, remedy, level="warning")


def problem(what: str, message: str, remedy: str, *, error: str = "HostError", code: int = FAILED) -> Finding:
    """Must be mended first."""
    return Finding(what, message, remedy, level="problem", error=error, code=code)


def of_error(what: str, error: RolloutError) -> Finding:
    """What one of our errors says."""
    return problem(what, str(error), error.remedy, error=type(error).__name__, code=exit_code(error))


def grouped(found: Sequence[Finding]) -> list[list[Finding]]:
    """Those with the same error and the same remedy together: a fleet that is down is told once."""
    groups: dict[object, list[Finding]] = {}
    for one in found:
        alike = (one.error, one.remedy) if one.error and one.remedy else one
        groups.setdefault(alike, []).append(one)
    return list(groups.values())
