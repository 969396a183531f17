"""No overshoot: however many hosts are switched at once, no more are hurt than the plan printed."""

import itertools

import pytest

from rollout.domain import budget
from tests.support.simulation.overshoot import Overshoot


def told(hosts, mode, max_failed, concurrency, successes=0, *, rough=False, seed=1):
    """A configuration, with its name."""
    values = {
        "hosts": hosts,
        "mode": mode,
        "max_failed": max_failed,
        "concurrency": concurrency,
        "successes": successes,
        "rough": rough,
    }
    name = f"{hosts}-{mode}-K{max_failed}-{concurrency}-at-once-{successes}-good"
    return pytest.param(seed, values, id=f"{name}{'-rough' if rough else ''}-{seed}")


FEW = [
    told(10, "strict", 0, 10, rough=True),
    told(10, "strict", 2, 3),
    told(10, "ramp", 1, 10, 4, rough=True),
    told(100, "strict", 5, 40, rough=True),
    told(100, "ramp", 3, 20, 10),
    told(1000, "strict", 10, 100),
]
MANY = [
    pytest.param(*one.values, id=one.id, marks=pytest.mark.faults)
    for one in (
        *(
            told(hosts, mode, hosts // 20, concurrency, successes, rough=rough, seed=seed)
            for hosts, mode, concurrency, successes, rough, seed in itertools.product(
                (10, 100), ("strict", "ramp"), (1, 10, 100), (0, 3), (False, True), (2, 3)
            )
        ),
        *(
            told(1000, mode, 10, concurrency, successes, rough=rough, seed=2)
            for mode, concurrency, successes, rough in itertools.product(
                ("strict", "ramp"), (1, 100), (0, 50), (False, True)
            )
        ),
    )
]


@pytest.mark.parametrize(("seed", "values"), [*FEW, *MANY])
def test_no_more_hosts_are_hurt_than_the_plan_printed(seed, values):
    """Strict ends with exactly K+1 failed hosts; ramp with at least these, and at most what the successes before them allow."""
    run = Overshoot(seed, **values).run()
    K = values["max_failed"]  # noqa: N806
    limits = budget.Limits(K, run.plan.concurrency, budget.Mode(values["mode"]))
    most = budget.worst_case_after(limits, values["successes"], values["hosts"])
    assert most <= run.plan.worst_case
    if values["mode"] == "strict" or not values["successes"]:
        assert (run.hurt, most) == (K + 1, K + 1)
    assert K < run.hurt <= most
