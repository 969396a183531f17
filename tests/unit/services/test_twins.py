"""What brings a barred change again under another hash, and what undoes it: merges, reverts of reverts, the same files."""

import pytest

from rollout.domain.model import Pull
from rollout.domain.states import CommitState
from rollout.services import bars, intake, planning, stopping
from tests.support.world import World

APP = "shop"


@pytest.fixture
def world(tmp_path, monkeypatch):
    """One commit runs."""
    made = World(tmp_path, monkeypatch, hosts=3)
    push(made, tree="a" * 40)
    made.settle()
    yield made
    made.store.close()


def push(world, message="a change", *, tree=None):
    sha = world.workshop.push(message, tree=tree)
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    return sha


def stopped(world, sha):
    """It goes out, and a person stops it."""
    world.run(seconds=60, until=lambda: world.newest().commit == sha)
    stopping.stop(world.newest().id, world.deps, who="ann", why="errors")
    world.run(seconds=30)
    assert state(world, sha) is CommitState.BARRED


def commit_of(world, sha):
    with world.store.reading() as tx:
        return tx.commits.get(APP, sha)


def state(world, sha):
    return commit_of(world, sha).state


def everywhere(world):
    return set(world.runs().values())


def test_a_commit_keeps_its_tree_when_the_branch_is_read_from_it_on(world):
    """The next pushes are read from what runs on: what git said of that one's files is not forgotten."""
    first = world.workshop.commits[0].sha
    push(world, tree="b" * 40)
    assert commit_of(world, first).tree == "a" * 40


def test_the_revert_of_a_barred_commit_undoes_its_twin_too(world):
    """After a second try with the same files, which is barred as well, one revert of the first lets the branch go on."""
    bad = push(world, tree="b" * 40)
    stopped(world, bad)
    twin = push(world, "try again", tree="b" * 40)
    world.run(seconds=60)
    assert (state(world, twin), commit_of(world, twin).same_as) == (CommitState.BARRED, bad)
    revert = push(world, f"This reverts commit {bad}.", tree="c" * 40)
    world.run(seconds=200)
    assert everywhere(world) == {revert}


def test_who_takes_a_revert_back_brings_the_barred_change_again(world):
    """Also with another commit between, so that its files are those of neither: a revert of the revert does not ship by itself."""
    bad = push(world, tree="b" * 40)
    stopped(world, bad)
    push(world, "another", tree="c" * 40)
    revert = push(world, f"This reverts commit {bad}.", tree="d" * 40)
    world.run(seconds=200)
    assert everywhere(world) == {revert}
    again = push(world, f"Reapply\n\nThis reverts commit {revert}.", tree="c" * 40)
    world.run(seconds=200)
    assert everywhere(world) == {revert}
    assert (state(world, again), commit_of(world, again).same_as) == (CommitState.BARRED, bad)
    assert f"takes {revert[:12]} back" in commit_of(world, again).reason


def test_who_takes_a_revert_back_and_mends_it_ships(world):
    """Its author says that what was wrong is mended: the word of a person lifts the bar."""
    bad = push(world, tree="b" * 40)
    stopped(world, bad)
    revert = push(world, f"This reverts commit {bad}.", tree="d" * 40)
    world.run(seconds=200)
    again = push(world, f"Reapply\n\nThis reverts commit {revert}.\n\nRollout-Fixes: {bad}", tree="e" * 40)
    world.run(seconds=200)
    assert everywhere(world) == {again}


def test_the_files_of_what_ran_well_are_no_twin(world):
    """An empty commit was stopped; then a bad one is reverted to the files that both had: the way back is not barred."""
    empty = push(world, "empty", tree="a" * 40)
    stopped(world, empty)
    worse = push(world, f"Go on\n\nRollout-Fixes: {empty}", tree="b" * 40)
    world.run(seconds=200)
    assert everywhere(world) == {worse}
    revert = push(world, f"This reverts commit {worse}.", tree="a" * 40)
    world.run(seconds=200)
    assert everywhere(world) == {revert}


def test_the_sentence_names_the_bar_that_nobody_undoes(world):
    """Two are barred and one of them is undone: what is told is the other one, which somebody has to undo."""
    one = push(world, tree="b" * 40)
    stopped(world, one)
    two = push(world, f"This reverts commit {one}.", tree="c" * 40)
    stopped(world, two)
    push(world, "another", tree="d" * 40)
    world.run(seconds=100)
    with world.store.reading() as tx:
        why = planning.waits_for(world.config.app(None), tx)
    assert f"{two[:12]} is barred" in why


def test_the_revert_of_a_whole_merge_undoes_what_came_in_with_it(world):
    """A commit inside a merge is barred; git's own revert of the merge names the merge alone, and lets the branch go on."""
    merge, (inner,) = world.workshop.merge("feature")
    push_nothing(world)
    bars.bar(APP, inner, world.deps, who="ann", why="no")
    revert = push(
        world,
        f'Revert "Merge"\n\nThis reverts commit {merge}, reversing\nchanges made to {world.workshop.commits[0].sha}.',
    )
    world.run(seconds=200)
    assert everywhere(world) == {revert}


@pytest.mark.parametrize("known_before", [True, False])
def test_a_pull_request_whose_merge_was_taken_away_is_tested_again(world, known_before):
    """Merged by mistake, and the merge is forced away: its head waits for its tests as any pull request's."""
    merge, (head,) = world.workshop.merge("feature")

    def look():
        with world.store.transaction() as tx:
            pull = Pull(7, "refs/pull/7/head", head, "feature", "Eve", "feature")
            tx.commits.add_pull(APP, pull, who="test", why="open")

    if known_before:
        look()
    push_nothing(world)
    assert commit_of(world, head).merged_into == merge
    world.workshop.commits.pop()
    push_nothing(world)
    look()
    found = commit_of(world, head)
    assert (found.pull, found.merged_into, found.due_at) == (7, None, 0.0)


def push_nothing(world):
    """The branch is read as it is."""
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
