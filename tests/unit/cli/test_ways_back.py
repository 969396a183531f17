"""stop and rollback: accepted, acknowledged, brought back; by workers, or by this very process."""

import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from rollout.cli import ways_back
from rollout.domain.model import AppName
from rollout.errors import Unreachable
from rollout.services import hosts as host_steps
from rollout.services import stopping
from tests.support.fakes import Meanwhile, a_commit, a_rollout

OLD = "0" * 39 + "9"
OUTCOME = {
    "id",
    "app",
    "commit",
    "commits",
    "previous",
    "state",
    "outcome",
    "reason",
    "started_at",
    "ended_at",
    "counts",
    "budget",
    "canary",
    "acknowledged_at",
    "unconfirmed",
}


def a_worker(deps, rollout, ended, *, roll_back=True):
    """Does what the hosts' worker does: drives the stop, then claims and brings back the hosts."""

    def work():
        while not ended.wait(0.02):
            stopping.drive(rollout.id, deps)
            if roll_back:
                for ring in stopping.unclaimed(rollout.id, deps):
                    host_steps.roll_back(*ring.arguments[:2], deps)
                stopping.finish_roll_back(rollout.id, deps)

    return Meanwhile(work)


@pytest.fixture
def with_worker(deps):
    """Runs a command while a worker is at it."""

    def with_worker(rollout, command):
        ended = threading.Event()
        with a_worker(deps, rollout, ended):
            try:
                return command()
            finally:
                ended.set()

    return with_worker


def half_way(deps):
    """Two hosts switched, one being switched, one prepared."""
    return a_rollout(
        deps,
        hosts={"shop01": "done", "shop02": "done", "shop03": "activating", "shop04": "prepared"},
        previous=OLD,
    )


def see_off(deps, name):
    """The inventory has this host no more, and that was read."""
    with deps.store.transaction() as tx:
        tx.fleet.see_off(AppName("shop"), {host.name for host in tx.fleet.hosts("shop")} - {name})


def test_stop_returns_at_the_acknowledgement(cli, deps, with_worker, monkeypatch):
    """With workers there, stop says accepted, then acknowledged with its time, and leaves the rest to them."""
    monkeypatch.setattr("rollout.cli.stand_in.PATIENCE_S", 60.0)
    rollout = half_way(deps)
    told = with_worker(rollout, lambda: cli("stop", rollout.id))
    assert told.code == 0
    assert "accepted: rollout 1 starts nothing any more" in told.out
    assert "being switched now: shop03" in told.out
    assert "the acknowledgement takes at most" in told.out
    assert "acknowledged after" in told.out
    assert deps.bell.revoked == [rollout.id]


def test_the_time_of_an_acknowledgement_is_not_that_of_who_tells_of_it():
    """A worker acknowledged it three seconds after the command; this process was busy for seven more before it looked."""
    said = []
    told = SimpleNamespace(say=said.append)
    at = datetime.now(UTC) - timedelta(seconds=7)
    found = SimpleNamespace(commit=OLD, acknowledged_at=at, unconfirmed=())
    ways_back._say_acknowledged(told, found, time.monotonic() - 10)
    assert said[0].startswith("acknowledged after 3.0 s")


def test_stop_with_wait_ends_with_every_host_back(cli, deps, with_worker, monkeypatch):
    """--wait returns when every touched host runs what it ran before."""
    monkeypatch.setattr("rollout.cli.stand_in.PATIENCE_S", 60.0)
    rollout = half_way(deps)
    told = with_worker(rollout, lambda: cli("stop", "--wait", "--timeout", "60s", "--json"))
    assert (told.code, told.json["state"]) == (0, "rolled_back")
    assert set(told.json) == OUTCOME
    assert {host.current for host in deps.fleet.hosts.values()} == {OLD}


def test_stop_works_with_workers_and_broker_gone(cli, deps):
    """Nobody takes it up: this process acknowledges, seals and rolls back by itself, also without --wait."""
    rollout = half_way(deps)
    deps.bell.deaf = True
    told = cli("stop", rollout.id)
    assert told.code == 0
    assert "no worker takes it up: the hosts are brought back from here" in told.out
    assert "rollout 1 of shop is rolled back" in told.out
    assert {host.current for host in deps.fleet.hosts.values()} == {OLD}
    assert ("status", "shop03") in deps.fleet.calls


def test_stop_keeps_the_hosts_as_they_are(cli, deps):
    """--keep ends the rollout and rolls nothing back."""
    rollout = a_rollout(deps, hosts={"shop01": "done", "shop02": "done"}, previous=OLD)
    told = cli("stop", "--keep", "--json")
    assert (told.code, told.json["state"]) == (0, "stopped")
    assert deps.fleet.hosts["shop01"].current == rollout.commit


def test_stop_with_nothing_touched_is_stopped(cli, deps):
    """A rollout that has switched no host has nothing to bring back."""
    a_rollout(deps, state="pending")
    told = cli("stop", "--wait", "--json")
    assert (told.code, told.json["state"]) == (0, "stopped")


def test_the_reason_and_the_person_are_kept(cli, deps):
    """--reason becomes the rollout's, and bars its commit with it."""
    rollout = a_rollout(deps, state="pending")
    cli("stop", "--reason", "slow since 14:00")
    with deps.store.reading() as tx:
        assert tx.rollouts.get(rollout.id).reason == "slow since 14:00"
        commit = tx.commits.get(AppName("shop"), rollout.commit)
        assert (commit.state, commit.reason) == ("barred", "slow since 14:00")


@pytest.mark.parametrize(("command", "state"), [("stop", "pending"), ("rollback", "done")])
def test_who_takes_a_batch_back_is_told_how_the_innocent_ship_again(cli, deps, command, state):
    """All of it is barred; the answer names the commits and the way, and `show` says so later."""
    below = a_commit(deps)
    rollout = a_rollout(deps, state=state, below=[below])
    way = "any of them may be what was wrong: rollout unbar COMMIT --reason … lets an innocent one ship"
    assert f"barred: {below.sha[:12]}, {rollout.commit[:12]}; {way}" in cli(command, "--reason", "slow").out
    told = cli("show", rollout.id).out
    for sha in rollout.commits:
        assert f"barred      {sha[:12]}" in told
    assert way in told


def test_a_host_that_cannot_be_brought_back_is_1_and_named(cli, deps):
    """The rollout ends, and the exit code says that not every touched host is back."""
    rollout = half_way(deps)
    deps.fleet.script["roll_back", "shop02"] = Unreachable("shop02: no answer")
    told = cli("stop", rollout.id, "--wait", "--timeout", "60s")
    assert told.code == 1
    assert "not back yet, and tried again until they are: shop02" in told.err


def test_a_host_that_has_left_the_fleet_is_named_and_is_no_failure(cli, deps):
    """A rollback leaves it as it is, and who asked hears that; all that are in the fleet are back, so it went as it should."""
    a_rollout(deps, state="done", previous=OLD)
    deps.fleet.script["roll_back", "shop02"] = Unreachable("shop02: no answer")
    see_off(deps, "shop02")
    told = cli("rollback", "--wait", "--timeout", "60s")
    assert (told.code, "not back" in told.err) == (0, False)
    assert "left as they are, since they have left the fleet: shop02" in told.out


@pytest.mark.parametrize("wait", [["--wait", "--timeout", "60s"], []])
def test_a_rollback_that_brings_nobody_back_is_1(cli, deps, wait):
    """All names are others by an edit: every host runs on what was to be taken back, and a script hears that."""
    rollout = a_rollout(deps, state="done", previous=OLD)
    with deps.store.transaction() as tx:
        tx.fleet.see_off(AppName("shop"), set())
    deps.config.app("shop").fleet.__dict__["hosts"] = ("web[01:04]",)
    told = cli("rollback", *wait)
    assert (told.code, deps.fleet.hosts["shop02"].current) == (1, rollout.commit)
    assert "no host is brought back: all that rollout 1 has switched have left the fleet" in told.err


def test_a_host_that_left_during_the_rollout_goes_back_with_its_stop(cli, deps):
    """The rollout has switched it, so it is one of those that are to be back."""
    half_way(deps)
    see_off(deps, "shop02")
    told = cli("stop", "--wait", "--timeout", "60s")
    assert (told.code, deps.fleet.hosts["shop02"].current) == (0, OLD)
    assert "left the fleet" not in told.out + told.err


def test_whom_a_rollback_under_way_will_leave_is_named_with_what_has_it_brought_along(cli, deps):
    """The inventory may have lost it by a slip, so the way out is named too."""
    rollout = a_rollout(deps, state="done", previous=OLD)
    see_off(deps, "shop02")
    stopping.roll_back_done(deps.config.app("shop"), deps, to=None, who="ann", why="slow")
    with deps.store.transaction() as tx:  # a worker is at it
        first = tx.going_back.to_bring_back(rollout.id)[0]
        assert tx.claims.roll_back(first.id, "worker", 60.0) is not None
    told = cli("stop", rollout.id)
    assert "left the fleet, and left as they are: shop02 (is one named in the inventory again" in told.err
    assert "rollout hosts --verify" in told.err


def test_a_stop_waits_for_no_broker(cli, deps, monkeypatch):
    """A broker that hangs delays neither the acknowledgement nor the way back."""
    healed, ended = threading.Event(), []

    def hang(*what):
        healed.wait(20)
        ended.append(what)
        return False

    monkeypatch.setattr(deps.bell, "revoke", hang)
    monkeypatch.setattr(deps.bell, "ring", hang)
    try:
        told = cli("stop", half_way(deps).id, "--wait")
        assert (told.code, ended) == (0, [])
        assert {host.current for host in deps.fleet.hosts.values()} == {OLD}
    finally:
        healed.set()


def test_unconfirmed_hosts_are_named(cli, deps, monkeypatch):
    """A host that could not be read is never counted as stopped."""
    monkeypatch.setattr(stopping, "longest_s", lambda _app, _lease: 0.1)
    rollout = half_way(deps)
    deps.fleet.script["status", "shop03"] = Unreachable("shop03: no answer")
    deps.fleet.script["roll_back", "shop03"] = Unreachable("shop03: no answer")
    told = cli("stop", rollout.id, "--wait", "--timeout", "60s")
    assert told.code == 1, told
    assert "unconfirmed, as they could not be read: shop03" in told.out, told
    assert cli("show", rollout.id).out.count("shop03") > 1


@pytest.mark.parametrize("state", ["rolled_back", "stopped", "error"])
def test_stopping_what_is_stopped_is_0(cli, deps, state):
    """It is over already, as asked."""
    rollout = a_rollout(deps, state=state)
    told = cli("stop", rollout.id)
    assert (told.code, "already" in told.out) == (0, True)


def test_stopping_what_is_done_is_4_and_names_the_way(cli, deps):
    """A done rollout is not stopped but rolled back."""
    rollout = a_rollout(deps, state="done")
    told = cli("stop", rollout.id, "--json")
    assert told.code == 4
    assert "rollout rollback" in told.json["remedy"]


def test_nothing_to_stop_is_4(cli):
    """No rollout is under way."""
    told = cli("stop", "--json")
    assert (told.code, told.json["error"]) == (4, "Conflict")


def test_an_unknown_rollout_is_3(cli):
    """There is no such rollout to stop."""
    assert cli("stop", "9").code == 3


def test_several_under_way_want_a_number_or_an_app(build, plain):
    """With two apps, a stop must say which one it means."""
    deps = build(apps=("shop", "blog"), hosts=2)
    shop, blog = a_rollout(deps, app="shop"), a_rollout(deps, app="blog")
    told = plain("stop", "--json")
    assert told.code == 2
    assert f"{shop.id} (shop" in told.json["message"]
    assert plain("stop", "--app", "blog", "--json").json["id"] == blog.id


def test_the_active_one_is_stopped_before_the_planned_one(cli, deps):
    """While one is under way and the next one is planned, stop means the first."""
    active = a_rollout(deps)
    a_rollout(deps, state="pending")
    assert cli("stop", "--json").json["id"] == active.id


def test_a_stop_that_takes_longer_than_its_time_is_1(cli, deps, monkeypatch):
    """--timeout ends the waiting; the stop goes on."""
    monkeypatch.setattr("rollout.cli.stand_in.PATIENCE_S", 60.0)
    rollout = half_way(deps)
    told = cli("stop", rollout.id, "--wait", "--timeout", "200ms", "--json")
    assert (told.code, told.json["error"]) == (1, "TimedOut")


def test_rollback_brings_the_newest_done_rollout_back(cli, deps):
    """Without workers too: each host runs its own previous release again, and the commit is barred."""
    rollout = a_rollout(deps, state="done", previous=OLD)
    told = cli("rollback", "--reason", "slow", "--json")
    assert (told.code, told.json["state"], told.json["reason"]) == (0, "rolled_back", "slow")
    assert set(told.json) == OUTCOME
    assert {host.current for host in deps.fleet.hosts.values()} == {OLD}
    with deps.store.reading() as tx:
        assert tx.commits.get(AppName("shop"), rollout.commit).state == "barred"


def test_rollback_leaves_the_work_to_workers_that_are_there(cli, deps, monkeypatch):
    """As soon as a worker has claimed a host, the command returns and says how to watch."""
    monkeypatch.setattr("rollout.cli.stand_in.PATIENCE_S", 60.0)
    rollout = a_rollout(deps, state="done", previous=OLD)
    deps.fleet.gate = threading.Event()

    def work():
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            rings = stopping.unclaimed(rollout.id, deps)
            with deps.store.reading() as tx:
                going = tx.rollouts.get(rollout.id).state == "rolling_back"
            if going:
                host_steps.roll_back(*rings[0].arguments[:2], deps)
                return

    with Meanwhile(work):
        try:
            told = cli("rollback")
        finally:
            deps.fleet.gate.set()
    assert told.code == 0
    assert f"rollout status {rollout.id} --watch" in told.out


def test_rollback_to_a_commit_that_hosts_lack_is_4(cli, deps):
    """Every host must have had the commit that it goes back to."""
    before = a_commit(deps)
    a_rollout(deps, state="done")
    told = cli("rollback", "--to", before.sha, "--json")
    assert told.code == 4
    assert "shop01" in told.json["message"]


def test_rollback_with_nothing_done_is_3(cli):
    """There is no rollout to go back from."""
    assert cli("rollback").code == 3


def test_rollback_while_another_is_under_way_is_4(cli, deps):
    """The one under way is stopped first."""
    a_rollout(deps, state="done")
    active = a_rollout(deps)
    told = cli("rollback", "--json")
    assert told.code == 4
    assert f"rollout stop {active.id}" in told.json["remedy"]
