"""Branches that move in ways that a webhook does not tell: far ahead at once, back, and back again."""

from dataclasses import replace

import pytest

from rollout.domain.model import BranchCommit, Push
from rollout.domain.states import CommitState, RolloutState
from rollout.errors import Conflict, NotFound, ServiceUnavailable
from rollout.services import (
    bars,
    explaining,
    freezes,
    intake,
    planning,
    reconcile,
    rollouts,
    stopping,
    testing,
)
from rollout.store import clock
from rollout.store.apps import HOLD_S, LOOK_S
from tests.support.branch import commit_of
from tests.support.released import first_release
from tests.support.world import World


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch, hosts=3)


def webhook(world, head):
    """GitHub says that the branch's head is this one."""
    push = Push("github", "delivery", "push", full_name="ann/shop", branch="main", head=head)
    return intake.receive_all([(push, world.config.app(None))], world.deps)[0]


def many(world, amount):
    """So many commits on the branch, by one push."""
    first = len(world.workshop.commits) + 1
    world.workshop.commits += [
        BranchCommit(f"{number:040x}", number, "a change", "Ann", "a change")
        for number in range(first, first + amount)
    ]
    return world.workshop.commits[-1].sha


def test_every_commit_of_a_push_of_two_thousand_has_its_row_and_none_ships_unseen(world):
    """However many commits come at once, each above the running one has its row, and no rollout carries more than three."""
    first_release(world)
    head = many(world, 2000)
    webhook(world, head)
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    with world.store.reading() as tx:
        rows = tx.commits.after("shop", 1)
    assert [row.position for row in rows] == list(range(2, 2002))
    world.run(seconds=60, until=lambda: world.newest().id > 1)
    assert world.newest().commits == (f"{2:040x}",)


def test_a_branch_that_is_absurdly_far_ahead_is_refused(world, monkeypatch):
    """Rather than ship commits that have no row, rollout says that it does not follow."""
    first_release(world)
    monkeypatch.setattr(intake, "QUEUE_LIMIT", 600)
    many(world, 601)
    with pytest.raises(Conflict, match="more than 600 commits ahead"):
        intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    world.run(seconds=60)
    assert world.newest().id == 1


@pytest.mark.parametrize("poll", [30.0, 0.0], ids=["polled", "not polled"])
def test_a_webhook_of_a_known_head_makes_the_branch_be_looked_at(world, monkeypatch, poll):
    """A force-push back to an older commit: what it dropped does not ship, also when nothing is polled."""
    app = world.config.app(None)
    monkeypatch.setitem(app.__dict__, "poll", poll)
    world.push()
    kept = world.push()
    world.settle()
    world.settle()
    dropped = world.workshop.push()
    intake.read_branch(app, world.deps, who="test", why="pushed")
    intake.poll("shop", world.deps)
    world.workshop.commits.pop()
    received = webhook(world, kept)
    assert received.outcome == "duplicate"
    assert "rollout 1 began with" in received.reason
    assert "looked at" in received.reason
    world.seconds += LOOK_S
    reconcile.poll_all(world.deps)
    assert not commit_of(world, dropped).on_branch
    world.run(seconds=120)
    assert set(world.runs().values()) == {kept}


def test_a_replayed_webhook_of_the_head_asks_nobody(world, monkeypatch):
    """The head's webhook once more is a duplicate, and no reason to ask the git server."""
    head = first_release(world)
    intake.poll("shop", world.deps)
    monkeypatch.setattr(world.workshop, "remote_head", lambda *_: pytest.fail("asked"))
    assert webhook(world, head).reason.startswith("known already")
    intake.poll("shop", world.deps)


def test_what_was_asked_for_while_a_poll_looked_is_looked_at_next(world, monkeypatch):
    """A webhook that comes in the middle of a look is not answered by it, though its head is the newest that is known so far."""
    world.push()
    kept = world.push()
    world.settle()
    intake.poll("shop", world.deps)
    dropped = world.workshop.push()
    webhook(world, dropped)
    world.seconds += LOOK_S
    true = world.workshop.history

    def meanwhile(*asked):
        found = true(*asked)
        world.seconds += 0.1
        world.workshop.commits.pop()
        webhook(world, kept)
        return found

    monkeypatch.setattr(world.workshop, "history", meanwhile)
    intake.poll("shop", world.deps, force=True)
    monkeypatch.setattr(world.workshop, "history", true)
    assert commit_of(world, dropped).on_branch
    world.seconds += LOOK_S
    intake.poll("shop", world.deps)
    assert not commit_of(world, dropped).on_branch


@pytest.mark.parametrize("poll", [30.0, 0.0], ids=["polled", "not polled"])
def test_a_flood_of_known_heads_is_one_question_in_five_seconds(world, monkeypatch, poll):
    """However many webhooks tell of an old head: the branch is looked at, and the git server is not flooded."""
    monkeypatch.setitem(world.config.app(None).__dict__, "poll", poll)
    old = world.push()
    world.push()
    world.settle()
    asked, ask = [], world.workshop.remote_head
    monkeypatch.setattr(
        world.workshop, "remote_head", lambda *its: (asked.append(world.seconds), ask(*its))[1]
    )
    for _ in range(20):
        webhook(world, old)
        reconcile.poll_all(world.deps)
        world.seconds += 0.5
    assert 2 <= len(asked) <= 3


@pytest.mark.parametrize("poll", [30.0, 0.0], ids=["polled", "not polled"])
def test_a_flood_of_unknown_heads_is_one_question_in_five_seconds(world, monkeypatch, poll):
    """Webhooks of heads that the branch does not have, sent again: the poll asks for all together, and each has its end."""
    monkeypatch.setitem(world.config.app(None).__dict__, "poll", poll)
    world.push()
    world.settle()
    asked, fetch = [], world.workshop.fetch
    monkeypatch.setattr(
        world.workshop, "fetch", lambda *its, **more: (asked.append(world.seconds), fetch(*its, **more))[1]
    )
    heads = [f"{number:040x}" for number in range(100, 130)]
    for head in heads:
        webhook(world, head)
        reconcile.poll_all(world.deps)
        world.run(seconds=1)
    for _ in range(60):
        reconcile.poll_all(world.deps)
        reconcile.sweep(world.deps)
        world.run(seconds=1)
    assert 2 <= len(asked) <= 1 + 90 / LOOK_S
    assert {commit_of(world, head).state for head in heads} == {CommitState.FAILED}


@pytest.mark.parametrize("kind", ["unknown", "forced off"])
def test_heads_that_the_branch_lacks_do_not_hold_up_its_own(world, kind):
    """However many of them wait, what is pushed next is tested next, all of it."""
    app = world.config.app(None)
    world.push()
    world.settle()
    if kind == "unknown":
        for number in range(100, 160):
            webhook(world, f"{number:040x}")
    else:
        many(world, 60)
        intake.read_branch(app, world.deps, who="test", why="pushed")
        del world.workshop.commits[1:]
    line = [f"{number:040x}" for number in range(91, 97)]  # more than can ship next
    world.workshop.commits += [
        BranchCommit(sha, place, "a change", "Ann", "a change") for place, sha in enumerate(line, 2)
    ]
    intake.read_branch(app, world.deps, who="test", why="pushed")
    world.bell.queue.clear()
    world.seconds += world.deps.settings.ring_again_s
    with world.store.reading() as tx:
        assert [one.sha for one in tx.turns.due_for_tests("shop", 10, 6, app.queue.most)] == line


def test_a_head_that_comes_among_unknown_ones_is_tested_when_the_poll_has_found_it(world):
    """Its tests leave the question to the poll, and do not wait for their own turn to ask again."""
    world.push()
    world.settle()
    webhook(world, "d" * 40)
    world.seconds += 0.1  # whatever reads the branch now begins after it came
    world.run(seconds=1)
    head = world.workshop.push()
    webhook(world, head)
    testing.run_tests(commit_of(world, head).id, world.deps)
    assert commit_of(world, head).position is None
    world.seconds += LOOK_S
    reconcile.poll_all(world.deps)
    world.run(seconds=0.5)
    assert commit_of(world, head).state is CommitState.PASSED


def test_a_commit_that_was_not_on_the_branch_yet_is_tested_when_it_is(world):
    """It failed for nothing else: a git server's replica was late, or it was dropped and pushed again."""
    first_release(world)
    late = f"{2:040x}"
    webhook(world, late)
    world.run(seconds=120, until=lambda: commit_of(world, late).state is CommitState.FAILED)
    assert "not on branch" in commit_of(world, late).reason
    assert many(world, 1) == late
    intake.poll("shop", world.deps, force=True)
    world.run(seconds=120, until=lambda: world.newest().id == 2 and world.newest().state is RolloutState.DONE)
    assert set(world.runs().values()) == {late}


def test_one_that_failed_its_tests_is_not_tested_again_by_a_look(world):
    """Only what failed for not being there has another chance by being there."""
    bad = world.push(fails=True)
    world.run(seconds=60)
    intake.read_branch(world.config.app(None), world.deps, who="test", why="looked")
    assert commit_of(world, bad).state is CommitState.FAILED


def commits_of_rollouts(world):
    with world.store.reading() as tx:
        return [list(one.commits) for one in reversed(tx.rollouts.numbered(1, 100, 100))]


@pytest.mark.parametrize("poll", [30.0, 0.0], ids=["polled", "not polled"])
def test_what_is_pushed_together_while_the_first_release_goes_out_does_not_ship_unseen(
    world, monkeypatch, poll
):
    """Nothing ran when the branch was read, so that only its head has a row: it is read again before anything follows."""
    monkeypatch.setitem(world.config.app(None).__dict__, "poll", poll)
    first = world.push()
    world.run(until=lambda: world.newest() is not None and world.newest().state is RolloutState.FANNING_OUT)
    head = many(world, 3)
    webhook(world, head)
    world.run(
        seconds=300,
        until=lambda: reconcile.poll_all(world.deps) or set(world.runs().values()) == {head},
    )
    shipped = [sha for commits in commits_of_rollouts(world) for sha in commits]
    assert shipped == [first, *(f"{number:040x}" for number in (2, 3, 4))]


def test_commits_above_what_is_on_its_way_have_rows_while_it_is(world):
    """Before the first release is out: the ones behind it are tested meanwhile, and the git server is asked no oftener for that."""
    world.push()
    world.run(until=lambda: world.newest() is not None and world.newest().state is RolloutState.FANNING_OUT)
    head = many(world, 3)
    webhook(world, head)
    testing.run_tests(commit_of(world, head).id, world.deps)
    assert world.newest().state is RolloutState.FANNING_OUT or world.newest().is_ahead
    with world.store.reading() as tx:
        assert [row.position for row in tx.commits.after("shop", 1)] == [2, 3, 4]
    intake.poll("shop", world.deps)
    planning.start_next("shop", world.deps)
    with world.store.reading() as tx:
        assert not tx.apps.poll_is_due("shop", 30.0)


def test_what_was_pushed_while_something_else_ran_does_not_ship_unseen(world):
    """The branch was forced to a line of its own; then a rollback brings back what is below both."""
    first_release(world)
    for _ in range(2):
        world.push()
        world.settle()
        world.run(until=lambda: world.newest().state is RolloutState.DONE)
    world.workshop.commits = [
        world.workshop.commits[0],
        *(BranchCommit(f"{at:x}" * 40, at, "another", "Ann", "another") for at in (2, 3, 4)),
    ]
    intake.poll("shop", world.deps, force=True)
    for _ in range(2):
        stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="me", why="no")
        world.run(seconds=30, until=lambda: world.newest().state is RolloutState.ROLLED_BACK)
        world.run(seconds=10)
    world.run(
        seconds=300,
        until=lambda: reconcile.poll_all(world.deps) or set(world.runs().values()) == {"4" * 40},
    )
    shipped = [sha for carried in commits_of_rollouts(world)[3:] for sha in carried]
    assert shipped == ["2" * 40, "3" * 40, "4" * 40]


def test_what_ran_before_a_squash_shortened_the_branch_is_gone_back_to(world):
    """`rollback --to` it is no step to something newer, though its place is above that of the squashed commit which runs."""
    world.push()
    world.settle()
    for _ in range(3):
        world.push()
        world.settle()
    ran, squashed = world.newest().commit, "e" * 40
    world.workshop.commits[1:] = [BranchCommit(squashed, 2, "squashed", "Ann", "squashed")]
    intake.poll("shop", world.deps, force=True)
    now = intake.Wish("squashed", "ann")
    intake.enqueue(world.config.app(None), squashed, world.deps, who="ann", now=now)
    world.run(seconds=300, until=lambda: set(world.runs().values()) == {squashed})
    world.settle()
    stopping.roll_back_done(world.config.app(None), world.deps, to=ran, who="me", why="it is slow")
    world.run(seconds=300)
    assert set(world.runs().values()) == {ran}


def test_of_two_lines_what_went_out_later_is_newer(world):
    """A rollback goes back also when what was taken back after it, and let go by a person, has left the branch."""
    first = world.push()
    world.settle()
    later = world.push()
    world.settle()
    stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="me", why="it is slow")
    world.run(seconds=60)
    bars.unbar("shop", later, world.deps, who="me", why="it was the network")
    world.workshop.commits[1:] = []
    intake.poll("shop", world.deps, force=True)
    assert set(world.runs().values()) == {first}
    with pytest.raises(Conflict, match="newer than what runs"):
        stopping.roll_back_done(world.config.app(None), world.deps, to=later, who="me", why="back")


def test_what_a_forced_push_took_off_a_moment_ago_is_planned_and_does_not_begin(world):
    """What git said within five seconds is planned by; before a host is touched git is asked about the head that came since."""
    first = first_release(world)
    gone = world.push()
    intake.read_branch(world.config.app(None), world.deps, who="poll", why="found")
    head = "b" * 40
    world.seconds += 2
    world.workshop.commits[-1:] = [BranchCommit(head, 2, "without it", "Ann", "without it")]
    webhook(world, head)
    testing.run_tests(commit_of(world, gone).id, world.deps)
    with world.store.reading() as tx:
        planned = tx.rollouts.pending("shop")
    assert planned is not None
    rollouts.deploy_canary(planned.id, world.deps)
    with world.store.reading() as tx:
        assert tx.rollouts.get(planned.id).state is RolloutState.PENDING
    world.run(until=lambda: set(world.runs().values()) == {head}, seconds=600)
    with world.store.reading() as tx:
        assert [one.commit for one in tx.rollouts.numbered(1, 9, 9) if one.done] == [head, first]


def test_what_a_forced_push_took_off_does_not_ship_once_its_webhook_is_stored(world, monkeypatch):
    """Its tests end while the new head waits for its own: git is asked before anything is planned, also where nothing is polled."""
    first = first_release(world)
    gone = world.workshop.push()
    webhook(world, gone)
    run_tests, head = world.workshop.run_tests, "b" * 40

    def forced(*args, **more):
        world.seconds += 12
        world.workshop.commits[-1:] = [BranchCommit(head, 2, "without it", "Ann", "without it")]
        webhook(world, head)
        monkeypatch.setattr(world.workshop, "run_tests", run_tests)
        return run_tests(*args, **more)

    monkeypatch.setattr(world.workshop, "run_tests", forced)
    testing.run_tests(commit_of(world, gone).id, world.deps)
    world.bell.queue.clear()  # all slots of the tests are taken
    assert commit_of(world, gone).state is CommitState.PASSED
    for _ in range(3):
        planning.start_next("shop", world.deps)
    with world.store.reading() as tx:
        assert (tx.rollouts.pending("shop"), tx.apps.noted("shop")) == (None, planning.UNREAD)
        assert tx.apps.poll_is_due("shop", 0.0)
    intake.poll("shop", world.deps, force=True)
    assert not commit_of(world, gone).on_branch
    world.run(until=lambda: set(world.runs().values()) == {head}, seconds=600)
    with world.store.reading() as tx:
        assert [one.commit for one in tx.rollouts.numbered(1, 9, 9)] == [head, first]


def told_back(world):
    """A second commit is in its tests when the branch is forced back to the first: their shas."""
    first = first_release(world)
    gone = world.push()
    intake.read_branch(world.config.app(None), world.deps, who="poll", why="found")
    world.seconds += LOOK_S + 1
    world.workshop.commits.pop()
    assert "looked at" in webhook(world, first).reason
    return first, gone


def waits_to_be_read(world):
    planning.start_next("shop", world.deps)
    with world.store.reading() as tx:
        return (tx.rollouts.pending("shop"), tx.apps.noted("shop")) == (None, planning.UNREAD)


@pytest.mark.parametrize("rebooted", [False, True], ids=["told", "and rebooted"])
def test_what_a_forced_push_back_to_a_known_head_took_off_does_not_ship(world, monkeypatch, rebooted):
    """Its tests end between the webhook and the poll: the branch is read first, also when the store's machine started anew."""
    first, gone = told_back(world)
    if rebooted:
        monkeypatch.setattr(clock, "boot_of", lambda _connection: "another boot")
        world.store.prepare()
    testing.run_tests(commit_of(world, gone).id, world.deps)
    assert commit_of(world, gone).state is CommitState.PASSED
    assert waits_to_be_read(world)
    world.seconds += 1
    reconcile.poll_all(world.deps)
    assert not commit_of(world, gone).on_branch
    world.run(seconds=60)
    assert set(world.runs().values()) == {first}


@pytest.mark.parametrize("refused", [Conflict, NotFound])
def test_a_branch_that_git_answers_of_and_nobody_can_follow_holds_nothing_up(world, monkeypatch, refused):
    """It is absurdly far ahead, or gone: what was known of it ships, since asking again would say no more."""
    first_release(world)
    sha = world.push()
    intake.read_branch(world.config.app(None), world.deps, who="poll", why="found")
    world.seconds += LOOK_S + 1
    webhook(world, "b" * 40)
    testing.run_tests(commit_of(world, sha).id, world.deps)
    assert waits_to_be_read(world)

    def refuses(*_, **_more):
        raise refused("not this one", remedy="another one")

    where, what = (intake, "read_branch") if refused is Conflict else (world.workshop, "remote_head")
    monkeypatch.setattr(where, what, refuses)
    world.seconds += 1
    intake.poll("shop", world.deps, force=True)
    world.seconds += LOOK_S + 1
    planning.start_next("shop", world.deps)
    assert world.newest().commit == sha


def test_a_reading_that_died_is_begun_again_also_where_nothing_is_polled(world):
    """Whoever had taken the look upon himself is gone: within a minute another one reads what was told of."""
    told_back(world)
    with world.store.transaction() as tx:
        assert tx.apps.claim_poll("shop", 0.0)
        assert not tx.apps.poll_is_due("shop", 0.0)
    world.seconds += HOLD_S
    with world.store.reading() as tx:
        assert tx.apps.poll_is_due("shop", 0.0)


@pytest.mark.parametrize("takes", [0.2, LOOK_S + 2])
def test_a_flood_of_pushes_to_a_slow_git_server_does_not_keep_anything_from_going_out(
    world, monkeypatch, takes
):
    """Each reading ends with heads that came meanwhile: what it said is planned by, and begins after the next one."""
    first = world.push()
    world.settle()
    history = world.workshop.history

    def slow(*asked):
        found = history(*asked)
        for _ in range(4):
            world.seconds += takes / 4
            webhook(world, world.workshop.push())
        return found

    monkeypatch.setattr(world.workshop, "history", slow)
    webhook(world, world.workshop.push())
    for _ in range(6):
        world.seconds += 1
        intake.poll("shop", world.deps, force=True)
        with world.store.reading() as tx:
            waiting = tx.commits.after("shop", 1)
        for commit in waiting[:1]:
            testing.run_tests(commit.id, world.deps)
        planning.start_next("shop", world.deps)
        if world.newest().commit != first:
            rollouts.deploy_canary(world.newest().id, world.deps)
    assert (world.newest().commit, world.newest().state) == (f"{2:040x}", RolloutState.DEPLOYING_CANARY)


def planned_behind_a_head(world, message):
    """Passed right after a reading, and right after a webhook of a newer head: planned by what git just said. Both hashes."""
    first_release(world)
    world.seconds += 60
    sha = world.workshop.push()
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    world.seconds += 1
    newer = world.workshop.push(message.format(sha))
    webhook(world, newer)
    world.bell.queue.clear()
    world.seconds += 1
    testing.run_tests(commit_of(world, sha).id, world.deps)
    assert (world.newest().commit, world.newest().state) == (sha, RolloutState.PENDING)
    return sha, newer


def test_what_is_reverted_by_the_head_that_it_waits_for_does_not_go_out_alone(world):
    """It is planned, and begins after one reading of the branch: what that brings undoes it, so they go out together."""
    sha, revert = planned_behind_a_head(world, "This reverts commit {}.")
    world.bell.queue.clear()
    intake.poll("shop", world.deps, force=True)
    world.run(seconds=200)
    with world.store.reading() as tx:
        all_of_them = tx.rollouts.numbered(2, 9, 9)
    shipped = [one.commits for one in all_of_them if one.state is RolloutState.DONE]
    assert shipped == [(sha, revert)]


def test_a_rollout_that_waits_for_a_reading_of_the_branch_says_so_and_promises_no_time(world, monkeypatch):
    """The git server may be away for hours, and nothing begins before it has answered."""
    sha, _ = planned_behind_a_head(world, "a change")

    def away(*_, **__):
        raise ServiceUnavailable("git does not answer")

    for name in ("remote_head", "fetch"):
        monkeypatch.setattr(world.workshop, name, away)
    world.run(seconds=120)
    with world.store.reading() as tx:
        why = explaining.why(tx, world.config.app(None), commit_of(world, sha))
        coming = explaining.coming(tx, world.config.app(None))
    assert (world.newest().state, why.expected_at, coming.expected_at) == (RolloutState.PENDING, None, None)
    assert "begins when the branch has been read again" in why.because
    assert coming.because == f"commit {sha[:12]}: {why.because}"


def test_what_waits_for_a_reading_of_the_branch_is_not_in_the_way_of_a_rollback(world):
    """Nobody asked for it, and git may be away for hours: it is set aside, and its commit is as good as before."""
    sha, _ = planned_behind_a_head(world, "a change")
    planned, app = world.newest(), world.config.app(None)
    back = stopping.roll_back_done(app, world.deps, to=None, who="ann", why="bad")
    with world.store.reading() as tx:
        aside = tx.rollouts.get(planned.id)
    assert (back.state, aside.state) == (RolloutState.ROLLING_BACK, RolloutState.ERROR)
    assert not commit_of(world, sha).is_barred


def test_what_waits_for_a_reading_of_the_branch_goes_out_by_a_person_s_word_while_git_is_away(
    world, monkeypatch
):
    """It is named, known to be on the branch, and has passed: nothing that only git could say is needed for `deploy --now`."""
    sha, _ = planned_behind_a_head(world, "a change")

    def away(*_, **__):
        raise ServiceUnavailable("git does not answer", remedy="is it up?")

    for name in ("remote_head", "fetch"):
        monkeypatch.setattr(world.workshop, name, away)
    app, wish = world.config.app(None), intake.Wish("it burns", "ann")
    with pytest.raises(ServiceUnavailable) as refused:
        intake.enqueue(app, None, world.deps, who="ann", now=wish)
    assert refused.value.remedy == f"is it up?; {intake.NEEDS_NO_GIT}"
    with pytest.raises(ServiceUnavailable):
        intake.enqueue(app, "b" * 40, world.deps, who="ann", now=wish)
    intake.enqueue(app, sha, world.deps, who="ann", now=wish)
    world.run(until=lambda: world.newest().state is RolloutState.DONE and world.newest().commit == sha)
    assert (set(world.runs().values()), world.newest().requested_by) == ({sha}, "ann")


def test_a_head_that_was_forced_off_the_branch_is_not_enqueued_while_git_is_away(world, monkeypatch):
    """What the store says of it is not that it is on the branch."""
    first_release(world)
    gone = world.push()
    world.workshop.commits[-1] = replace(world.workshop.commits[-1], sha="e" * 40)
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")

    def away(*_, **__):
        raise ServiceUnavailable("git does not answer")

    monkeypatch.setattr(world.workshop, "fetch", away)
    with pytest.raises(ServiceUnavailable):
        intake.enqueue(world.config.app(None), gone, world.deps, who="ann")


@pytest.mark.parametrize("lately", [True, False])
def test_a_head_that_git_does_not_have_holds_nothing_up(world, lately):
    """What git said a moment ago counts, and once it was asked nobody waits for such a head any more."""
    first_release(world)
    sha = world.push()
    world.seconds += 1 if lately else LOOK_S + 1
    webhook(world, "b" * 40)
    if not lately:
        with world.store.reading() as tx:
            assert planning.unread(tx, "shop")
        world.seconds += 1
        intake.poll("shop", world.deps, force=True)
        world.seconds += LOOK_S + 1
    testing.run_tests(commit_of(world, sha).id, world.deps)
    assert world.newest().commit == sha


def test_before_the_first_release_what_was_pushed_together_has_rows_and_names_its_author(world):
    """Only what is older than the first head that was seen has none: the first red commit is named, not the push's last one."""
    freezes.freeze(world.config.app(None), world.deps, who="ann", why="nothing goes out", until=None)
    old, first, bad, head = (f"{number:040x}" for number in range(1, 5))
    many(world, 2)
    webhook(world, first)
    world.run(seconds=10)
    world.workshop.commits += [
        BranchCommit(bad, 3, "b", "Bob", "b"),
        BranchCommit(head, 4, "c", "Carol", "c"),
    ]
    world.workshop.failing |= {bad, head}
    webhook(world, head)
    world.run(seconds=30)
    assert commit_of(world, old) is None
    assert [commit_of(world, sha).state for sha in (first, bad, head)] == ["passed", "failed", "failed"]
    assert [title for title, _ in world.notifier.sent] == [f"shop: main is red since {bad[:12]} by Bob"]


def test_more_tested_commits_than_archives_all_ship_and_none_is_tested_twice(world, monkeypatch):
    """During a freeze more pass than archives are kept: whose archive made room is built again before it goes out."""
    world.workshop.room, tested = 3, []
    run_tests = world.workshop.run_tests
    monkeypatch.setattr(
        world.workshop,
        "run_tests",
        lambda *given, **more: (tested.append(given[2]), run_tests(*given, **more))[1],
    )
    first = world.push()
    world.settle()
    app = world.config.app(None)
    freezes.freeze(app, world.deps, who="ann", why="weekend", until=None)
    shas = [world.push() for _ in range(7)]
    world.run(seconds=60)
    assert {commit_of(world, sha).state for sha in shas} == {CommitState.PASSED}
    assert world.workshop.archives == [first, *shas[-3:]]
    freezes.unfreeze(app, world.deps, who="ann", why="monday")
    without = set()

    def all_out():
        without.update({world.newest().commit} & world.workshop.gone)
        return set(world.runs().values()) == {shas[-1]}

    world.run(until=all_out, seconds=4000)
    assert (set(world.runs().values()), without) == ({shas[-1]}, set())
    assert sorted(tested) == sorted([first, *shas])


def test_a_freeze_is_drained_as_fast_by_what_is_built_again(world):
    """What lost its archive goes out in the batch that it would have gone in: no smaller one passes it while it is built."""
    world.workshop.room = 3
    world.push()
    world.settle()
    app = world.config.app(None)
    freezes.freeze(app, world.deps, who="ann", why="weekend", until=None)
    shas = [world.push() for _ in range(9)]
    world.run(seconds=60)
    with world.store.transaction() as tx:
        for sha in shas:
            tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 9000.0)
    before = world.newest().id
    freezes.unfreeze(app, world.deps, who="ann", why="monday")
    world.run(until=lambda: set(world.runs().values()) == {shas[-1]}, seconds=4000)
    with world.store.reading() as tx:
        sizes = [len(tx.rollouts.get(one).commits) for one in range(before + 1, world.newest().id + 1)]
    assert sizes == [3, 3, 3]


def test_of_too_many_commits_the_next_three_and_then_the_newest_are_tested(world, monkeypatch):
    """The head, what can ship next above what runs, and from there down from the head, though the places come free one by one."""
    first_release(world)
    freezes.freeze(world.config.app(None), world.deps, who="ann", why="nothing goes out", until=None)
    run_tests, order = world.workshop.run_tests, []
    monkeypatch.setattr(
        world.workshop,
        "run_tests",
        lambda *given, **more: (order.append(int(given[2], 16)), run_tests(*given, **more))[1],
    )
    many(world, 20)
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    world.run(seconds=60, until=lambda: len(order) == 7)
    assert order == [21, 2, 3, 4, 20, 19, 18]
