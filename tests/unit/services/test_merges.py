"""Merges: the branch's line is how its head moved, and what a merge brings is known, told of, and never shipped by itself."""

import pytest

from rollout.domain.model import BranchCommit, Pull, Push
from rollout.domain.states import CommitState, RolloutState
from rollout.errors import Conflict
from rollout.services import bars, intake, planning, pulls, stopping, testing, views
from tests.support.branch import commit_of, read, tested, why


def waits_for(world):
    with world.store.reading() as tx:
        return planning.waits_for(world.config.app(None), tx)


def is_out(world, sha):
    world.run(
        seconds=120,
        until=lambda: set(world.runs().values()) == {sha} and world.newest().state is RolloutState.DONE,
    )
    return set(world.runs().values()) == {sha}


def line(world):
    with world.store.reading() as tx:
        return [sha for _, sha in tx.commits.line("shop", 0)]


def shipped(world):
    with world.store.reading() as tx:
        return [one.commit for one in reversed(tx.rollouts.numbered(1, 100, 100))]


def barred(world):
    """A commit that is barred on the branch."""
    bad = world.push()
    tested(world, bad)
    world.run(until=lambda: world.newest().commit == bad)
    stopping.stop(world.newest().id, world.deps, who="ann", why="500s")
    world.run(seconds=60, until=lambda: world.newest().state is RolloutState.ROLLED_BACK)
    assert commit_of(world, bad).state is CommitState.BARRED
    return bad


@pytest.mark.parametrize("pulled", [False, True], ids=["merged", "pulled"])
def test_a_revert_that_comes_in_by_a_merge_lifts_the_bar(world, pulled):
    """Its own words count, though the merge says nothing of it; which parent is the first one makes no difference."""
    bad = barred(world)
    merge, _ = world.workshop.merge(f'Revert "a change"\n\nThis reverts commit {bad}.', pulled=pulled)
    read(world)
    assert is_out(world, merge)


def test_a_revert_that_was_taken_back_in_the_merged_branch_lifts_nothing(world):
    """What the merge brings has the bad change still."""
    bad = barred(world)
    taken_back = f"{1:04x}{'e' * 36}"
    merge, (revert, _) = world.workshop.merge(
        f"This reverts commit {bad}.", f"This reverts commit {taken_back}."
    )
    assert revert == taken_back
    read(world)
    tested(world, merge)
    assert waits_for(world).startswith(f"{bad[:12]} is barred")
    assert merge not in shipped(world)


def test_after_a_pull_of_what_runs_automation_goes_on(world):
    """First parent: somebody's own work; the line goes through what runs, and never to what lacks it."""
    running = world.push()
    assert is_out(world, running)
    merge, own = world.workshop.merge("mine", "mine too", since=-2, pulled=True)
    read(world)
    assert line(world)[-2:] == [running, merge]
    assert is_out(world, merge)
    assert not set(own) & set(shipped(world))
    assert {commit_of(world, sha).state for sha in own} == {CommitState.RECEIVED}


def test_what_waits_when_a_pull_brings_it_goes_on_waiting(world):
    """Commits of the queue are where the head was; they are tested and go out though they are no first parents any more."""
    waiting = [world.push() for _ in range(3)]
    merge, _ = world.workshop.merge("mine", since=0, pulled=True)
    read(world)
    assert line(world)[-4:] == [*waiting, merge]
    assert is_out(world, merge)
    assert {commit_of(world, sha).state for sha in waiting} == {CommitState.PASSED}


def test_what_is_under_way_when_a_pull_brings_it_stays_on_the_branch(world):
    """Its rollout goes on, and the merge follows it."""
    first = world.push()
    world.run(until=lambda: world.newest().commit == first)
    merge, _ = world.workshop.merge("mine", since=0, pulled=True)
    read(world)
    assert commit_of(world, first).on_branch
    assert is_out(world, merge)
    assert shipped(world)[1:] == [first, merge]


def test_why_of_a_merged_commit_is_that_of_its_merge(world):
    """Where the merge is, and its time; by the first digits too."""
    merge, (feature,) = world.workshop.merge("a feature")
    read(world)
    with world.store.reading() as tx:
        assert bars.named(tx, "shop", feature[:6]).sha == feature
    before, told, after = why(world, merge), why(world, feature), why(world, merge)
    assert told.because == f"came in with {merge[:12]}: {after.because}"
    assert before.expected_at <= told.expected_at <= after.expected_at
    assert is_out(world, merge)
    assert f"came in with {merge[:12]}: went out with rollout 2" in why(world, feature).because


@pytest.mark.parametrize("now", [None, intake.Wish("hurry", "ann")])
def test_a_merged_commit_is_not_deployed_by_itself(world, now):
    """It never was where the head was: it may lack what runs. The merge is named."""
    world.push()
    merge, (feature,) = world.workshop.merge("a feature", since=0, pulled=True)
    with pytest.raises(Conflict, match=f"came in with {merge[:12]}") as caught:
        intake.enqueue(world.config.app(None), feature[:8], world.deps, who="ann", now=now)
    assert f"rollout deploy {merge[:12]}" in caught.value.remedy
    assert is_out(world, merge)
    assert feature not in shipped(world)


def test_a_webhook_of_a_commit_that_a_merge_has_brought_meanwhile_ends_with_it(world):
    """The branch's head was there for a moment, and nobody looked: it is superseded by the merge, and not tested."""
    world.push()
    merge, (feature,) = world.workshop.merge("a feature", since=0, pulled=True)
    push = Push("github", "guid", "push", full_name="ann/shop", branch="main", head=feature)
    received = intake.receive_all([(push, world.config.app(None))], world.deps)[0]
    assert received.outcome == "accepted"
    testing.run_tests(commit_of(world, feature).id, world.deps)
    with world.store.reading() as tx:
        found = next(one for one in tx.deliveries.newest("shop", 9) if one.id == received.delivery)
        assert not any(one.sha == feature for one in tx.commits.unfinished("shop"))
    assert (found.outcome, found.ref) == ("superseded", f"commit {merge}")
    assert commit_of(world, feature).state is CommitState.RECEIVED
    assert commit_of(world, feature).reason == f"came in with {merge[:12]}, and is not tested by itself"
    assert is_out(world, merge)


def test_one_that_failed_for_not_being_there_has_not_failed_once_a_merge_brings_it(world):
    """A git server's replica was late: its webhook came first."""
    feature = f"{1:04x}{'e' * 36}"
    push = Push("github", "guid", "push", full_name="ann/shop", branch="main", head=feature)
    intake.receive_all([(push, world.config.app(None))], world.deps)
    world.run(seconds=120, until=lambda: commit_of(world, feature).state is CommitState.FAILED)
    assert commit_of(world, feature).reason.startswith("not on branch")
    merge, brought = world.workshop.merge("a feature")
    assert brought == [feature]
    read(world)
    assert commit_of(world, feature).state is CommitState.RECEIVED
    assert "not on branch" not in commit_of(world, feature).reason
    assert is_out(world, merge)
    assert commit_of(world, feature).state is CommitState.RECEIVED


def test_a_bar_goes_on_inside_a_merge(world):
    """What was barred on the line, forced away, and merged back blocks the merge by its own name, until it is unbarred."""
    bad = barred(world)
    lost = world.workshop.commits.pop()
    read(world)
    world.workshop.inner[bad] = BranchCommit(bad, 0, "a change", "Ann", "a change", (line(world)[-1],))
    good = BranchCommit("9" * 40, 2, "another", "Ann", "another")
    world.workshop.commits.append(good)
    merge = BranchCommit("a" * 40, 3, "merge", "Ann", "merge", (good.sha, lost.sha))
    world.workshop.commits.append(merge)
    read(world)
    assert commit_of(world, bad).merged_into == merge.sha
    tested(world, good.sha, merge.sha)
    assert is_out(world, good.sha)
    world.run(seconds=60)
    assert waits_for(world).startswith(
        f"{bad[:12]}, which came in with {merge.sha[:12]}, is barred, and so is all that comes after it"
    )
    bars.unbar("shop", bad, world.deps, who="ann", why="checked")
    assert is_out(world, merge.sha)


def test_a_person_who_bars_a_merged_commit_bars_what_it_came_in_with(world):
    """It is not tested by itself, so nobody waits for that; the word is taken back as it was given."""
    merge, (feature,) = world.workshop.merge("a feature")
    read(world)
    bars.bar("shop", feature, world.deps, who="ann", why="no")
    tested(world, merge)
    world.run(seconds=60)
    assert waits_for(world).startswith(f"{feature[:12]}, which came in with {merge[:12]}, is barred")
    bars.unbar("shop", feature, world.deps, who="ann", why="yes")
    assert is_out(world, merge)


@pytest.mark.parametrize("mended", [False, True])
def test_a_bar_inside_of_a_merge_withdraws_the_wish_for_it_unless_the_merge_mends_that(world, mended):
    """What mends a commit may have come in together with it: then whoever wanted the merge out need not say so again."""
    feature = f"{1:04x}{'e' * 36}"
    merge, told = world.workshop.merge(
        "a feature", f"Mend it\n\nRollout-Fixes: {feature}" if mended else "more"
    )
    assert told[0] == feature
    read(world)
    with world.store.transaction() as tx:
        tx.commits.wish_now(tx.commits.get("shop", merge), "we need it", "ann")
    bars.bar("shop", feature, world.deps, who="ben", why="it loses carts")
    assert (commit_of(world, merge).now_reason == "we need it") is mended


def test_a_merge_whose_commit_is_undone_later_goes_out_with_what_undoes_it(world):
    """Commits between a change and its revert never ship alone, also when the change came in by a merge."""
    merge, (feature,) = world.workshop.merge("a feature")
    fix = world.push(f"This reverts commit {feature}.")
    assert is_out(world, fix)
    assert merge not in shipped(world)


def test_what_runs_is_on_the_line_again_once_it_is_merged_back(world):
    """Forced away, automation stops; merged back, it goes on from what runs, with all that the merge brings."""
    running = world.push()
    assert is_out(world, running)
    lost = world.workshop.commits.pop()
    world.workshop.inner[running] = BranchCommit(
        running, 0, "a change", "Ann", "a change", (world.workshop.commits[-1].sha,)
    )
    other = BranchCommit("9" * 40, 2, "another", "Ann", "another")
    world.workshop.commits.append(other)
    read(world)
    assert "no longer on the branch" in waits_for(world)
    merge = BranchCommit("a" * 40, 3, "merge", "Ann", "merge", (other.sha, lost.sha))
    world.workshop.commits.append(merge)
    read(world)
    assert line(world)[-2:] == [running, merge.sha]
    assert commit_of(world, other.sha).merged_into == merge.sha
    assert is_out(world, merge.sha)
    assert other.sha not in shipped(world)


def test_the_head_of_a_pull_request_that_is_merged_keeps_what_its_tests_said(world, monkeypatch):
    """It is not tested again, nor shipped; it is told of as a part of the merge."""
    app = world.config.app(None)
    monkeypatch.setitem(app.tests.__dict__, "pull_requests", True)
    feature = f"{1:04x}{'e' * 36}"
    pull = Pull(7, "refs/pull/7/head", feature, "a feature", "Eve", "a feature")
    pulls.look(app, [pull], world.deps)
    tested(world, feature)
    merge, _ = world.workshop.merge("a feature")
    read(world)
    pulls.look(app, [pull], world.deps)
    found = commit_of(world, feature)
    assert (found.state, found.pull, found.merged_into) == (CommitState.PASSED, 7, merge)
    assert why(world, feature).because.startswith(f"came in with {merge[:12]}: ")
    with pytest.raises(Conflict, match=f"came in with {merge[:12]}"):
        intake.enqueue(app, feature, world.deps, who="ann")
    assert is_out(world, merge)


def test_a_forced_branch_makes_a_merged_commit_an_ordinary_one(world):
    """The head is moved to the merged branch itself: what was inside the merge is tested and goes out."""
    merge, (feature,) = world.workshop.merge("a feature")
    read(world)
    world.workshop.commits[-1] = world.workshop.inner.pop(feature)
    read(world)
    assert line(world)[-1] == feature
    assert not commit_of(world, merge).on_branch
    assert commit_of(world, feature).reason is None
    assert is_out(world, feature)


def test_somebody_who_reads_an_older_head_late_does_not_move_the_line_back(world, monkeypatch):
    """Two workers fetch one after the other, and write the other way round: the later one looks again."""
    world.workshop.push()
    true, heads = world.workshop.fetch, []

    def fetch(app, config, *, limit_s=None):
        head = true(app, config)
        heads.append(head)
        if len(heads) == 1:  # before it is written, another worker sees and writes a newer head
            monkeypatch.setattr(world.workshop, "fetch", true)
            world.push()
            monkeypatch.setattr(world.workshop, "fetch", fetch)
        return head

    monkeypatch.setattr(world.workshop, "fetch", fetch)
    read(world)
    assert line(world)[-1] == world.workshop.commits[-1].sha


def test_a_bar_counts_though_the_merge_brings_more_than_is_read(world, monkeypatch):
    """The oldest of an absurdly big merge are not read; one of them that was barred as a pull request's head keeps the merge back."""
    merge, (old, _) = world.workshop.merge("old", "new")
    later = world.workshop.push()
    with world.store.transaction() as tx:
        tx.commits.add_pull(
            "shop", Pull(7, "refs/pull/7/head", old, "old", "Eve", "old"), who="test", why="open"
        )
    bars.bar("shop", old, world.deps, who="ann", why="no")
    history = world.workshop.history
    monkeypatch.setattr(
        world.workshop, "history", lambda *words: [one for one in history(*words[:3], 100) if one.sha != old]
    )
    monkeypatch.setattr(intake, "QUEUE_LIMIT", 3)
    read(world)
    assert commit_of(world, old).merged_into == merge
    tested(world, merge, later)
    assert waits_for(world).startswith(f"{old[:12]}, which came in with {merge[:12]}, is barred")


def test_a_bar_on_what_came_in_with_a_merge_that_is_on_its_way_is_told(world):
    """As one on the merge itself: it stops nothing, and whoever asks learns of it and of what takes it back; not once its fix is with it."""
    merge, (inner, _) = world.workshop.merge("slow query", "docs")
    read(world)
    world.run(
        until=lambda: world.newest().commit == merge and world.newest().state is RolloutState.FANNING_OUT
    )
    bars.bar("shop", inner, world.deps, who="ann", why="it leaks")
    number = world.newest().id
    barred = (
        f"{inner[:12]}, which came in with {merge[:12]}, is barred: it leaks"
        f" (to take it back: rollout stop {number})"
    )
    with world.store.reading() as tx:
        assert views.rollout(tx, tx.rollouts.get(number))["barred"] == barred
    assert why(world, merge).because.startswith(f"in rollout {number}, although {barred}: ")
    assert barred in why(world, inner).because
    bars.unbar("shop", inner, world.deps, who="ann", why="it does not")
    assert "barred" not in why(world, merge).because


def test_a_merge_that_is_planned_ahead_is_set_aside_when_a_commit_inside_of_it_is_barred(world):
    """Nothing is promised of it meanwhile, and it is not prepared any more."""
    world.push()
    world.run(until=lambda: world.newest().id == 2 and world.newest().state is RolloutState.FANNING_OUT)
    merge, (inner,) = world.workshop.merge("slow query")
    read(world)

    def ahead():
        with world.store.reading() as tx:
            return planning.planned_ahead(tx, world.config.app("shop"))

    world.run(until=ahead)
    assert ahead().commit == merge
    bars.bar("shop", inner, world.deps, who="ann", why="it leaks")
    told = why(world, merge)
    assert f"of which nothing comes: commit {inner[:12]}, which it would bring, is barred" in told.because
    assert told.expected_at is None


@pytest.mark.parametrize("what", ["merge", "feature"])
def test_a_bar_inside_of_a_merge_that_is_out_keeps_back_what_comes_after_it(world, what):
    """Until that commit is reverted, or all of the merge."""
    merge, (feature,) = world.workshop.merge("a feature")
    read(world)
    assert is_out(world, merge)
    bars.bar("shop", feature, world.deps, who="ann", why="slow query")
    after = world.push()
    tested(world, after)
    assert waits_for(world).startswith(f"{feature[:12]}, which is out already or on its way, is barred")
    fix = world.push(f"This reverts commit {merge if what == 'merge' else feature}.")
    assert is_out(world, fix)
    assert after not in shipped(world)
