"""What the word on a canary rests on: numbers, and canary against baseline over time. Reads only."""

from collections.abc import Sequence
from typing import Any

from rollout.config.deploy_file import AppConfig
from rollout.domain.bins import Bin, Side, bins
from rollout.domain.model import Rollout
from rollout.domain.verdict import Interval, Status, Verdict
from rollout.errors import ConfigError
from rollout.services.policies import for_the_way_back
from rollout.services.replays import kept_samples
from rollout.services.verdicts import judged, policy_of
from rollout.store.store import Transaction

MOST_BINS = 300
LEAST_HISTORY_S = 60.0  # of what is looked at closely


def canary(
    tx: Transaction, found: Rollout, most: int = MOST_BINS, *, closely: bool = False
) -> dict[str, Any]:
    """`/api/rollouts/ID/canary`: the word that was told, and the samples in at most `most` bins.

    `closely`: with no more history than what followed is long (a minute at least), or ten minutes of it would make six
    seconds of an outage one column.

    `reason`, `t` and `evidence` come from judging the samples once more, by the policy of the rollout. Where that does not
    give the word that was told (a person accepted the canary, it failed during the fan-out, the samples are gone, the policy
    is of another version of rollout), they are null and empty; and so are `policy` and `bins` of one that cannot be read.
    """
    try:
        app = for_the_way_back(found, {})  # what this version knows of it; the word itself was told
    except ConfigError:
        told: dict[str, Any] = {"status": found.canary_status, "explanation": found.canary_reason}
        return told | {"reason": None, "t": None, "evidence": {}, "policy": None, "bins": []}
    samples = kept_samples(tx, found)
    verdict = judged(samples, policy_of(app)).verdict if samples else None
    drawn = _closely(samples) if closely else samples
    explains = verdict is not None and _explains(verdict, found, app)
    return {
        "status": found.canary_status,
        "reason": verdict.reason if verdict and explains else None,
        "explanation": found.canary_reason,
        "t": verdict.t if verdict and explains else None,
        "evidence": dict(verdict.evidence) if verdict and explains else {},
        "policy": _policy(app),
        "bins": [_bin(one) for one in bins(drawn, policy_of(app), most)],
    }


def _explains(verdict: Verdict, found: Rollout, app: AppConfig) -> bool:
    if verdict.status is Status.INCONCLUSIVE and app.canary.on_inconclusive == "fail":
        return found.canary_status == Status.FAIL
    return verdict.status == found.canary_status


def _closely(samples: Sequence[Interval]) -> Sequence[Interval]:
    followed = max((one.t for one in samples), default=0.0)
    return [one for one in samples if one.t - one.dt >= -max(LEAST_HISTORY_S, followed)]


def _policy(app: AppConfig) -> dict[str, Any]:
    """What a user sets, by its names in rollout.toml; durations in seconds, shares between 0 and 1."""
    canary = app.canary
    return {
        "good": list(canary.good),
        "minimum_good": canary.minimum_good,
        "bake": canary.bake,
        "deadline": canary.deadline,
        "margin": canary.margin,
        "baseline": canary.baseline,
        "on_inconclusive": canary.on_inconclusive,
        "allow_probe_pass": canary.allow_probe_pass,
    }


def _bin(one: Bin) -> dict[str, Any]:
    return {"t": one.t, "dt": one.dt, "canary": _side(one.canary), "baseline": _side(one.baseline)}


def _side(side: Side) -> dict[str, Any]:
    return {
        "requests": side.requests,
        "bad": side.bad,
        "observed": side.observed,
        "host_s": side.host_s,
    }
