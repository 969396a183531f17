"""The canary's judge: a threshold on the share of good answers, with an exact bound instead of a guess.

`judge` is a pure function of the intervals and the policy. The times at which it could decide are the ends of the
intervals, taken one after the other: so the verdict does not depend on when somebody asked, and never changes once it
has fallen. Whoever asks tells what could not be read by intervals with `observed=False`; they also move the time on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from rollout.domain import binomial
from rollout.domain.verdict import Interval, Policy, Status, Verdict

CONFIDENCE = 0.95  # of each of the two one-sided bounds
NO_FAIL_UNTIL_S = 5.0  # the first seconds of a new process are its own
UNSEEN_S = 15.0  # a canary that was not seen for so long cannot pass
CANARY = "canary"


def judge(intervals: Sequence[Interval], policy: Policy) -> Verdict:
    """The word on these intervals, sorted by t. `t` of the verdict is the end of the interval at which it fell.

    FAIL after 5 s when even the upper bound of the canaries' good share is below `minimum_good`; PASS not before the
    bake when the lower bound is not below it and the canary was seen lately; at the deadline otherwise INCONCLUSIVE.
    """
    seen = _Seen()
    for t, group in groupby((one for one in intervals if one.t > 0), key=lambda one: one.t):
        seen = seen.after(t, group, policy)
        status = _status(seen, policy)
        if status is not Status.RUNNING:
            return _verdict(status, seen, policy)
    return _verdict(Status.RUNNING, seen, policy)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the canaries answered up to `t`, all of them together."""

    t: float = 0.0
    total: int = 0
    good: int = 0
    observed_at: float = 0.0  # end of the newest interval in which a canary could be read
    observed_s: float = 0.0
    hosts: tuple[str, ...] = field(default=())

    def after(self, t: float, group: Iterator[Interval], policy: Policy) -> "_Seen":
        """With the intervals that end at `t`."""
        canary = [one for one in group if one.role == CANARY]
        observed = [one for one in canary if one.observed]
        return _Seen(
            t=t,
            total=self.total + sum(sum(one.counts.values()) for one in observed),
            good=self.good + sum(_good(one, policy) for one in observed),
            observed_at=t if observed else self.observed_at,
            observed_s=self.observed_s + max((one.dt for one in observed), default=0.0),
            hosts=tuple(sorted({*self.hosts, *(one.host for one in canary)})),
        )


def _good(interval: Interval, policy: Policy) -> int:
    """A status that is counted by itself belongs to its class: with "4xx" good, 499 is."""
    return sum(
        count
        for name, count in interval.counts.items()
        if name in policy.good or f"{name[0]}xx" in policy.good
    )


def _status(seen: _Seen, policy: Policy) -> Status:
    if seen.total and seen.t > NO_FAIL_UNTIL_S and _too_low(seen, policy):
        return Status.FAIL
    if seen.total and seen.t >= policy.bake_s and not _stale(seen) and _high_enough(seen, policy):
        return Status.PASS
    return Status.INCONCLUSIVE if seen.t >= policy.deadline_s else Status.RUNNING


def _too_low(seen: _Seen, policy: Policy) -> bool:
    """The upper bound is below the minimum: so few good ones would be a surprise if the share were the minimum."""
    return binomial.at_most(seen.good, seen.total, policy.minimum_good) < 1.0 - CONFIDENCE


def _high_enough(seen: _Seen, policy: Policy) -> bool:
    """The lower bound is not below the minimum."""
    return (
        binomial.at_least(seen.good, seen.total, policy.minimum_good) <= 1.0 - CONFIDENCE
        or not policy.minimum_good
    )


def _stale(seen: _Seen) -> bool:
    return seen.t - seen.observed_at >= UNSEEN_S


def _verdict(status: Status, seen: _Seen, policy: Policy) -> Verdict:
    upper = binomial.upper(seen.good, seen.total, CONFIDENCE)
    lower = binomial.lower(seen.good, seen.total, CONFIDENCE)
    evidence = {
        "requests": float(seen.total),
        "good": float(seen.good),
        "lower": lower,
        "upper": upper,
        "observed_s": seen.observed_s,
    }
    return Verdict(status=status, reason=_reason(status, seen, policy), t=seen.t, evidence=evidence)


def _reason(status: Status, seen: _Seen, policy: Policy) -> str:
    """One sentence for people."""
    after = f"{seen.t:.0f} s"
    match status:
        case Status.FAIL:
            return f"{_answered(seen, policy)}; failed after {after}"
        case Status.PASS:
            return f"{_answered(seen, policy)}; passed after {after}"
        case Status.INCONCLUSIVE:
            return f"{_doubt(seen, policy)}; undecided after {after}"
        case Status.RUNNING:
            return f"{_answered(seen, policy) if seen.total else _silence(seen)}; watched for {after}"


def _doubt(seen: _Seen, policy: Policy) -> str:
    """Why the deadline came without a word, the first reason that holds."""
    if _stale(seen):
        return f"stale: {_who(seen)} could not be read for {seen.t - seen.observed_at:.0f} s; {_answered(seen, policy)}"
    if not seen.total:
        return f"no traffic: {_silence(seen)}"
    return f"not enough evidence: {_answered(seen, policy)}, and so many requests prove neither good nor bad"


def _silence(seen: _Seen) -> str:
    return f"{_who(seen)} got no request in {seen.observed_s:.0f} s"


def _answered(seen: _Seen, policy: Policy) -> str:
    share = seen.good / seen.total if seen.total else 0.0
    requests = "request" if seen.total == 1 else "requests"
    told = f" ({_percent(share, policy.minimum_good)})" if seen.total else ""
    return (
        f"{_who(seen)} answered well to {seen.good:,} of {seen.total:,} {requests}{told}; "
        f"{100 * policy.minimum_good:g} % are asked"
    )


def _who(seen: _Seen) -> str:
    names = seen.hosts or ("the canary",)
    if len(names) <= 3:
        return ", ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} more"


def _percent(share: float, minimum: float) -> str:
    """With as many digits as it takes to tell it from the minimum, and from all."""
    for digits in (1, 2, 3, 4):
        told = f"{100 * share:.{digits}f}"
        if all(share == other or told != f"{100 * other:.{digits}f}" for other in (minimum, 1.0)):
            break
    return f"{told} %"
