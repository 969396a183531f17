"""Up to when the hosts of a comparison have told: what only some have told yet is no comparison.

A canary that is judged by a bin of which the baseline's part is still on its way is blamed for what befell every host.
"""

from collections.abc import Collection, Sequence

from rollout.domain.verdict import Interval

PATIENCE_S = 4.0


def told_by_all(intervals: Sequence[Interval], waited_for: Collection[str] | None = None) -> list[Interval]:
    """Those up to the newest t that every host (or every one of these) has told of, in their order.

    A host that is more than one interval and 4 s behind the newest is not waited for: it is down, or cannot be read.
    """
    if not intervals:
        return []
    newest = max(intervals, key=lambda one: one.t)
    last: dict[str, float] = {}
    for one in intervals:
        if one.observed and (waited_for is None or one.host in waited_for):
            last[one.host] = max(one.t, last.get(one.host, one.t))
    patience = newest.dt + PATIENCE_S
    until = min((t for t in last.values() if t >= newest.t - patience), default=newest.t)
    return [one for one in intervals if one.t <= until]
