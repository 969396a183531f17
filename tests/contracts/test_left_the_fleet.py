"""Who has left the fleet is switched by no way back, on every database."""

from contextlib import suppress

import pytest
from sqlalchemy import update

from rollout.domain.states import HostState, RolloutState
from rollout.services import stopping
from rollout.store.tables import fleet_hosts
from tests.support.across import (
    another_app_switches,
    another_is_planned,
    out_of_the_inventory,
    recorded,
    row_of,
    state_of,
)
from tests.support.checker import read
from tests.support.checker.check import check
from tests.support.world import World

H, R = HostState, RolloutState
LEFT, STAYS = "web04", "web03"


@pytest.fixture
def world(tmp_path, monkeypatch, database):
    """Four hosts on the second release; one of them has left the inventory, which was read since."""
    made = World(tmp_path, monkeypatch, hosts=4, url=database)
    made.push()
    made.settle()
    made.push()
    assert made.settle().state is R.DONE
    made.comes_back = out_of_the_inventory(made, monkeypatch, LEFT)
    with made.store.transaction() as tx:
        tx.fleet.take_stock("shop", made.fleet.members(made.config.app(None)))
    yield made
    assert [*map(str, check(read.world(made)))] == []
    made.store.close()


def goes_back(world):
    return stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="ann", why="slow").id


def claim(world, number, name):
    with world.store.transaction() as tx:
        return tx.claims.roll_back(row_of(world, number, name).id, "me", 15.0)


def test_every_question_about_a_way_back_asks_who_is_in_the_fleet(world):
    """Who has left is not handed out, nor claimed, nor waited for; he is told of apart from those that failed."""
    number = goes_back(world)
    with world.store.reading() as tx:
        names = {host.name for host in tx.going_back.to_bring_back(number)}
        assert (LEFT in names, STAYS in names) == (False, True)
        assert [host.name for host in tx.going_back.left_as_they_are(number)] == [LEFT]
        assert not tx.fleet.has(row_of(world, number, LEFT))
        assert tx.fleet.has(row_of(world, number, STAYS))
        assert not tx.going_back.all_back(number)
    assert claim(world, number, LEFT) is None
    world.run(until=lambda: state_of(world, number) is R.ROLLED_BACK, seconds=60)
    with world.store.reading() as tx:
        assert (tx.going_back.all_back(number), tx.going_back.not_back(number)) == (True, [])
        assert tx.going_back.to_roll_back(number, 9) == []
    assert (row_of(world, number, LEFT).state, recorded(world, LEFT).owes) == (H.DONE, True)


def test_who_is_back_is_brought_along(world):
    """Once the inventory has it again it is read, and goes to what the others run."""
    number = goes_back(world)
    world.run(until=lambda: state_of(world, number) is R.ROLLED_BACK, seconds=60)
    world.comes_back()
    world.run(until=lambda: len(set(world.runs().values())) == 1, seconds=900)
    world.run(seconds=60)
    assert set(world.runs().values()) == {recorded(world, LEFT).release}
    assert not recorded(world, LEFT).owes


class Undone(Exception):
    """What a transaction wrote is not kept."""


@pytest.mark.parametrize(
    ("state", "touched", "missed"),
    [(R.STOPPED, False, True), (R.STOPPED, True, False), (R.PENDING, False, False)],
    ids=["set aside", "kept", "still planned"],
)
def test_who_missed_its_way_back_is_seen_past_what_came_to_nothing(world, state, touched, missed):
    """Its last row that was touched counts, and no later one; what is not over yet has the host first."""
    number = goes_back(world)
    world.run(until=lambda: state_of(world, number) is R.ROLLED_BACK, seconds=60)
    with suppress(Undone), world.store.transaction() as tx:
        bad, row = tx.rollouts.get(number).commit, row_of(world, number, LEFT)
        another_is_planned(tx, number, LEFT, state=state, touched=touched)
        tx.connection.execute(
            update(fleet_hosts)
            .where(fleet_hosts.c.name == LEFT)
            .values(release=bad, left_at=None, operation=0)
        )
        assert [host.id for host in tx.going_back.to_try_again()] == ([row.id] if missed else [])
        late = {one.host.name: one.wanted for one in tx.catching_up.behind(tx.rollouts.newest_done("shop"))}
        if state is R.STOPPED and not touched:
            assert late == {LEFT: False}
        raise Undone


@pytest.mark.parametrize(
    ("its", "later_s", "is_back"),
    [
        ({}, 1.0, False),
        ({}, -1000.0, True),
        ({"path": "/srv/site"}, 1.0, True),
        ({"port": 23}, 1.0, True),
        ({"address": "127.9.9.9"}, 1.0, True),
        ({"app": "shop"}, 1.0, True),
        ({"touched": False}, 1.0, True),
    ],
    ids=["another's", "before", "elsewhere", "another port", "another machine", "its own", "not switched"],
)
@pytest.mark.parametrize("name", [LEFT, STAYS])
def test_a_stop_brings_back_whom_no_other_app_has_switched_since(world, name, its, later_s, is_back):
    """Whatever the inventory says; its own rollouts, another folder on the same machine, and what was there before are nothing to it."""
    with world.store.reading() as tx:
        newest = tx.rollouts.newest_done("shop").id
    mine = row_of(world, newest, name)
    with suppress(Undone), world.store.transaction() as tx:
        another_app_switches(tx, name, **{"touched_at": mine.touched_at + later_s, **its})
        tx.fleet.call_back(newest)
        assert tx.fleet.has(mine) is is_back
        raise Undone
