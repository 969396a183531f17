"""What the *Revert* buttons of git servers write counts as git's own `git revert` does."""

import pytest

from rollout.domain.states import CommitState
from rollout.services import freezes
from rollout.store import commits
from tests.support.branch import commit_of, read, why
from tests.unit.services.test_twins import everywhere, push, stopped, world

__all__ = ["world"]

# Of the request with this number and title what merges it, and the revert of a request, or of the commit that was it.
MERGED = {
    "gitea": "{title}",
    "gitlab": "Merge branch 'side' into 'main'\n\n{title}\n\nSee merge request acme/shop!{number}",
    "github": "{title} (#{number})",
    "github merge": "Merge pull request #{number} from acme/side\n\n{title}",
    "bitbucket": "Merged in side (pull request #{number})\n\n{title}",
    "bitbucket squash": "{title} (pull request #{number})",
    "bitbucket's server": "Merge pull request #{number} in ACME/shop from side to main",
}
BITBUCKET = 'Revert "{title} (pull request #{number})"\n\nThis reverts pull request #{number}.\n\n{quoted}'
REVERTS = {
    "gitea": "revert {sha}\n\nrevert {old}",
    "gitlab": "Revert \"Merge branch 'side' into 'main'\"\n\nThis reverts merge request !{number}",
    "github": 'Revert "{title}"\n\nReverts acme/shop#{number}',
    "github merge": 'Revert "{title}"\n\nReverts acme/shop#{number}',
    "bitbucket": BITBUCKET,
    "bitbucket squash": BITBUCKET,
    "bitbucket's server": BITBUCKET,
}


class Server:
    """Numbers requests, and merges them."""

    def __init__(self, world, kind):
        self.world, self.kind, self.merged = world, kind, {}

    def merge(self, text):
        """Push what merges a request with this title and description."""
        title, _, body = text.partition("\n\n")
        merged = MERGED[self.kind].format(title=title, number=len(self.merged) + 1)
        merged += f"\n\n{body}" if body else ""
        sha = push(self.world, merged)
        self.merged[sha] = (len(self.merged) + 1, title, merged)
        return sha

    def revert(self, sha):
        """Press the button on it, and merge what that makes."""
        number, title, old = self.merged[sha]
        quoted = "".join(f"> {line}\n" for line in old.splitlines())
        return self.merge(
            REVERTS[self.kind].format(sha=sha, number=number, title=title, old=old, quoted=quoted)
        )


@pytest.fixture(params=list(MERGED))
def server(world, request):
    """One of each kind."""
    return Server(world, request.param)


def test_the_button_undoes_a_barred_commit(world, server):
    """The branch goes on as soon as the revert has passed."""
    bad = server.merge("Sell tea")
    stopped(world, bad)
    undone = server.revert(bad)
    world.run(seconds=200)
    assert everywhere(world) == {undone}


def test_the_button_on_a_revert_of_a_barred_commit_does_not_ship_that_again(world, server):
    """It takes the revert back, and is barred with what it brings again."""
    bad = server.merge("Sell tea")
    stopped(world, bad)
    undone = server.revert(bad)
    world.run(seconds=200)
    other = server.merge("Sell coffee")
    world.run(seconds=200)
    again = server.revert(undone)
    world.run(seconds=200)
    assert everywhere(world) == {other}
    assert (commit_of(world, again).state, commit_of(world, again).same_as) == (CommitState.BARRED, bad)


def test_what_the_button_undoes_never_ships_alone(world, server):
    """A change and its revert that wait for the same moment go out together."""
    app = world.config.app("shop")
    freezes.freeze(app, world.deps, who="ann", why="lunch", until=None)
    undone = server.revert(server.merge("Sell tea"))
    world.run(seconds=60)
    freezes.unfreeze(app, world.deps, who="ann", why="it is over")
    world.run(seconds=200)
    assert everywhere(world) == {undone}
    assert len(world.newest().commits) == 2


def test_a_revert_of_a_request_that_comes_in_by_a_merge_counts_for_that(world):
    """GitLab's button makes a branch, whose merge says nothing of it; a revert that the same branch takes back counts no more."""
    bad = push(world, MERGED["gitlab"].format(title="Sell tea", number=47))
    stopped(world, bad)
    reverts = [REVERTS["gitlab"].format(number=number) for number in (47, 48)]
    inner = f"{reverts[0]}\n\nSee merge request acme/shop!48"
    world.workshop.merge(inner, reverts[1])
    read(world)
    world.run(seconds=200)
    assert bad not in everywhere(world)
    assert f"{bad[:12]} is barred" in why(world, world.workshop.commits[-1].sha).because
    merge, _ = world.workshop.merge(reverts[0])
    read(world)
    world.run(seconds=200)
    assert everywhere(world) == {merge}


def test_a_merge_whose_commit_undoes_the_request_of_a_revert_brings_the_barred_change_again(world):
    """On GitLab neither the merge of the revert says what that undid, nor the merge of what takes the revert back."""
    bad = push(world, MERGED["gitlab"].format(title="Sell tea", number=47))
    stopped(world, bad)
    undone, _ = world.workshop.merge(
        REVERTS["gitlab"].format(number=47), message=MERGED["gitlab"].format(title="Revert it", number=48)
    )
    read(world)
    world.run(seconds=200)
    other = push(world, "Sell coffee")
    world.run(seconds=200)
    again, _ = world.workshop.merge(REVERTS["gitlab"].format(number=48))
    read(world)
    world.run(seconds=200)
    assert everywhere(world) == {other}
    assert commit_of(world, again).reason.startswith(f"takes {undone[:12]} back")
    assert commit_of(world, again).same_as == bad


def test_the_commit_of_a_request_is_the_newest_that_says_so_near_below(world, monkeypatch):
    """Not one above the revert, and not one of long ago, which nobody is to read messages for."""
    monkeypatch.setattr(commits, "NEAR", 2)
    first, newer = (push(world, MERGED["github"].format(title="Sell tea", number=12)) for _ in range(2))
    with world.store.reading() as tx:
        places = {
            before: tx.commits.merged_as("shop", ["#12", "#1"], before) for before in (None, 2, 3, 4, 5, 6)
        }
    assert (commit_of(world, first).position, commit_of(world, newer).position) == (2, 3)
    assert places == {
        None: {"#12": newer},
        2: {},
        3: {"#12": first},
        4: {"#12": newer},
        5: {"#12": newer},
        6: {},
    }


@pytest.mark.parametrize(
    ("change", "revert"),
    [
        ("Sell tea", "This reverts merge request !47"),
        ("Sell tea\n\nSee merge request acme/shop!471", "This reverts merge request !47"),
        ("Sell tea\n\nSee merge request acme/shop!47", "This reverts merge request acme/cafe!47"),
        ("Sell tea, as in #12", "Reverts acme/shop#12"),
    ],
)
def test_a_revert_of_a_request_that_is_no_known_commit_undoes_nothing_and_why_says_so(world, change, revert):
    """Nobody can tell what that changed: the bar stays until somebody names the commit."""
    bad = push(world, change)
    stopped(world, bad)
    undone = push(world, f'Revert "Sell tea"\n\n{revert}')
    world.run(seconds=200)
    name = revert.split()[-1].replace("acme/shop#", "#")
    told = why(world, undone).because
    assert f"no revert here (no commit of branch main is known that was {name};" in told
    assert f"{bad[:12]} is barred" in told
    mended = push(world, f"Undo tea for good\n\nRollout-Fixes: {bad}")
    world.run(seconds=200)
    assert everywhere(world) == {mended}
