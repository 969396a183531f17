"""Tests wait longer where others use the machine too."""

import os
from types import SimpleNamespace

import pytest

from tests.support import processes
from tests.support.system import wait_for


@pytest.mark.parametrize(
    ("load", "most"), [(0.5, 11), (2.0, 11), (8.0, 41), (200.0, 101)], ids=["idle", "full", "busy", "flooded"]
)
def test_deadlines_of_tests_are_later_where_others_use_the_machine_too(monkeypatch, load, most):
    """A deadline has its moments as often as processes wait for each processor, ten times at most; on a quiet machine, once."""
    clock = iter(range(1000))
    monkeypatch.setattr(
        processes, "time", SimpleNamespace(monotonic=lambda: float(next(clock)), sleep=lambda _: None)
    )
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert len(list(processes.moments(10.0, 1.0))) == pytest.approx(most, abs=1)


def test_what_is_said_at_a_deadline_is_how_things_are_then():
    """Whoever waits in vain is told what there is at the end, not what there was at the beginning."""
    looks = []
    with pytest.raises(AssertionError, match="looked at 1 time"):
        wait_for(lambda: looks.append("now"), seconds=0, why=lambda: f"looked at {len(looks)} time")
