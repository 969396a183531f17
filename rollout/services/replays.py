"""Past canaries judged once more from their samples, by the policy of then or by another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

from rollout.config import durations
from rollout.domain.judge import Judge
from rollout.domain.judge.judging import FINAL
from rollout.domain.model import Rollout
from rollout.domain.states import FINISHED, RolloutEvent
from rollout.domain.verdict import Interval, Policy, Status, Verdict
from rollout.errors import ConfigError
from rollout.services.policies import policy, unreadable
from rollout.services.verdicts import judged, policy_of
from rollout.store.retention import MEASURED
from rollout.store.store import Transaction

Changes = Mapping[str, Any]  # field of Policy -> value


class Then(StrEnum):
    """What became of the canary when it was there."""

    PASS = "pass"  # noqa: S105  # a verdict, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ACCEPTED = "accepted"  # by a person, whatever the judge said
    UNDECIDED = "undecided"  # the rollout ended first
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class Replay:
    """What the judge says now of a rollout's canary."""

    rollout: Rollout
    then: Then
    policy: Policy
    verdict: Verdict | None = None  # None: there is nothing to judge, and `missing` says why
    missing: str = ""
    decided: bool = False  # whether the word fell, before the samples ended

    @property
    def stopped(self) -> bool:
        """Whether the rest of the fleet would have been spared: a FAIL, or doubt at the deadline, which halts."""
        return self.decided and self.verdict is not None and self.verdict.status is not Status.PASS


def under_way(rollout: Rollout) -> bool:
    """No word has fallen yet, and one may."""
    return rollout.state not in FINISHED and rollout.canary_status in {None, Status.RUNNING}


def replay(tx: Transaction, rollout: Rollout, changes: Changes) -> Replay:
    """Judge its samples; ConfigError when the policy that `changes` makes of its own is none."""
    then = _then(tx, rollout)
    if (unread := unreadable(rollout)) is not None:
        return Replay(rollout, then, Policy(**changes), missing=unread)
    own = policy_of(policy(rollout))
    asked = _asked(rollout, own, changes)
    samples = kept_samples(tx, rollout)
    if not samples:
        return Replay(rollout, then, asked, missing=_missing(tx, rollout, then))
    judging = judged(samples, own)
    if asked != own:
        judging = judged(_watched(samples, judging), asked)
    return Replay(rollout, then, asked, judging.closing, decided=judging.verdict.status in FINAL)


def kept_samples(tx: Transaction, rollout: Rollout) -> Sequence[Interval]:
    """Its samples, unless they are so old that some of them may be gone: half of them would make another story."""
    return [] if _outlived(tx, rollout) else tx.samples.of(rollout.id)


def _outlived(tx: Transaction, rollout: Rollout) -> bool:
    return rollout.ended_at is not None and rollout.ended_at < tx.today() - MEASURED


def _watched(samples: Sequence[Interval], judging: Judge) -> Sequence[Interval]:
    """Those until its word fell. What was read later is of the fan-out, when the baseline's hosts were switched too."""
    if judging.verdict.status not in FINAL:
        return samples
    return [one for one in samples if one.t <= judging.verdict.t]


def _asked(rollout: Rollout, own: Policy, changes: Changes) -> Policy:
    asked = replace(own, **changes)
    if asked.deadline_s < asked.bake_s:
        deadline, bake = durations.text(asked.deadline_s), durations.text(asked.bake_s)
        raise ConfigError(
            f"rollout {rollout.id}: a deadline of {deadline} is shorter than a bake of {bake}",
            remedy="give both --bake and --deadline",
        )
    return asked


def _then(tx: Transaction, rollout: Rollout) -> Then:
    events = tx.events.of_subject(rollout.app, f"rollout {rollout.id}")
    if any(event.what == RolloutEvent.CANARY_ACCEPTED for event in events):
        return Then.ACCEPTED
    if rollout.passed_t is not None:
        return Then.PASS  # whatever the fan-out showed later
    if rollout.canary_status is None:
        return Then.NOT_JUDGED
    return Then.UNDECIDED if rollout.canary_status == Status.RUNNING else Then(rollout.canary_status)


def _missing(tx: Transaction, rollout: Rollout, then: Then) -> str:
    """Why there is nothing to judge."""
    if _outlived(tx, rollout):
        return f"no samples after {MEASURED // timedelta(days=1)} days"
    match then:
        case Then.ACCEPTED:
            return "accepted, nothing was measured"
        case Then.NOT_JUDGED:
            return "never judged" if rollout.state in FINISHED else "not judged yet"
        case Then.FAIL:
            return "failed before it was watched"
        case _:
            return "nothing was measured"
