"""What brings a barred change again under another hash, and what undoes it: merges, reverts of reverts, the same files."""

from dataclasses import replace

import pytest

from rollout.domain.model import BranchCommit, Pull
from rollout.domain.states import CommitState, RolloutState
from rollout.services import bars, checks, freezes, intake, planning, stopping, testing
from tests.support import stores
from tests.support.branch import read
from tests.support.world import World

APP = "shop"
AMENDED = "f" * 40


@pytest.fixture
def world(tmp_path, monkeypatch):
    """One commit runs."""
    made = World(tmp_path, monkeypatch, hosts=3)
    push(made, tree="a" * 40)
    made.settle()
    yield made
    made.store.close()


def push(world, message="a change", *, tree=None, fails=False):
    sha = world.workshop.push(message, tree=tree, fails=fails)
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


def amended(world):
    """A tested commit is amended before it ships, and the amended one is stopped; the first one, which is off the branch."""
    other = push(world, tree="c" * 40)
    world.run(seconds=60, until=lambda: world.newest().commit == other)
    first = push(world, tree="b" * 40)
    world.run(seconds=5, until=lambda: state(world, first) is CommitState.PASSED)
    taken = world.workshop.commits[-1]
    forced(world, replace(taken, sha=AMENDED))
    stopped(world, AMENDED)
    assert (state(world, first), commit_of(world, first).on_branch) == (CommitState.PASSED, False)
    return taken


def forced(world, commit):
    """The branch's last commit is this one in place of what it was."""
    world.workshop.commits[-1] = commit
    push_nothing(world)


def runs_on(world):
    """What the fleet runs after all that is to come has come."""
    world.run(seconds=200)
    return everywhere(world)


def test_an_amended_commit_that_is_forced_back_is_barred_when_it_comes(world):
    """It had passed, and was off the branch when the same files were barred."""
    first = amended(world)
    before = everywhere(world)
    forced(world, first)
    assert (state(world, first.sha), commit_of(world, first.sha).same_as) == (CommitState.BARRED, AMENDED)
    assert runs_on(world) == before


def test_what_was_barred_while_others_waited_is_looked_for_when_the_next_is_planned(world):
    """A change and its revert are out, who takes the revert back has passed; then a person bars the change."""
    change = push(world, tree="b" * 40)
    revert = push(world, f"This reverts commit {change}.", tree="c" * 40)
    assert runs_on(world) == {revert}
    other = push(world, tree="d" * 40)
    world.run(seconds=60, until=lambda: world.newest().commit == other)
    again = push(world, f"This reverts commit {revert}.", tree="e" * 40)
    world.run(seconds=5, until=lambda: state(world, again) is CommitState.PASSED)
    bars.bar(APP, change, world.deps, who="ann", why="leaks")
    assert runs_on(world) == {other}
    assert (state(world, again), commit_of(world, again).same_as) == (CommitState.BARRED, change)


@pytest.mark.parametrize("by_name", [True, False], ids=["its own", "the first one's"])
def test_no_look_at_twins_takes_an_unbar_back(world, by_name):
    """A person lets the twin go, or what it is the same as; it ships, though it leaves the branch and comes back to it."""
    first = amended(world)
    forced(world, first)
    bars.unbar(APP, first.sha if by_name else AMENDED, world.deps, who="ann", why="it was the network")
    forced(world, replace(first, sha="d" * 40, tree="d" * 40))
    forced(world, first)
    assert runs_on(world) == {first.sha}


def test_no_later_bar_of_the_same_takes_an_unbar_back(world):
    """The same files are barred once more for their own sake: who was let go by name stays it, until somebody bars that one."""
    first = amended(world)
    forced(world, first)
    bars.unbar(APP, first.sha, world.deps, who="ann", why="it was the network")
    bars.unbar(APP, AMENDED, world.deps, who="ann", why="it was the network")
    bars.bar(APP, AMENDED, world.deps, who="bob", why="leaks")
    push_nothing(world)
    assert state(world, first.sha) is CommitState.PASSED
    bars.bar(APP, first.sha, world.deps, who="bob", why="leaks too")
    assert not commit_of(world, first.sha).unbarred
    assert runs_on(world) != {first.sha}


def test_a_withdrawn_bar_is_an_unbar_too(world):
    """The twin is let go before its tests are over: it passes, and is not barred for the files' sake."""
    bad = push(world, tree="b" * 40)
    stopped(world, bad)
    twin = push(world, tree="b" * 40)
    bars.bar(APP, twin, world.deps, who="ann", why="the same")
    bars.unbar(APP, twin, world.deps, who="ann", why="it was the network")
    bars.unbar(APP, bad, world.deps, who="ann", why="it was the network")
    bars.bar(APP, bad, world.deps, who="bob", why="no")
    world.run(seconds=5, until=lambda: state(world, twin) is not CommitState.RECEIVED)
    world.run(seconds=60)
    assert state(world, twin) is CommitState.PASSED


def test_what_comes_before_the_barred_one_on_the_branch_is_no_twin(world):
    """Whichever of the two is tested first."""
    early = push(world, tree="b" * 40)
    push(world, tree="c" * 40)
    late = push(world, tree="b" * 40)
    bars.bar(APP, late, world.deps, who="ann", why="not now")
    testing.run_tests(commit_of(world, late).id, world.deps)
    assert state(world, late) is CommitState.BARRED
    world.run(seconds=100)
    assert state(world, early) is CommitState.PASSED


@pytest.fixture
def pull(world, monkeypatch):
    """A pull request that has passed and that a person bars."""
    monkeypatch.setitem(world.config.app(None).tests.__dict__, "pull_requests", True)
    found = Pull(7, "refs/pull/7/head", "9" * 40, "feature", "Eve", "feature", tree="b" * 40)
    world.workshop.pulls = [found]
    intake.poll(APP, world.deps, force=True)
    world.run(seconds=30, until=lambda: state(world, found.sha) is CommitState.PASSED)
    bars.bar(APP, found.sha, world.deps, who="ann", why="after the sale")
    return found


def test_a_bar_on_a_pull_request_is_one_on_its_squash_merge(world, pull):
    """Another hash, the same files; an unbar of the pull request lets it go."""
    squashed = push(world, "feature (#7)", tree="b" * 40)
    assert runs_on(world) != {squashed}
    found = commit_of(world, squashed)
    assert (found.state, found.same_as) == (CommitState.BARRED, pull.sha)
    assert found.reason == f"the same files as {pull.sha[:12]}, which is barred: after the sale"
    bars.unbar(APP, pull.sha, world.deps, who="ann", why="it is over")
    assert runs_on(world) == {squashed}


def test_a_bar_on_a_pull_request_is_none_on_what_it_was_made_from(world):
    """Its head is an empty commit on one of the queue, and has that one's files: that one is as good as before."""
    other = push(world, tree="c" * 40)
    world.run(seconds=60, until=lambda: world.newest().commit == other)
    innocent = push(world, tree="b" * 40)
    world.run(seconds=5, until=lambda: state(world, innocent) is CommitState.PASSED)
    with world.store.transaction() as tx:
        head = Pull(7, "refs/pull/7/head", "9" * 40, "empty", "Eve", "empty", tree="b" * 40)
        tx.commits.add_pull(APP, head, who="test", why="open")
    bars.bar(APP, head.sha, world.deps, who="ann", why="no")
    assert runs_on(world) == {innocent}


def test_a_bar_on_a_pull_request_stops_no_rollout_of_its_squash_merge(world, pull):
    """It is barred when the merge is on its way to hosts, and that one with it: that changes nothing under way."""
    bars.unbar(APP, pull.sha, world.deps, who="ann", why="it is over")
    squashed = push(world, "feature (#7)", tree="b" * 40)
    world.run(seconds=60, until=lambda: world.newest().commit == squashed and squashed in everywhere(world))
    assert everywhere(world) != {squashed}
    bars.bar(APP, pull.sha, world.deps, who="ann", why="too early")
    push_nothing(world)
    assert state(world, squashed) is CommitState.BARRED
    assert runs_on(world) == {squashed}


@pytest.mark.parametrize("known", [True, False], ids=["known", "lost by squashing"])
def test_a_squash_of_a_revert_and_its_revert_lifts_no_bar(world, known):
    """It undoes nothing: whether the hash that is taken back is one that we have seen, or went with the branch that was squashed."""
    bad = push(world, tree="b" * 40)
    stopped(world, bad)
    revert = "7" * 40
    if known:
        revert = push(world, f"This reverts commit {bad}.", fails=True)
        world.run(seconds=60)
    push(world, f"Work\n\n* Undo\n\nThis reverts commit {bad}.\n\n* Do\n\nThis reverts commit {revert}.")
    before = everywhere(world)
    assert runs_on(world) == before


@pytest.mark.parametrize(
    ("second", "is_lifted"),
    [
        ('Revert "Roll back the new checkout (#12)"', False),
        ('Revert "Roll forward"', True),
    ],
    ids=["of one that it lists", "of another one"],
)
def test_a_revert_of_a_revert_with_a_subject_of_its_own_lifts_no_bar(world, second, is_lifted):
    """Git's title names a subject, and nobody knows the hash: one that the squash lists may be what undid the barred one."""
    bad = push(world, tree="b" * 40)
    stopped(world, bad)
    before = everywhere(world)
    first = f"Roll back the new checkout (#12)\n\nThis reverts commit {bad}."
    squash = push(world, f"Work\n\n* {first}\n\n* {second}\n\nThis reverts commit {'7' * 40}.")
    assert runs_on(world) == ({squash} if is_lifted else before)


def test_a_squash_of_a_revert_that_came_back_and_was_reverted_again_lifts_the_bar(world):
    """Nobody knows the hashes that squashing lost; what the last one undoes is in the message."""
    bad = push(world, tree="b" * 40)
    stopped(world, bad)
    titles = ('Revert "Sell tea"', 'Reapply "Sell tea"', 'Revert "Reapply "Sell tea""')
    listed = zip(titles, (bad, "7" * 40, "8" * 40), strict=True)
    undo = push(world, "\n\n".join(f"* {title}\n\nThis reverts commit {sha}." for title, sha in listed))
    assert runs_on(world) == {undo}


def test_a_squash_by_git_that_takes_one_of_its_own_back_lifts_the_bar(world):
    """The hash that nobody knows stands above one of the commits that it lists, and that one undoes nothing."""
    bad = push(world, tree="b" * 40)
    stopped(world, bad)
    texts = (
        "Sell tea",
        f'Revert "Sell tea"\n\n    This reverts commit {"1" * 40}.',
        f"This reverts commit {bad}.",
    )
    listed = (f"commit {number * 40}\n\n    {text}" for number, text in zip("123", texts, strict=True))
    undo = push(world, "Squashed commit of the following:\n\n" + "\n\n".join(listed))
    assert runs_on(world) == {undo}


def test_the_title_of_one_of_a_list_is_not_that_of_the_next(world):
    """A commit of a squash says nothing of the hash that it names; the revert before it, of which the hash was cut, says nothing of it."""
    bad = push(world, tree="b" * 40)
    stopped(world, bad)
    before = everywhere(world)
    push(
        world,
        f'* Undo\n\nThis reverts commit {bad}.\n\n* Revert "Sell tea"\n\nby hand\n\n* Do\n\nThis reverts commit {"7" * 40}.',
    )
    assert runs_on(world) == before


def test_a_squash_of_two_reverts_lifts_both_bars(world):
    """Both are known, and neither undoes the other; nor does one of long ago, which nobody knows, and git's title tells of."""
    one = push(world, tree="b" * 40)
    stopped(world, one)
    two = push(world, tree="c" * 40)
    bars.bar(APP, two, world.deps, who="ann", why="no")
    old = f'Revert "Sell tea"\n\nThis reverts commit {"7" * 40}.'
    undo = push(world, f"* Undo\n\nThis reverts commit {one}.\n\nThis reverts commit {two}.\n\n* {old}")
    assert runs_on(world) == {undo}


def squash(*hashes):
    return "Work" + "".join(f"\n\n* Undo\n\nThis reverts commit {sha}." for sha in hashes)


@pytest.mark.parametrize("fixes", [True, False], ids=["with a trailer", "without"])
def test_a_squash_inside_a_merge_that_lists_several_undoings_lifts_no_bar(world, fixes):
    """One of them may take another back; the word of its author lifts it."""
    bad = push(world, tree="b" * 40)
    stopped(world, bad)
    before = everywhere(world)
    trailer = f"\n\nRollout-Fixes: {bad}" if fixes else ""
    merge, _ = world.workshop.merge(squash(bad, "7" * 40) + trailer)
    push_nothing(world)
    assert runs_on(world) == ({merge} if fixes else before)


def test_a_squash_inside_a_merge_that_takes_a_revert_back_is_barred(world):
    """Among other things: it brings the barred change again, or may."""
    bad = push(world, tree="b" * 40)
    stopped(world, bad)
    revert = push(world, f"This reverts commit {bad}.", tree="c" * 40)
    assert runs_on(world) == {revert}
    world.workshop.merge(squash(revert, "7" * 40))
    push_nothing(world)
    assert runs_on(world) == {revert}


def test_going_back_bars_what_ran_though_it_has_left_the_branch(world):
    """Not the one that was forced into its place; forced back, what ran does not ship again."""
    first = world.workshop.commits[0].sha
    bad = push(world, tree="b" * 40)
    assert runs_on(world) == {bad}
    taken = world.workshop.commits[-1]
    forced(world, replace(taken, sha=AMENDED, tree="c" * 40))
    stopping.roll_back_done(world.config.app(None), world.deps, to=first, who="ann", why="errors")
    world.run(seconds=100, until=lambda: everywhere(world) == {first})
    assert state(world, bad) is CommitState.BARRED
    assert state(world, AMENDED) is not CommitState.BARRED
    forced(world, taken)
    assert runs_on(world) == {first}


def statements(world, ask):
    """How many the store is asked by this, in one transaction."""
    with world.store.transaction() as tx, stores.asked(world.store) as told:
        ask(tx)
    return len(told)


def test_a_list_of_many_hashes_costs_one_question(world):
    """However many a squash says that it undoes; none when only its age is asked."""
    app = world.config.app(None)
    few, many = (
        commit_of(
            world,
            push(world, "\n\n".join(f"* Undo\n\nThis reverts commit {one:040x}." for one in range(9, most))),
        )
        for most in (11, 49)
    )
    assert few.state is CommitState.RECEIVED

    def look(tx):
        bars.look_again(tx, APP, [many])

    assert statements(world, lambda tx: bars.candidate(many, tx)) == 1
    assert statements(world, lambda tx: checks.decision(tx, app, many)) == 1
    assert statements(world, look) == statements(world, lambda tx: bars.look_again(tx, APP, [few]))


def test_commits_are_found_by_whole_hashes_and_by_their_first_digits(world):
    """Those that are there, under the names that were asked for, and nobody under a name that nobody has."""
    bad = "b" * 39 + "a"
    with world.store.transaction() as tx:
        tx.commits.add(APP, bad, who="test", why="pushed")
        found = tx.commits.called(APP, [bad, "bbbbbbb", "b" * 40, "ccccccc"])
    assert {name: [one.sha for one in rows] for name, rows in found.items()} == {
        bad: [bad],
        "bbbbbbb": [bad],
        "b" * 40: [],
        "ccccccc": [],
    }


def let_go_and_amended(world):
    """A person has let it go, before it was out; then it was amended, with the same files."""
    first, amended = AMENDED, "e" * 40
    freezes.freeze(world.config.app(None), world.deps, who="ann", why="the sale", until=None)
    on_branch(world, first)
    world.run(seconds=30)
    bars.bar(APP, first, world.deps, who="ann", why="looks odd")
    bars.unbar(APP, first, world.deps, who="ann", why="looked at it")
    on_branch(world, amended)
    return first, amended


def on_branch(world, sha):
    """The branch is forced to it."""
    world.workshop.commits[1:] = [BranchCommit(sha, 2, "a change", "Ann", "a change", tree="b" * 40)]
    read(world)


def by_canary(world, amended):
    world.metrics.share_of = lambda _name, role, _at: 0.0 if role == "canary" else 1.0
    freezes.unfreeze(world.config.app(None), world.deps, who="ann", why="it is over")
    assert world.settle().state is RolloutState.ROLLED_BACK


def by_rollback(world, amended):
    freezes.unfreeze(world.config.app(None), world.deps, who="ann", why="it is over")
    assert world.settle().commit == amended
    stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="ann", why="errors")
    assert world.settle().state is RolloutState.ROLLED_BACK


@pytest.mark.parametrize("goes_wrong", [by_canary, by_rollback])
def test_what_was_let_go_before_the_same_went_wrong_is_barred_again(world, goes_wrong):
    """Who forces the branch back to the hash of before does not ship what was just taken back; a later `unbar` counts."""
    first, amended = let_go_and_amended(world)
    goes_wrong(world, amended)
    number = world.newest().id
    world.metrics.share_of = lambda *_: 1.0
    on_branch(world, first)
    world.run(seconds=100)
    assert (state(world, first), commit_of(world, first).same_as) == (CommitState.BARRED, amended)
    assert world.newest().id == number
    bars.unbar(APP, first, world.deps, who="ann", why="it was the network")
    world.run(seconds=200)
    assert everywhere(world) == {first}
