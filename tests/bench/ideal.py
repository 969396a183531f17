"""What a latency-bound fleet takes at best: the product's own ramp over hosts that take their time, and nothing else."""

import heapq
from collections.abc import Sequence

from rollout.domain import budget


def planned_s(takes_s: Sequence[float], limits: budget.Limits, *, failed: int = 0) -> float:
    """From the first start to the last end, when the hosts start in this order, each as soon as the ramp allows it.

    `failed` others have taken their places in the budget before: they failed while they were prepared.
    """
    now, window, done = 0.0, 1, 0
    busy: list[float] = []
    while done < len(takes_s):
        begun = done + len(busy)
        free = budget.room(_counters(done, failed, len(busy), window), limits)
        for takes in takes_s[begun : begun + free]:
            heapq.heappush(busy, now + takes)
        now = heapq.heappop(busy)
        done += 1
        window = budget.window_after_done(window, limits)
    return now


def _counters(done: int, failed: int, in_flight: int, window: int) -> budget.Counters:
    return budget.Counters(
        done=done, failed=failed, unreadable=0, unknown=0, in_flight=in_flight, window=window
    )
