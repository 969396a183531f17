"""The judge's fold: intervals in, a verdict after each step, and nothing changes a PASS or a FAIL any more."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from rollout.domain.judge import passing
from rollout.domain.judge.absolute import Limit
from rollout.domain.judge.constants import ALPHA, INCIDENT_S, LEAN, PASS_AT, UNSEEN_S
from rollout.domain.judge.failing import FailingSide
from rollout.domain.judge.kinds import kinds_of
from rollout.domain.judge.passing import Counts
from rollout.domain.judge.steps import Step, Steps
from rollout.domain.verdict import Interval, Policy, Status, Verdict

FINAL = frozenset({Status.PASS, Status.FAIL, Status.INCONCLUSIVE})
STALE, NO_TRAFFIC, INCIDENT, NOT_ENOUGH = "stale", "no traffic", "shared incident", "not enough evidence"
STARVED, OUTAGE, ERROR_RATE, NO_HARM = "starved", "outage", "error rate", "no harm found"


@dataclass(slots=True)
class Tally:
    """What one side answered since the switch."""

    requests: int = 0
    bad: int = 0
    kinds: list[int] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def add(self, step: Step, *, canary: bool) -> None:
        """One step more."""
        for one in step.bins:
            if one.canary is not canary:
                continue
            self.requests += one.requests
            self.bad += one.bad
            self.hosts.add(one.host)
            self.kinds = [
                mine + new for mine, new in zip(self.kinds or [0] * len(one.kinds), one.kinds, strict=True)
            ]


class Judge:
    """Judges as intervals come, in the order of t. The verdict is that of `judge` on all of them, however they are cut.

    Intervals of one t must come in one call; `verdict` is the word now, `closing` the word if nothing more comes.
    """

    def __init__(
        self, policy: Policy, *, alpha: float = ALPHA, passes: bool = True, own_past: bool = True
    ) -> None:
        self.policy = policy
        self.kinds = kinds_of(policy)
        self.limit = Limit(policy.minimum_good)
        self.failing = FailingSide(
            self.limit, [weight for _, weight in self.kinds.weights], alpha, own_past=own_past
        )
        self.t = 0.0
        self.canary, self.baseline = Tally(), Tally()
        self.observed_s = self.compared_s = 0.0
        self.counts = Counts()  # of the pass test: compared, outside of incidents, as they are
        self.tested = Tally(), Tally()  # what it rests on, of canary and baseline
        self._observed_at: float | None = None
        self._baseline_at = self._compared_at = 0.0
        self.uncompared = (0, 0)  # bad answers and requests of the canary, while no baseline answered
        self.probed = 0  # requests of our own, which make nothing pass here
        self._steps = Steps(policy, self.kinds)
        self._history: list[Step] | None = []  # None once the canary is judged
        self._watched: set[str] = set()
        self.own_past = (0, 0)  # bad answers and requests of the canary before the switch
        self._lately: deque[tuple[float, int, int]] = deque()  # t, bad, requests of the canary
        self._extended = False
        self._ends = passes  # else it fails or goes on
        self._fallen: Verdict | None = None

    def add(self, intervals: Iterable[Interval]) -> Verdict:
        """Judge these too."""
        for step in self._steps.of(intervals):
            if self._fallen is not None:
                break
            self._take(step)
        return self.verdict

    @property
    def verdict(self) -> Verdict:
        """The word now."""
        return self._fallen or self._say(Status.RUNNING, self.doubt)

    @property
    def closing(self) -> Verdict:
        """The word if nothing more comes: what is undecided is inconclusive."""
        return self._fallen or self._say(Status.INCONCLUSIVE, self.doubt)

    @property
    def watched(self) -> list[str]:
        """Names of the canaries."""
        return sorted(self._watched)

    @property
    def unseen_s(self) -> float:
        """For how long no canary could be read."""
        return max(0.0, self.t - (self._observed_at or 0.0))

    @property
    def seen(self) -> bool:
        """Whether any canary could ever be read."""
        return self._observed_at is not None

    @property
    def baseline_unseen_s(self) -> float:
        """For how long no host of the baseline could be read, where there is one."""
        return max(0.0, self.t - self._baseline_at) if self.failing.paired else 0.0

    @property
    def uncompared_s(self) -> float:
        """For how long there was no second in which the canary could be compared."""
        return max(0.0, self.t - self._compared_at)

    @property
    def doubt(self) -> str:
        """Why there is no word, the first reason that holds."""
        if self.unseen_s >= UNSEEN_S or (not self.seen and self.t > 0):
            return STALE
        if not self.canary.requests:
            return NO_TRAFFIC
        if self.baseline_unseen_s >= UNSEEN_S:
            return STALE
        return INCIDENT if self.failing.incidents.lately(self.t) else NOT_ENOUGH

    @property
    def harmless(self) -> float:
        """L_P: nats against a material regression; without anything to compare with there is none to be had."""
        if not self.compared:
            return inf if self.counts.requests_c else 0.0
        return self.harmless_by(self.counts)

    def harmless_by(self, counts: Counts) -> float:
        """The same by other counts. What could not be compared speaks against the canary, and never for it."""
        margin = passing.margin_at(self.t, self.policy.deadline_s, self.policy.margin)
        told = (counts, self._with_uncompared(counts)) if self.uncompared[1] else (counts,)
        return min(passing.evidence(one, margin, self.failing.phi) for one in told)

    def within_limit_by(self, counts: Counts) -> float:
        """Nats against a share above the limit, which needs no baseline: all that was seen counts."""
        answered = self._with_uncompared(counts)
        return self.limit.below(answered.bad_c, answered.requests_c, self.failing.phi)

    def _with_uncompared(self, counts: Counts) -> Counts:
        bad, requests = self.uncompared
        return counts._replace(bad_c=counts.bad_c + bad, requests_c=counts.requests_c + requests)

    @property
    def compared(self) -> bool:
        """Whether there is a baseline, or history; else the limit is all there is."""
        return self.failing.paired or self.failing.alone

    @property
    def provable(self) -> bool:
        """Whether a pass could say anything: with nothing to compare with and every answer allowed to be bad, none could."""
        return self.compared or not self.limit.none

    @property
    def within_limit(self) -> float:
        """L_A: nats against a share of bad answers above the limit."""
        return self.within_limit_by(self.counts)

    @property
    def only_probed(self) -> bool:
        """Whether all that was seen are requests of our own, which pass nothing here."""
        return self.probed > 0 and not self.counts.requests_c

    def _take(self, step: Step) -> None:
        self._watched |= step.watched
        if step.t <= 0:
            if self._history is not None:
                self._history.append(step)
            return
        if self._history is not None:
            self._begin(self._history)
        self.t = step.t
        self.canary.add(step, canary=True)
        self.baseline.add(step, canary=False)
        if any(one.canary for one in step.bins):
            self._observed_at = step.t
            self.observed_s += step.dt
        began_alone = not self.failing.paired
        self.failing.add(step)
        if began_alone and self.failing.paired:  # the baseline came late: what was before it was not compared
            self.counts, self.tested, self.compared_s = Counts(), (Tally(), Tally()), 0.0
        self._count(step)
        self._decide()

    def _begin(self, history: list[Step]) -> None:
        self._history = None
        self.failing.learn(history)
        canaries = [one for step in history for one in step.bins if one.canary]
        self.own_past = sum(one.bad for one in canaries), sum(one.requests for one in canaries)

    def _count(self, step: Step) -> None:
        """For the pass test: not during incidents, nor where nobody answered whom the canary could be compared with."""
        bad, requests = self._of_canary(step)
        self._lately.append((step.t, bad, requests))
        while self._lately[0][0] <= step.t - INCIDENT_S:
            self._lately.popleft()
        others = [one for one in step.bins if not one.canary]
        if others:
            self._baseline_at = step.t
        bad, requests = self._not_probed(step, bad, requests)
        if self.failing.paired and not any(one.requests for one in others):
            if not self.failing.incidents.lately(step.t):
                self.uncompared = self.uncompared[0] + bad, self.uncompared[1] + requests
            return
        if any(one.canary for one in step.bins):
            self._compared_at = step.t
            self.compared_s += step.dt
        if self.failing.incident:
            return
        self.tested[0].add(step, canary=True)
        self.tested[1].add(step, canary=False)
        k_c, n_c, k_b, n_b = self.counts
        if self.failing.alone:
            k_b, n_b = self.own_past
        else:
            exposure = self.failing.bad.between(step).exposure(sum(one.requests for one in others))
            k_b, n_b = k_b + sum(one.bad for one in others), n_b + exposure
        self.counts = Counts(k_c + bad, n_c + requests, k_b, n_b)

    def _not_probed(self, step: Step, bad: int, requests: int) -> tuple[int, int]:
        """Requests of our own count for nothing here, unless the policy says that they do."""
        probed = 0 if self.policy.allow_probe_pass else sum(one.probed for one in step.bins if one.canary)
        self.probed += probed
        return (0, 0) if probed else (bad, requests)

    @staticmethod
    def _of_canary(step: Step) -> tuple[int, int]:
        canaries = [one for one in step.bins if one.canary]
        return sum(one.bad for one in canaries), sum(one.requests for one in canaries)

    def _decide(self) -> None:
        if self.failing.failed:
            self._fallen = self._say(Status.FAIL, self._harm())
        elif not self._ends:
            return
        elif self._passes():
            self._fallen = self._say(Status.PASS, NO_HARM)
        elif self.t >= self.policy.deadline_s:
            self._at_deadline()

    def _passes(self) -> bool:
        return (
            self.compared_s >= self.policy.bake_s
            and self.counts.requests_c > 0
            and self.provable
            and self.failing.together < LEAN
            and self.uncompared_s < UNSEEN_S
            and not self.failing.incidents.lately(self.t)
            and self.within_limit >= PASS_AT
            and self.harmless >= PASS_AT
        )

    def _at_deadline(self) -> None:
        """What more time does not mend is reported at once; doubt and shared incidents get as much again, once."""
        hopeless = not self._extended and (
            self.doubt in {STALE, NO_TRAFFIC} or self.only_probed or not self.provable
        )
        self._extended = True
        if hopeless or self.t >= 2 * self.policy.deadline_s:
            self._fallen = self._say(Status.INCONCLUSIVE, self.doubt)

    def _harm(self) -> str:
        if not self.failing.convicted:
            return STARVED
        bad = sum(one[1] for one in self._lately)
        return OUTAGE if 2 * bad >= sum(one[2] for one in self._lately) else ERROR_RATE

    def _say(self, status: Status, reason: str) -> Verdict:
        from rollout.domain.judge import words  # noqa: PLC0415  # it reads this class

        return Verdict(status, reason, self.t, words.evidence(self), words.explanation(self, status, reason))


def judge(intervals: Iterable[Interval], policy: Policy) -> Verdict:
    """The word on these intervals, sorted by t; `t` of the verdict is the end of the step at which it fell.

    The same intervals always give the same verdict; later ones never change a word that has fallen. Raises nothing.
    """
    return Judge(policy).add(intervals)
