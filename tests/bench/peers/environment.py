"""The peers' own virtual environment: made once, kept between runs, ours untouched by it."""

import subprocess
import sys
from pathlib import Path

from tests.bench.ask import say

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parents[2] / "bench" / ".venv"
WANTED = HERE / "requirements.txt"


def python() -> Path | None:
    """Its Python; None, said clearly, when it cannot be made."""
    program, made_for = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "made-for"
    if made_for.exists() and made_for.read_text() == WANTED.read_text():
        return program
    say(f"installing the peers into {ENVIRONMENT}; the first time takes a minute or two")
    for words in (
        [sys.executable, "-m", "venv", str(ENVIRONMENT)],
        [str(program), "-m", "pip", "install", "--disable-pip-version-check", "-q", "-r", str(WANTED)],
    ):
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            say(f"SKIPPED: the peers cannot be installed: {(done.stderr or done.stdout).strip()[-500:]}")
            return None
    made_for.write_text(WANTED.read_text())
    return program
