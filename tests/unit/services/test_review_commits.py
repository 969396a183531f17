"""What a review found about commits: force-pushes, wishes, bars, and tests that are disturbed."""

import pytest

from rollout.domain.model import BranchCommit
from rollout.domain.states import CommitState, RolloutState
from rollout.errors import Conflict, ServiceUnavailable
from rollout.services import bars, intake, planning, reconcile, stopping, testing
from rollout.services.intake import Wish
from tests.support.branch import commit_of
from tests.support.released import first_release
from tests.support.world import World


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch, hosts=3)


def rewritten(world, position, digit):
    """The branch cut back to below `position`, with another commit on top of it."""
    sha = digit * 40
    world.workshop.commits[position - 1 :] = [BranchCommit(sha, position, "rewritten", "Ann", "rewritten")]
    return sha


def test_polling_finds_that_a_force_push_took_commits_back(world):
    """A head that is known already may be an old one: what was dropped from the branch is not shipped."""
    first_release(world)
    kept = world.push()
    world.settle()
    dropped = world.workshop.push()
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    world.workshop.commits.pop()
    intake.poll("shop", world.deps, force=True)
    assert not commit_of(world, dropped).on_branch
    world.run(seconds=120)
    assert set(world.runs().values()) == {kept}


def test_a_head_below_what_runs_is_found_by_polling(world):
    """I4: the branch's head gets its row even when a force-push left it behind the running commit."""
    first_release(world)
    world.push()
    world.settle()
    head = rewritten(world, 2, "f")
    intake.poll("shop", world.deps, force=True)
    assert commit_of(world, head) is not None


def test_after_a_force_push_a_person_can_ship_what_replaces_the_running_commit(world):
    """Automation does not guess and says so; by hand it goes out, and from there on by itself."""
    first_release(world)
    world.push()
    world.settle()
    head = rewritten(world, 1, "f")
    intake.poll("shop", world.deps, force=True)
    world.run(seconds=60)
    assert head not in world.runs().values()
    with world.store.reading() as tx:
        assert "force-push" in planning.waits_for(world.config.app(None), tx)
    intake.enqueue(
        world.config.app(None), head, world.deps, who="me", now=Wish("history was rewritten", "me")
    )
    world.run(seconds=120)
    assert set(world.runs().values()) == {head}
    world.workshop.commits.append(BranchCommit("e" * 40, 2, "next", "Ann", "next"))
    intake.poll("shop", world.deps, force=True)
    world.run(seconds=120)
    assert set(world.runs().values()) == {"e" * 40}


def test_a_wish_is_granted_once(world, monkeypatch):
    """A batch that was wished for and stopped does not go out again by the same wish; what a person unbars goes by itself."""
    first_release(world)
    older, newer = world.workshop.push(), world.workshop.push()
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    with monkeypatch.context() as patch:
        patch.setattr(planning, "start_next", lambda *_, **__: None)
        for sha in (older, newer):
            testing.run_tests(commit_of(world, sha).id, world.deps)
    intake.enqueue(world.config.app(None), newer, world.deps, who="me", now=Wish("urgent", "me"))
    assert world.newest().commits == (older, newer)
    world.run(until=lambda: world.newest().state is RolloutState.EVALUATING_CANARY)
    stopping.stop(world.newest().id, world.deps, who="me", why="no good")
    stopped = world.newest().id
    world.run(seconds=120)
    assert world.newest().id == stopped
    bars.unbar("shop", older, world.deps, who="me", why="not this one")
    world.run(until=lambda: world.newest().id != stopped, seconds=120)
    assert world.newest().commits == (older,)


def test_a_wish_for_a_commit_in_test_does_not_end_its_test(world):
    """`deploy --now` of a commit that is being tested waits for that very test."""
    first_release(world)
    sha = world.workshop.push()
    run_tests = world.workshop.run_tests

    def wished_meanwhile(app, config, commit, *, go_on):
        intake.enqueue(world.config.app(None), sha, world.deps, who="me", now=Wish("urgent", "me"))
        assert go_on()
        return run_tests(app, config, commit, go_on=go_on)

    world.workshop.run_tests = wished_meanwhile
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    testing.run_tests(commit_of(world, sha).id, world.deps)
    assert commit_of(world, sha).state is CommitState.PASSED
    assert commit_of(world, sha).attempt == 1


def test_a_webhook_that_is_faster_than_the_git_server_is_tested_a_little_later(world):
    """The commit is not on the branch yet: its test is put off, and not failed for ever."""
    first_release(world)
    coming = f"{len(world.workshop.commits) + 1:040x}"
    with world.store.transaction() as tx:
        commit, _ = tx.commits.add("shop", coming, who="webhook", why="pushed")
    testing.run_tests(commit.id, world.deps)
    assert commit_of(world, coming).state is CommitState.RECEIVED
    assert world.workshop.push() == coming
    world.run(seconds=60, until=lambda: commit_of(world, coming).state is CommitState.PASSED)
    assert commit_of(world, coming).state is CommitState.PASSED


def test_a_commit_that_comes_to_the_branch_after_all_waits_no_longer(world):
    """It was looked for twice, and the third look is far away: when git has it, it is not told of as missing, and tested at once."""
    first_release(world)
    coming = f"{len(world.workshop.commits) + 1:040x}"
    with world.store.transaction() as tx:
        commit, _ = tx.commits.add("shop", coming, who="webhook", why="pushed")
    for _ in range(2):
        testing.run_tests(commit.id, world.deps)
    with world.store.transaction() as tx:
        tx.commits.update(tx.commits.by_id(commit.id), due_at=world.seconds + 300.0)
    assert world.push() == coming
    assert commit_of(world, coming).reason is None
    world.run(seconds=5, until=lambda: commit_of(world, coming).state is CommitState.PASSED)
    assert commit_of(world, coming).state is CommitState.PASSED


def a_silent_git_server(world, monkeypatch):
    """A commit whose first test was put off for it."""
    sha = world.workshop.push()
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    world.bell.queue.clear()

    def silent(*_words, **_options):
        raise ServiceUnavailable("git does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(world.workshop, "run_tests", silent)
        testing.run_tests(commit_of(world, sha).id, world.deps)
    return commit_of(world, sha)


def test_messages_that_piled_up_do_not_cut_a_wait_short(world, monkeypatch):
    """No place was free, and many rang for one commit: the first try puts it off, and the rest are no tries."""
    waits = a_silent_git_server(world, monkeypatch)
    for _ in range(5):
        testing.run_tests(waits.id, world.deps)
    assert commit_of(world, waits.sha) == waits
    assert (waits.state, waits.attempt) == (CommitState.RECEIVED, 1)
    world.seconds = waits.due_at
    testing.run_tests(waits.id, world.deps)
    assert commit_of(world, waits.sha).state is CommitState.PASSED


def test_a_person_does_not_wait_for_a_commit_that_was_put_off(world, monkeypatch):
    """`rollout deploy COMMIT` has it tested at once, whatever its back-off is."""
    waits = a_silent_git_server(world, monkeypatch)
    intake.enqueue(world.config.app(None), waits.sha, world.deps, who="me")
    testing.run_tests(waits.id, world.deps)
    assert commit_of(world, waits.sha).state is CommitState.PASSED


def test_a_commit_that_never_comes_to_the_branch_fails_in_the_end(world):
    """Patience has an end: the commit fails and says why."""
    first_release(world)
    with world.store.transaction() as tx:
        tx.commits.add("shop", "d" * 40, who="webhook", why="pushed")
    world.run(seconds=120, until=lambda: commit_of(world, "d" * 40).state is CommitState.FAILED)
    assert "not on branch" in commit_of(world, "d" * 40).reason


def test_after_a_rollback_to_an_older_commit_all_that_was_barred_blocks(world):
    """`rollback --to` takes the queue back as well: a fix of the newest bad commit does not carry the others along."""
    first = first_release(world)
    second = world.push()
    world.settle()
    third = world.push()
    world.settle()
    stopping.roll_back_done(world.config.app(None), world.deps, to=first, who="me", why="slow")
    assert world.settle().state is RolloutState.ROLLED_BACK
    world.push(f"This reverts commit {third}.")
    world.run(seconds=120)
    assert set(world.runs().values()) == {first}
    with world.store.reading() as tx:
        assert second[:12] in planning.waits_for(world.config.app(None), tx)


def test_unbarring_what_was_only_suspected_is_audited(world):
    """Every word of a person has its event."""
    sha = world.push()
    with world.store.transaction() as tx:
        tx.commits.update(tx.commits.get("shop", sha), suspect=True)
    bars.unbar("shop", sha, world.deps, who="ann", why="looked at it")
    with world.store.reading() as tx:
        assert ("unbar", "ann") in [
            (event.what, event.who) for event in tx.events.of_subject("shop", f"commit {sha}")
        ]
    with pytest.raises(Conflict):
        bars.unbar("shop", sha, world.deps, who="ann", why="again")


def test_a_test_whose_worker_died_is_rung_once_an_interval(world):
    """The tests' queue does not fill up while their one worker is busy."""
    sha = world.workshop.push()
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    with world.store.transaction() as tx:
        tx.commits.claim_tests(tx.commits.get("shop", sha).id, "dead worker", 1.0)
    world.seconds += 2
    world.bell.queue.clear()
    for _ in range(5):
        reconcile.sweep(world.deps)
    assert len(world.bell.queue) == 1


def test_a_put_off_test_that_was_taken_over_is_no_error(world):
    """The git server was silent for longer than the lease: another worker has the commit now."""
    sha = world.workshop.push()
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")

    def overtaken(app, config, commit, *, go_on):
        world.seconds += 60
        with world.store.transaction() as tx:
            tx.commits.claim_tests(tx.commits.get("shop", sha).id, "another", 15.0)
        raise ServiceUnavailable("git does not answer")

    world.workshop.run_tests = overtaken
    testing.run_tests(commit_of(world, sha).id, world.deps)
    assert commit_of(world, sha).lease_owner == "another"
