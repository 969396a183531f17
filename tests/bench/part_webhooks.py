"""Signed pushes: how many a second the web takes on one core, and how long one waits while the whole system works."""

import json
import subprocess
import sys
from dataclasses import asdict

from tests.bench import webhook
from tests.bench.ask import Ask, say
from tests.bench.installation import running, settle
from tests.bench.report import Figure, Found
from tests.bench.web_alone import WebAlone, cores
from tests.bench.webhook import Latency

AT_LEAST, P99_MS = 500, 50.0
RATES = (100, 200, 350, 500, 700, 900, 1200, 1600)
SECONDS = 5
BUSY_RATE, BUSY_SECONDS = 50, 15


def measure(ask: Ask) -> Found:
    """Faster and faster, until the 99th percentile is too slow; then at 50 a second beside everything else."""
    steps: list[tuple[int, Latency]] = []
    with WebAlone() as system:
        first = 0
        _pushes(system, rate=50, seconds=2, first=first)
        for rate in RATES:
            say(f"webhooks: {rate} a second for {SECONDS} s, on one core")
            first += 100_000
            steps.append((rate, _pushes(system, rate=rate, seconds=SECONDS, first=first)))
            if rate >= AT_LEAST and steps[-1][1].p99 >= P99_MS:
                break
    with running(ask.few(20)) as system:
        say(f"webhooks: {BUSY_RATE} a second for {BUSY_SECONDS} s, with workers at work")
        webhook.measure(system.folder, system.web, rate=10, seconds=2, first=0)
        settle(1)
        busy = webhook.measure(system.folder, system.web, rate=BUSY_RATE, seconds=BUSY_SECONDS, first=1000)
    most = max((rate for rate, took in steps if took.p99 < P99_MS), default=0)
    figures = [
        Figure("signed pushes/s on one core with p99 < 50 ms", "/s", most, at_least=AT_LEAST),
        Figure(f"  p99 at {AT_LEAST}/s", "ms", dict(steps)[AT_LEAST].p99, at_most=P99_MS),
        Figure(f"webhook to stored answer, {BUSY_RATE}/s beside the workers, p50", "ms", busy.p50),
        Figure("  p99", "ms", busy.p99, at_most=P99_MS),
    ]
    told = "; ".join(
        f"{rate}/s: p50 {one.p50:g}, p99 {one.p99:g}, most {one.most:g} ms, {one.refused} put off"
        for rate, one in steps
    )
    return Found(figures, [told], {"steps": steps, "busy": asdict(busy)})


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
