"""Trim: the evidence must hold without the worst four seconds, so that one burst fails nobody."""

from collections import deque
from dataclasses import dataclass

from rollout.domain.judge.constants import TRIM_S
from rollout.domain.judge.relative import Contribution


@dataclass(frozen=True, slots=True)
class Taken:
    """What a step contributed: to each kind's e-process, and to the absolute one (capped bad answers and requests)."""

    dt: float
    relative: tuple[Contribution | None, ...]
    bad: float
    requests: int
    theta: float

    @property
    def excess(self) -> float:
        """Errors above the canary's share, of all kinds."""
        return sum(one.excess for one in self.relative if one is not None)

    @property
    def above(self) -> float:
        """Bad answers above the limit."""
        return self.bad - self.theta * self.requests


Window = tuple[Taken, ...]


class Worst:
    """The worst window of 4 s, or the worst step where steps are longer; each e-process has its own."""

    def __init__(self) -> None:
        self.relative: Window = ()
        self.absolute: Window = ()
        self._recent: deque[Taken] = deque()
        self._excess = self._above = 0.0

    def add(self, taken: Taken) -> None:
        """One step more."""
        self._recent.append(taken)
        while len(self._recent) > 1 and sum(one.dt for one in self._recent) > TRIM_S + 1e-6:
            self._recent.popleft()
        excess = sum(one.excess for one in self._recent)
        if excess > self._excess:
            self.relative, self._excess = tuple(self._recent), excess
        above = sum(one.above for one in self._recent)
        if above > self._above:
            self.absolute, self._above = tuple(self._recent), above
