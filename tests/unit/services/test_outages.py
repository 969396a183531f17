"""While git does not say what the branch is, who asks what comes next is told why, and all when it lasts."""

import pytest

from rollout.errors import NotFound, ServiceUnavailable
from rollout.services import explaining, intake
from rollout.services.outages import LASTS
from tests.support.branch import coming, why

DEAD = ServiceUnavailable("repository git.example.com cannot be read: Permission denied", remedy="try it")
RENAMED = NotFound("branch 'main' does not exist in git.example.com", remedy="correct `branch`")
BOTH = pytest.mark.parametrize("error", [DEAD, RENAMED], ids=["dead", "renamed"])


def refuse(world, error):
    """From now on git says this; without an error, what the branch is."""

    def ask(_app, _config):
        raise error

    if error is None:
        del world.workshop.remote_head
    else:
        world.workshop.remote_head = ask


def poll(world, times=1):
    for _ in range(times):
        intake.poll("shop", world.deps, force=True)


def notices(world):
    world.run(seconds=5)
    return [title for title, _ in world.notifier.sent if "branch" in title]


@BOTH
def test_what_comes_next_says_that_newer_commits_are_not_known(world, error):
    """So do `why` of the branch's head and of a commit that nobody knows; when git answers again none of them does."""
    head = world.push()
    world.settle()
    before = why(world, head), coming(world)
    refuse(world, error)
    poll(world, times=2)
    beside = f"newer commits are not known: {error} (asked in vain, 2 times in a row)"
    assert (why(world, head).beside, coming(world).beside) == (beside, beside)
    with pytest.raises(NotFound, match="newer commits are not known"), world.store.reading() as tx:
        explaining.asked_for(tx, world.config.app(None), "abcdef")
    refuse(world, None)
    poll(world)
    assert (why(world, head), coming(world)) == before


def test_of_an_older_commit_nothing_is_said_beside(world):
    """What becomes of one that is known, and not the head, does not depend on what was pushed since."""
    first = world.push()
    world.settle()
    world.push()
    refuse(world, DEAD)
    poll(world)
    assert why(world, first).beside == ""


@BOTH
def test_people_are_told_once_when_it_lasts_and_once_when_it_is_over(world, error):
    """Not of a server that is slow for a moment; however long it is, and be it that somebody else than the poll reads the branch again."""
    world.push()
    world.settle()
    refuse(world, error)
    poll(world, times=LASTS - 1)
    refuse(world, None)
    poll(world)
    assert notices(world) == []
    refuse(world, error)
    poll(world, times=LASTS + 20)
    assert notices(world) == ["shop: branch main cannot be read"]
    assert str(error) in world.notifier.sent[-1][1]
    refuse(world, None)
    intake.read_branch(world.config.app(None), world.deps, who="ann", why="by hand")
    poll(world)
    assert notices(world) == ["shop: branch main cannot be read", "shop: branch main is read again"]


def test_tries_in_vain_are_counted_whatever_git_says(world):
    """A server that now does not answer, and now has the branch no more, is told of once as what it is: not to be read; and its end too."""
    world.push()
    world.settle()
    refuse(world, DEAD)
    poll(world, times=LASTS - 1)
    refuse(world, RENAMED)
    poll(world)
    assert notices(world) == ["shop: branch main cannot be read"]
    assert f"asked in vain, {LASTS} times in a row" in coming(world).beside
    refuse(world, DEAD)
    poll(world, times=LASTS)
    refuse(world, RENAMED)
    poll(world)
    refuse(world, None)
    poll(world)
    assert notices(world) == ["shop: branch main cannot be read", "shop: branch main is read again"]


def test_the_audit_has_each_reason_once(world):
    """An outage of hours is a line for each thing that git said in a row, and one for its end."""
    world.push()
    world.settle()
    for error in (DEAD, RENAMED):
        refuse(world, error)
        poll(world, times=30)
    refuse(world, None)
    poll(world, times=2)
    with world.store.reading() as tx:
        told = [(event.what, event.why) for event in tx.events.of_subject("shop", "branch")]
    assert told == [
        ("cannot be read", str(DEAD)),
        ("cannot be read", str(RENAMED)),
        ("is read again", "after 60 tries in vain"),
    ]
