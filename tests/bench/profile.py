"""Where the time goes: one rollout and its rollback with py-spy on our processes. `python -m tests.bench.profile --help`."""

import argparse
import contextlib
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.bench.ask import say
from tests.bench.installation import Installation, moments, running, settle
from tests.bench.peers import environment
from tests.bench.processes import CpuWatch

PROCESSES = ("hosts", "control", "web")
PLACE = environment.ENVIRONMENT / "profiles"
RATE = 100
STARTS = (
    "celery/",
    "click/",
    "bin/",
    "<frozen",
    "threading.py",
    "contextlib.py",
    "consumer/",
)  # below everything
SHOWN = 40


def main() -> int:
    """Record three spans, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__)
    parser.add_argument(
        "--hosts", type=int, default=200, help="with 1,000, py-spy is slower than what it looks at"
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    python = environment.python()
    if python is None:
        return 1
    with running(asked.hosts, bake_s=10 + asked.hosts // 7, database=asked.database) as system:
        say("a first release")
        system.release_everywhere()
        system.go_cold()
        with CpuWatch(system.roots()) as watch:
            files, rollout = _record(system, python.with_name("py-spy"))
        at = moments(system.events(rollout))
    passed, back = at["rollout fanning_out"][0], at["rollout rolling_back"][0]
    spans = {
        "prepare": (min(at["preparing"]), max(at["prepared"])),
        "fan_out": (passed, at["rollout done"][0]),
        "back": (back, max(at["rolled_back"])),
    }
    for name, span in spans.items():
        print(f"\n== {name}: {span[1] - span[0]:.2f} s; CPU seconds: {watch.between(*span)}")
        for process in PROCESSES:
            _print(files[name, process], f"{name}, {process}")
    return 0


def _record(system: Installation, spy: Path) -> tuple[dict[tuple[str, str], Path], int]:
    """The recordings of each span and process, and the rollout."""
    files: dict[tuple[str, str], Path] = {}
    sha = system.push("To be looked at")
    system.ends(sha, "evaluating_canary")
    with _spying(system, spy, "prepare", files):
        rollout = system.rollout_row(sha).id
        while system.counts(rollout).get("prepared", 0) < len(system.sshd.hosts) - 1:
            assert system.rollout_row(sha).state == "evaluating_canary", "the bake was too short"
            time.sleep(0.2)
    system.ends(sha, "fanning_out")
    with _spying(system, spy, "fan_out", files):
        system.ends(sha, "done")
    settle()
    with _spying(system, spy, "back", files):
        system.bring_back(sha)
    return files, rollout


@contextlib.contextmanager
def _spying(system: Installation, spy: Path, span: str, files: dict[tuple[str, str], Path]):
    PLACE.mkdir(exist_ok=True)
    spies = []
    try:
        for process in PROCESSES:
            file = files[span, process] = PLACE / f"profile-{span}-{process}.txt"
            words = [spy, "record", "--gil", "-r", str(RATE), "-d", "600", "-f", "raw", "-o", file]
            spies.append(
                subprocess.Popen(
                    [*map(str, words), "-p", str(system.pid_of(process))],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        yield
    finally:
        for one in spies:
            one.send_signal(signal.SIGINT)
        for one in spies:
            one.wait()


def _print(file: Path, title: str) -> None:
    """Functions by their own and by their cumulative share of the samples of the thread that holds the GIL."""
    own: Counter[str] = Counter()
    cumulative: Counter[str] = Counter()
    for line in file.read_text().splitlines() if file.exists() else []:
        stack, _, times = line.rpartition(" ")
        frames = [_short(frame) for frame in stack.split(";")]
        own[frames[-1]] += int(times)
        for frame in set(frames):
            if not any(part in frame for part in STARTS):
                cumulative[frame] += int(times)
    total = sum(own.values())
    print(f"\n-- {title}: {total} samples at {RATE}/s")
    rows = zip(own.most_common(SHOWN), cumulative.most_common(2 * SHOWN), strict=False)
    for (mine, of_mine), (all_of, of_all) in rows:
        print(f"{of_mine / total:6.1%} {mine:58} {of_all / total:6.1%} {all_of}")
    for all_of, of_all in cumulative.most_common(2 * SHOWN)[SHOWN:]:
        print(f"{'':65} {of_all / total:6.1%} {all_of}")


def _short(frame: str) -> str:
    """The function and its file, without the line."""
    name, _, place = frame.partition(" (")
    path = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    return f"{name} {'/'.join(path.split('/')[-2:])}"


if __name__ == "__main__":
    sys.exit(main())
