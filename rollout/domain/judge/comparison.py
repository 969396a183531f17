"""One kind of answers on the canary, compared with the baseline's: from plain counts to evidence."""

from math import sqrt

from rollout.domain.judge import caps
from rollout.domain.judge.constants import BLOCK_S, PHI_PRIOR
from rollout.domain.judge.dispersion import Dispersion, over_time
from rollout.domain.judge.offset import OWN_HISTORY, Offset, learned
from rollout.domain.judge.relative import Alone, Contribution, Paired, Relative, paired
from rollout.domain.judge.steps import Step

ALMOST = 1e-9  # of a spread


class Comparison:
    """Its usual rate, its dispersion, its host offset, its e-process."""

    def __init__(self) -> None:
        self.dispersion = Dispersion()
        self.offset = Offset()
        self.process = Relative()
        self.alone = False  # compared with the canary's own history
        self._past_errors = 0.0
        self._past_requests = 0.0
        self.own_rate = 0.0  # the canary's, before the switch
        self._past: dict[str, list[float]] = {}  # host -> capped errors and requests before the switch
        self._past_phi = PHI_PRIOR
        self._offsets: dict[frozenset[tuple[str, bool]], Offset] = {}
        self._canaries: frozenset[tuple[str, bool]] = frozenset()  # before the switch
        # Of what was compared; the square of the null's spread is their quotient.
        self._information = self._variance = 0.0
        self._over_time = PHI_PRIOR
        self._running = [0.0, 0.0]  # errors and requests of the baseline since the switch

    def learn(self, steps: list[Step], counts: list[list[int]]) -> None:
        """Of the steps before the switch; `counts`: this kind's, for each step and host in it."""
        self._past_errors = sum(map(sum, counts))
        self._past_requests = sum(one.requests for step in steps for one in step.bins)
        roles: dict[str, bool] = {}
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
                roles[one.host] = one.canary
                mine = self._past.setdefault(one.host, [0.0, 0.0])
                mine[0] += kept
                mine[1] += one.requests
                block[0] += kept
                block[1] += one.requests
            self.dispersion.add_past(middle, seen)
        self.dispersion.end_past()
        self._past_phi = self.dispersion.phi
        self._canaries = frozenset([(host, True) for host, canary in roles.items() if canary])
        self.offset = self._offset_of(frozenset(roles.items()))
        self.process.expect(self.offset)
        self.own_rate = caps.smoothed(*self._past_of([host for host, canary in roles.items() if canary]))
        self._over_time = over_time([_pair(block) for _, block in sorted(blocks.items())])

    def go(self, *, alone: bool) -> None:
        """Alone: there is no baseline, so the canary's own history is what it is compared with."""
        self.alone = alone
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
        usual = rate = self.usual_rate()
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
                Alone(errors_c, requests_c * self.own_rate) if requests_c else None
            )
        else:
            if requests_b and requests_c:
                self.offset = self.between(step)
            exposure = self.offset.exposure_at(requests_b, usual, rate)
            contribution = paired(errors_c, errors_b, requests_c, exposure)
            if contribution is not None:
                self._widen(contribution)
        if contribution is not None:
            self.process.add(contribution)
        return contribution

    def _widen(self, contribution: Paired) -> None:
        """The null is as wide as what was compared, by its information: a bin in thin company does not widen it for good."""
        information = contribution.both * contribution.share * (1.0 - contribution.share)
        self._information += information
        self._variance += information * self.offset.spread**2
        spread = sqrt(self._variance / self._information)
        if abs(spread - self.process.spread) > ALMOST:
            self.process.expect(Offset(0.0, spread))

    def between(self, step: Step) -> Offset:
        """The offset between the hosts that are there: when one of the baseline is gone, what was learned of it goes too.

        Where no canary could be read, it is that of the canary as it was before the switch.
        """
        roles = frozenset([(one.host, one.canary) for one in step.bins])
        return self._offset_of(roles if any(one.canary for one in step.bins) else roles | self._canaries)

    def _offset_of(self, roles: frozenset[tuple[str, bool]]) -> Offset:
        if roles not in self._offsets:
            canary = self._past_of([host for host, is_canary in roles if is_canary])
            baseline = self._past_of([host for host, is_canary in roles if not is_canary])
            self._offsets[roles] = learned(canary, baseline, self._past_phi)
        return self._offsets[roles]

    def _past_of(self, hosts: list[str]) -> tuple[float, float]:
        """In the order of names: a set has none, and the same intervals give the same verdict to the last digit."""
        found = [self._past[host] for host in sorted(hosts) if host in self._past]
        return sum([errors for errors, _ in found]), sum([requests for _, requests in found])

    def evidence(self, without: list[Contribution] | None = None) -> float:
        """Nats: ln E."""
        return self.process.evidence(self.phi, without)


def _pair(two: list[float]) -> tuple[float, float]:
    return two[0], two[1]
