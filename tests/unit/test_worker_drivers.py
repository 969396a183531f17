"""How a worker does side by side what waits for others."""

import threading
from types import SimpleNamespace

from rollout.services import intake, reconcile, stopping
from tests.support.processes import until
from workers import drivers


def test_a_stop_that_waits_for_a_silent_host_holds_up_no_other(monkeypatch):
    """Each is driven by itself, one driver for each at a time, and again when its driver has ended."""
    silent, driven = threading.Event(), []

    def drive(rollout, _deps):
        driven.append(rollout)
        if rollout == 1:
            silent.wait(20)

    monkeypatch.setattr(stopping, "drive", drive)
    side_by_side = drivers.stops()
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
    side_by_side = drivers.stops()

    def again():
        side_by_side(1, None)
        return len(driven) >= 2

    until(again, what="it is driven again")


def apps_of(servers):
    """Dependencies whose configuration has an app on each of these git servers."""

    def app(name):
        return SimpleNamespace(repository=f"git@{servers[name]}:acme/{name}.git")

    return SimpleNamespace(config=SimpleNamespace(app=app))


SERVERS = {f"stuck{number}": "stuck.example.com" for number in range(20)} | {
    f"well{number}": f"git{number}.example.com" for number in range(30)
}


def test_a_git_server_that_hangs_holds_up_no_other_apps_polls(monkeypatch):
    """It has twenty apps and never answers: the thirty others are looked at all the same, and no more than a few wait for it."""
    hangs, asked, at_once = threading.Event(), [], []

    def poll(app, _deps):
        asked.append(app)
        if app.startswith("stuck"):
            at_once.append(app)
            hangs.wait(20)

    monkeypatch.setattr(intake, "poll", poll)
    drivers.polls.cache_clear()
    deps = apps_of(SERVERS)
    monkeypatch.setattr(intake, "due", lambda _deps: [app for app in SERVERS if app not in asked])

    def others():
        reconcile.poll_all(deps, drivers.polls())
        return sum(app.startswith("well") for app in asked) == 30

    until(others, what="the others to be looked at")
    assert len(at_once) == drivers.POLLS_OF_A_SERVER
    hangs.set()

    def all_of_them():
        reconcile.poll_all(deps, drivers.polls())
        return set(asked) == set(SERVERS)

    until(all_of_them, what="the server's other apps to have their turn")
    drivers.polls.cache_clear()


def test_polls_are_bounded(monkeypatch):
    """However many servers hang."""
    hangs, asked = threading.Event(), []

    def poll(app, _deps):
        asked.append(app)
        hangs.wait(20)

    monkeypatch.setattr(intake, "poll", poll)
    drivers.polls.cache_clear()
    polls, deps = drivers.polls(), apps_of(SERVERS)
    for app in SERVERS:
        polls(app, deps)
    until(lambda: len(asked) == drivers.POLLS, what="as many as may")
    for app in SERVERS:
        polls(app, deps)
    hangs.set()
    drivers.polls.cache_clear()
    assert len(asked) == drivers.POLLS
