"""The kinds of answers that are watched one by one: a rise of one is not hidden by the noise of the others.

Their e-values are averaged, and the mean of e-values is an e-value (Vovk and Wang, "E-values: calibration, combination and
applications", 2021): no correction for looking at four. A fault in 5xx costs ln(1/0.6) = 0.5 nats by it.
"""

from rollout.domain.judge.steps import Kinds, is_good
from rollout.domain.verdict import Policy

WEIGHTS = (("5xx", 0.6), ("4xx", 0.2), ("3xx", 0.1), ("499", 0.1))
LOOPS = "3xx"  # watched although they are good: a redirect is good until all answers are


def kinds_of(policy: Policy) -> Kinds:
    """All that are not good by this policy, and redirects."""
    kept = [(name, weight) for name, weight in WEIGHTS if name == LOOPS or not is_good(name, policy)]
    total = sum(weight for _, weight in kept)
    return Kinds(tuple((name, weight / total) for name, weight in kept))
