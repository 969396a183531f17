"""A small, fixed part of the simulation of `make bench`: six kinds of noise, and what the judge promises on them."""

import pytest

from rollout.domain.judge import Judge
from rollout.domain.verdict import Policy, Status
from tests.bench.judge_noise import KINDS, Case, trace
from tests.bench.judge_peers import PEERS, sums

RUNS = range(12)  # two of each kind of noise


def words(fault, rps):
    for seed in RUNS:
        judging = Judge(Policy())
        judging.add(trace(Case(KINDS[seed % len(KINDS)], rps, 0.01, fault), seed))
        yield judging.closing


@pytest.mark.parametrize("rps", [10, 100])
def test_healthy_canaries_are_not_failed(rps):
    """Of each kind of noise; most of them pass."""
    said = [verdict.status for verdict in words("none", rps)]
    assert said.count(Status.FAIL) == 0
    assert said.count(Status.PASS) >= 9


@pytest.mark.parametrize("rps", [10, 100])
def test_a_material_regression_does_not_pass(rps):
    """A true rate of exactly 1.25 x the old one + 1 point; most of them fail."""
    said = [verdict.status for verdict in words("material", rps)]
    assert said.count(Status.PASS) == 0
    assert said.count(Status.FAIL) >= 7


@pytest.mark.parametrize("rps", [10, 100])
def test_a_total_outage_fails_within_twelve_seconds(rps):
    """Whatever the noise."""
    said = list(words("outage", rps))
    assert {verdict.status for verdict in said} == {Status.FAIL}
    assert max(verdict.t for verdict in said) <= 12


def test_the_peers_rules_are_fair_to_themselves():
    """Without noise that they cannot know, each fails an outage, and passes what is healthy by its own rule."""
    healthy, outage = (sums(trace(Case("poisson", 100, 0.001, fault), 1)) for fault in ("none", "outage"))
    for name, peer in PEERS.items():
        assert peer(outage)[0] == "fail", name
        assert peer(healthy)[0] == "pass", name
