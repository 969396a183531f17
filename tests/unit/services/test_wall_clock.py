"""The deploying machine's wall clock is stepped: what goes out next, and with how many others, is decided as before."""

from datetime import UTC, datetime, timedelta

import pytest

from rollout.domain.states import RolloutState
from rollout.services import bars
from rollout.store import clock
from rollout.store.store import Transaction
from tests.support.world import World


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch, hosts=3, fan_out="max_failed = 1")


@pytest.fixture
def step(monkeypatch):
    """Step the clock that people read."""

    def step(hours):
        monkeypatch.setattr(Transaction, "today", lambda _=None: datetime.now(UTC) + timedelta(hours=hours))

    return step


def age_s(world, sha):
    with world.store.reading() as tx:
        return bars.candidate(tx.commits.get("shop", sha), tx).age_s


@pytest.mark.parametrize("hours", [1, -24])
def test_ages_and_durations_go_by_the_stores_clock(world, step, hours):
    """A commit is as old, and a rollout lasted as long, as if no clock had been stepped: selection counts on both."""
    sha = world.push()
    world.run(until=lambda: world.newest() is not None and world.newest().state is RolloutState.FANNING_OUT)
    step(hours)
    world.settle()
    with world.store.reading() as tx:
        (lasted,) = tx.rollouts.durations("shop")
    assert 5.0 < lasted <= world.seconds - 1000.0
    assert age_s(world, sha) == world.seconds - 1000.0


def test_after_a_reboot_ages_go_by_the_date(world, monkeypatch, step):
    """The embedded store's clock begins anew with the machine: what was received before is as old as its date says."""
    sha = world.push()
    monkeypatch.setattr(clock, "boot_of", lambda _connection: "another boot")
    world.seconds = 3.0
    world.store.prepare()
    step(2)
    assert 7200.0 <= age_s(world, sha) < 7300.0
