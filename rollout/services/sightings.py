"""When things happened, as far as this process has seen them happen: between two of its looks.

The store's moments are of the database's clock, which may be stepped between a canary's readiness and a host's switch.
"""

import threading
from dataclasses import dataclass

from rollout.domain.model import Rollout


@dataclass(slots=True)
class _Sighting:
    moment: float | None  # of the store's clock, as it was seen last
    looked: float  # t of that look
    least: float = 0.0  # t at which it had not happened yet
    most: float = 0.0  # t at which it had


class Sightings:
    """This process's looks at the moments of the rollouts that it watches."""

    MOST = 100  # rollouts that are remembered

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[tuple[int, float | None], dict[str, _Sighting]] = {}

    def t(self, rollout: Rollout, what: str, moment: float | None, looked: tuple[float, float]) -> float:
        """Seconds from readiness to a moment that was found between these two t; 0 when it has not come.

        As the store's clock has it, but not before the last look that did not find it, nor after the first that did.
        """
        begun, ended = looked
        with self._lock:
            known = self._of.setdefault((rollout.id, rollout.ready_at), {})
            if len(self._of) > self.MOST:
                del self._of[next(iter(self._of))]
            before = known.get(what)
            if before is not None and before.moment == moment:
                before.looked = begun
                now = before
            else:
                now = known[what] = _Sighting(moment, begun, before.looked if before else 0.0, ended)
        if moment is None:
            return 0.0
        return min(max(moment - (rollout.ready_at or 0.0), now.least), now.most)
