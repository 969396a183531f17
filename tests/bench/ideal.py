"""What a latency-bound fleet takes at best: the product's own ramp over hosts that each take the same time, and nothing else."""

import heapq

from rollout.domain import budget


def planned_s(hosts: int, each_s: float, limits: budget.Limits) -> float:
    """From the first start to the last end, when every host takes `each_s` and starts as soon as the ramp allows it."""
    now, window, done = 0.0, 1, 0
    busy: list[float] = []
    while done < hosts:
        free = budget.room(_counters(done, len(busy), window), limits)
        for _ in range(min(free, hosts - done - len(busy))):
            heapq.heappush(busy, now + each_s)
        now = heapq.heappop(busy)
        done += 1
        window = budget.window_after_done(window, limits)
    return now


def _counters(done: int, in_flight: int, window: int) -> budget.Counters:
    return budget.Counters(done=done, failed=0, unreadable=0, unknown=0, in_flight=in_flight, window=window)
