"""`make faults`: harm on purpose, part after part, and then the figures. docs/reliability.md says what each part proves."""

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FIRST = [
    "tests/unit/domain",  # the rules, with many more examples than `make test` has time for
    # On every shell and awk what `make test` runs on one of them, and all of what it runs a short form of.
    "tests/integration/test_access_log_program.py",
    "tests/integration/test_probe_program.py",
    *(str(file.relative_to(ROOT)) for file in sorted(ROOT.glob("tests/integration/test_host_sh_*.py"))),
    "tests/unit/services/test_queue_walk.py",
    "tests/integration/test_clock_steps.py",
    "tests/integration/test_supervisor_up.py",
    "tests/e2e/test_canary.py",
    "tests/e2e/test_catching_up.py",
    "tests/e2e/test_demo.py",
    "tests/e2e/test_halt.py",
]


def main() -> int:
    """Run every part, or those that are named; 1 when one failed."""
    asked = _arguments()
    parts = [
        part for part in [*FIRST, *_files()] if not asked.part or any(name in part for name in asked.part)
    ]
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures"
        environment = os.environ | {"FAULTS": "all", "FAULTS_FIGURES": str(figures)}
        for number, part in enumerate(parts, 1):
            say(f"\n{number} of {len(parts)}: {part}: {_title(part)}")
            began = time.monotonic()
            words = [
                sys.executable,
                "-m",
                "pytest",
                part,
                "-q",
                "-n",
                str(asked.processes),
            ]
            if subprocess.run(words, env=environment).returncode:
                failed.append(part)
            say(f"{part} took {_clock(time.monotonic() - began)}")
        say("")
        for line in _summary(figures):
            say(line)
    say(f"FAILED: {', '.join(failed)}" if failed else f"all {len(parts)} parts passed")
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("part", nargs="*", help="some parts, by a word of their names: kill_sweep, frozen, …")
    parser.add_argument("--processes", type=int, default=2, help="side by side")
    return parser.parse_args()


def _files() -> list[str]:
    return [f"tests/faults/{file.name}" for file in sorted(HERE.glob("test_*.py"))]


def _title(part: str) -> str:
    file = Path(part)
    return (
        (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0]
        if file.is_file()
        else "the rules"
    )


def _summary(figures: Path) -> Iterator[str]:
    """What was measured, in some lines."""
    found = [json.loads(line) for line in figures.read_text().splitlines()] if figures.exists() else []
    killed = [one for one in found if one["test"] == "killed"]
    if killed:
        slowest = max(killed, key=lambda one: one["recovery_s"])
        yield f"killed at {len(killed)} crashpoints; the longest recovery took {slowest['recovery_s']:g} s ({slowest['cell']})"
    for one in found:
        if one["test"] != "killed":
            yield _line(one)


def _line(one: dict[str, Any]) -> str:
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in one.items() if name != "test")
    return f"{one['test']}: {told}"


def _clock(seconds: float) -> str:
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f}"


def say(line: str) -> None:
    """At once, also into a pipe."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
