"""Deterministic simulation: the real services and store, workers, a broker, hosts and people, under what a seed has in store.

`SEEDS=500` runs so many; `python -m tests.support.simulation SEED` tells the story of one.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rollout.services import stopping
from rollout.store.rollouts import Rollouts
from tests.conftest import ALL_FAULTS
from tests.support.model_host import Call
from tests.support.simulation.simulation import Finding, Simulation

ROOT = Path(__file__).parents[2]
SEEDS = int(os.environ.get("SEEDS") or (2000 if ALL_FAULTS else 10))
BLOCK = 10


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_nothing_that_must_not_be_is_left_by_any_seed(first):
    """After the storm all comes to rest by itself, never silent for 90 s, and the checker has nothing to accuse."""
    found = []
    for seed in range(first, min(first + BLOCK, SEEDS)):
        try:
            Simulation(seed).run()
        except Finding as finding:
            found.append(str(finding))
    assert not found, "\n".join(found)


def test_some_seeds_halt_for_harm_in_the_fan_out():
    """What begins after a PASS is among what the seeds have in store, and is seen."""
    told = (what for seed in (115, *range(200)) for _, what in Simulation(seed).run().story)
    assert any(what[:2] == ("log", "harm_in_the_fan_out") for what in told)


def test_some_seeds_plan_ahead():
    """A rollout that was planned while another fanned out begins in some seeds, and comes to nothing in others."""
    ahead, aside = set(), set()
    for seed in (12, 17, *range(200)):  # the first two have it now
        for _, what in Simulation(seed).run().story:
            if what[:2] == ("log", "rollout_planned") and what[2]["ahead"]:
                ahead.add((seed, what[2]["rollout"]))
            if what[:2] == ("log", "rollout_set_aside"):
                aside.add((seed, what[2]["rollout"]))
        if aside and ahead - aside:
            return
    raise AssertionError(f"of {len(ahead)} that were planned ahead, {len(aside)} were set aside")


def test_a_seed_is_all_that_a_run_depends_on():
    """Two processes, whose sets and dictionaries hash differently, come to the same events and journals."""
    digests = [
        subprocess.run(
            [sys.executable, "-m", "tests.support.simulation", "--digest", "11-12"],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert len(set(digests[0].splitlines())) == 2
    assert digests[0] == digests[1]


def twice(monkeypatch):
    once_only = Rollouts.move_counts

    def move(*args, **values):
        once_only(*args, **values)
        once_only(*args, **values)

    monkeypatch.setattr(Rollouts, "move_counts", move)


def test_a_finding_names_its_seed_and_comes_again(monkeypatch):
    """What a seed finds it finds each time, and says how to look at it."""
    twice(monkeypatch)
    with pytest.raises(Finding) as first:
        _run(range(20))
    seed = re.match(r"seed (\d+): ", str(first.value))[1]
    assert str(first.value).endswith(f"replay with: python -m tests.support.simulation {seed}")
    with pytest.raises(Finding, match=f"^{re.escape(str(first.value))}$"):
        Simulation(int(seed)).run()


def acknowledged_early(patch):
    patch.setattr(stopping, "_unsealed", lambda _tx, _rollout: [])


def no_seals(patch):
    true = Call._status

    def status(call):
        call.epoch = 0
        yield from true(call)

    patch.setattr(Call, "_status", status)


def no_memory(patch):
    patch.setattr(Call, "_answer_known", lambda _call: None)
    patch.setattr(Call, "_check_fence", lambda _call: None)


def _run(seeds):
    for seed in seeds:
        Simulation(seed).run()


@pytest.mark.faults
@pytest.mark.parametrize("mutant", [acknowledged_early, no_seals, no_memory])
def test_what_only_rare_moments_show_is_found_by_some_seed(monkeypatch, mutant):
    """A product, or a host, that forgets a part of the fence does not get through all seeds."""
    mutant(monkeypatch)
    with pytest.raises(Finding):
        _run(range(1000))
