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
RUNNING = {}  # the installation that runs now, by its kind: at most one


@pytest.fixture
def figures():
    """Call it with what was measured: one JSON document a line."""

    def note(**values):
        if file := os.environ.get("FAULTS_FIGURES"):
            with Path(file).open("a") as found:
                found.write(json.dumps(values) + "\n")

    return note


@pytest.fixture
def rig(request):
    """A sound one that has done its first rollout: what the last test left so, else a new one."""
    kind = getattr(request, "param", "quick")
    if kind not in RUNNING or not RUNNING[kind].sound:
        _end()
        RUNNING[kind] = Rig(**KINDS[kind]).__enter__()
        RUNNING[kind].ended(RUNNING[kind].change(), 0.0)
    return RUNNING[kind]


def pytest_runtest_teardown(nextitem):
    """It ends with the last test in a row that uses it: one that nobody looks at would cost all others their time."""
    if nextitem is None or "rig" not in nextitem.fixturenames:
        _end()


def pytest_sessionfinish():
    """Also when there was more to come: after the first failure, or Ctrl-C."""
    _end()


def _end():
    while RUNNING:
        _, rig = RUNNING.popitem()
        rig.__exit__(None, None, None)
        assert rig.left_running() == []
