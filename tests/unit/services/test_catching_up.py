"""Hosts that were down, excluded, new, or lost their disk are brought to what the fleet runs, one at a time."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from rollout.domain.model import FOREIGN, UNREAD
from rollout.domain.states import CommitState, HostState, RolloutState
from rollout.errors import ConfigError, Unreachable
from rollout.services import bars, catching_up, freezes, halts, hosts, intake, planning, stopping, verifying
from rollout.services.policies import Plans
from rollout.store.tables import rollouts
from tests.support import branch
from tests.support.across import before_reports, inventory_says, recorded, row_of, state_of
from tests.support.branch import commit_of
from tests.support.checker import read
from tests.support.checker.check import check
from tests.support.released import first_release
from tests.support.world import World

H, R = HostState, RolloutState
A, B = "web05", "web06"


def two_releases(world):
    """Both done: the first one's commit, and the rollout of the one that runs."""
    older = first_release(world)
    world.push()
    assert world.settle().state is R.DONE
    return older, world.newest().id


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Six hosts, of which two may fail."""
    world = World(tmp_path, monkeypatch, hosts=6, fan_out="max_failed = 2\nretries = 0")
    yield world
    assert [*map(str, check(read.world(world)))] == []


def app(world):
    return world.config.app(None)


def done_without(world, *names):
    """A rollout is done, and these were down."""
    for name in names:
        world.fleet.hosts[name].unreachable = True
    sha = world.push()
    assert world.settle().state is R.DONE
    return sha


def back(world, *names):
    for name in names:
        world.fleet.hosts[name].unreachable = False


def events(world, name, number=None):
    with world.store.reading() as tx:
        found = tx.events.of_rollout(number or world.newest().id)
    return [event.what for event in found if event.subject == f"host {name}"]


def late(world):
    with world.store.reading() as tx:
        return {one.name: one for one in catching_up.late(tx, app(world))}


def test_a_host_that_was_down_gets_the_release_when_it_is_back(world):
    """Prepared, switched, health-checked, counted, and written down; not before it answers."""
    first_release(world)
    sha = done_without(world, A)
    world.run(seconds=400)
    assert (row_of(world, world.newest().id).state, late(world)[A].because[:15]) == (
        H.FAILED,
        "does not answer",
    )
    back(world, A)
    world.run(until=lambda: row_of(world, world.newest().id).state is H.DONE, seconds=700)
    assert set(world.runs().values()) == {sha}
    assert (world.newest().state, world.newest().done, world.newest().failed) == (R.DONE, 6, 0)
    assert events(world, A)[-5:] == ["catch up", "prepare", "prepared", "activate", "done"]
    assert late(world) == {}


def test_a_host_that_lets_nobody_in_is_told_with_the_reason(world):
    """No waiting heals that: a person puts its host key, or ours, where it belongs, and then it is brought along."""
    first_release(world)
    world.fleet.hosts[A].refuses_login = True
    sha = world.push()
    assert world.settle().state is R.DONE
    world.run(seconds=60)
    assert late(world)[A].because.startswith(f"cannot be read ({A}: ")
    world.fleet.hosts[A].refuses_login = False
    world.run(until=lambda: world.fleet.hosts[A].current == sha, seconds=700)
    assert world.fleet.hosts[A].current == sha


def test_one_at_a_time(world, monkeypatch):
    """While one is being brought to it, the others that are back wait."""
    sha = done_without(world, A, B)
    back(world, A, B)
    at_once, true = [], world.fleet._switch

    def switch(*arguments):
        busy = [row.state for row in world.rollout_hosts() if row.state in {H.PREPARING, H.ACTIVATING}]
        at_once.append(len(busy))
        return true(*arguments)

    monkeypatch.setattr(world.fleet, "_switch", switch)
    world.run(until=lambda: set(world.runs().values()) == {sha}, seconds=500)
    assert at_once == [1, 1]
    assert set(world.runs().values()) == {sha}


def test_a_second_host_gets_no_token_while_one_is_switched(world):
    """Whatever messages are under way: the store itself gives one at a time."""
    sha = done_without(world, A, B)
    number = world.newest().id
    back(world, A, B)
    seen = []

    def both(name):
        if seen:
            return
        other = row_of(world, number, B if name == A else A)
        with world.store.transaction() as tx:
            catching_up._begin(tx, tx.hosts.get(other.id))
        hosts.prepare(other.rollout, other.id, world.deps)
        hosts.deploy(other.rollout, other.id, world.deps)
        seen.append((row_of(world, number, other.name).state, world.fleet.hosts[other.name].current))

    world.fleet.before_permit = both
    world.run(until=lambda: set(world.runs().values()) == {sha}, seconds=500)
    assert seen == [(H.PREPARED, None)]
    assert set(world.runs().values()) == {sha}


def test_nothing_is_brought_to_anybody_during_a_rollout(world):
    """The next rollout is halted: it brings what is behind itself, when it goes on."""
    first_release(world)
    old = done_without(world, A)
    number = world.newest().id
    for name in ("web01", "web02", "web03"):
        world.fleet.hosts[name].unreachable = True
    world.push()
    assert world.settle().state is R.HALTED
    back(world, A)
    world.run(seconds=500)
    assert events(world, A, number)[-1] != "catch up"
    assert old not in world.fleet.hosts[A].prepared


def test_a_rollout_that_is_planned_stops_it_before_the_switch(world, monkeypatch):
    """The host has greeted, and is not switched any more; the newer rollout is what brings it."""
    done_without(world, A)
    number = world.newest().id
    back(world, A)
    seen = []

    def plan(name):
        if name == A and not seen:
            seen.append(world.newest().id)
            world.push()
            world.run(until=lambda: world.newest().id > number, seconds=5)

    world.fleet.before_permit = plan
    world.run(until=lambda: seen, seconds=500)
    assert world.newest().id > number
    assert row_of(world, number).state in {H.PREPARED, H.PENDING}
    assert world.fleet.hosts[A].current is None
    newest = world.settle()
    assert (newest.state, world.fleet.hosts[A].current) == (R.DONE, newest.commit)


def test_a_rollout_that_is_planned_cuts_its_prepare(world, monkeypatch):
    """Nothing more is sent of a release that is going to be replaced."""
    done_without(world, A)
    number, true, seen = world.newest().id, world.fleet.prepare, []

    def prepare(target, order, **options):
        if target.name == A and not seen:
            seen.append(order)
            world.push()
            world.run(until=lambda: world.newest().id > number, seconds=5)
        return true(target, order, **options)

    monkeypatch.setattr(world.fleet, "prepare", prepare)
    back(world, A)
    world.run(until=lambda: seen, seconds=500)
    assert world.newest().id > number
    assert seen[0].release.commit not in world.fleet.hosts[A].prepared


@pytest.mark.parametrize("bar", [False, True])
def test_nothing_is_brought_to_anybody_while_automation_stands_still(world, bar):
    """A freeze and a bar say so; when they are over it goes on by itself."""
    sha = done_without(world, A)
    if bar:
        bars.bar("shop", sha, world.deps, who="ann", why="slow")
    else:
        freezes.freeze(app(world), world.deps, who="ann", why="the sale", until=None)
    back(world, A)
    world.run(seconds=500)
    assert world.fleet.hosts[A].current is None
    assert ("barred" if bar else "frozen by ann: the sale") in late(world)[A].because
    if bar:
        bars.unbar("shop", sha, world.deps, who="ann", why="no")
    else:
        freezes.unfreeze(app(world), world.deps, who="ann", why=None)
    world.run(seconds=120)
    assert world.fleet.hosts[A].current == sha


@pytest.mark.parametrize("fails", [False, True])
def test_a_bar_on_what_is_inside_of_what_runs_keeps_hosts_from_it(world, fails):
    """One that passed or was red, and went out with a later one; until it is let go."""
    first_release(world)
    inside, shipped = out_together(world, fails=fails)
    bars.bar("shop", inside, world.deps, who="ann", why="slow")
    back(world, A)
    world.run(seconds=500)
    assert world.fleet.hosts[A].current not in {inside, shipped}
    assert late(world)[A].because.endswith(
        f"waits: commit {inside[:12]}, which is inside of {shipped[:12]}, is barred"
    )
    bars.unbar("shop", inside, world.deps, who="ann", why="no")
    world.run(seconds=120)
    assert world.fleet.hosts[A].current == shipped


def test_what_a_person_took_along_past_a_bar_is_brought_to_hosts_too(world):
    """He said so of the fleet."""
    first_release(world)
    barred = world.push()
    bars.bar("shop", barred, world.deps, who="ann", why="slow")
    world.fleet.hosts[A].unreachable = True
    shipped = world.push()
    world.run(seconds=60)
    wish = intake.Wish("hurry", "ann")
    intake.enqueue(app(world), shipped, world.deps, who="ann", now=wish)
    assert world.settle().commits == (barred, shipped)
    back(world, A)
    world.run(seconds=500)
    assert world.fleet.hosts[A].current == shipped


def out_together(world, *, fails=False):
    """Two commits went out with one rollout while a host was down."""
    world.fleet.hosts[A].unreachable = True
    freezes.freeze(app(world), world.deps, who="ann", why="the sale", until=None)
    both = world.workshop.push(fails=fails), world.workshop.push()
    branch.read(world)
    branch.tested(world, *both[:1] * (1 + fails), both[1])
    with world.store.transaction() as tx:
        for sha in both:
            tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 1900)
    freezes.unfreeze(app(world), world.deps, who="ann", why=None)
    world.run(seconds=300, until=lambda: world.newest().commits == both and world.newest().state is R.DONE)
    assert (world.newest().commits, world.newest().state) == (both, R.DONE)
    return both


def frozen_by_ann(world):
    freezes.freeze(app(world), world.deps, who="ann", why="the sale", until=None)
    return lambda: freezes.unfreeze(app(world), world.deps, who="ann", why="-")


def barred_by_ann(world):
    sha = world.newest().commit
    bars.bar("shop", sha, world.deps, who="ann", why="loses orders")
    return lambda: bars.unbar("shop", sha, world.deps, who="ann", why="it does not")


def barred_inside(world):
    inside = world.newest().commits[0]
    bars.bar("shop", inside, world.deps, who="ann", why="loses orders")
    return lambda: bars.unbar("shop", inside, world.deps, who="ann", why="it does not")


def in_a_window(world):
    patch = pytest.MonkeyPatch()
    always = app(world).queue.model_copy(
        update={"freeze": ("Mon 00:00 - Sun 23:59", "Sun 23:58 - Mon 00:01")}
    )
    patch.setitem(app(world).__dict__, "queue", always)
    return patch.undo


def out_of_the_inventory(world):
    members = world.fleet.members(app(world))

    def has(those):
        with world.store.transaction() as tx:
            tx.fleet.take_stock("shop", those)

    has([one for one in members if one.name != A])
    return lambda: has(members)


@pytest.mark.parametrize(
    "stood_still", [frozen_by_ann, barred_by_ann, barred_inside, in_a_window, out_of_the_inventory]
)
def test_a_late_message_switches_nothing_while_automation_stands_still(world, stood_still):
    """The host was prepared, and its message waited in the broker while somebody said freeze or bar, a window began, or it left the fleet."""
    first_release(world)
    _, sha = out_together(world)
    number = world.newest().id
    back(world, A)
    world.run(until=lambda: row_of(world, number).state is H.PREPARED, seconds=500)
    before = world.fleet.hosts[A].current
    go_on = stood_still(world)
    hosts.deploy(row_of(world, number).rollout, row_of(world, number).id, world.deps)
    assert (row_of(world, number).state, world.fleet.hosts[A].current) == (H.PREPARED, before)
    go_on()
    world.run(seconds=120)
    assert world.fleet.hosts[A].current == sha


def test_a_bar_does_not_keep_a_lost_outcome_from_being_read(world):
    """What a host runs whose worker was silent is found out whatever automation may do (I5)."""
    sha = done_without(world, A)
    back(world, A)
    number = world.newest().id
    world.fleet.hosts[A].loses_answer = 1
    world.run(until=lambda: row_of(world, number).state is H.UNKNOWN, seconds=500)
    bars.bar("shop", sha, world.deps, who="ann", why="slow")
    world.run(until=lambda: row_of(world, number).state is H.DONE, seconds=60)
    assert (row_of(world, number).state, recorded(world, A).release) == (H.DONE, sha)


def test_an_excluded_host_stays_out_until_it_is_included(world):
    """Out of the rollout, and brought to what it has missed when it is in again; `rollback` takes it along."""
    first = first_release(world)
    halts.exclude("shop", [A], world.deps, who="ann", why="being repaired")
    sha = world.push()
    world.settle()
    world.run(seconds=500)
    assert world.fleet.hosts[A].current == first
    assert (late(world), world.newest().total) == ({}, 5)
    halts.include("shop", [A], world.deps, who="ann")
    world.run(seconds=30)
    assert world.fleet.hosts[A].current == sha
    assert (world.newest().total, world.newest().done) == (6, 6)
    stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
    world.settle()
    assert set(world.runs().values()) == {first}


def test_a_host_that_is_excluded_meanwhile_is_not_switched(world, monkeypatch):
    """It was prepared, and its message is under way."""
    done_without(world, A)
    back(world, A)
    number = world.newest().id

    def exclude(name):
        halts.exclude("shop", [name], world.deps, who="ann", why="no")

    world.fleet.before_permit = exclude
    world.run(seconds=500)
    assert (row_of(world, number).state, world.fleet.hosts[A].current) == (H.PREPARED, None)


def test_a_host_that_is_new_in_the_fleet_gets_what_it_runs(world, monkeypatch):
    """It joins the rollout that is done; who is not there any more is not brought to anything, nor back."""
    true = world.fleet.members
    monkeypatch.setattr(world.fleet, "members", lambda config: [one for one in true(config) if one.name != B])
    sha = world.push()
    world.settle()
    assert (world.newest().total, world.fleet.hosts[B].current) == (5, None)
    monkeypatch.setattr(world.fleet, "members", lambda config: [one for one in true(config) if one.name != A])
    world.run(seconds=600)
    assert world.fleet.hosts[B].current == sha
    assert (world.newest().total, world.newest().done, row_of(world, world.newest().id, B).previous) == (
        6,
        6,
        None,
    )
    assert events(world, B)[0] == "join"
    stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
    world.settle()
    assert {name for name, runs in world.runs().items() if runs is not None} == {A}


@pytest.mark.parametrize("came_back_as", ["a canary that failed", "one of a release that was taken back"])
def test_a_new_host_that_was_taken_back_gets_what_the_fleet_runs(world, monkeypatch, came_back_as):
    """A newer rollout has brought it back to nothing: it joins the one before, is read, and is brought to its release."""
    members, new = world.fleet.members, []
    monkeypatch.setattr(
        world.fleet, "members", lambda its: [*new, *(one for one in members(its) if one.name != B)]
    )
    good = world.push()
    world.settle()
    new += [one for one in members(app(world)) if one.name == B]
    if came_back_as == "a canary that failed":
        world.metrics.share = 0.5
    bad = world.push()
    assert world.settle().commit == bad
    if came_back_as != "a canary that failed":
        stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
        world.settle()
    assert (world.newest().state, row_of(world, world.newest().id, B).state) == (R.ROLLED_BACK, H.ROLLED_BACK)
    world.run(until=lambda: world.fleet.hosts[B].current == good, seconds=400)
    assert set(world.runs().values()) == {good}


def test_that_a_new_host_lets_nobody_in_is_told_whichever_rollout_it_is_looked_at_for(world, monkeypatch):
    """It is behind in the rollout whose release the fleet runs, and is looked at for the newer one that was taken back."""
    members, new = world.fleet.members, []
    monkeypatch.setattr(
        world.fleet, "members", lambda its: [*new, *(one for one in members(its) if one.name != B)]
    )
    good = world.push()
    world.settle()
    new += [one for one in members(app(world)) if one.name == B]
    world.push()
    world.settle()
    stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
    world.settle()
    world.fleet.hosts[B].refuses_login = True
    world.run(until=lambda: recorded(world, B).release == UNREAD, seconds=400)
    world.run(seconds=60)
    told = late(world)[B]
    assert told.because.startswith(f"cannot be read ({B}: ")
    assert told.next_at is not None
    world.fleet.hosts[B].refuses_login = False
    world.run(until=lambda: world.fleet.hosts[B].current == good, seconds=700)
    assert late(world) == {}


def test_a_host_that_was_lost_after_a_rollback_is_looked_at_until_it_is_back(world):
    """It went down while it was brought to the older rollout: that a newer one has brought it back settles nothing since."""
    first_release(world)
    good = done_without(world, A)
    older = world.newest().id
    freezes.freeze(app(world), world.deps, who="ann", why="the sale", until=None)
    back(world, A)
    hotfix = world.workshop.push()
    intake.read_branch(app(world), world.deps, who="test", why="pushed")
    intake.enqueue(app(world), hotfix, world.deps, who="ann", now=intake.Wish("hurry", "ann"))
    world.run(until=lambda: world.newest().commit == hotfix and world.newest().state is R.DONE)
    stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
    world.settle()
    world.fleet.hosts[A].unreachable = True
    freezes.unfreeze(app(world), world.deps, who="ann", why="over")
    world.run(until=lambda: row_of(world, older).state is H.FAILED and recorded(world, A).release == UNREAD)
    back(world, A)
    world.run(until=lambda: world.fleet.hosts[A].current == good, seconds=1500)
    assert set(world.runs().values()) == {good}


@pytest.mark.parametrize("told", ["by itself", "verify"])
def test_a_host_that_comes_back_under_another_address_is_found_there(world, monkeypatch, told):
    """A replaced machine, or one that got a new lease: the inventory says where it is now, and nobody knocks at the old door."""
    first_release(world)
    sha = done_without(world, A)
    members, status = world.fleet.members, world.fleet.status
    monkeypatch.setattr(
        world.fleet,
        "members",
        lambda its: [replace(one, address="127.9.9.9") if one.name == A else one for one in members(its)],
    )

    def somewhere_else(target, **how):
        if target.name == A and target.address != "127.9.9.9":
            raise Unreachable(f"{A}: nobody is there")
        return status(target, **how)

    monkeypatch.setattr(world.fleet, "status", somewhere_else)
    back(world, A)
    if told == "verify":
        assert verifying.verify("shop", world.deps).unread == {}
        assert recorded(world, A).release != UNREAD
    world.run(until=lambda: world.fleet.hosts[A].current == sha, seconds=700)
    assert set(world.runs().values()) == {sha}
    assert (row_of(world, world.newest().id).address, recorded(world, A).address) == ("127.9.9.9",) * 2


@pytest.mark.parametrize("where", [{"address": "127.9.9.9"}, {"port": 2222}], ids=["address", "port"])
@pytest.mark.parametrize("has", ["nothing", "what ran before"])
def test_another_machine_under_the_name_of_one_that_was_done_gets_the_release(world, monkeypatch, where, has):
    """What was recorded of the old one says nothing of it: it is not known what it runs, until it is read where it is."""
    older = first_release(world)
    sha = world.push()
    assert world.settle().state is R.DONE
    inventory_says(world, monkeypatch, A, **where)
    machine = world.fleet.hosts[A]
    machine.lose_disk()
    if has != "nothing":
        machine.use(older)
    machine.unreachable = True
    world.run(until=lambda: recorded(world, A).release == UNREAD, seconds=400)
    assert (recorded(world, A).found, recorded(world, A).verified_at) == (None, None)
    assert late(world)[A].because.endswith("and is looked at again")
    back(world, A)
    world.run(until=lambda: world.fleet.hosts[A].current == sha, seconds=700)
    assert events(world, A)[-5:] == ["catch up", "prepare", "prepared", "activate", "done"]
    assert (set(world.runs().values()), late(world)) == ({sha}, {})
    row = row_of(world, world.newest().id)
    assert {name: getattr(row, name) for name in where} == where


@pytest.mark.parametrize("kept", [False, True])
def test_of_a_machine_that_has_only_moved_nothing_is_changed(world, monkeypatch, kept):
    """It is read at its new address, and runs what was brought to it, or what a person kept on it."""
    sha = first_release(world)
    if kept:
        sha = world.push()
        world.run(until=lambda: world.runs()[A] == sha, seconds=300)
        stopping.stop(world.newest().id, world.deps, who="ann", why="a look", keep=True)
        world.settle()
    inventory_says(world, monkeypatch, A, address="127.9.9.9")
    before, known = events(world, A), recorded(world, A)
    world.run(until=lambda: recorded(world, A).address == "127.9.9.9", seconds=400)
    world.run(seconds=700)
    assert events(world, A) == before
    assert (
        (recorded(world, A).release, recorded(world, A).found) == (sha, sha) == (known.release, known.found)
    )
    assert (late(world), row_of(world, world.newest().id).address) == ({}, "127.9.9.9")


def test_a_host_that_owes_a_rollback_is_followed_between_two_tries(world, monkeypatch):
    """Its tries are as far apart as the readings of the inventory: it is found where it is though its next try is not due."""
    sha = first_release(world)
    world.push()
    world.run(until=lambda: world.runs()[A] != sha, seconds=300)
    world.fleet.hosts[A].unreachable = True
    stopping.stop(world.newest().id, world.deps, who="ann", why="slow")
    world.run(until=lambda: row_of(world, world.newest().id).failures > 8, seconds=3000)
    assert row_of(world, world.newest().id).state is H.ROLLBACK_FAILED
    inventory_says(world, monkeypatch, A, address="127.9.9.9")
    back(world, A)
    catching_up.follow("shop", world.fleet.members(app(world)), world.deps)
    world.run(seconds=20)
    assert (row_of(world, world.newest().id).address, world.runs()[A]) == ("127.9.9.9", sha)


@pytest.mark.parametrize("ended", ["stopped", "rolled back"])
def test_a_host_that_owes_the_first_rollback_is_followed_too(world, monkeypatch, ended):
    """No rollout is done, so nobody is behind; who is still on what was taken back is looked for where the inventory has it."""
    for machine in world.fleet.hosts.values():
        machine.use(FOREIGN)
    if ended == "stopped":
        bad = world.push()
        world.run(until=lambda: world.runs()[A] == bad, seconds=300)
        world.fleet.hosts[A].unreachable = True
        stopping.stop(world.newest().id, world.deps, who="ann", why="slow")
    else:
        world.push()
        assert world.settle().state is R.DONE
        world.fleet.hosts[A].unreachable = True
        stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
    world.run(until=lambda: row_of(world, 1).state is H.ROLLBACK_FAILED, seconds=300)
    inventory_says(world, monkeypatch, A, address="127.9.9.9")
    world.run(until=lambda: row_of(world, 1).address == "127.9.9.9", seconds=400)
    assert (row_of(world, 1).address, recorded(world, A).address) == ("127.9.9.9",) * 2
    back(world, A)
    world.run(until=lambda: not recorded(world, A).owes, seconds=1000)
    assert (set(world.runs().values()), recorded(world, A).owes) == ({FOREIGN}, False)


@pytest.mark.parametrize("read", [True, False], ids=["inventory read", "just planned"])
def test_what_was_taken_back_since_keeps_no_host_from_being_followed(world, monkeypatch, read):
    """A host moves after a newer rollout failed: a rollback of what runs reaches it where it is, and not who has its old address."""
    older, runs = two_releases(world)
    world.metrics.share = 0.2
    world.push()
    assert world.settle().state is R.ROLLED_BACK
    if read:
        inventory_says(world, monkeypatch, A, address="127.9.9.9")
        world.run(seconds=700)
        assert row_of(world, runs).address == "127.9.9.9"
    else:
        member = next(one for one in world.fleet.members(app(world)) if one.name == A)
        with world.store.transaction() as tx:
            tx.fleet.know("shop", [replace(member, address="127.9.9.9")])
    stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
    assert row_of(world, runs).address == "127.9.9.9"
    world.settle()
    assert set(world.runs().values()) == {older}


def test_a_rollback_follows_hosts_to_the_port_and_user_of_their_last_rollout(world, monkeypatch):
    """The rollout after it was planned with them, and taken back: where it found the hosts, they are."""
    older = first_release(world)
    world.push()
    assert world.settle().state is R.DONE
    runs, there = world.newest().id, {"address": "127.9.9.9", "port": 2222, "user": "ops"}
    inventory_says(world, monkeypatch, A, port=2222)
    inventory_says(world, monkeypatch, B, **there)
    monkeypatch.setattr(catching_up, "follow", lambda *_: None)  # nobody has looked for them since
    world.metrics.share = 0.2
    world.push()
    assert world.settle().state is R.ROLLED_BACK
    stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
    assert (row_of(world, runs, A).address, row_of(world, runs, A).port) == (A, 2222)
    row = row_of(world, runs, B)
    assert {what: getattr(row, what) for what in there} == there
    world.settle()
    assert set(world.runs().values()) == {older}


def test_a_rollback_goes_by_what_was_heard_last_of_where_a_host_is(world, monkeypatch):
    """The inventory was read while a newer rollout was under way with the ports of its plan, and that one was taken back."""
    older, runs = two_releases(world)
    world.metrics.share = 0.2
    world.push()
    world.run(until=lambda: world.newest().state is R.EVALUATING_CANARY, seconds=100)
    inventory_says(world, monkeypatch, A, port=2222)
    verifying.verify("shop", world.deps)
    monkeypatch.setattr(catching_up, "follow", lambda *_: None)  # nobody has looked for it since
    assert world.settle().state is R.ROLLED_BACK
    newest = world.newest().id
    stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
    assert (row_of(world, runs, A).port, row_of(world, newest, A).port) == (2222, 22)
    world.settle()
    assert set(world.runs().values()) == {older}


def test_a_host_is_read_at_its_new_port_when_its_last_rollout_is_neither_the_newest_nor_the_one_that_runs(
    world, monkeypatch
):
    """It is read by its last row, which one that was taken back has left."""
    first_release(world)
    world.push()
    assert world.settle().state is R.DONE
    world.metrics.share = 0.2
    bad = world.push()
    assert world.settle().state is R.ROLLED_BACK
    halts.exclude("shop", [A], world.deps, who="ann", why="its disk")
    world.push(f"This reverts commit {bad}.")
    assert world.settle().state is R.ROLLED_BACK
    read, status = [], world.fleet.status

    def watched(target, *words, **options):
        read.extend([target.port] if target.name == A else [])
        return status(target, *words, **options)

    monkeypatch.setattr(world.fleet, "status", watched)
    inventory_says(world, monkeypatch, A, port=2222)
    world.run(seconds=1500, until=lambda: bool(read))
    assert read == [2222]


def test_a_rollout_whose_policy_cannot_be_read_keeps_no_other_host_from_being_followed(world, monkeypatch):
    """An older version has stored it: the host that it had last stays where it was, which is logged once, and the others are followed."""
    first_release(world)
    halts.exclude("shop", [A], world.deps, who="ann", why="disk")
    world.push()
    assert world.settle().state is R.DONE
    with world.store.transaction() as tx:
        tx.connection.execute(update(rollouts).where(rollouts.c.id == 1).values(policy={"of": "before"}))
    world.deps = replace(world.deps, plans=Plans())
    inventory_says(world, monkeypatch, A, address="127.9.9.8")
    inventory_says(world, monkeypatch, B, address="127.9.9.9")
    with capture_logs() as logged:
        for _ in range(2):
            catching_up.follow("shop", world.fleet.members(app(world)), world.deps)
    assert (row_of(world, 1, A).address, row_of(world, 2, B).address) == (A, "127.9.9.9")
    assert [line["rollout"] for line in logged if line["event"] == "policy_unreadable"] == [1]


def test_hosts_wait_with_the_reason_while_the_policy_of_what_runs_cannot_be_read(world, monkeypatch):
    """Another version has stored it: who was kept out of it, or down, waits for a newer rollout, and says so; the fleet is looked at all the same."""
    first_release(world)
    halts.exclude("shop", [A], world.deps, who="ann", why="disk")
    done_without(world, B)
    with world.store.transaction() as tx:
        tx.connection.execute(update(rollouts).where(rollouts.c.id == 2).values(policy={"of": "before"}))
    world.deps = replace(world.deps, plans=Plans())
    halts.include("shop", [A], world.deps, who="ann")
    true = world.fleet.members
    monkeypatch.setattr(world.fleet, "members", lambda its: [one for one in true(its) if one.name != "web04"])
    assert catching_up.go_on("shop", world.deps) == []
    assert recorded(world, "web04").left_at is not None
    told = {name: one.because for name, one in late(world).items()}
    what = "what rollout 2 was planned with is of another version of rollout, and cannot be read (policy."
    assert all(why.startswith(f"waits: {what}") for why in told.values())
    assert all(why.endswith("); whatever newer goes out brings this host along") for why in told.values())
    with world.store.reading() as tx:
        becomes = catching_up.prospects(tx, app(world), [A])
    assert (set(told), becomes) == ({A, B}, {A: f"is behind what the fleet runs: {told[A]}"})
    back(world, B)
    newer = world.push()
    assert world.settle().state is R.DONE
    assert (world.fleet.hosts[A].current, world.fleet.hosts[B].current, late(world)) == (newer, newer, {})


def test_another_port_of_a_host_that_is_in_neither_rollout_is_seen(world, monkeypatch):
    """It was kept out of the newest one, and of that whose release the fleet runs: what was read at its old port is not known of it."""
    older = first_release(world)
    halts.exclude("shop", [A], world.deps, who="ann", why="disk")
    sha = world.push()
    assert world.settle().state is R.DONE
    inventory_says(world, monkeypatch, A, port=2222)
    world.fleet.hosts[A].unreachable = True
    world.run(seconds=700)
    assert (recorded(world, A).release, row_of(world, 1).port) == (UNREAD, 2222)
    back(world, A)
    world.run(until=lambda: recorded(world, A).release == older, seconds=700)
    assert (recorded(world, A).found, world.runs()[A]) == (older, older)
    halts.include("shop", [A], world.deps, who="ann")
    world.run(until=lambda: world.runs()[A] == sha, seconds=700)
    assert (row_of(world, 2).port, set(world.runs().values())) == (2222, {sha})


def owing(world):
    """The good release, and the one that was stopped, which A had when it went away."""
    good = world.push() if world.workshop.commits else first_release(world)
    world.settle()
    bad = world.push()
    world.run(until=lambda: world.runs()[A] == bad, seconds=300)
    world.fleet.hosts[A].unreachable = True
    number = world.newest().id
    stopping.stop(number, world.deps, who="ann", why="bad")
    world.run(until=lambda: row_of(world, number).state is H.ROLLBACK_FAILED, seconds=300)
    return good, bad


@pytest.mark.parametrize("where", [{"address": "127.9.9.9"}, {}], ids=["another address", "the same"])
@pytest.mark.parametrize("has", [None, FOREIGN], ids=["nothing", "an image"])
def test_another_machine_owes_no_rollback(world, monkeypatch, where, has):
    """It has nothing of what was stopped, and nothing to go back to: it is read, told as such, and brought to what the fleet runs."""
    good, _ = owing(world)
    number, machine = world.newest().id, world.fleet.hosts[A]
    machine.lose_disk()
    machine.use(has)
    if where:
        inventory_says(world, monkeypatch, A, **where)
    world.run(seconds=400)
    assert (recorded(world, A).owes, recorded(world, A).release) == (True, UNREAD)
    back(world, A)
    world.run(until=lambda: machine.current == good, seconds=1000)
    assert (set(world.runs().values()), late(world), recorded(world, A).owes) == ({good}, {}, False)
    assert row_of(world, number).state is H.ROLLED_BACK
    with world.store.reading() as tx:
        told = [event.why for event in tx.events.of_rollout(number) if event.subject == f"host {A}"][-1]
    assert told == (
        f"{A}: its fence refused: not prepared; read: it runs {has or 'nothing'}, so there is nothing to take back "
        "(another machine, or its disk was lost)"
    )


def test_a_machine_from_an_older_image_owes_no_rollback(world, monkeypatch):
    """It has a journal of ours, and runs what the fleet ran once: nothing that the stopped rollout found or brought."""
    older = first_release(world)
    machine = world.fleet.hosts[A]
    journal, prepared = [*machine.journal], {**machine.prepared}
    good, _ = owing(world)
    machine.lose_disk()
    machine.journal += journal
    machine.prepared |= prepared
    machine.use(older)
    inventory_says(world, monkeypatch, A, address="127.9.9.9")
    back(world, A)
    world.run(until=lambda: machine.current == good, seconds=1000)
    assert (set(world.runs().values()), late(world), recorded(world, A).owes) == ({good}, {}, False)


def test_what_was_switched_by_hand_stays_where_the_way_back_is_lost(world):
    """Our journal is there, and somebody has put something of his there: a person has to look."""
    good, _ = owing(world)
    machine = world.fleet.hosts[A]
    del machine.prepared[good]
    machine.use(FOREIGN)
    back(world, A)
    world.run(until=lambda: recorded(world, A).release == machine.current, seconds=700)
    world.run(seconds=30)
    assert (recorded(world, A).owes, machine.current) == (True, FOREIGN)
    assert row_of(world, world.newest().id).state is H.ROLLBACK_FAILED


def is_from_an_image(world, good, bad):
    """The machine that has A's name has what is taken back, and neither what ran before nor a journal."""
    machine = world.fleet.hosts[A]
    prepared = {bad: machine.prepared[bad]}
    machine.lose_disk()
    machine.prepared |= prepared
    machine.use(bad)
    return machine


def test_what_a_host_goes_back_to_is_brought_to_it_where_it_lacks_it(world, monkeypatch):
    """A machine from an image has only the release that is rolled back: that does not run on, and nobody's way back waits for it."""
    good = first_release(world)
    bad = world.push()
    world.settle()
    machine, number = is_from_an_image(world, good, bad), world.newest().id
    inventory_says(world, monkeypatch, A, address="127.9.9.9")
    world.run(until=lambda: row_of(world, number).address == "127.9.9.9" and not late(world), seconds=400)
    true, when = world.fleet.prepare, []

    def prepare(*given, **more):
        when.append(state_of(world, number))
        return true(*given, **more)

    monkeypatch.setattr(world.fleet, "prepare", prepare)
    stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
    world.run(until=lambda: machine.current == good, seconds=100)
    world.run(seconds=10)
    assert (set(world.runs().values()), when) == ({good}, [R.ROLLED_BACK])
    assert (row_of(world, number).state, recorded(world, A).owes, late(world)) == (H.ROLLED_BACK, False, {})


def test_a_machine_that_never_had_what_the_whole_fleet_goes_back_to_gets_it(world, monkeypatch):
    """`rollback --to` means the host, by its name: the machine before had it, and this one was brought only what runs."""
    older = first_release(world)
    for _ in range(2):
        sha = world.push()
        assert world.settle().state is R.DONE
    inventory_says(world, monkeypatch, A, address="127.9.9.9")
    machine, number = world.fleet.hosts[A], world.newest().id
    machine.lose_disk()
    world.run(until=lambda: machine.current == sha, seconds=1000)
    assert [*machine.prepared] == [sha]
    stopping.roll_back_done(app(world), world.deps, to=older, who="ann", why="slow")
    world.run(until=lambda: state_of(world, number) is R.ROLLED_BACK, seconds=200)
    assert (set(world.runs().values()), state_of(world, number)) == ({older}, R.ROLLED_BACK)
    world.run(until=lambda: not recorded(world, A).owes, seconds=10)
    assert (row_of(world, number).state, late(world)) == (H.ROLLED_BACK, {})


def test_a_host_that_lost_only_its_way_back_goes_back_all_the_same(world):
    """What was stopped does not run on because its forerunner was removed from the host."""
    good, bad = owing(world)
    machine = world.fleet.hosts[A]
    del machine.prepared[good]
    back(world, A)
    assert machine.current == bad
    world.run(until=lambda: machine.current == good, seconds=700)
    assert machine.current == good


def lacks(world, state):
    """A owes a rollback to what is not on it, nor its archive here, and whose commit is in this state."""
    good, bad = owing(world)
    machine = is_from_an_image(world, good, bad)
    world.workshop.archives.remove(good)
    world.workshop.gone.add(good)
    if state == "failed":
        world.workshop.failing_build.add(good)
    if "not what runs" in state:
        world.push(f"This reverts commit {bad}.")
        assert world.settle().state is R.DONE
    if "barred" in state:
        bars.bar("shop", good, world.deps, who="ann", why="no")
    back(world, A)
    return good, bad, machine


def test_a_way_back_without_its_archive_is_built_again(world):
    """As for a host that is brought along: the host waits for that, and goes back then."""
    good, _, machine = lacks(world, "passed")
    world.run(until=lambda: commit_of(world, good).state is CommitState.TESTING, seconds=700)
    world.run(until=lambda: machine.current == good, seconds=700)
    assert (machine.current, recorded(world, A).owes) == (good, False)
    with world.store.reading() as tx:
        told = [
            event.why for event in tx.events.of_rollout(world.newest().id) if event.subject == f"host {A}"
        ]
    built = f"commit {good[:12]} is built again: its archive had made room for those of newer commits"
    assert f"{A}: what it is to go back to is not on it: {built}" in told


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("failed", "is failed: build: exit status 2; `rollout deploy {}` has it built again, and {}"),
        ("barred", "is barred; `rollout unbar {} --reason …` has it built again, or {}"),
        ("not what runs", "the archive of commit {} has made room for those of newer commits; {}"),
        ("barred, not what runs", "the archive of commit {} has made room for those of newer commits; {}"),
    ],
)
def test_a_way_back_that_cannot_be_had_is_told_with_what_to_do(world, state, why):
    """The host stays in sight, and is tried again until somebody has helped."""
    good, bad, machine = lacks(world, state)
    said = why.format(good[:12], "whatever newer goes out brings this host along")
    world.run(until=lambda: said in (row_of(world, 2).error or ""), seconds=1000)
    row = row_of(world, 2)
    assert (said in row.error, row.state, machine.current) == (True, H.ROLLBACK_FAILED, bad)


def test_an_archive_that_came_back_meanwhile_is_no_reason(world):
    """Between the look that missed it and this one it was built: nobody is told that a commit is passed."""
    first_release(world)
    sha = world.newest().commit
    with world.store.transaction() as tx:
        tx.apps.lock("shop")
        why = planning.lacks_archive(tx, "shop", sha, world.deps)
    assert why == f"the archive of commit {sha[:12]} was not there, and is now; it is tried again"


def test_who_has_lost_the_right_to_a_host_sends_it_no_way_back(world, monkeypatch):
    """As with every prepare: what is sent is cut when another worker has the host."""
    good, bad = owing(world)
    machine, true = is_from_an_image(world, good, bad), world.fleet.prepare
    back(world, A)

    def prepare(*given, **more):
        world.seconds += 2 * world.deps.settings.lease_s
        return true(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(world.fleet, "prepare", prepare)
        world.run(until=lambda: "cut" in (row_of(world, world.newest().id).error or ""), seconds=700)
    assert (set(machine.prepared), machine.current) == ({bad}, bad)
    world.run(until=lambda: machine.current == good, seconds=700)
    assert machine.current == good


def test_a_debt_is_over_only_by_a_reading_under_a_seal(world, monkeypatch):
    """What an order that is on its way still does is not known before that (I2)."""
    owing(world)
    machine, status = world.fleet.hosts[A], world.fleet.status
    machine.lose_disk()
    back(world, A)
    with monkeypatch.context() as patch:
        patch.setattr(world.fleet, "status", lambda its, **how: replace(status(its, **how), sealed=False))
        world.run(seconds=300)
    assert (recorded(world, A).owes, row_of(world, world.newest().id).state) == (True, H.ROLLBACK_FAILED)
    world.run(until=lambda: not recorded(world, A).owes, seconds=700)
    assert not recorded(world, A).owes


def test_a_fleet_that_has_moved_as_a_whole_keeps_its_baseline(world, monkeypatch):
    """Planning is the first to see the new addresses: the canary is compared with hosts that are most likely what they were."""
    first_release(world)
    for name in world.fleet.hosts:
        inventory_says(world, monkeypatch, name, address=f"127.9.9.{name[-1]}")
    world.push()
    world.run(
        until=lambda: world.newest().id == 2 and world.newest().state is R.EVALUATING_CANARY, seconds=200
    )
    with world.store.reading() as tx:
        compared = tx.hosts.compared(world.newest())
        assert compared
        assert {recorded(world, host.name).release for host in compared} == {UNREAD}


@pytest.mark.parametrize("runs", ["the same", "what was stopped"])
def test_who_goes_back_where_it_was_owes_nothing_where_it_is(world, monkeypatch, runs):
    """The inventory has it elsewhere by now: what runs there is read, and it is brought along if that is not what the fleet runs."""
    good, bad = owing(world)
    number, machine, reports = world.newest().id, world.fleet.hosts[A], []

    def moved(job):
        if job.host.name == A and machine.current == good and not reports:
            reports.append(job)
            inventory_says(world, monkeypatch, A, address="127.9.9.9")
            with world.store.transaction() as tx:
                tx.fleet.take_stock("shop", world.fleet.members(app(world)))

    back(world, A)
    before_reports(monkeypatch, hosts, moved)
    world.run(until=lambda: row_of(world, number).state is H.ROLLED_BACK, seconds=700)
    assert (recorded(world, A).owes, recorded(world, A).release) == (False, UNREAD)
    if runs == "what was stopped":
        machine.use(bad)
    world.run(until=lambda: recorded(world, A).release != UNREAD, seconds=700)
    assert (row_of(world, number).address, recorded(world, A).found) == ("127.9.9.9", machine.current)
    world.run(until=lambda: not late(world), seconds=700)
    assert (machine.current, recorded(world, A).release, recorded(world, A).owes) == (good, good, False)


def test_what_is_heard_from_the_old_address_is_not_recorded_of_the_new_one(world):
    """The inventory was read while the host was in flight: what it runs where it is now is read afterwards."""
    first_release(world)
    row = row_of(world, world.newest().id)
    member = next(one for one in world.fleet.members(app(world)) if one.name == A)
    with world.store.transaction() as tx:
        tx.fleet.know("shop", [replace(member, address="127.9.9.9")])
        tx.fleet.runs(row, row.release, settled=True)
        tx.fleet.found(row, row.release)
    assert (recorded(world, A).release, recorded(world, A).found) == (UNREAD, None)
    world.run(until=lambda: recorded(world, A).release == row.release, seconds=700)
    assert recorded(world, A).release == row.release


def test_who_left_the_fleet_is_not_brought_to_anything(world, monkeypatch):
    """It answers again, and the inventory has it no more; a broken inventory brings nobody to anything."""
    done_without(world, A)
    back(world, A)
    true = world.fleet.members
    monkeypatch.setattr(world.fleet, "members", lambda config: [one for one in true(config) if one.name != A])
    world.run(seconds=500)
    assert world.fleet.hosts[A].current is None

    def broken(_config):
        raise ConfigError("inventory: exit status 1")

    monkeypatch.setattr(world.fleet, "members", broken)
    world.run(seconds=400)
    assert world.fleet.hosts[A].current is None


def test_who_left_the_fleet_is_told_as_such_until_it_is_in_it_again(world, monkeypatch):
    """Nobody says that it is tried again; the next rollout goes on without it; back in the inventory it is brought along."""
    done_without(world, A)
    assert recorded(world, A).left_at is None
    true, gone = world.fleet.members, {A}
    monkeypatch.setattr(
        world.fleet, "members", lambda its: [one for one in true(its) if one.name not in gone]
    )
    back(world, A)
    world.run(seconds=400)
    left_at = recorded(world, A).left_at
    assert (late(world), left_at is not None, recorded(world, B).left_at) == ({}, True, None)
    sha = world.push()
    assert world.settle().state is R.DONE
    assert recorded(world, A).left_at == left_at
    gone.clear()
    world.run(until=lambda: world.fleet.hosts[A].current == sha, seconds=700)
    assert (world.fleet.hosts[A].current, recorded(world, A).left_at) == (sha, None)


def test_a_rollout_tells_at_once_who_left_the_fleet(world, monkeypatch):
    """It has read the inventory, so nobody waits for the next look to see why a host has no part in it."""
    world.push()
    world.settle()
    true = world.fleet.members
    monkeypatch.setattr(world.fleet, "members", lambda its: [one for one in true(its) if one.name != A])
    world.push()
    world.run(until=lambda: world.newest().id == 2)
    assert recorded(world, A).left_at is not None


def prospects(world, *names):
    with world.store.reading() as tx:
        return catching_up.prospects(tx, app(world), names)


def test_include_says_what_becomes_of_each_host(world, monkeypatch):
    """That it is brought to what the fleet runs is said only where something will bring it."""
    assert halts.exclude("shop", [A], world.deps, who="ann", why="disk") == []
    halts.include("shop", [A], world.deps, who="ann")
    assert prospects(world, A) == {A: "has its part in the next rollout"}
    halts.exclude("shop", [A], world.deps, who="ann", why="disk")
    done_without(world, B)
    halts.include("shop", [A, B], world.deps, who="ann")
    brought = "is brought to what the fleet runs: "
    assert prospects(world, A, B, "web01") == {
        A: f"{brought}waits for its turn",
        B: f"{brought}does not answer, and is looked at again",
        "web01": "runs what the fleet runs",
    }
    freezes.freeze(app(world), world.deps, who="ann", why="the sale", until=None)
    assert prospects(world, A) == {A: "is behind what the fleet runs: waits: frozen by ann: the sale"}
    true = world.fleet.members
    monkeypatch.setattr(world.fleet, "members", lambda its: [one for one in true(its) if one.name != A])
    verifying.verify("shop", world.deps)
    assert prospects(world, A) == {A: "is not in the inventory: nothing is brought to it"}


def test_a_host_that_lost_its_disk_gets_it_again(world):
    """Somebody reads it and finds nothing; its way back leads to nothing, as what it ran before is gone too."""
    first_release(world)
    sha = world.push()
    world.settle()
    host = world.fleet.hosts[A]
    host.lose_disk()
    verifying.verify("shop", world.deps)
    world.run(seconds=120)
    assert (host.current, recorded(world, A).release, recorded(world, A).found) == (sha, sha, sha)
    assert row_of(world, world.newest().id).previous is None


def test_an_unhealthy_host_is_tried_three_times_and_then_left(world):
    """With growing waits; people are told once, and `include` begins anew."""
    first_release(world)
    host, bad = world.fleet.hosts[A], f"{2:040x}"
    host.unhealthy.add(bad)
    assert world.push() == bad
    world.settle()
    number = world.newest().id
    world.run(until=lambda: late(world)[A].next_at is not None)
    with world.store.reading() as tx:
        assert late(world)[A].next_at - tx.today() <= timedelta(seconds=60)
    world.run(seconds=1800)
    assert events(world, A, number).count("catch up") == 3
    assert late(world)[A].because.startswith("left after 3 tries (web05: unhealthy")
    told = [title for title, _ in world.notifier.sent if "is behind" in title]
    assert told == ["shop: rollout 2 is not on web05, which is behind"]
    host.unhealthy.clear()
    halts.include("shop", [A], world.deps, who="ann")
    world.run(seconds=400)
    assert (host.current, world.newest().done) == (bad, 6)


def test_the_budget_goes_on(tmp_path, monkeypatch):
    """I3: none may fail, and one that was excluded does: the other one is not tried, until a person says so."""
    world = World(tmp_path, monkeypatch, hosts=6, fan_out="max_failed = 0\nretries = 0")
    halts.exclude("shop", [A, B], world.deps, who="ann", why="being built")
    sha = world.push()
    world.settle()
    world.fleet.hosts[A].unhealthy.add(sha)
    halts.include("shop", [A, B], world.deps, who="ann")
    world.run(seconds=1800)
    assert (world.newest().failed, world.fleet.hosts[B].current) == (1, None)
    assert late(world)[B].because == "waits: more than 0 hosts have failed"
    halts.exclude("shop", [A], world.deps, who="ann", why="broken")
    world.run(seconds=60)
    assert world.fleet.hosts[B].current == sha
    assert [*map(str, check(read.world(world)))] == []


def test_a_worker_that_dies_after_the_switch_leaves_a_host_that_is_read(world, monkeypatch):
    """Unknown is read, and never guessed: nothing is done twice."""
    sha = done_without(world, A)
    back(world, A)
    number = world.newest().id
    world.fleet.hosts[A].loses_answer = 1
    world.run(until=lambda: row_of(world, number).state is H.UNKNOWN, seconds=500)
    world.run(until=lambda: row_of(world, number).state is H.DONE, seconds=60)
    assert (row_of(world, number).state, world.fleet.hosts[A].current) == (H.DONE, sha)
    assert world.newest().in_flight == world.newest().unknown == 0


def test_a_rollback_that_begins_at_its_switch_takes_the_host_along(world):
    """I2: who has greeted is not switched any more, and whoever was switched goes back."""
    first = first_release(world)
    done_without(world, A)
    back(world, A)
    number = world.newest().id

    def roll_back(name):
        if name == A and state_of(world, number) is R.DONE:
            stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")

    world.fleet.before_permit = roll_back
    world.run(until=lambda: state_of(world, number) is R.ROLLED_BACK, seconds=500)
    assert set(world.runs().values()) == {first}


def test_a_rollback_that_begins_at_its_prepare_cuts_it(world, monkeypatch):
    """I2: the host failed with the release before, and goes back as all others do."""
    first = first_release(world)
    bad = f"{2:040x}"
    world.fleet.hosts[A].unhealthy.add(bad)
    world.push()
    world.settle()
    number, true, seen = world.newest().id, world.fleet.prepare, []

    def prepare(target, order, **options):
        if target.name == A and not seen:
            seen.append(order)
            stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
        return true(target, order, **options)

    monkeypatch.setattr(world.fleet, "prepare", prepare)
    world.run(until=lambda: state_of(world, number) is R.ROLLED_BACK, seconds=500)
    assert seen
    assert set(world.runs().values()) == {first}
    assert row_of(world, number).state is H.ROLLED_BACK


def test_what_a_person_has_kept_stays(world):
    """`stop --keep` leaves hosts as they are, and so does this."""
    first_release(world)
    done_without(world, A)
    first = world.newest().id
    back(world, A)
    kept = world.push()
    world.run(until=lambda: world.newest().id > first and row_of(world, world.newest().id).state is H.DONE)
    stopping.stop(world.newest().id, world.deps, who="ann", why="enough", keep=True)
    world.run(seconds=500)
    assert world.fleet.hosts[A].current == kept
    assert late(world) == {}


def test_a_late_message_switches_nothing_of_an_older_rollout(world):
    """The rollout that is done now is the one that goes on; what was left half way in the one before it stays there."""
    done_without(world, A)
    old = world.newest().id
    back(world, A)
    world.run(until=lambda: row_of(world, old).state is H.PREPARED, seconds=500)
    world.bell.queue.clear()
    sha = world.push()
    world.settle()
    assert world.newest().commit == sha
    hosts.deploy(row_of(world, old).rollout, row_of(world, old).id, world.deps)
    assert (row_of(world, old).state, world.fleet.hosts[A].current) == (H.PREPARED, sha)


def gone_past(world):
    """All have gone from the third release to the first, but one that was down since the second; the first, and the second."""
    first = first_release(world)
    second = world.push()
    world.settle()
    done_without(world, A)
    stopping.roll_back_done(app(world), world.deps, to=first, who="ann", why="both are bad")
    assert world.settle().state is R.ROLLED_BACK
    assert world.fleet.hosts[A].current == second
    return first, second


def test_a_host_that_was_down_when_the_fleet_went_back_past_its_release_goes_back_too(world):
    """It runs what was barred then; its own way back, from the release where all are now, stays what it was."""
    first, second = gone_past(world)
    assert "not gone back with the others, since it never reached them: web05" in world.newest().reason
    back(world, A)
    world.run(until=lambda: late(world).get(A) and "runs" in late(world)[A].because, seconds=500)
    assert late(world)[A].because.startswith(f"runs {second[:12]}, from which the fleet has gone back")
    world.run(until=lambda: not late(world), seconds=500)
    assert set(world.runs().values()) == {first}
    assert (state_of(world, 1), row_of(world, 1).previous, recorded(world, A).release) == (
        R.DONE,
        None,
        first,
    )
    assert "catch up" in events(world, A, 1)


def test_a_host_that_has_joined_from_a_barred_release_goes_back_to_it_and_is_brought_on(world, monkeypatch):
    """Only what it ran is sure to be on its disk: a rollback goes there and says so, and automation brings it to what the fleet runs."""
    members, out = world.fleet.members, {A}
    monkeypatch.setattr(
        world.fleet, "members", lambda its: [one for one in members(its) if one.name not in out]
    )
    zero = world.push()
    world.settle()
    first = world.push()
    world.settle()
    out.clear()
    second = world.push()
    world.settle()
    done_without(world, A)
    stopping.roll_back_done(app(world), world.deps, to=first, who="ann", why="both are bad")
    assert world.settle().state is R.ROLLED_BACK
    back(world, A)
    world.run(until=lambda: world.fleet.hosts[A].current == first and not late(world), seconds=700)
    assert (row_of(world, 2).previous, commit_state(world, second)) == (second, CommitState.BARRED)
    freezes.freeze(app(world), world.deps, who="ann", why="I look at it", until=None)
    stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="bad, too")
    world.run(until=lambda: state_of(world, 2) is R.ROLLED_BACK)
    assert world.runs() == dict.fromkeys(world.runs(), zero) | {A: second}
    with world.store.reading() as tx:
        assert f"; on a release that is barred, as before: {A}" in tx.rollouts.get(2).reason
    freezes.unfreeze(app(world), world.deps, who="ann", why="-")
    world.run(until=lambda: not late(world) and world.fleet.hosts[A].current == zero, seconds=500)
    assert set(world.runs().values()) == {zero}


def commit_state(world, sha):
    with world.store.reading() as tx:
        return tx.commits.get("shop", sha).state


def test_such_a_host_waits_in_a_freeze_and_is_told_with_what_it_runs(world):
    """The rollback itself is never frozen; who was down in it is caught up with, which is, and people learn of what is still out."""
    first, second = gone_past(world)
    freezes.freeze(app(world), world.deps, who="ann", why="the sale", until=None)
    back(world, A)
    world.run(until=lambda: late(world).get(A) and "runs" in late(world)[A].because, seconds=500)
    gone = f"runs {second[:12]}, from which the fleet has gone back, and waits: frozen by ann"
    assert late(world)[A].because.startswith(gone)
    world.run(seconds=300)
    assert world.fleet.hosts[A].current == second
    freezes.unfreeze(app(world), world.deps, who="ann", why="-")
    world.run(until=lambda: not late(world), seconds=500)
    assert set(world.runs().values()) == {first}


def test_what_somebody_has_put_on_such_a_host_by_hand_stays(world):
    """The fleet went back past the release that it had; what a person did on the host is drift, and nobody's to undo."""
    _, second = gone_past(world)
    freezes.freeze(app(world), world.deps, who="ann", why="I look at it", until=None)
    back(world, A)
    world.run(until=lambda: recorded(world, A).release == second, seconds=500)
    host = world.fleet.hosts[A]
    host.current = "b" * 40
    verifying.verify("shop", world.deps)
    freezes.unfreeze(app(world), world.deps, who="ann", why="-")
    world.run(seconds=500)
    assert (host.current, late(world)) == ("b" * 40, {})
    host.current = second  # as is recorded


class Killed(BaseException):
    """Of the worker, at this very moment."""


def killed_at(world, monkeypatch, moment):
    """The worker that brings A to the release dies once, at this moment; whether it has."""
    dead = []

    def die(host):
        if host == A and not dead:
            dead.append(host)
            raise Killed

    def before(name, module=world.fleet):
        true = getattr(module, name)

        def work(target, *rest, **options):
            die(target.name)
            return true(target, *rest, **options)

        monkeypatch.setattr(module, name, work)

    match moment:
        case "prepare":
            before("prepare")
        case "greeting":
            world.fleet.before_permit = die
        case "permitted":
            world.fleet.hosts[A].before_act = lambda: die(A)
        case "switched":
            world.fleet.hosts[A].after_act = lambda: die(A)
        case "report":

            def activated(job):
                if job.host.state is H.ACTIVATING:
                    die(job.host.name)

            before_reports(monkeypatch, hosts, activated)
    return dead


@pytest.mark.parametrize("then", ["alone", "a rollout", "a rollback"])
@pytest.mark.parametrize("moment", ["prepare", "greeting", "permitted", "switched", "report"])
def test_a_worker_that_is_killed_is_healed(world, monkeypatch, moment, then):
    """Wherever it dies, and whatever begins meanwhile: every host ends where it belongs, and the books are true."""
    first = first_release(world)
    sha = done_without(world, A)
    number = world.newest().id
    back(world, A)
    dead = killed_at(world, monkeypatch, moment)
    with pytest.raises(Killed):
        world.run(seconds=500)
    if then == "a rollout":
        sha = world.push()
    if then == "a rollback":
        stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="slow")
        sha = first
    ended = R.ROLLED_BACK if then == "a rollback" else R.DONE

    def healed():
        return {*world.runs().values()} == {sha} and not late(world) and world.newest().state is ended

    world.run(until=healed, seconds=300)
    world.run(seconds=20)
    assert dead
    assert (healed(), state_of(world, number)) == (True, ended)
    if ended is R.DONE:
        assert world.newest().in_flight == world.newest().unknown == 0


def test_a_release_that_a_rollback_may_go_to_keeps_its_archive(world):
    """However many are tested meanwhile: after the rollback there may be hosts that lack it."""
    world.workshop.room = 2
    good = world.push()
    world.settle()
    bad = world.push()
    world.settle()
    freezes.freeze(app(world), world.deps, who="ann", why="weekend", until=None)
    others = [world.push() for _ in range(4)]
    world.run(seconds=60)
    assert world.workshop.archives == [good, bad, *others[-2:]]
    stopping.roll_back_done(app(world), world.deps, to=None, who="ann", why="bad")
    world.settle()
    assert (set(world.runs().values()), good in world.workshop.gone) == ({good}, False)


def without_its_archive(world):
    """A host has lost its disk, and this machine the archive of what the fleet runs."""
    first_release(world)
    sha = world.push()
    world.settle()
    world.fleet.hosts[A].lose_disk()
    world.workshop.archives.remove(sha)
    world.workshop.gone.add(sha)
    return sha


def test_what_the_fleet_runs_is_built_again_for_a_host_that_lacks_it(world, monkeypatch):
    """Not tested, also when it has left the branch, and not for hosts that have it already."""
    sha, sent = without_its_archive(world), []
    world.workshop.commits[-1] = replace(world.workshop.commits[-1], sha="f" * 40)
    world.push("after a force-push")
    world.run(seconds=20)
    monkeypatch.setattr(world.workshop, "run_tests", None)
    true = world.fleet.prepare

    def prepare(target, order, **more):
        assert order.release.commit not in world.workshop.gone
        sent.append(target.name)
        return true(target, order, **more)

    monkeypatch.setattr(world.fleet, "prepare", prepare)
    verifying.verify("shop", world.deps)
    world.run(until=lambda: commit_of(world, sha).state is CommitState.TESTING, seconds=60)
    assert late(world)[A].because.startswith(f"waits: commit {sha[:12]} is built again")
    world.run(until=lambda: world.fleet.hosts[A].current == sha, seconds=120)
    assert (sent, set(world.runs().values())) == ([A], {sha})


@pytest.mark.parametrize("other_bytes", [False, True])
def test_what_cannot_be_built_again_is_told_with_what_to_do(world, monkeypatch, other_bytes):
    """Nor is what gives other bytes taken: all other hosts have the ones that were tested, and go back to them by their digest."""
    sha, build = without_its_archive(world), world.workshop.build
    with world.store.reading() as tx:
        digest = tx.commits.release("shop", sha).digest
    if other_bytes:

        def built(*given):
            release, told = build(*given)
            return replace(release, digest="f" * 64), told

        monkeypatch.setattr(world.workshop, "build", built)
    else:
        world.workshop.failing_build.add(sha)
    verifying.verify("shop", world.deps)
    world.run(seconds=300)
    because = late(world)[A].because
    assert because.startswith(f"waits: commit {sha[:12]} is failed: build: ")
    assert ("other bytes" in because) is other_bytes
    assert f"`rollout deploy {sha[:12]}`" in because
    with world.store.reading() as tx:
        assert tx.commits.release("shop", sha).digest == digest
    monkeypatch.setattr(world.workshop, "build", build)
    world.workshop.failing_build.clear()
    intake.enqueue(app(world), sha, world.deps, who="ann")
    world.run(until=lambda: world.fleet.hosts[A].current == sha, seconds=300)
    assert world.fleet.hosts[A].current == sha
