"""What the tests of faults share: running installations, and the figures that `make faults` gathers."""

import json
import os
from pathlib import Path

import pytest

from tests.support.rig import Rig

KINDS = {
    "quick": {},  # leases of 2 s, a reconciler every 0.5 s
    "as configured": {"environment": {}},  # leases of 15 s, a reconciler every 5 s, as users have it
    "with flower": {"flower": True},
}


@pytest.fixture
def figures():
    """Call it with what was measured: one JSON document a line."""

    def note(**values):
        if file := os.environ.get("FAULTS_FIGURES"):
            with Path(file).open("a") as found:
                found.write(json.dumps(values) + "\n")

    return note


@pytest.fixture(scope="session")
def rigs():
    """The installation that runs now, by its kind: at most one."""
    running = {}
    yield running
    _end(running)


@pytest.fixture
def rig(rigs, request):
    """A sound one that has done its first rollout: what the last test left so, else a new one."""
    kind = getattr(request, "param", "quick")
    if kind not in rigs or not rigs[kind].sound:
        _end(rigs)
        rigs[kind] = Rig(**KINDS[kind]).__enter__()
        rigs[kind].ended(rigs[kind].change(), 0.0)
    return rigs[kind]


def _end(rigs):
    while rigs:
        _, rig = rigs.popitem()
        rig.__exit__(None, None, None)
        assert rig.left_running() == []
