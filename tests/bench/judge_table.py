"""The judge and its peers on the same seeded traces. `python -m tests.bench.judge_table` for the table alone; docs/judge.md.

A cell is a kind of noise, a traffic and a base error rate. Each judge gets healthy canaries, material regressions (the true
rate is exactly 1.25 x what the old release would have had + 1 point) and total outages. An inconclusive word is neither
an alarm nor a pass.
"""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from statistics import median

from rich.console import Console
from rich.table import Table

from rollout.domain.judge import Judge
from rollout.domain.verdict import Interval, Policy
from tests.bench.judge_noise import KINDS, Case, trace
from tests.bench.judge_peers import PEERS, Word, sums
from tests.bench.report import Figure

OURS = "this judge"
RATES, BASES, FAULTS = (1.0, 10.0, 100.0, 1000.0), (0.001, 0.01, 0.03), ("none", "material", "outage")
PROMISED_RATES, PROMISED_RUNS = (10.0, 100.0), 400
ALARMS, PASSES, OUTAGE_S, OUTAGE_RATE = 1.5, 5.0, 12.0, 10.0
MS_5, MS_50 = 0.6, 3.0


def ours(intervals: list[Interval]) -> Word:
    """The judge's word at the end of the trace."""
    judging = Judge(Policy())
    judging.add(intervals)
    return str(judging.closing.status), judging.closing.t


@dataclass
class Tally:
    """What one judge said, cell by cell: how many, out of how many."""

    alarms: dict[Case, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    passes: dict[Case, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    undecided: list[int] = field(default_factory=lambda: [0, 0])  # of the healthy ones
    outages: list[float] = field(default_factory=list)
    busy_outages: list[float] = field(default_factory=list)  # where there are 10 requests/s and more

    def add(self, case: Case, word: str, t: float) -> None:
        """One word."""
        cell = case.but(fault="none")
        match case.fault:
            case "none":
                _count(self.alarms[cell], word == "fail")
                _count(self.undecided, word == "inconclusive")
            case "material":
                _count(self.passes[cell], word == "pass")
            case _:
                t = t if word == "fail" else 2 * case.until
                self.outages.append(t)
                if case.rps >= OUTAGE_RATE:
                    self.busy_outages.append(t)


def _count(cell: list[int], found: bool) -> None:
    cell[0] += found
    cell[1] += 1


def percent(cells: list[list[int]]) -> float:
    """The mean of the cells."""
    return 100 * sum(found for found, _ in cells) / max(1, sum(runs for _, runs in cells))


def worst(cells: list[list[int]]) -> float:
    """The worst cell."""
    return max((100 * found / runs for found, runs in cells), default=0.0)


def measure(runs: int, say: Callable[[str], None]) -> dict[str, Tally]:
    """All judges, `runs` traces for each fault in each cell."""
    tallies = {name: Tally() for name in (*PEERS, OURS)}
    for rps in RATES:
        say(f"judges: {rps:g} requests/s a host")
        for noise, base, fault in product(KINDS, BASES, FAULTS):
            case = Case(noise, rps, base, fault)
            for seed in range(runs if fault != "outage" else max(1, runs // 2)):
                _judge_all(case, seed, tallies)
    return tallies


def _judge_all(case: Case, seed: int, tallies: dict[str, Tally]) -> None:
    intervals = trace(case, seed)
    bins = sums(intervals)
    for name, peer in PEERS.items():
        tallies[name].add(case, *peer(bins))
    tallies[OURS].add(case, *ours(intervals))


def promised(
    runs: int, say: Callable[[str], None], *, classes: bool = False
) -> Iterator[tuple[float, Tally]]:
    """The judge alone on mixed noise at base 1 %, with so many runs of each fault."""
    for rps in PROMISED_RATES:
        say(f"the judge's promises: {runs} runs at {rps:g} requests/s")
        tally = Tally()
        for seed, fault in product(range(runs), FAULTS):
            case = Case(KINDS[seed % len(KINDS)], rps, 0.01, fault, classes=classes)
            tally.add(case, *ours(trace(case, seed)))
        yield rps, tally


def cost(hosts: int) -> float:
    """Milliseconds for a bin of 2 s, every status class busy, from a trace that is judged to its end."""
    intervals = trace(Case("memory", 100.0, 0.001, "0.004", hosts=hosts - 1, until=300.0, classes=True), 1)
    judging = Judge(Policy(bake_s=300.0, deadline_s=300.0))
    begin = time.process_time()
    judging.add(intervals)
    steps = len({one.t for one in intervals if one.t <= max(judging.t, 0.0)})
    return 1000 * (time.process_time() - begin) / steps


def table(tallies: dict[str, Tally]) -> Table:
    """As in docs/judge.md."""
    found = Table(
        "judge",
        "false alarms, mean (worst cell)",
        "passes a material regression",
        "median s to fail an outage",
        "undecided",
    )
    for name, tally in tallies.items():
        alarms, passes = list(tally.alarms.values()), list(tally.passes.values())
        found.add_row(
            name,
            f"{percent(alarms):.1f} % ({worst(alarms):.0f} %)",
            f"{percent(passes):.2f} % ({worst(passes):.0f} %)",
            f"{median(tally.outages):.0f}",
            f"{percent([tally.undecided]):.0f} %",
        )
    return found


def show(tallies: dict[str, Tally]) -> None:
    """Print it."""
    Console(width=None if os.isatty(1) else 130).print(table(tallies))


def figures(runs: int, say: Callable[[str], None]) -> list[Figure]:
    """What is promised, as lines of the bench."""
    lines = []
    for rps, tally in promised(runs, say):
        at = f"judge at {rps:g} requests/s"
        lines += [
            Figure(f"{at}: false alarms", "%", percent(list(tally.alarms.values())), at_most=ALARMS),
            Figure(
                f"{at}: passes of a material regression",
                "%",
                percent(list(tally.passes.values())),
                at_most=PASSES,
            ),
            Figure(f"{at}: slowest to fail an outage", "s", max(tally.busy_outages), at_most=OUTAGE_S + 0.1),
        ]
    return [
        *lines,
        Figure("judge, a bin of 5 hosts", "ms", cost(5), at_most=MS_5),
        Figure("judge, a bin of 50 hosts", "ms", cost(50), at_most=MS_50),
    ]


def main() -> None:
    """The table, and the promises."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.judge_table", description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="of each fault in each cell")
    parser.add_argument("--promised", type=int, default=PROMISED_RUNS, help="runs of mixed noise")
    parser.add_argument("--classes", action="store_true", help="promises with noise in each status class")
    asked = parser.parse_args()
    console = Console(width=130)
    if asked.runs:
        show(measure(asked.runs, console.log))
    if asked.classes:
        for rps, tally in promised(asked.promised, console.log, classes=True):
            console.print(f"{rps:g}/s, by class: {percent(list(tally.alarms.values())):.2f} % false alarms")
    elif asked.promised:
        for figure in figures(asked.promised, console.log):
            console.print(f"{figure.name}: {figure.ours:.4g} {figure.unit} {figure.wanted} {figure.ok}")


if __name__ == "__main__":
    main()
