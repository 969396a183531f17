"""Tests wait longer where others use the machine too."""

import os
from types import SimpleNamespace

import pytest

from tests.support import processes


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
