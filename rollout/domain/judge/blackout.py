"""Blackout: half or more of the canary's answers are bad, and the baseline is well."""

from rollout.domain.judge.constants import (
    BLACKOUT_BASELINE,
    BLACKOUT_CERTAIN_S,
    BLACKOUT_LEAST,
    BLACKOUT_SHARE,
    TRIM_S,
)


class Blackout:
    """How long it has been dark without a break; the baseline's share is the last one known."""

    def __init__(self) -> None:
        self._dark: list[float] = []  # lengths of the dark steps in a row, until now
        self._baseline_share = 0.0

    def add(self, dt: float, canary: tuple[int, int], baseline: tuple[int, int]) -> None:
        """(Bad answers, requests) of both sides in a step in which a canary was observed."""
        if baseline[1]:
            self._baseline_share = baseline[0] / baseline[1]
        bad, requests = canary
        dark = requests >= BLACKOUT_LEAST and bad >= BLACKOUT_SHARE * requests
        self._dark = [*self._dark, dt] if dark and self._baseline_share < BLACKOUT_BASELINE else []

    @property
    def lasts_s(self) -> float:
        """Seconds; a single step is none, however long."""
        return sum(self._dark) if len(self._dark) > 1 else 0.0

    @property
    def outlasts_a_burst(self) -> bool:
        """Longer than what is forgiven: the evidence need not hold without its worst seconds."""
        return self.lasts_s > TRIM_S + 1e-6

    @property
    def certain(self) -> bool:
        """So long that it is an outage, however noisy the hosts are."""
        return self.lasts_s >= BLACKOUT_CERTAIN_S - 1e-6
