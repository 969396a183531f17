"""What the *Revert* buttons of git servers write counts as git's own `git revert` does."""

from rollout.domain.states import CommitState
from rollout.services import freezes
from tests.support.branch import commit_of
from tests.unit.services.test_twins import everywhere, push, stopped, world

__all__ = ["world"]


def change(_number):
    return "Sell tea"


def revert(_number, sha, old):
    """As the button makes it of the commit with this hash and message."""
    return f"revert {sha}\n\nrevert {old}"


def test_the_button_undoes_a_barred_commit(world):
    """The branch goes on as soon as the revert has passed."""
    bad = push(world, change(1))
    stopped(world, bad)
    undone = push(world, revert(2, bad, change(1)))
    world.run(seconds=200)
    assert everywhere(world) == {undone}


def test_the_button_on_a_revert_of_a_barred_commit_does_not_ship_that_again(world):
    """It takes the revert back, and is barred with what it brings again."""
    bad = push(world, change(1))
    stopped(world, bad)
    text = revert(2, bad, change(1))
    undone = push(world, text)
    world.run(seconds=200)
    other = push(world, "another")
    world.run(seconds=200)
    again = push(world, revert(3, undone, text))
    world.run(seconds=200)
    assert everywhere(world) == {other}
    assert (commit_of(world, again).state, commit_of(world, again).same_as) == (CommitState.BARRED, bad)


def test_what_the_button_undoes_never_ships_alone(world):
    """A change and its revert that wait for the same moment go out together."""
    app = world.config.app("shop")
    freezes.freeze(app, world.deps, who="ann", why="lunch", until=None)
    push(world, change(1))
    undone = push(world, revert(2, world.workshop.commits[-1].sha, change(1)))
    world.run(seconds=60)
    freezes.unfreeze(app, world.deps, who="ann", why="it is over")
    world.run(seconds=200)
    assert everywhere(world) == {undone}
    assert len(world.newest().commits) == 2
