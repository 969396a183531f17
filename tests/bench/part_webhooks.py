"""Signed pushes: how many a second the web takes on one core, and how long one waits while the whole system works."""

import itertools
import json
import subprocess
import sys
from dataclasses import asdict
from statistics import median

from tests.bench import flood, webhook
from tests.bench.ask import Ask, say
from tests.bench.installation import running, settle
from tests.bench.report import Figure, Found
from tests.bench.web_alone import WebAlone, cores
from tests.bench.webhook import Latency

AT_LEAST, P99_MS = 500, 50.0
RATES = (100, 200, 350, 500, 700, 900, 1200, 1600)
SECONDS = 5
BUSY_RATE, BUSY_SECONDS = 50, 15
FLOOD_P99_MS, FLOOD_MB = 1000.0, 100.0


def measure(ask: Ask) -> Found:
    """Faster and faster, until the 99th percentile is too slow; then at 50 a second beside everything else."""
    rounds: list[dict[int, Latency]] = []
    with WebAlone() as system:
        firsts = itertools.count(0, 100_000)
        _pushes(system, rate=50, seconds=2, first=next(firsts))
        for number in range(1, ask.rounds + 1):
            steps: dict[int, Latency] = {}
            rounds.append(steps)
            for rate in RATES:
                say(f"webhooks, round {number} of {ask.rounds}: {rate} a second for {SECONDS} s, on one core")
                steps[rate] = _pushes(system, rate=rate, seconds=SECONDS, first=next(firsts))
                if rate >= AT_LEAST and steps[rate].p99 >= P99_MS:
                    break
    with running(ask.few(20)) as system:
        say(f"webhooks: {BUSY_RATE} a second for {BUSY_SECONDS} s, with workers at work")
        webhook.measure(system.folder, system.web, rate=10, seconds=2, first=0)
        settle(1)
        busy = [
            webhook.measure(
                system.folder, system.web, rate=BUSY_RATE, seconds=BUSY_SECONDS, first=1000 * (number + 1)
            )
            for number in range(ask.rounds)
        ]
    say(f"webhooks: {flood.WEBHOOKS:,} in a minute for {flood.APPS} apps, with workers at work")
    flooded = flood.measure()
    most = [max((rate for rate, took in steps.items() if took.p99 < P99_MS), default=0) for steps in rounds]
    figures = [
        Figure("signed pushes/s on one core with p99 < 50 ms", "/s", median(most), at_least=AT_LEAST),
        Figure(f"  p99 at {AT_LEAST}/s", "ms", median(one[AT_LEAST].p99 for one in rounds), at_most=P99_MS),
        Figure(
            f"webhook to stored answer, {BUSY_RATE}/s beside the workers, p50",
            "ms",
            median(one.p50 for one in busy),
        ),
        Figure("  p99", "ms", median(one.p99 for one in busy), at_most=P99_MS),
        *_of_a_flood(flooded),
    ]
    told = f"{', '.join(map(str, most))} /s in the rounds; the last one: " + "; ".join(
        f"{rate}/s: p50 {one.p50:g}, p99 {one.p99:g}, most {one.most:g} ms, {one.refused} put off"
        for rate, one in rounds[-1].items()
    )
    told_of_a_flood = (
        f"flood: answers {flooded.answers}, most {flooded.most:g} ms; ends {flooded.outcomes};"
        f" the web had a core for {flooded.ran_s:g} s and waited for one for {flooded.waited_s:g} s"
    )
    details = {"steps": rounds, "busy": [asdict(one) for one in busy], "flood": asdict(flooded)}
    return Found(figures, [told, told_of_a_flood], details)


def _of_a_flood(found: flood.Flooded) -> list[Figure]:
    of = f"{flood.WEBHOOKS:,} webhooks in a minute for {flood.APPS} apps"
    return [
        Figure(f"{of}, p50", "ms", found.p50),
        Figure("  of the flood, p99", "ms", found.p99, at_most=FLOOD_P99_MS),
        Figure("  answered neither 202 nor 503 with Retry-After", "", found.otherwise, at_most=0),
        Figure("  stored, and without an end when all is decided", "", found.unaccounted, at_most=0),
        Figure("  apps with more than one rollout and a next one", "", found.crowded, at_most=0),
        Figure("  the web's memory grew by", "MB", found.grown_mb, at_most=FLOOD_MB),
    ]


def _pushes(system: WebAlone, *, rate: int, seconds: int, first: int) -> Latency:
    """From a process of its own, on the other core."""
    words = [str(word) for word in (system.folder, system.web, rate, seconds, first)]
    done = subprocess.run(
        ["taskset", "-c", str(cores()[1]), sys.executable, "-m", "tests.bench.webhook", *words],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-1500:]
    return Latency(**json.loads(done.stdout))
