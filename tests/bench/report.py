"""One table, one file, and what has changed since the last one."""

import json
import os
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parents[2] / "bench" / "results"


@dataclass(frozen=True)
class Figure:
    """A line of the table. What is wanted is about the ratio where there is one, else about ours."""

    name: str
    unit: str
    ours: float
    floor: float | None = None
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    goal: float | None = None  # beyond what is wanted

    @property
    def measure(self) -> float:
        """What is compared: with what is wanted, and with the last run."""
        return self.ours if self.ratio is None else self.ratio

    @property
    def ok(self) -> bool | None:
        """Whether it is as wanted; None when nothing is."""
        if self.at_least is not None:
            return self.measure >= self.at_least
        return None if self.at_most is None else self.measure <= self.at_most

    @property
    def wanted(self) -> str:
        """What is wanted, in words."""
        limit = self.at_most if self.at_least is None else self.at_least
        if limit is None:
            return ""
        sign = "≤" if self.at_least is None else "≥"
        unit = "" if self.ratio is not None else f" {self.unit}"
        goal = "" if self.goal is None else f", goal {self.goal:g}"
        return f"{sign} {limit:g}{unit}{goal}".rstrip()


@dataclass
class Found:
    """What a part of the bench has found: lines of the table, lines below it, and all that was read."""

    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # what could not be measured, and why


def tell(found: dict[str, Found], failed: dict[str, str], asked: dict[str, Any]) -> int:
    """Print the table, write the file; 1 when something is not as wanted, or was not measured."""
    failed = failed | {name: why for one in found.values() for name, why in one.missing.items()}
    last = _last(asked)
    console = Console(width=None if os.isatty(1) else 140)
    console.print(_table(found, last))
    for part, one in found.items():
        for note in one.notes:
            console.print(f"  {part}: {note}", highlight=False, markup=False)
    console.print(f"  written: {_write(found, failed, asked)}", highlight=False)
    missed = [figure.name.strip() for one in found.values() for figure in one.figures if figure.ok is False]
    if missed:
        console.print(f"missed: {'; '.join(missed)}", markup=False)
    for part, why in failed.items():
        console.print(f"not measured: {part}: {why}", markup=False)
    return 1 if missed or failed else 0


def _table(found: dict[str, Found], last: dict[str, float]) -> Table:
    table = Table("figure", "ours", "floor or peer", "ratio", "wanted", "ok", "last time")
    for part, one in found.items():
        table.add_section()
        for figure in one.figures:
            table.add_row(
                figure.name,
                f"{figure.ours:.4g} {figure.unit}",
                "" if figure.floor is None else f"{figure.floor:.4g} {figure.unit}",
                "" if figure.ratio is None else f"{figure.ratio:.2f}",
                figure.wanted,
                {None: "", True: "yes", False: "NO"}[figure.ok],
                _change(figure, last.get(_key(part, figure))),
            )
    return table


def _change(figure: Figure, before: float | None) -> str:
    if not before:
        return ""
    return f"{before:.3g} ({(figure.measure / before - 1) * 100:+.0f} %)"


def _key(part: str, figure: Figure) -> str:
    return f"{part}: {figure.name.strip()}"


def _last(asked: dict[str, Any]) -> dict[str, float]:
    """Each measure as the newest run with as many hosts has it."""
    found: dict[str, float] = {}
    for file in sorted(RESULTS.glob("*.json")):
        written = json.loads(file.read_text())
        if written.get("asked", {}).get("hosts") == asked["hosts"]:
            found |= written["measures"]
    return found


def _write(found: dict[str, Found], failed: dict[str, str], asked: dict[str, Any]) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / time.strftime("%Y-%m-%dT%H%M%SZ.json", time.gmtime())
    document = {
        "machine": {
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "asked": asked,
        "failed": failed,
        "measures": {
            _key(part, figure): figure.measure for part, one in found.items() for figure in one.figures
        },
        "figures": {
            part: [asdict(figure) | {"ok": figure.ok} for figure in one.figures]
            for part, one in found.items()
        },
        "details": {part: one.details for part, one in found.items()},
    }
    file.write_text(json.dumps(document, indent=1, default=asdict) + "\n")
    return file
