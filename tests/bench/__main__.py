"""`make bench`: part after part, one table, one file of results; exit 1 when something wanted is missed. docs/bench.md explains."""

import argparse
import importlib
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict

from tests.bench import machine, report
from tests.bench.ask import Ask, say
from tests.bench.report import Found
from tests.support.sshd import path_of_sshd

# word → module and function; in this order.
PARTS = {
    "rollout": "part_rollout.measure",
    "postgresql": "part_rollout.measure_postgresql",
    "stop": "part_stop.measure",
    "latency": "part_latency.measure",
    "peers": "part_peers.measure",
    "single": "part_single.measure",
    "bytes": "bytes.measure",
    "scale": "part_scale.measure",
    "day": "part_day.measure",
    "webhooks": "part_webhooks.measure",
    "commands": "part_commands.measure",
    "judge": "part_judge.measure",
}


def main() -> int:
    """Measure, tell, write."""
    given = _arguments()
    if path_of_sshd() is None:
        sys.exit("make bench needs OpenSSH's server: apt-get install openssh-server")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that nothing is left running
    # A shell's `&` has it ignored, by what we start too, and the bench ends that as a user does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # users have compiled modules, whatever this shell says
    ask = Ask(hosts=given.hosts, rounds=given.rounds, judge_runs=given.judge_runs)
    load = os.getloadavg()[0]
    say(f"{ask.hosts} hosts, {os.cpu_count()} cores, load {load:.1f} before we begin")
    slow = machine.slowness()
    found: dict[str, Found] = {}
    failed: dict[str, str] = {}
    took: dict[str, float] = {}
    for part in _wanted(given.part):
        began = time.monotonic()
        say(f"-- {part}")
        try:
            found[part] = _measure(part, ask)
        except Exception as error:  # noqa: BLE001 -- what the other parts found is told all the same
            traceback.print_exc()
            failed[part] = f"{type(error).__name__}: {str(error)[:300]}"
        took[part] = round(time.monotonic() - began, 1)
    asked = {
        "hosts": ask.hosts,
        "rounds": ask.rounds,
        "load_before": load,
        "slow_before": asdict(slow),
        "took_s": took,
    }
    if slow.share > 0.02 and found:
        found[next(iter(found))].notes.append(str(slow))
    if load > 0.5 and found:
        words = f"the load was {load:.1f} before we began: other programs ran, so only ratios mean something"
        found[next(iter(found))].notes.append(words)
    return report.tell(found, failed, asked)


def _wanted(words: list[str]) -> list[str]:
    return [part for part in PARTS if not words or any(word in part for word in words)]


def _measure(part: str, ask: Ask) -> Found:
    module, _, function = PARTS[part].partition(".")
    measured: Found = getattr(importlib.import_module(f"tests.bench.{module}"), function)(ask)
    return measured


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"some parts, by a word of their names: {', '.join(PARTS)}")
    parser.add_argument("--hosts", type=int, default=1000, help="at least 50: fewer say nothing")
    parser.add_argument("--rounds", type=int, default=3, help="the medians of so many")
    parser.add_argument(
        "--judge-runs", type=int, default=10, help="traces for each fault in each cell of the judges' table"
    )
    given = parser.parse_args()
    if not _wanted(given.part):
        parser.error(f"no part is named so; there are {', '.join(PARTS)}")
    return given


if __name__ == "__main__":
    sys.exit(main())
