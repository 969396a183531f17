"""One table, one file, and what has changed since the last one."""

import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parents[2] / "bench" / "results"


@dataclass(frozen=True)
class Figure:
    """A line of the table. `wanted` is about the ratio where there is a floor, else about ours."""

    name: str
    unit: str
    ours: float
    floor: float | None = None
    ratio: float | None = None
    at_least: float | None = None  # of the ratio
    below: float | None = None  # of ours

    @property
    def measure(self) -> float:
        """What is compared with the last run."""
        return self.ours if self.ratio is None else self.ratio

    @property
    def ok(self) -> bool | None:
        """Whether it is as wanted; None when nothing is."""
        if self.at_least is not None:
            return self.ratio is not None and self.ratio >= self.at_least
        return None if self.below is None else self.ours < self.below

    @property
    def wanted(self) -> str:
        """What is wanted, in words."""
        if self.at_least is not None:
            return f"ratio ≥ {self.at_least:g}"
        return "" if self.below is None else f"< {self.below:g} {self.unit}"


def tell(figures: list[Figure], notes: list[str], details: dict[str, object]) -> int:
    """Print the table, write the file; 1 when something is not as wanted."""
    last = _last()
    console = Console(width=None if os.isatty(1) else 130)
    console.print(_table(figures, last))
    for note in notes:
        console.print(f"  {note}", highlight=False, markup=False)
    console.print(f"  written: {_write(figures, details)}", highlight=False)
    missed = [figure.name for figure in figures if figure.ok is False]
    if missed:
        console.print(f"missed: {'; '.join(missed)}")
    return 1 if missed else 0


def _table(figures: list[Figure], last: dict[str, float]) -> Table:
    table = Table("figure", "ours", "floor", "ratio", "wanted", "ok", "last time")
    for figure in figures:
        table.add_row(
            figure.name,
            f"{figure.ours:.4g} {figure.unit}",
            "" if figure.floor is None else f"{figure.floor:.4g} {figure.unit}",
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
            figure.wanted,
            {None: "", True: "yes", False: "NO"}[figure.ok],
            _change(figure, last.get(figure.name)),
        )
    return table


def _change(figure: Figure, before: float | None) -> str:
    if not before:
        return ""
    return f"{before:.3g} ({(figure.measure / before - 1) * 100:+.0f} %)"


def _last() -> dict[str, float]:
    """The measures of the newest file."""
    for file in sorted(RESULTS.glob("*.json"), reverse=True)[:1]:
        return {name: float(value) for name, value in json.loads(file.read_text())["measures"].items()}
    return {}


def _write(figures: list[Figure], details: dict[str, object]) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / time.strftime("%Y-%m-%dT%H%M%SZ.json", time.gmtime())
    document = {
        "machine": {
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "measures": {figure.name: figure.measure for figure in figures},
        "figures": [asdict(figure) | {"ok": figure.ok} for figure in figures],
        **details,
    }
    file.write_text(json.dumps(document, indent=1) + "\n")
    return file
