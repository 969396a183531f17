"""The failing side: is the canary harming people? It runs while the canary bakes, and on through the fan-out.

Everything is updated step by step; nothing is ever looked at twice but the worst seconds, when a FAIL is near.
"""

from collections import deque
from dataclasses import dataclass
from math import log

from rollout.domain.judge import caps
from rollout.domain.judge.absolute import Limit
from rollout.domain.judge.constants import (
    ABSOLUTE_WEIGHT,
    ALPHA,
    BLACKOUT_BASELINE,
    BLACKOUT_CERTAIN_S,
    BLACKOUT_LEAST,
    BLACKOUT_SHARE,
    BLOCK_S,
    PHI_PRIOR,
    RELATIVE_WEIGHT,
    TRIM_AT,
    TRIM_S,
)
from rollout.domain.judge.dispersion import Dispersion, over_time
from rollout.domain.judge.incidents import Incidents
from rollout.domain.judge.offset import OWN_HISTORY, Offset, learned
from rollout.domain.judge.relative import Alone, Contribution, Relative, paired
from rollout.domain.judge.starved import Traffic
from rollout.domain.judge.steps import HostBin, Step
from rollout.domain.judge.sums import log_sum_exp


@dataclass(slots=True)
class Taken:
    """What a step contributed: to each kind's e-process, and to the absolute one."""

    dt: float
    relative: list[Contribution | None]
    excess: float
    bad: float
    requests: float


_NOTHING: tuple[Taken, ...] = ()


class Watch:
    """One kind of answers: its usual rate, its dispersion, its host offset, its e-process."""

    def __init__(self) -> None:
        self.dispersion = Dispersion()
        self.offset = Offset()
        self.process = Relative()
        self.alone = False  # compared with the canary's own history
        self._past_errors = 0.0
        self._past_requests = 0.0
        self._own = (0.0, 0.0)  # the canary's capped errors and requests before the switch
        self._own_rate = 0.0
        self._over_time = PHI_PRIOR
        self._running = [0.0, 0.0]  # errors and requests of the baseline since the switch

    def learn(self, steps: list[Step], counts: list[list[int]]) -> None:
        """Of the steps before the switch; `counts`: this kind's, for each step and host in it."""
        self._past_errors = sum(map(sum, counts))
        self._past_requests = sum(one.requests for step in steps for one in step.bins)
        sides = {True: [0.0, 0.0], False: [0.0, 0.0]}
        blocks: dict[int, list[float]] = {}
        for step, found in zip(steps, counts, strict=True):
            requests = sum(one.requests for one in step.bins)
            rate = max(self.usual_rate(), sum(found) / requests if requests else 0.0)
            middle = step.t - step.dt / 2
            seen: dict[str, float] = {}
            block = blocks.setdefault(int(middle // BLOCK_S), [0.0, 0.0])
            for one, errors in zip(step.bins, found, strict=True):
                kept = caps.capped(errors, one.requests, rate)
                seen[one.host] = kept
                sides[one.canary][0] += kept
                sides[one.canary][1] += one.requests
                block[0] += kept
                block[1] += one.requests
            self.dispersion.add_past(middle, seen)
        self.dispersion.end_past()
        self.offset = learned(_pair(sides[True]), _pair(sides[False]), self.dispersion.phi)
        self.process.expect(self.offset)
        self._own = _pair(sides[True])
        self._over_time = over_time([_pair(block) for _, block in sorted(blocks.items())])

    def go(self, *, alone: bool) -> None:
        """Alone: there is no baseline, so the canary's own history is what it is compared with."""
        self.alone = alone
        self._own_rate = caps.smoothed(*self._own)
        self.process.expect(OWN_HISTORY if alone else self.offset)

    @property
    def phi(self) -> float:
        """The dispersion that counts."""
        return self._over_time if self.alone else self.dispersion.phi

    def usual_rate(self) -> float:
        """Of before the switch; without that the baseline's until now; without either nothing is known."""
        if self._past_requests:
            return caps.smoothed(self._past_errors, self._past_requests)
        errors, requests = self._running
        return caps.smoothed(errors, requests) if requests else 1.0

    def take(self, step: Step, counts: list[int], requests_c: int, requests_b: int) -> Contribution | None:
        """Cap, compare and add one step's counts."""
        total_b = sum([count for one, count in zip(step.bins, counts, strict=True) if not one.canary])
        rate = self.usual_rate()
        if requests_b:
            rate = max(rate, total_b / requests_b)
        errors_c = errors_b = 0.0
        seen: dict[str, float] = {}
        for one, count in zip(step.bins, counts, strict=True):
            kept = caps.capped(count, one.requests, rate) if count else 0.0
            if one.canary:
                errors_c += kept
            else:
                errors_b += kept
                seen[one.host] = kept
        if seen:
            self.dispersion.add(step.t - step.dt / 2, seen)
        self._running[0] += total_b
        self._running[1] += requests_b
        if self.alone:
            contribution: Contribution | None = (
                Alone(errors_c, requests_c * self._own_rate) if requests_c else None
            )
        else:
            contribution = paired(errors_c, errors_b, requests_c, self.offset.exposure(requests_b))
        if contribution is not None:
            self.process.add(contribution)
        return contribution

    def evidence(self, without: list[Contribution] | None = None) -> float:
        """Nats: ln E."""
        return self.process.evidence(self.phi, without)


class FailingSide:
    """Its evidence after each step: `relative`, `absolute`, both together, and whether it fails."""

    def __init__(self, limit: Limit, weights: list[float], alpha: float = ALPHA) -> None:
        self.limit = limit
        self.fail_at = -log(alpha)
        self.bad = Watch()  # of its parts only the usual rate and the offset are asked
        self.raw = Dispersion()  # of bad answers as they are, for the passing side and incidents
        self.incidents = Incidents(limit.theta)
        self.traffic = Traffic()
        self.relative = self.absolute = self.together = 0.0
        self.trimmed: float | None = None
        self.paired = False  # a baseline was seen
        self.alone = False  # there is none, but history
        self.blackout = self.starved = self.convicted = self.failed = False
        self.incident = False
        self._weights = [log(weight) for weight in weights]
        self.watches = [Watch() for _ in weights]
        self._absolute = [0.0, 0.0]  # capped bad answers and requests, outside of incidents
        self._recent: deque[Taken] = deque()
        self._worst, self._worst_excess = _NOTHING, 0.0
        self._worst_absolute, self._worst_above = _NOTHING, 0.0
        self._dark: list[float] = []  # lengths of the dark steps in a row, until now
        self._dark_s = 0.0
        self._baseline_share = 0.0

    def learn(self, steps: list[Step]) -> None:
        """The steps before the switch, all of them."""
        self.bad.learn(steps, [[one.bad for one in step.bins] for step in steps])
        for place, watch in enumerate(self.watches):
            watch.learn(steps, [[one.kinds[place] for one in step.bins] for step in steps])
        for step in steps:
            self.raw.add_past(step.t - step.dt / 2, {one.host: one.bad for one in step.bins})
            self.traffic.add_past(step.dt, step.bins)
            others = [one for one in step.bins if not one.canary]
            self.paired = self.paired or bool(others)
            if others:
                self.incidents.add(
                    step.t, step.dt, sum(one.bad for one in others), sum(one.requests for one in others)
                )
        self.raw.end_past()
        if not self.paired and any(one.requests for step in steps for one in step.bins):
            self._be_alone(wanted=True)

    def add(self, step: Step) -> None:
        """One step since the switch."""
        canaries = [one for one in step.bins if one.canary]
        others = [one for one in step.bins if not one.canary]
        requests_c, requests_b = (
            sum([one.requests for one in canaries]),
            sum([one.requests for one in others]),
        )
        bad_c, bad_b = sum([one.bad for one in canaries]), sum([one.bad for one in others])
        if others and not self.paired:
            self.paired = True
            self._be_alone(wanted=False)
        self._look_at_baseline(step, others, bad_b, requests_b)
        if canaries:
            self.traffic.add(step.t, step.dt, step.bins)
            self.starved = self.traffic.starved(step.t)
            self._look_for_blackout(step.dt, bad_c, requests_c, bad_b, requests_b)
        self._take(step, bad_c, bad_b, requests_c, requests_b)
        self._decide()

    def _be_alone(self, *, wanted: bool) -> None:
        self.alone = wanted
        for watch in [self.bad, *self.watches]:
            watch.go(alone=wanted)

    @property
    def phi(self) -> float:
        """The dispersion of bad answers as they are."""
        return self.bad.phi if self.alone else self.raw.phi

    def _look_at_baseline(self, step: Step, others: list[HostBin], bad: int, requests: int) -> None:
        self.incident = False
        if not others:
            return
        self.raw.add(step.t - step.dt / 2, {one.host: one.bad for one in others})
        self.incidents.add(step.t, step.dt, bad, requests)
        self.incident = self.incidents.looked(step.t, self.bad.usual_rate(), self.raw.phi)

    def _look_for_blackout(self, dt: float, bad_c: int, requests_c: int, bad_b: int, requests_b: int) -> None:
        """Dark at least twice in a row, and for longer than the burst that is forgiven.

        The baseline's share is the last one known, where it had no request in this step.
        """
        if requests_b:
            self._baseline_share = bad_b / requests_b
        dark = (
            requests_c >= BLACKOUT_LEAST
            and bad_c >= BLACKOUT_SHARE * requests_c
            and self._baseline_share < BLACKOUT_BASELINE
        )
        self._dark = [*self._dark, dt] if dark else []
        self._dark_s = sum(self._dark) if len(self._dark) > 1 else 0.0
        self.blackout = self._dark_s > TRIM_S + 1e-6

    def _take(self, step: Step, bad_c: int, bad_b: int, requests_c: int, requests_b: int) -> None:
        self.bad.take(step, [one.bad for one in step.bins], requests_c, requests_b)
        relative = [
            watch.take(step, [one.kinds[place] for one in step.bins], requests_c, requests_b)
            for place, watch in enumerate(self.watches)
        ]
        shared = self.incident or bad_b > self.limit.theta * requests_b
        counted, requests = (0.0, 0) if shared else (self.limit.capped(bad_c, requests_c), requests_c)
        self._absolute[0] += counted
        self._absolute[1] += requests
        excess = sum(one.excess for one in relative if one is not None)
        self._remember(Taken(step.dt, relative, excess, counted, requests))

    def _remember(self, taken: Taken) -> None:
        """Keep the worst window of 4 s, or the worst step where steps are longer; each e-process has its own."""
        self._recent.append(taken)
        while len(self._recent) > 1 and sum(one.dt for one in self._recent) > TRIM_S + 1e-6:
            self._recent.popleft()
        excess = sum(one.excess for one in self._recent)
        if excess > self._worst_excess:
            self._worst, self._worst_excess = tuple(self._recent), excess
        above = sum(one.bad - self.limit.theta * one.requests for one in self._recent)
        if above > self._worst_above:
            self._worst_absolute, self._worst_above = tuple(self._recent), above

    def _decide(self) -> None:
        self.relative = self._relative(_NOTHING)
        self.absolute = self.limit.above(self._absolute[0], self._absolute[1], self.phi)
        self.together = self._combined(self.relative, self.absolute)
        self.trimmed = self.trim() if self.together >= self.fail_at else None
        proven = self.trimmed is not None and (self.trimmed >= TRIM_AT or self.blackout)
        self.convicted = proven or self._dark_s >= BLACKOUT_CERTAIN_S - 1e-6
        self.failed = self.convicted or self.starved

    def convicted_of(self) -> int | None:
        """The place of the kind that weighs most; None when it is the share of all bad answers that does."""
        each = [weight + watch.evidence() for weight, watch in zip(self._weights, self.watches, strict=True)]
        return None if self.absolute >= max(each) else each.index(max(each))

    def trim(self) -> float:
        """The evidence without the worst seconds."""
        bad = self._absolute[0] - sum(one.bad for one in self._worst_absolute)
        requests = self._absolute[1] - sum(one.requests for one in self._worst_absolute)
        return self._combined(self._relative(self._worst), self.limit.above(bad, requests, self.phi))

    def _relative(self, without: tuple[Taken, ...]) -> float:
        """The kinds' weighted mean of e-values."""
        parts = []
        for place, (weight, watch) in enumerate(zip(self._weights, self.watches, strict=True)):
            left_out = [one for taken in without if (one := taken.relative[place]) is not None]
            parts.append(weight + watch.evidence(left_out))
        return log_sum_exp(parts)

    def _combined(self, relative: float, absolute: float) -> float:
        """The mean of e-values is one. Where there is nothing to compare with, the limit has all the weight."""
        if not self.paired and not self.alone:
            return absolute
        return log_sum_exp([log(RELATIVE_WEIGHT) + relative, log(ABSOLUTE_WEIGHT) + absolute])


def _pair(two: list[float]) -> tuple[float, float]:
    return two[0], two[1]
