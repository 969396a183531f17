"""CI servers decide: in time, early, late, contradicting, and what no report can do."""

from dataclasses import replace

import pytest

from rollout.domain.model import Check, CheckState, Member, Role
from rollout.domain.states import CommitState
from rollout.errors import Conflict
from rollout.services import checks, freezes, planning
from rollout.store.checks import MOST_NAMES
from rollout.store.rollouts import Planned
from tests.support.world import World

S = CheckState


@pytest.fixture
def world(tmp_path, monkeypatch):
    """An app whose checks `unit` and `lint` must be a success within an hour."""
    world = World(tmp_path, monkeypatch, hosts=2)
    app = world.config.app("shop")
    tests = app.tests.model_copy(update={"source": "external", "required": ("unit", "lint")})
    config = replace(world.config, apps={"shop": app.model_copy(update={"tests": tests})})
    world.config, world.deps = config, replace(world.deps, config=config)
    world.workshop.run_tests = None  # nobody runs them here
    return world


def report(world, sha, name, state):
    return checks.report(world.config.app("shop"), sha, Check(name, S(state)), world.deps)


def state_of(world, sha):
    with world.store.reading() as tx:
        return tx.commits.get("shop", sha)


def passed(world):
    sha = world.push()
    report(world, sha, "unit", "success")
    report(world, sha, "lint", "success")
    return sha


def planned(sha):
    fleet = [(Member("web01", "127.1.0.1", 22, "deploy", {}, "/srv/shop"), Role.CANARY)]
    return Planned("shop", sha, [sha], None, "d" * 64, "automation", {}, 0, "ramp", 1, 1, fleet, ahead=True)


def test_a_commit_ships_when_every_required_check_is_a_success(world):
    """It waits until then, says for what, and what goes out is built by us."""
    sha = world.push()
    world.run(seconds=60)
    report(world, sha, "unit", "success")
    report(world, sha, "lint", "pending")
    world.run(seconds=60)
    assert state_of(world, sha).state is CommitState.RECEIVED
    assert state_of(world, sha).reason == "waits for check lint"
    report(world, sha, "lint", "success")
    world.settle()
    assert set(world.runs().values()) == {sha}
    with world.store.reading() as tx:
        assert tx.commits.release("shop", sha).digest == world.newest().digest


def test_one_required_failure_fails_the_commit(world):
    """Others are not waited for, and what is not required decides nothing."""
    sha = world.push()
    assert report(world, sha, "coverage", "failure") == "kept; not a required check"
    world.run(seconds=10)
    assert state_of(world, sha).state is CommitState.RECEIVED
    report(world, sha, "unit", "failure")
    world.run(seconds=10)
    assert (state_of(world, sha).state, state_of(world, sha).reason) == (
        CommitState.FAILED,
        "check unit failed",
    )


def test_early_reports_wait_for_their_commit(world):
    """A CI server may be faster than the push's webhook."""
    sha = f"{1:040x}"
    assert report(world, sha, "unit", "success") == "kept until the commit is known"
    report(world, sha, "lint", "success")
    assert world.push() == sha
    world.run(seconds=10)
    assert state_of(world, sha).state is CommitState.PASSED


def test_silence_fails_the_commit_and_a_late_report_saves_it(world):
    """After the deadline it has failed, naming what is missing; reports that come then decide again, and it is not flaky."""
    sha = world.push()
    report(world, sha, "unit", "success")
    world.run(seconds=3700)
    assert state_of(world, sha).state is CommitState.FAILED
    assert "no result of check lint after 3600 s" in state_of(world, sha).reason
    report(world, sha, "lint", "success")
    world.run(seconds=20)
    assert (state_of(world, sha).state, state_of(world, sha).flaky) == (CommitState.PASSED, False)


def test_a_check_that_is_good_at_last_is_flaky(world):
    """Run again over there, on the same commit: it may ship, and its row says so."""
    sha = world.push()
    report(world, sha, "unit", "success")
    report(world, sha, "lint", "failure")
    world.run(seconds=10)
    assert state_of(world, sha).state is CommitState.FAILED
    report(world, sha, "lint", "success")
    world.run(seconds=10)
    assert (state_of(world, sha).state, state_of(world, sha).flaky) == (CommitState.PASSED, True)


def test_a_failure_after_the_commit_passed_bars_it(world):
    """While it waits to go out, a report that contradicts the earlier one keeps it in."""
    world.push()
    first = state_of(world, f"{1:040x}").sha
    report(world, first, "unit", "success")
    report(world, first, "lint", "success")
    world.run(until=lambda: world.newest() is not None, seconds=60)
    sha = passed(world)
    world.run(until=lambda: state_of(world, sha).state is CommitState.PASSED, seconds=5)
    report(world, sha, "lint", "failure")
    assert state_of(world, sha).state is CommitState.BARRED
    world.run(seconds=300)
    assert set(world.runs().values()) == {first}


def test_a_failure_after_the_commit_went_out_stops_nothing_and_is_told(world):
    """What is out is a person's to take back: the report leaves a notice."""
    sha = passed(world)
    world.settle()
    report(world, sha, "unit", "failure")
    world.run(seconds=20)
    assert state_of(world, sha).state is CommitState.PASSED
    assert set(world.runs().values()) == {sha}
    assert any("check unit failed after" in title for title, _ in world.notifier.sent)


@pytest.mark.parametrize("set_aside", [False, True])
def test_a_failure_of_what_was_only_planned_ahead_bars_it(world, set_aside):
    """It waits behind a fan-out, or was set aside: nothing of it is out, so it is kept in and not only told of."""
    freezes.freeze(
        world.config.app("shop"), world.deps, who="ann", why="so that no other is planned", until=None
    )
    sha = passed(world)
    world.run(until=lambda: state_of(world, sha).state is CommitState.PASSED, seconds=60)
    with world.store.transaction() as tx:
        now = state_of(world, sha)
        tx.rollouts.add(planned(sha), why="test")
        if set_aside:
            planning.make_way(tx, "shop", "a person has the way", who="ann")
    report(world, sha, "lint", "failure")
    assert (now.state, state_of(world, sha).state) == (CommitState.PASSED, CommitState.BARRED)


def test_a_failure_while_it_is_built_is_in_time(world):
    """The word that counts is the newest one when the result is written."""
    sha = world.push()
    report(world, sha, "unit", "success")
    build = world.workshop.build

    def building(*args):
        report(world, sha, "lint", "failure")
        return build(*args)

    world.workshop.build = building
    report(world, sha, "lint", "success")
    world.run(seconds=20)
    assert state_of(world, sha).state is CommitState.FAILED


def test_reports_are_bounded_and_refused_where_nobody_reads_them(world, tmp_path, monkeypatch):
    """A hundred checks a commit; and an app that runs its own tests takes none."""
    for number in range(MOST_NAMES):
        report(world, "b" * 40, f"check {number}", "success")
    with pytest.raises(Conflict):
        report(world, "b" * 40, "one more", "success")
    report(world, "b" * 40, "check 1", "failure")  # a known one has its newest word
    with pytest.raises(Conflict):
        report(World(tmp_path / "own", monkeypatch), "b" * 40, "unit", "success")
