"""What the machine does to everybody: a guest whose host looks after its memory works at a tenth of its speed for a while, and no load says so."""

import time
from dataclasses import dataclass
from statistics import median

PIECE = 1500  # rounds of a loop: some 0.1 ms


@dataclass(frozen=True)
class Slowness:
    """How much of the time the same work took more than twice as long as it takes."""

    share: float
    longest_ms: float  # without a piece in between that took no longer

    def __str__(self) -> str:
        return (
            f"the machine worked at less than half of its speed for {self.share:.0%} of the time before we began, up to"
            f" {self.longest_ms:.0f} ms at once: tails (p99) have that in them"
        )


def slowness(seconds: float = 4.0) -> Slowness:
    """One core works for so long."""
    took, end = [], time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        _work()
        took.append(time.monotonic() - began)
    slow = 2 * median(took)
    longest = run = 0.0
    for one in took:
        run = run + one if one > slow else 0.0
        longest = max(longest, run)
    return Slowness(sum(one for one in took if one > slow) / sum(took), longest * 1000)


def _work() -> int:
    return sum(number * number for number in range(PIECE))
