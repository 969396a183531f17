"""`rollout why`: every state of a commit has its sentence, and a time where one can be known."""

import pytest

from rollout.domain.states import CommitState, RolloutState
from rollout.services import bars, explaining, freezes, intake, planning, rollouts, stopping, testing
from tests.support.world import World


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Three hosts with a first release."""
    world = World(tmp_path, monkeypatch, hosts=3)
    world.push()
    world.settle()
    return world


def why(world, sha):
    with world.store.reading() as tx:
        return explaining.why(tx, world.config.app(None), tx.commits.get("shop", sha))


def commit_of(world, sha):
    with world.store.reading() as tx:
        return tx.commits.get("shop", sha)


def read(world):
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")


def until(world, state):
    world.run(until=lambda: world.newest().id > 1 and world.newest().state is state, seconds=60)
    assert world.newest().state is state


def passed(world, *hashes):
    """Their tests are over."""
    for sha in hashes:
        testing.run_tests(commit_of(world, sha).id, world.deps)


def test_before_and_in_its_tests(world):
    """Who is before it, and when it should be out all the same."""
    first, second = world.workshop.push(), world.workshop.push()
    read(world)
    assert (
        why(world, first).because
        == "waits for its tests, 1 other before or beside it, then it is next for a rollout"
    )
    assert why(world, first).expected_at is not None
    with world.store.transaction() as tx:
        tx.commits.claim_tests(commit_of(world, first).id, "worker", 15.0)
    assert why(world, first).because == "tests run, then it is next for a rollout"
    assert why(world, second).expected_at > why(world, first).expected_at


def test_before_its_tests_it_says_what_will_be_in_the_way(world):
    """Behind a barred commit nothing is promised, though it is not tested yet."""
    bad = world.push()
    bars.bar("shop", bad, world.deps, who="ann", why="slow")
    world.run(seconds=30)
    later = world.workshop.push()
    read(world)
    assert f"; then {bad[:12]} is barred" in why(world, later).because
    assert why(world, later).expected_at is None


def test_what_failed_says_where_its_output_is(world):
    """And no time: somebody has to mend it."""
    bad = world.push(fails=True)
    world.run(seconds=30)
    told = why(world, bad)
    assert told.because == f"not good: exit status 1; what it printed: rollout log {bad[:12]}"
    assert told.expected_at is None


def test_in_each_stage_of_its_rollout(world):
    """How far it is, and when it should be everywhere."""
    sha = world.push()
    until(world, RolloutState.PENDING)
    assert why(world, sha).because == "planned as rollout 2, which begins at once"
    until(world, RolloutState.DEPLOYING_CANARY)
    assert why(world, sha).because == "in rollout 2: its canary is being switched"
    until(world, RolloutState.EVALUATING_CANARY)
    assert why(world, sha).because == "in rollout 2: its canary is watched"
    until(world, RolloutState.FANNING_OUT)
    assert why(world, sha).because == "in rollout 2: 1 of 3 hosts have it"
    assert why(world, sha).expected_at is not None
    until(world, RolloutState.DONE)
    assert why(world, sha) == explaining.Why("went out with rollout 2, and runs")
    assert why(world, f"{1:040x}").because == f"went out with rollout 1, and {sha[:12]} runs since"


def test_behind_a_rollout_it_says_with_whom_it_goes_out(world, monkeypatch):
    """As selection would choose by now: how many before it, how many with it, and when."""
    world.push()
    until(world, RolloutState.EVALUATING_CANARY)
    monkeypatch.setattr(planning, "start_next", lambda *_: None)
    next_one, after = world.workshop.push(), world.workshop.push()
    read(world)
    passed(world, next_one, after)
    told = why(world, next_one)
    assert told.because == "tested, waits for rollout 2 (1 of 3 hosts), then goes out by itself"
    assert why(world, after).because == (
        "tested, waits for rollout 2 (1 of 3 hosts), 1 rollout before it, then goes out by itself"
    )
    assert why(world, after).expected_at > told.expected_at
    with world.store.transaction() as tx:
        for sha in (next_one, after):
            tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 1500.0)
    assert why(world, next_one).because.endswith("then goes out with 1 other")


def test_halted_and_taken_back(world):
    """A person decides, or has decided: no time is promised."""
    sha = world.push()
    until(world, RolloutState.EVALUATING_CANARY)
    with world.store.transaction() as tx:
        rollouts.halt(tx, tx.rollouts.lock(world.newest().id), "too many failed")
    assert why(world, sha) == explaining.Why(
        "in rollout 2, which is halted: too many failed; a person decides: rollout show 2"
    )
    later = world.workshop.push()
    read(world)
    passed(world, later)
    assert why(world, later) == explaining.Why(
        "tested, waits for rollout 2, which is halted; a person decides: rollout show 2"
    )
    stopping.stop(world.newest().id, world.deps, who="ann", why="it is slow")
    assert "in rollout 2, which is being taken back" in why(world, sha).because
    world.run(seconds=60)
    assert commit_of(world, sha).state is CommitState.BARRED
    assert why(world, sha).because.startswith("barred: ")
    assert f"rollout unbar {sha[:12]}" in why(world, sha).because
    assert f"{sha[:12]} is barred" in why(world, later).because
    assert why(world, later).expected_at is None


def test_frozen_dropped_and_outrun(world):
    """A freeze says until when, a commit that left the branch and one that runs inside another say so."""
    freezes.freeze(world.config.app(None), world.deps, who="ann", why="the sale", until=None)
    held = world.push()
    assert "then frozen by ann: the sale" in why(world, held).because
    world.run(seconds=30)
    assert why(world, held) == explaining.Why("tested, and frozen by ann: the sale")
    world.workshop.commits.pop()
    world.push()
    read(world)
    with world.store.transaction() as tx:
        tx.commits.update(tx.commits.get("shop", held), on_branch=False)
    assert why(world, held) == explaining.Why("no longer on branch main")
    with world.store.transaction() as tx:
        tx.commits.update(tx.commits.get("shop", held), on_branch=True, position=0)
    assert why(
        world, held
    ).because == f"older than {1:012d}, which runs: what it changed is in there".replace(
        f"{1:012d}", f"{1:040x}"[:12]
    )


def test_the_expected_time_is_what_was_measured(world, monkeypatch):
    """The app's own rollouts say how long one takes; only before the first does a guess."""
    sha = world.push()
    until(world, RolloutState.PENDING)
    monkeypatch.setattr(explaining, "_after", lambda _tx, seconds: seconds)
    with world.store.reading() as tx:
        (measured,) = tx.rollouts.durations("shop")
    assert why(world, sha).expected_at == measured != explaining.TYPICAL_S
    monkeypatch.setattr(type(tx.rollouts), "durations", lambda *_: [])
    assert why(world, sha).expected_at == explaining.TYPICAL_S


def test_every_state_has_its_sentence(world):
    """Whatever state is added to a commit, `why` knows it."""
    sha = world.push()
    world.run(seconds=1)
    for state in CommitState:
        with world.store.transaction() as tx:
            tx.commits.update(tx.commits.get("shop", sha), state=state, reason="because")
        assert why(world, sha).because
