"""How a worker does side by side what waits for others."""

import threading
from collections import Counter
from types import SimpleNamespace

import pytest

from rollout.services import intake, pulls, stopping
from tests.support.processes import until
from workers import drivers


@pytest.fixture(autouse=True)
def _places_of_its_own():
    """That no other test has taken."""
    for places in (drivers.polls, drivers.looks):
        places.cache_clear()
    yield
    for places in (drivers.polls, drivers.looks):
        places.cache_clear()


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
        return SimpleNamespace(name=name, repository=f"git@{servers[name]}:acme/{name}.git")

    return SimpleNamespace(config=SimpleNamespace(app=app))


SERVERS = {f"stuck{number}": "stuck.example.com" for number in range(20)} | {
    f"well{number}": f"git{number}.example.com" for number in range(30)
}


def test_a_git_server_that_hangs_holds_up_no_other_apps_polls(monkeypatch):
    """It has twenty apps and never answers: the thirty others are looked at all the same, and no more than a few wait for it."""
    hangs, asked, at_once = threading.Event(), [], []

    def poll(app, _deps, **_):
        asked.append(app)
        if app.startswith("stuck"):
            at_once.append(app)
            hangs.wait(20)

    monkeypatch.setattr(intake, "poll", poll)
    deps = apps_of(SERVERS)
    monkeypatch.setattr(intake, "due", lambda _deps: [app for app in SERVERS if app not in asked])

    def others():
        drivers.poll_all(deps)
        return sum(app.startswith("well") for app in asked) == 30

    until(others, what="the others to be looked at")
    assert len(at_once) == drivers.POLLS_OF_A_SERVER
    hangs.set()

    def all_of_them():
        drivers.poll_all(deps)
        return set(asked) == set(SERVERS)

    until(all_of_them, what="the server's other apps to have their turn")


def test_polls_are_bounded(monkeypatch):
    """However many servers hang."""
    hangs, asked = threading.Event(), []

    def poll(app, _deps, **_):
        asked.append(app)
        hangs.wait(20)

    monkeypatch.setattr(intake, "poll", poll)
    polls, deps = drivers.polls(), apps_of(SERVERS)
    for app in SERVERS:
        polls(app, deps)
    until(lambda: len(asked) == drivers.POLLS, what="as many as may")
    for app in SERVERS:
        polls(app, deps)
    hangs.set()
    assert len(asked) == drivers.POLLS


def test_pull_requests_that_take_long_hold_up_no_apps_polls(monkeypatch):
    """All apps are polled while a server's pull requests are fetched; these have a few places of their own, and each has its turn."""
    slow, asked, begun = threading.Event(), set(), []

    def poll(app, deps, *, look):
        asked.add(app)
        look(deps.config.app(app), [app], deps)

    def look(app, found, _deps):
        assert found == [app.name]
        begun.append(app.name)
        if app.name.startswith("stuck"):
            slow.wait(20)

    monkeypatch.setattr(intake, "poll", poll)
    monkeypatch.setattr(pulls, "look", look)
    deps = apps_of(SERVERS)
    monkeypatch.setattr(intake, "due", lambda _deps: [app for app in SERVERS if app not in asked])

    def seen(apps):
        drivers.poll_all(deps)
        return set(SERVERS) == set(apps)

    until(lambda: seen(asked), what="all apps to be polled")
    few = {"well": 30, "stuck": drivers.POLLS_OF_A_SERVER}
    until(lambda: Counter(app.strip("0123456789") for app in begun) == few, what="the others' pull requests")
    slow.set()
    until(lambda: seen(begun), what="the server's other pull requests to have their turn")
    assert set(Counter(begun).values()) == {1}


def test_an_apps_pull_requests_are_looked_at_one_time_at_a_time(monkeypatch):
    """Of what is found meanwhile the newest is looked at afterwards."""
    slow, looked, deps = threading.Event(), [], apps_of(SERVERS)

    def look(_app, found, _deps):
        looked.append(found)
        slow.wait(20)

    monkeypatch.setattr(pulls, "look", look)
    looks, app = drivers.looks(), deps.config.app("well1")
    looks(app, ["first"], deps)
    until(lambda: looked, what="the first look to begin")
    for found in (["second"], ["third"]):
        looks(app, found, deps)
    slow.set()

    def again():
        looks.go_on(deps)
        return len(looked) > 1

    until(again, what="the next look")
    looks.go_on(deps)
    assert looked == [["first"], ["third"]]
