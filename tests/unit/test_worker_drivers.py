"""How a worker drives several stops."""

import threading

from rollout.services import stopping
from tests.support.processes import until
from workers.drivers import SideBySide


def test_a_stop_that_waits_for_a_silent_host_holds_up_no_other(monkeypatch):
    """Each is driven by itself, one driver for each at a time, and again when its driver has ended."""
    silent, driven = threading.Event(), []

    def drive(rollout, _deps):
        driven.append(rollout)
        if rollout == 1:
            silent.wait(20)

    monkeypatch.setattr(stopping, "drive", drive)
    side_by_side = SideBySide()
    for rollout in (1, 2, 1):
        side_by_side(rollout, None)
    until(lambda: 2 in driven, what="the second stop is driven while the first waits")
    assert driven.count(1) == 1
    silent.set()

    def again():
        side_by_side(1, None)
        return driven.count(1) == 2

    until(again, what="the first is driven again")


def test_a_driver_that_breaks_comes_again(monkeypatch):
    """Whatever goes wrong in a round, the stop is not forgotten."""
    driven = []

    def drive(rollout, _deps):
        driven.append(rollout)
        raise ZeroDivisionError

    monkeypatch.setattr(stopping, "drive", drive)
    side_by_side = SideBySide()

    def again():
        side_by_side(1, None)
        return len(driven) >= 2

    until(again, what="it is driven again")
