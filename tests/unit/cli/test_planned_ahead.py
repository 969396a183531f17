"""What the commands say of a rollout that is planned behind one that fans out."""

from types import SimpleNamespace

import pytest

from rollout.cli.commits import Way
from rollout.domain.states import RolloutEvent, RolloutState
from rollout.services import planning
from tests.support.fakes import a_commit


@pytest.fixture
def two(deps):
    """Rollout 1 fans out, 2 is planned behind it; the commits of both."""
    first = a_commit(deps)
    planning.start_next("shop", deps)
    with deps.store.transaction() as tx:
        rollout = tx.rollouts.pending("shop")
        for event in (RolloutEvent.START, RolloutEvent.CANARY_DEPLOYED, RolloutEvent.CANARY_PASSED):
            rollout = tx.rollouts.change(rollout, event, who="test", due_at=0.0)
    second = a_commit(deps)
    planning.start_next("shop", deps)
    return first, second


def test_status_and_show_say_what_it_waits_for(cli, two):
    """In the words of the page; the contract's documents have both, the one that fans out first."""
    told = cli("status")
    assert "planned ahead: begins when rollout 1 is done" in told.out
    assert (
        f"next: commit {two[1].sha[:12]}: planned as rollout 2, begins when rollout 1 is done (0 of"
        in told.out
    )
    assert "begins      when rollout 1 is done" in cli("show", "2").out
    assert "begins" not in cli("show", "1").out
    assert [(one["id"], one["state"]) for one in cli("status", "--json").json] == [
        (1, "fanning_out"),
        (2, "pending"),
    ]


def test_plan_shows_it(cli, two):
    """It is what goes out next, with or without its name."""
    for words in (("plan", "--json"), ("plan", two[1].sha, "--json")):
        told = cli(*words).json
        assert (told["commit"], told["because"][:20]) == (two[1].sha, "planned as rollout 2")


def test_a_commit_whose_rollout_was_set_aside_is_waited_for(deps, two):
    """`deploy --wait` does not take that for its end: the commit goes out otherwise."""
    way = Way(SimpleNamespace(store=deps.store), deps.config.app("shop"), two[1].sha, frozenset())
    assert way.look().rollout.id == 2
    with deps.store.transaction() as tx:
        planning.set_aside(tx, tx.rollouts.get(2), "another way", who="test")
    assert (way.look().rollout, way.look().over) == (None, False)


def test_stop_without_a_number_means_the_one_that_fans_out(cli, deps, two):
    """What nobody asked for is no second one to choose from."""
    told = cli("stop")
    assert "accepted: rollout 1 starts nothing any more" in told.out


def test_stop_with_its_number_ends_it_at_once(cli, deps, two):
    """Nothing was touched, so there is nothing to wait for."""
    told = cli("stop", "2")
    assert told.code == 0
    with deps.store.reading() as tx:
        assert tx.rollouts.get(2).state is RolloutState.ERROR
        assert tx.rollouts.get(1).state is RolloutState.FANNING_OUT
