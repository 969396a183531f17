"""The failing side: is the canary harming people? It runs while the canary bakes, and on through the fan-out.

Everything is updated step by step; nothing is looked at twice but the worst seconds, when a FAIL is near.
"""

from math import log

from rollout.domain.judge.absolute import Limit
from rollout.domain.judge.blackout import Blackout
from rollout.domain.judge.comparison import Comparison
from rollout.domain.judge.constants import ABSOLUTE_WEIGHT, ALPHA, RELATIVE_WEIGHT, TRIM_AT
from rollout.domain.judge.dispersion import Dispersion
from rollout.domain.judge.incidents import Incidents
from rollout.domain.judge.starved import Traffic
from rollout.domain.judge.steps import HostBin, Step
from rollout.domain.judge.sums import log_sum_exp
from rollout.domain.judge.trim import Taken, Window, Worst


class FailingSide:
    """Its evidence after each step, in nats: `relative`, `absolute`, and `together`; and whether it fails."""

    def __init__(
        self, limit: Limit, weights: list[float], alpha: float = ALPHA, *, own_past: bool = True
    ) -> None:
        self.limit = limit
        self.fail_at = -log(alpha)
        self.bad = Comparison()  # of its parts only the usual rate, the offset and phi are asked
        self.kinds = [Comparison() for _ in weights]
        self.raw = Dispersion()  # of bad answers as they are, for the passing side and incidents
        self.incidents = Incidents(limit.theta)
        self.traffic = Traffic()
        self.relative = self.absolute = self.together = 0.0
        self.trimmed: float | None = None  # `together` without the worst seconds, where that was asked
        self.paired = False  # a baseline was seen
        self.alone = False  # there is none, but history
        self.incident = False
        self.convicted = self.failed = False
        self.starved: dict[
            str, tuple[float, float]
        ] = {}  # canaries -> requests that they got, and should have
        self._own_past = own_past  # whether it may be compared with that, where there is no baseline
        self._weights = [log(weight) for weight in weights]
        self._counted = [
            0.0,
            0.0,
        ]  # of the absolute one: capped bad answers and requests, outside of incidents
        self._baseline = [0, 0]  # its bad answers and requests since the switch
        self._worst = Worst()
        self._blackout = Blackout()

    def learn(self, steps: list[Step]) -> None:
        """The steps before the switch, all of them."""
        self.bad.learn(steps, [[one.bad for one in step.bins] for step in steps])
        for place, kind in enumerate(self.kinds):
            kind.learn(steps, [[one.kinds[place] for one in step.bins] for step in steps])
        for step in steps:
            self.raw.add_past(step.t - step.dt / 2, {one.host: one.bad for one in step.bins})
            self.traffic.add_past(step.dt, step.bins)
            others = [one for one in step.bins if not one.canary]
            if others:
                self.paired = True
                self.incidents.add(step.t, step.dt, *_sums(others))
        self.raw.end_past()
        if self._own_past and not self.paired and any(one.requests for step in steps for one in step.bins):
            self._compare(alone=True)

    def add(self, step: Step) -> None:
        """One step since the switch."""
        canaries = [one for one in step.bins if one.canary]
        others = [one for one in step.bins if not one.canary]
        canary, baseline = _sums(canaries), _sums(others)
        if others and not self.paired:
            self.paired = True
            self._compare(alone=False)
        self.incident = bool(others) and self._shared(step, others, baseline)
        # Who went wrong with the others, and cannot be compared with them any more, is not blamed for it at once.
        unsure = not others and self.incidents.lately(step.t)
        if canaries:
            self.traffic.add(step.t, step.dt, step.bins)
            self.starved = self.traffic.starved(step.t)
            if not unsure:
                self._blackout.add(step.dt, canary, baseline)
        self._take(step, canary, baseline, unsure=unsure)
        self._decide()

    @property
    def phi(self) -> float:
        """The dispersion of bad answers as they are."""
        return self.bad.phi if self.alone else self.raw.phi

    def convicted_of(self) -> int | None:
        """The place of the kind that weighs most; None when it is the share of all bad answers that does."""
        each = [weight + kind.evidence() for weight, kind in zip(self._weights, self.kinds, strict=True)]
        return None if self.absolute >= max(each) else each.index(max(each))

    def _compare(self, *, alone: bool) -> None:
        self.alone = alone
        for one in [self.bad, *self.kinds]:
            one.go(alone=alone)

    def _shared(self, step: Step, others: list[HostBin], baseline: tuple[int, int]) -> bool:
        """Whether there is an incident on the baseline too."""
        self.raw.add(step.t - step.dt / 2, {one.host: one.bad for one in others})
        self.incidents.add(step.t, step.dt, *baseline)
        return self.incidents.looked(step.t, self.bad.usual_rate(), self.raw.phi)

    def _take(self, step: Step, canary: tuple[int, int], baseline: tuple[int, int], *, unsure: bool) -> None:
        """What is bad on both sides alike is no evidence for the limit, also in seconds that make no incident yet."""
        (bad_c, requests_c), (bad_b, requests_b) = canary, baseline
        self.bad.take(step, [one.bad for one in step.bins], requests_c, requests_b)
        relative = tuple(
            kind.take(step, [one.kinds[place] for one in step.bins], requests_c, requests_b)
            for place, kind in enumerate(self.kinds)
        )
        self._baseline[0] += bad_b
        self._baseline[1] += requests_b
        shared = self.incident or unsure or bad_b > self.limit.theta * requests_b
        counted, requests = (0.0, 0) if shared else (self.limit.capped(bad_c, requests_c), requests_c)
        self._counted[0] += counted
        self._counted[1] += requests
        self._worst.add(Taken(step.dt, relative, counted, requests, self.limit.theta))

    def _decide(self) -> None:
        self.relative = self._relative(())
        self.absolute = self._absolute(self._counted[0], self._counted[1])
        self.together = self._combined(self.relative, self.absolute)
        self.trimmed = self._trim() if self.together >= self.fail_at else None
        proven = self.trimmed is not None and (self.trimmed >= TRIM_AT or self._blackout.outlasts_a_burst)
        self.convicted = proven or self._blackout.certain
        self.failed = self.convicted or bool(self.starved)

    def _trim(self) -> float:
        bad = self._counted[0] - sum(one.bad for one in self._worst.absolute)
        requests = self._counted[1] - sum(one.requests for one in self._worst.absolute)
        return self._combined(self._relative(self._worst.relative), self._absolute(bad, requests))

    def _absolute(self, bad: float, requests: float) -> float:
        """Where the baseline is above the limit as well, that is no fault of this release: the limit blames nobody."""
        above = self.limit.above(bad, requests, self.phi)
        return min(above, 0.0) if self._baseline[0] > self.limit.theta * self._baseline[1] else above

    def _relative(self, without: Window) -> float:
        """The kinds' weighted mean of e-values."""
        parts = []
        for place, (weight, kind) in enumerate(zip(self._weights, self.kinds, strict=True)):
            left_out = [one for taken in without if (one := taken.relative[place]) is not None]
            parts.append(weight + kind.evidence(left_out))
        return log_sum_exp(parts)

    def _combined(self, relative: float, absolute: float) -> float:
        """The mean of e-values is one. Where there is nothing to compare with, the limit has all the weight."""
        if not self.paired and not self.alone:
            return absolute
        return log_sum_exp([log(RELATIVE_WEIGHT) + relative, log(ABSOLUTE_WEIGHT) + absolute])


def _sums(bins: list[HostBin]) -> tuple[int, int]:
    """Bad answers and requests."""
    return sum([one.bad for one in bins]), sum([one.requests for one in bins])
