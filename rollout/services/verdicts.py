"""The one rule by which a rollout's samples become a verdict: at each tick of the watch, and again when it is replayed."""

from collections.abc import Sequence

from rollout.config.deploy_file import AppConfig
from rollout.domain.horizon import told_by_all
from rollout.domain.judge import Judge
from rollout.domain.verdict import Interval, Policy


def policy_of(app: AppConfig) -> Policy:
    """What the app's configuration sets of the judge."""
    return Policy(
        good=tuple(app.canary.good),
        minimum_good=app.canary.minimum_good,
        bake_s=app.canary.bake,
        deadline_s=app.canary.deadline,
        margin=app.canary.margin,
        allow_probe_pass=app.canary.allow_probe_pass,
    )


def judged(samples: Sequence[Interval], policy: Policy) -> Judge:
    """A judge that has been told what all hosts have told of by now; `samples` sorted by t."""
    judging = Judge(policy)
    judging.add(told_by_all(samples))
    return judging
