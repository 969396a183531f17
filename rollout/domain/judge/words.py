"""The verdict for people: what was seen on canary and baseline, how sure it is, what would have changed its mind."""

from math import ceil, exp, floor, isfinite, log10
from typing import TYPE_CHECKING

from rollout.domain.judge import passing
from rollout.domain.judge.constants import (
    BETA,
    BLACKOUT_CERTAIN_S,
    CLEAR_S,
    PASS_AT,
    RATIO,
    STARVED_SHARE,
    UNSEEN_S,
)
from rollout.domain.judge.starved import too_few
from rollout.domain.verdict import Status

if TYPE_CHECKING:
    from rollout.domain.judge.comparison import Comparison
    from rollout.domain.judge.judging import Judge, Tally

MOST_SURE = 6  # powers of ten: no model of noise is good enough to promise more than one in a million
UNLIKE = 0.1  # an offset of so much is told
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def evidence(judge: "Judge") -> dict[str, float]:
    """The numbers behind the word: nats of evidence (L...), dispersions, counts, seconds. All are finite."""
    failing = judge.failing
    found = {
        "L": failing.together,
        "L_rel": failing.relative,
        "L_abs": failing.absolute,
        "L_trim": failing.together if failing.trimmed is None else failing.trimmed,
        "L_P": judge.harmless,
        "L_A": judge.within_limit,
        "phi": max(kind.phi for kind in failing.kinds),
        "phi_raw": failing.phi,
        "offset": failing.bad.offset.mean,
        "margin": passing.certificate(judge.counts, failing.phi) if judge.compared else 1.0,
        "harmed": _harmed(judge, None),
        "requests": float(judge.canary.requests),
        "bad": float(judge.canary.bad),
        "baseline_requests": float(judge.baseline.requests),
        "baseline_bad": float(judge.baseline.bad),
        "observed_s": judge.observed_s,
    }
    return {name: round(value, 6) if isfinite(value) else 1e9 for name, value in found.items()}


def explanation(judge: "Judge", status: Status, reason: str) -> str:
    """One or two sentences: what was seen and how sure that is, then when the word fell and what would have changed it."""
    match status:
        case Status.FAIL:
            return _starved(judge) if reason == "starved" else _failed(judge)
        case Status.PASS:
            return _passed(judge)
        case Status.INCONCLUSIVE:
            return (
                f"{_doubted(judge, reason)}. It is undecided after {judge.t:.0f} s{_wanted(judge, reason)}."
            )
        case Status.RUNNING:
            return f"{_seen(judge, None)}; watched for {judge.t:.0f} s"


def _failed(judge: "Judge") -> str:
    kind = judge.failing.convicted_of()
    harmed = f"about {_percent(_harmed(judge, kind))} of the requests to {_number(len(judge.canary.hosts), 'host')}"
    return (
        f"{_seen(judge, kind)}{_unlike(judge, kind)}; {_sure(judge)}. "
        f"It failed after {judge.t:.0f} s, in which it harmed {harmed}; {_fail_doubt(judge, kind)}."
    )


def _unlike(judge: "Judge", kind: int | None) -> str:
    """Of a host that was never like the others."""
    offset = _comparison(judge, kind).offset.mean
    if not judge.failing.paired or abs(offset) < UNLIKE:
        return ""
    return f" (as far as the time before the switch tells, {exp(offset):.2g} times as many as theirs were to be expected)"


def _sure(judge: "Judge") -> str:
    """A long outage fails also where the hosts are so noisy that the odds say little."""
    if judge.failing.together < judge.failing.fail_at:
        return (
            f"half or more of its answers were bad for {BLACKOUT_CERTAIN_S:.0f} s while the others were well"
        )
    return _odds(judge.failing.together)


def _fail_doubt(judge: "Judge", kind: int | None) -> str:
    if judge.failing.paired:
        if _unlike(judge, kind):
            return "had it been no worse beside the baseline than before, it would have been watched on"
        return "had the baseline answered like that in the same seconds, it would have been watched on"
    if judge.failing.alone:
        return "there was no baseline: had its own past been as bad, it would have been watched on"
    return (
        f"there was nothing to compare it with, only the limit of {_percent(judge.limit.theta)} bad answers"
    )


def _starved(judge: "Judge") -> str:
    starved = judge.failing.starved
    got, expected = (sum(column) for column in zip(*starved.values(), strict=True))
    apart = [one for both in starved.values() if too_few(*both) for one in both[1:]]
    enough = floor(STARVED_SHARE * max(apart, default=expected)) + 1
    each = " each" if len(apart) > 1 else ""
    return (
        f"{_names(sorted(starved))} got {_count(int(got), 'request')} in 30 s, and by the other hosts' traffic "
        f"about {_round(expected)} were to be expected. "
        f"It failed after {judge.t:.0f} s; with {_at_least(enough)}{each} it would have been watched on."
    )


def _passed(judge: "Judge") -> str:
    ruled_out = f"more than {_percent(judge.limit.theta)} bad answers"
    if judge.compared:
        margin = passing.certificate(judge.counts, judge.failing.phi)
        ruled_out = f"more than {_material(judge)} + {ceil(1e4 * margin) / 100:g} points"
    alone = "" if judge.compared else " There was nothing to compare it with: absolute limit only."
    bad, requests = judge.uncompared
    if bad:
        alone += f" While nothing was there to compare it with, it answered badly to {bad:,} of {_count(requests, 'request')}."
    return (
        f"{_tested(judge)}; {ruled_out} is ruled out at {1 / BETA:.0f} to 1. It passed after {judge.t:.0f} s; "
        f"with {_count(_bad_to_spare(judge), 'more bad answer')} it would have been watched on.{alone}"
    )


def _material(judge: "Judge") -> str:
    """The rate above which, and a margin, a regression is material; of a host that was never like the others, its own."""
    if not judge.failing.paired:
        return f"{RATIO:g} times its own rate before"
    offset = judge.failing.bad.offset.mean
    if abs(offset) < UNLIKE:
        return f"{RATIO:g} times the baseline's rate"
    return f"{RATIO * exp(offset):.2g} times the baseline's rate ({RATIO:g} times what its host had beside it before)"


def _bad_to_spare(judge: "Judge") -> int:
    """How many more bad answers, instead of good ones, would have kept it from passing."""
    counts = judge.counts
    low, high = 0, int(counts.requests_c - counts.bad_c)
    while low < high:
        middle = (low + high) // 2
        worse = counts._replace(bad_c=counts.bad_c + middle)
        held = judge.within_limit_by(worse) >= PASS_AT and (
            not judge.compared or judge.harmless_by(worse) >= PASS_AT
        )
        low, high = (middle + 1, high) if held else (low, middle)
    return low


def _doubted(judge: "Judge", reason: str) -> str:
    match reason:
        case "stale":
            canary = judge.unseen_s >= UNSEEN_S or not judge.seen
            who = _who(judge) if canary else "the baseline"
            unseen_s = judge.unseen_s if canary else judge.baseline_unseen_s
            seen = f"; before, {_seen(judge, None)}" if judge.canary.requests else ""
            return f"stale: {who} could not be read for {max(1, ceil(unseen_s))} s{seen}"
        case "no traffic":
            return f"no traffic: {_silence(judge)}"
        case "shared incident":
            ago = judge.t - judge.failing.incidents.last
            until = f", until {ago:.0f} s ago" if ago else ""
            return f"shared incident: the baseline went wrong too{until}; {_seen(judge, None)}"
    return f"not enough evidence: {_seen(judge, None)}"


def _wanted(judge: "Judge", reason: str) -> str:
    """What would have changed its mind."""
    simple = {
        "no traffic": "; a few hundred requests without a bad answer would be enough",
        "shared incident": f"; it may pass when the baseline has been well for {CLEAR_S:.0f} s",
        "stale": "; what cannot be read does not pass",
    }
    return simple.get(reason) or _lacking(judge)


def _lacking(judge: "Judge") -> str:
    weakest = min(judge.harmless, judge.within_limit)
    if hindered := _hindered(judge):
        return f": {hindered}"
    if weakest <= 0:
        return ": neither harm nor its absence is shown"
    if weakest >= PASS_AT:
        return f": it leans towards harm ({_odds(judge.failing.together)})"
    return f"; {_times(PASS_AT / weakest)} times as many requests like these would be enough"


def _times(amount: float) -> str:
    if amount >= 1e6:
        return "more than a million"
    return f"about {_round(amount) if amount >= 100 else f'{max(1.1, amount):.2g}'}"


def _hindered(judge: "Judge") -> str:
    """What keeps it from passing whatever the counts say; empty if nothing does."""
    if judge.only_probed:
        return "a probe alone passes no canary (allow_probe_pass is false)"
    if not judge.provable:
        return "there was nothing to compare it with, and by its policy every answer may be bad, so nothing can be shown"
    if judge.failing.paired and judge.uncompared_s >= UNSEEN_S:
        return f"for {judge.uncompared_s:.0f} s the baseline answered nothing that it could be compared with"
    if judge.compared_s < judge.policy.bake_s <= judge.observed_s:
        return f"it could be compared with the baseline in {judge.compared_s:.0f} s only"
    if judge.compared_s < judge.policy.bake_s:
        return f"it is watched for at least {judge.policy.bake_s:.0f} s"
    return ""


def _odds(nats: float) -> str:
    """By Ville's inequality a harmless release ever shows e^nats with a probability of at most e^-nats; rounded down."""
    power = min(MOST_SURE, floor(nats / 2.302585092994046 + 1e-9))
    if power < 1:
        return f"the odds that this is chance are about 1 in {max(1.0, exp(nats)):.1f}"
    return f"the odds that this is chance are below 1 in {10**power:,}"


def _seen(judge: "Judge", kind: int | None) -> str:
    """What canary and baseline answered, of one kind or of all that is bad."""
    return _answers(judge, kind, judge.canary, judge.baseline)


def _tested(judge: "Judge") -> str:
    """What they answered where they could be compared, outside of incidents: what a pass rests on."""
    canary, baseline = judge.tested
    whole = (canary.requests, baseline.requests) == (judge.canary.requests, judge.baseline.requests)
    where = "" if whole else " where they could be compared"
    return _answers(judge, None, canary, baseline) + where


def _answers(judge: "Judge", kind: int | None, canary: "Tally", baseline: "Tally") -> str:
    if not canary.requests:
        return _silence(judge)
    kind = _main_kind(canary) if kind is None else kind
    what = "badly" if kind is None else judge.kinds.weights[kind][0]
    errors_c, errors_b = _errors(canary, baseline, kind)
    bad = f"{errors_c:,}" if errors_c else "none"
    told = f"{_who(judge)} answered {what} to {bad} of {_count(canary.requests, 'request')}"
    if errors_c:
        told += f" ({_percent(errors_c / canary.requests)})"
    if baseline.requests:
        hosts = _number(len(baseline.hosts), "baseline host")
        told += f", the {hosts} to {_percent(errors_b / baseline.requests)} of {baseline.requests:,}"
    return told


def _main_kind(canary: "Tally") -> int | None:
    """The kind that all bad answers of the canary are of, if they are of one."""
    bad = canary.bad
    return next((place for place, count in enumerate(canary.kinds) if bad and count == bad), None)


def _errors(canary: "Tally", baseline: "Tally", kind: int | None) -> tuple[int, int]:
    if kind is None:
        return canary.bad, baseline.bad
    return canary.kinds[kind], baseline.kinds[kind] if baseline.kinds else 0


def _harmed(judge: "Judge", kind: int | None) -> float:
    """The share of the canary's requests that went wrong beyond the baseline's share."""
    if not judge.canary.requests:
        return 0.0
    errors_c, errors_b = _errors(judge.canary, judge.baseline, kind)
    return max(0.0, errors_c / judge.canary.requests - _usual(judge, kind, errors_b))


def _usual(judge: "Judge", kind: int | None, errors_b: int) -> float:
    """What would have been to be expected of the canary's host without the release."""
    comparison = _comparison(judge, kind)
    if judge.baseline.requests:
        return comparison.offset.rate_at(comparison.usual_rate(), errors_b / judge.baseline.requests)
    if kind is not None:
        return comparison.own_rate
    bad, requests = judge.own_past
    return bad / requests if requests else 0.0


def _comparison(judge: "Judge", kind: int | None) -> "Comparison":
    return judge.failing.bad if kind is None else judge.failing.kinds[kind]


def _silence(judge: "Judge") -> str:
    if not judge.seen:
        return f"nothing was read of {_who(judge)}"
    return f"{_who(judge)} got no request in {judge.observed_s:.0f} s"


def _who(judge: "Judge") -> str:
    return _names(judge.watched or ["the canary"])


def _names(names: list[str]) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} more"


def _number(amount: int, thing: str) -> str:
    told = _NUMBERS[amount] if amount < len(_NUMBERS) else f"{amount:,}"
    return f"{told} {thing}" if amount == 1 else f"{told} {thing}s"


def _count(amount: int, thing: str) -> str:
    return f"{amount:,} {thing}" if amount == 1 else f"{amount:,} {thing}s"


def _round(amount: float) -> str:
    """Two digits: what was to be expected is an estimate."""
    digits = max(0, floor(log10(amount)) - 1) if amount >= 1 else 0
    return f"{round(amount, -digits):,.0f}"


def _at_least(amount: int) -> str:
    """Two digits, rounded up: what is told to be enough is."""
    step = 10 ** max(0, floor(log10(amount)) - 1)
    return f"{ceil(amount / step) * step:,}"


def _percent(share: float) -> str:
    """Two digits that mean something, and never 0 or 100 when it is not."""
    percent = 100 * share
    if share in {0.0, 1.0}:
        return f"{percent:.0f} %"
    digits = max(1, 1 - floor(log10(min(percent, 100 - percent) or 1)))
    return f"{percent:.{min(digits, 6)}f} %"
