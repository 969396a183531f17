"""`make bench`: one run, one table, one file of results; exit 1 when a wanted ratio is missed. docs/bench.md explains."""

import argparse
import os
import signal
import sys
import time
from dataclasses import asdict
from statistics import median

from tests.bench import judge_table, processes, report, webhook
from tests.bench.installation import BAKE, CONCURRENCY, Installation, settle
from tests.bench.report import Figure
from tests.bench.rounds import Round, Rounds
from tests.bench.webhook import Latency
from tests.support.sshd import path_of_sshd

RATE = 50
COLD_RATIO, WARM_RATIO, P99_MS = 0.6, 0.8, 50.0
WORKERS = ("control", "hosts", "tests", "web", "broker", "beat")


def main() -> int:
    """Measure, tell, write."""
    asked = _arguments()
    if path_of_sshd() is None:
        sys.exit("make bench needs OpenSSH's server: apt-get install openssh-server")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that nothing is left running
    load = os.getloadavg()[0]
    say(f"{asked.hosts} hosts behind one sshd, {os.cpu_count()} cores, load {load:.1f} before we begin")
    with Installation(asked.hosts) as system:
        rounds = _rounds(system, asked.rounds)
        memory = _memory(system)
        say(f"webhooks: {RATE} a second for {asked.seconds} s")
        webhook.measure(system.folder, system.web, rate=10, seconds=2, first=0)
        settle(1)
        answers = webhook.measure(system.folder, system.web, rate=RATE, seconds=asked.seconds, first=1000)
    judges = _judges(asked.judge_runs)
    details = {"hosts": asked.hosts, "load_before": load, "memory_mb": memory, "webhook": asdict(answers)}
    return report.tell(
        [*_figures(asked.hosts, rounds, memory, answers), *judges],
        _notes(asked.hosts, rounds, load),
        details | {"rounds": [asdict(one) for one in rounds]},
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--hosts", type=int, default=200, help="at least 50: fewer say nothing")
    parser.add_argument("--rounds", type=int, default=3, help="the medians of so many")
    parser.add_argument("--seconds", type=int, default=20, help="of webhooks")
    parser.add_argument(
        "--judge-runs",
        type=int,
        default=10,
        help="traces for each fault in each cell of the judges' table; 0: none",
    )
    return parser.parse_args()


def _judges(runs: int) -> list[Figure]:
    """The canary's judge and its peers on simulated traces; their table is printed at once."""
    if not runs:
        return []
    judge_table.show(judge_table.measure(runs, say))
    return judge_table.figures(judge_table.PROMISED_RUNS, say)


def _rounds(system: Installation, count: int) -> list[Round]:
    say("a first release everywhere")
    rounds = Rounds(system)
    found = []
    for number in range(1, count + 1):
        say(f"round {number} of {count}: ssh, then rollout")
        found.append(rounds.one())
    return found


def _memory(system: Installation) -> dict[str, dict[str, float]]:
    """RSS and PSS of each part, its children included."""
    found: dict[str, dict[str, float]] = {}
    for pid, name in system.parts().items():
        if name in WORKERS:
            rss, pss = processes.memory_mb(pid)
            one = found.setdefault(name, {"rss": 0.0, "pss": 0.0, "processes": 0})
            one["rss"] += rss
            one["pss"] += pss
            one["processes"] += 1
    return found


def _figures(
    hosts: int, rounds: list[Round], memory: dict[str, dict[str, float]], answers: Latency
) -> list[Figure]:
    def rates(ours: str, floor: str) -> tuple[float, float, float]:
        """Hosts a second, ours and the floor's, and the median of the rounds' own ratios."""
        pairs = [(getattr(one, ours).seconds, getattr(one, floor).seconds) for one in rounds]
        return (
            hosts / median(mine for mine, _ in pairs),
            hosts / median(its for _, its in pairs),
            median(its / mine for mine, its in pairs),
        )

    def cpu(name: str) -> float:
        return median(getattr(one, name).cpu_s for one in rounds) * 100 / hosts

    def spent(title: str, ours: str, floor: str) -> Figure:
        return Figure(title, "s", cpu(ours), cpu(floor), cpu(ours) / cpu(floor))

    cold, warm = rates("cold", "floor_cold"), rates("warm", "floor_warm")
    return [
        Figure("prepare + activate, cold, hosts/s", "", *cold, at_least=COLD_RATIO),
        Figure("  the same against ssh as it comes, one a call", "", *rates("cold", "floor_two")),
        Figure("rollback, warm, hosts/s", "", *warm, at_least=WARM_RATIO),
        spent("client CPU for 100 hosts, cold", "cold", "floor_cold"),
        spent("client CPU for 100 hosts, warm", "warm", "floor_warm"),
        Figure("webhook to stored answer, p50", "ms", answers.p50),
        Figure("webhook to stored answer, p99", "ms", answers.p99, below=P99_MS),
        *(Figure(f"RSS, {name}", "MB", memory[name]["rss"]) for name in WORKERS if name in memory),
    ]


def _notes(hosts: int, rounds: list[Round], load: float) -> list[str]:
    def middle(name: str) -> float:
        return median(getattr(one, name).seconds for one in rounds)

    def parts(name: str) -> str:
        spent: dict[str, list[float]] = {}
        for one in rounds:
            for part, seconds in getattr(one, name).items():
                spent.setdefault(part, []).append(seconds)
        told = sorted(((median(all_of), part) for part, all_of in spent.items()), reverse=True)
        return ", ".join(f"{part} {seconds:.2f}" for seconds, part in told if seconds >= 0.01)

    return [
        f"cold is {middle('cold'):.2f} s: {middle('prepare'):.2f} s from the first host begun to the last one prepared,",
        f"  and {middle('fan_out'):.2f} s from PASS to done (mode ramp: the window grows from 1 to {CONCURRENCY}).",
        f"subtracted: push, tests and build before, and the rest of the canary's bake of {BAKE} between the two.",
        f"medians of {len(rounds)} rounds, floor and ours in turn; the ratio is the median of the rounds' ratios.",
        f"our CPU seconds for {hosts} hosts, cold: {parts('parts_cold')}",
        f"our CPU seconds for {hosts} hosts, warm: {parts('parts_warm')}",
        *(
            [f"the load was {load:.1f} before we began: other programs ran, so only ratios mean something"]
            if load > 0.5
            else []
        ),
    ]


def say(words: str) -> None:
    """Progress, for people."""
    print(f"[{time.strftime('%H:%M:%S')}] {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
