"""Printing: calm, aligned, coloured only on a terminal. Whatever others wrote is cleaned before it is shown."""

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rollout.config.deploy_file import AppConfig
    from rollout.services.explaining import Why

COLOURS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}
STATES = {
    "done": "green",
    "passed": "green",
    "ok": "green",
    "failed": "red",
    "halted": "red",
    "error": "red",
    "barred": "red",
    "problem": "red",
    "rollback_failed": "red",
    "drift": "red",
    "unknown": "yellow",
    "warning": "yellow",
    "stopping": "yellow",
    "rolling_back": "yellow",
    "rolled_back": "yellow",
    "stopped": "yellow",
    "excluded": "dim",
    "not in the fleet": "dim",
}
# Escape sequences of terminals; then every other control character, and those that turn the direction of writing.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]", re.DOTALL)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_LINE_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def clean(text: str, *, lines: bool = False) -> str:
    """`text` without anything that moves a cursor, changes a colour or hides something; one line unless `lines`."""
    plain = _ESCAPES.sub("", text)
    if lines:
        return _LINE_CONTROLS.sub("", plain.replace("\r\n", "\n").replace("\r", "\n"))
    return _CONTROLS.sub(" ", plain).strip()


def document(shape: Any) -> None:
    """The one JSON document on standard output."""
    sys.stdout.write(json.dumps(shape, indent=2 if sys.stdout.isatty() else None) + "\n")
    sys.stdout.flush()


def say(text: str = "") -> None:
    """A line for the person; it is shown as it is, so foreign parts of it are to be cleaned before."""
    sys.stdout.write(_writable(text, sys.stdout) + "\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(_writable(text, sys.stderr) + "\n")
    sys.stderr.flush()


def _writable(text: str, stream: TextIO) -> str:
    """`text` with ? for what the terminal's encoding does not have: a commit's subject must not end a command."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def arrow() -> str:
    """As good as standard output can show it."""
    return "\u2192" if (sys.stdout.encoding or "utf-8").lower().startswith("utf") else "->"


def is_terminal() -> bool:
    """Whether a person watches standard output."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """`text` in a colour, where the stream is a terminal that wants colours (NO_COLOR)."""
    target = stream or sys.stdout
    wanted = target.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if wanted and colour else text


def state(name: str, width: int = 0) -> str:
    """The name of a state in its colour, filled up to `width`."""
    padded = name.ljust(width)
    return paint(padded, STATES[name]) if name in STATES else padded


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, indent: str = "") -> None:
    """Aligned columns; cells are cleaned, None is "-", and a column called state is coloured."""
    cells = [[clean("-" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    say(indent + paint(_line(head, widths), "dim"))
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        painted = [
            state(cell, width) if name == "state" else filled
            for name, cell, filled, width in zip(head, row, padded, widths, strict=True)
        ]
        say(indent + "  ".join(painted).rstrip())


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def short(sha: str | None) -> str:
    """A commit for people: its first twelve digits."""
    return sha[:12] if sha else "-"


def names(hosts: Sequence[str], most: int = 10) -> str:
    """Names of hosts, the first ones of many."""
    more = f" and {len(hosts) - most} more" if len(hosts) > most else ""
    return clean(", ".join(hosts[:most])) + more


def seconds(span: float) -> str:
    """0.4 s, 12 s, 3 min, 2 h, 5 d."""
    if span < 10:
        return f"{span:.1f} s"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if span >= 2 * size:
            return f"{span / size:.0f} {unit}"
    return f"{span:.0f} s"


def ago(at: datetime | None) -> str:
    """How long ago, for people."""
    if at is None:
        return "-"
    return f"{seconds(max(0.0, (datetime.now(UTC) - at).total_seconds()))} ago"


def expected(told: "Why", app: "AppConfig") -> str:
    """What becomes of a commit, and when."""
    from rollout.services import explaining

    return clean(explaining.sentence(app, told, datetime.now(UTC)))


def say_edition(other: str | None) -> None:
    """When automation goes by another rollout.toml than the command that speaks."""
    if other is not None:
        say(paint(other, "yellow"))


def with_edition(shape: dict[str, Any], other: str | None) -> dict[str, Any]:
    """As `say_edition`, for --json: one key more, only then."""
    return shape if other is None else shape | {"config_edited": other}


def count(number: int, thing: str) -> str:
    """1 host, 2 hosts."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
