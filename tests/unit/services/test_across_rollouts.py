"""Two rollouts and one host: what the older one still does, owes or reports undoes nothing of the newer one."""

import pytest

from rollout.domain.states import HostState, RolloutState
from rollout.errors import Conflict, Unreachable
from rollout.services import bars, halts, hosts, reconcile, stopping
from tests.support.across import (
    SLOW,
    accepted_and_switched_anew,
    at_its_switch,
    fix,
    kept_and_switched_again,
    late_roll_back,
    owes_a_rollback,
    recorded,
    row_of,
    state_of,
    take_back,
    until_prepared,
)
from tests.support.checker import read
from tests.support.checker.check import check
from tests.support.world import World

H, R = HostState, RolloutState


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Five hosts, of which two may fail."""
    world = World(tmp_path, monkeypatch, hosts=5, fan_out="max_failed = 2")
    yield world
    assert [*map(str, check(read.world(world)))] == []


def test_a_late_report_of_an_old_rollback_does_not_overwrite_what_is_newer(world, monkeypatch):
    """I5: the next rollout switched the host since, so what it ran before is no news."""
    new = late_roll_back(world, monkeypatch, hosts)
    sha = world.newest().commit
    assert (state_of(world, new), row_of(world, new).state) == (R.DONE, H.DONE)
    assert (recorded(world).release, world.fleet.hosts[SLOW].current) == (sha, sha)


def test_a_late_report_of_a_kept_rollout_does_not_overwrite_what_is_newer(world, monkeypatch):
    """I5: after `stop --keep` the next canary runs its own release, whatever the first worker reports of it."""
    kept_and_switched_again(world, monkeypatch, hosts)
    sha = world.newest().commit
    assert world.newest().state is R.DONE
    assert {recorded(world, name).release for name in world.runs()} == {sha}


def test_a_host_goes_back_past_the_release_that_it_should_have_left(world):
    """I2: taking the newer rollout back leads to what the stopped one would have gone back to, not to the stopped release."""
    good, bad, _ = owes_a_rollback(world)
    _, new = fix(world, bad)
    world.run(until=lambda: state_of(world, new) is R.FANNING_OUT)
    world.run(until=lambda: row_of(world, new).state is H.DONE)
    row = row_of(world, new)
    assert (row.previous, row.owes, row.owed) == (bad, True, good)
    take_back(world, new)
    assert set(world.runs().values()) == {good}
    assert not recorded(world).owes


def test_an_unhealthy_release_is_not_put_back_to_what_the_host_should_have_left(world):
    """I2: host.sh is told where to put the host back to while an older rollback is owed."""
    good, bad, _ = owes_a_rollback(world)
    sha, new = fix(world, bad)
    host = world.fleet.hosts[SLOW]
    host.unhealthy.add(sha)
    world.run(until=lambda: row_of(world, new).state is H.FAILED)
    assert (host.current, recorded(world).release) == (good, good)
    assert not recorded(world).owes


def test_a_host_that_owes_a_rollback_is_found_untouched(world):
    """Its order was lost before it came: what it should have left is what it ran, and nothing has failed."""
    _, bad, _ = owes_a_rollback(world)
    _, new = fix(world, bad)
    world.run(until=lambda: state_of(world, new) is R.FANNING_OUT)
    world.fleet.cuts.add(SLOW)
    world.run(until=lambda: SLOW in world.fleet.in_hand)
    world.fleet.in_hand.pop(SLOW)[1].close()
    assert world.settle().state is R.DONE
    assert row_of(world, new).state is H.DONE


def test_a_host_with_no_room_for_the_newer_release_still_goes_back(world, monkeypatch):
    """I2: the newer rollout is done without the host, which it greeted and did not switch."""
    good, bad, old = owes_a_rollback(world)
    _, new = fix(world, bad)
    host = world.fleet.hosts[SLOW]

    def full(act, permit):
        host.no_room = True
        try:
            return act(permit)
        finally:
            host.no_room = False

    at_its_switch(world, monkeypatch, new, full)
    assert world.settle().state is R.DONE
    row = row_of(world, new)
    assert (row.state, row.touched, host.current) == (H.FAILED, True, bad)
    assert recorded(world).owes
    world.run(until=lambda: row_of(world, old).state is H.ROLLED_BACK, seconds=700)
    assert (host.current, recorded(world).release, recorded(world).owes) == (good, good, False)


def test_a_host_that_a_kept_rollout_only_greeted_still_goes_back(world, monkeypatch):
    """I2: `stop --keep` keeps what was switched, and the order to this host came too late."""
    good, bad, old = owes_a_rollback(world)
    _, new = fix(world, bad)

    at_its_switch(world, monkeypatch, new, lambda act, permit: act(lambda greeting: 0 * permit(greeting)))
    stopping.stop(new, world.deps, who="me", why="enough", keep=True)
    world.run(until=lambda: state_of(world, new) is R.STOPPED)
    row = row_of(world, new)
    assert (row.state, row.touched, world.fleet.hosts[SLOW].current) == (H.PREPARED, True, bad)
    world.run(until=lambda: row_of(world, old).state is H.ROLLED_BACK, seconds=700)
    assert (world.fleet.hosts[SLOW].current, recorded(world).owes) == (good, False)


def test_a_retry_that_died_while_a_newer_rollout_claimed_the_host_is_made_again(world, monkeypatch):
    """I2: the newer one never reached the host and was stopped; the older one's worker had been killed meanwhile."""
    good, bad, old = owes_a_rollback(world)
    _, new = fix(world, bad)

    until_prepared(world, new)
    world.seconds = max(world.seconds, row_of(world, old).due_at)
    with world.store.transaction() as tx:
        claim = tx.claims.roll_back(row_of(world, old).id, "killed", 10.0)

    def away(*_):
        world.seconds = claim.lease_until + 0.5
        reconcile.sweep(world.deps)
        assert (row_of(world, old).state, row_of(world, new).state) == (H.ROLLBACK_FAILED, H.ACTIVATING)
        raise Unreachable(f"{SLOW}: no answer")

    at_its_switch(world, monkeypatch, new, away)
    take_back(world, new)
    assert not row_of(world, new).touched
    world.run(until=lambda: row_of(world, old).state is H.ROLLED_BACK, seconds=700)
    assert (world.fleet.hosts[SLOW].current, recorded(world).owes) == (good, False)


@pytest.mark.parametrize("keep", [True, False])
def test_a_debt_that_the_newer_rollout_took_on_is_that_ones(world, keep):
    """What is kept on purpose stays, and what goes back goes back once: the older row is left when nothing is owed."""
    good, bad, old = owes_a_rollback(world)
    sha, new = fix(world, bad)
    until_prepared(world, new)
    world.run(until=lambda: row_of(world, new).state is H.DONE)
    stopping.stop(new, world.deps, who="me", why="enough", keep=keep)
    world.run(until=lambda: row_of(world, old).due_at is None, seconds=700)
    assert row_of(world, old).state is H.ROLLBACK_FAILED
    assert world.fleet.hosts[SLOW].current == (sha if keep else good)


def test_what_an_older_rollout_took_back_since_is_not_undone_by_a_retry(world):
    """I2: the newer rollout's rollback of a host is moot when an older one's has taken the host further back."""
    world.push()
    world.settle()
    second = world.push()
    world.settle()
    done = world.newest().id
    host = world.fleet.hosts[SLOW]
    world.push()
    world.run(until=lambda: world.newest().id > done and row_of(world, world.newest().id).state is H.DONE)
    newest = world.newest().id
    host.unreachable = True
    take_back(world, newest)
    host.unreachable = False
    back = take_back(world, done)
    assert back == done
    world.run(seconds=400)
    assert row_of(world, newest).state is H.ROLLBACK_FAILED
    assert second not in world.runs().values()


@pytest.mark.parametrize("mode", ["strict", "ramp"])
def test_an_acceptance_ends_with_its_attempt(tmp_path, monkeypatch, mode):
    """I3: a host whose lost order a person accepted is switched anew, and when that fails it counts."""
    world = World(
        tmp_path,
        monkeypatch,
        hosts=6,
        fan_out=f'max_failed = 0\nretries = 0\nconcurrency = 1\nmode = "{mode}"',
    )
    accepted_and_switched_anew(world, halts)
    row = row_of(world, world.newest().id)
    assert (row.state, row.accepted) == (H.FAILED, False)
    assert (world.newest().failed, world.newest().state) == (1, R.HALTED)
    assert [*map(str, check(read.world(world)))] == []


@pytest.mark.parametrize("archive", [True, False], ids=["sent", "built again"])
def test_going_back_past_what_hosts_keep_brings_it_to_them_again(tmp_path, monkeypatch, archive):
    """With its archive within the rollback itself; else each host says that it is built again, and gets it then."""
    world = World(tmp_path, monkeypatch, hosts=6, release="keep = 2")
    shas = []
    for _ in range(4):
        shas.append(world.push())
        world.settle()
    assert shas[0] not in world.fleet.hosts["web01"].prepared
    if not archive:
        world.workshop.gone |= {shas[0]}
    back = stopping.roll_back_done(world.config.app(None), world.deps, to=shas[0], who="me", why="slow").id
    world.run(until=lambda: state_of(world, back) is R.ROLLED_BACK)
    with world.store.reading() as tx:
        rows = tx.hosts.of(back)
    assert all("is built again" in (row.error or "") for row in rows) is not archive
    assert ({row.state for row in rows} == {H.ROLLED_BACK}) is archive
    world.run(until=lambda: set(world.runs().values()) == {shas[0]}, seconds=120)


def test_who_goes_back_to_what_a_host_never_had_is_told_what_works(world):
    """An older commit cannot be shipped: that was the advice, and `deploy` sent back to `rollback --to`."""
    older, sha = world.push(), world.push()
    world.settle()
    app = world.config.app(None)
    for to, words in ((older, "was never on web01, "), (sha, "is what runs")):
        with pytest.raises(Conflict, match=words) as refused:
            stopping.roll_back_done(app, world.deps, to=to, who="me", why="slow")
        assert ("without --to" in refused.value.remedy, "COMMIT" in refused.value.remedy) == (True, False)


def test_after_going_back_from_where_a_rollback_went_to_that_is_what_runs(world):
    """`rollback --to 2` and then `rollback`: the fleet runs 1, the next `rollback` and the next plan go on from there."""
    shas = []
    for _ in range(4):
        shas.append(world.push())
        world.settle()
    app = world.config.app(None)
    for to in (shas[1], None):
        back = stopping.roll_back_done(app, world.deps, to=to, who="me", why="slow").id
        world.run(until=lambda back=back: state_of(world, back) is R.ROLLED_BACK)
    with world.store.reading() as tx:
        assert tx.rollouts.released("shop") == shas[0]
        assert tx.rollouts.newest_done("shop").commit == shas[0]
    for sha in shas[1:]:
        bars.unbar("shop", sha, world.deps, who="me", why="because")
    world.run(until=lambda: world.newest().id > 4)
    assert (world.newest().id, world.newest().previous) == (5, shas[0])
