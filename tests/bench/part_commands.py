"""What a person waits for: the command line's start, and `rollout status` on a store with a rollout in it."""

import subprocess
import sys
import time
from statistics import median

from tests.bench.ask import Ask, say
from tests.bench.installation import running
from tests.bench.report import Figure, Found

TIMES = 7
COMMANDS = (["--help"], ["status"], ["show", "1"])


def measure(ask: Ask) -> Found:
    """Each some times; with the installation running, and nothing to do for it."""
    hosts = ask.few(100)
    with running(hosts) as system:
        say(f"commands: a release on {hosts} hosts, to look at")
        system.release_everywhere()
        took = {" ".join(words): [_one(words, system.config) for _ in range(TIMES)] for words in COMMANDS}
    figures = [Figure(f"rollout {words}", "ms", median(found)) for words, found in took.items()]
    return Found(figures, [f"from the process's start to its end, medians of {TIMES}"], took)


def _one(words, config) -> float:
    given = [] if words == ["--help"] else ["--config", str(config)]
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "rollout", *words, *given], check=True, capture_output=True)
    return (time.perf_counter() - began) * 1000
