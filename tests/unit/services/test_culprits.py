"""A bad commit is found in its batch, barred, and never ships again, under whatever hash."""

import dataclasses

import pytest

from rollout.domain import model
from rollout.domain.model import BranchCommit, Push, Release
from rollout.domain.states import CommitState, RolloutState
from rollout.errors import Conflict
from rollout.services import bars, explaining, freezes, halts, intake, planning, reconcile, stopping, testing
from tests.support.branch import commit_of, read, tested, why
from tests.support.world import World


def goes_bad(world, sha):
    """The release of this commit, and of every one that has it, answers errors."""
    bad = world.workshop.commits.index(next(one for one in world.workshop.commits if one.sha == sha))

    def share(_name, role, _at):
        newest = world.newest()
        position = next(n for n, one in enumerate(world.workshop.commits) if one.sha == newest.commit)
        return 0.0 if role == "canary" and position >= bad else 1.0

    world.metrics.share_of = share


def batch_of_three(world, monkeypatch, digits="234", trees=(None,) * 3):
    """Three commits that go out together: they have waited for long, and all of them passed."""
    places = range(len(world.workshop.commits) + 1, len(world.workshop.commits) + 4)
    hashes = [f"{digit:0>40}" for digit in digits]
    world.workshop.commits += [
        BranchCommit(sha, at, "a change", "Ann <ann@example.com>", "a change", tree=tree)
        for sha, at, tree in zip(hashes, places, trees, strict=True)
    ]
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    with world.store.transaction() as tx:
        for sha in hashes:
            commit = tx.commits.get("shop", sha)
            tx.commits.update(commit, received_s=tx.now() - 1500.0)
    with monkeypatch.context() as patch:
        patch.setattr(planning, "start_next", lambda *_, **__: None)
        for sha in hashes:
            testing.run_tests(commit_of(world, sha).id, world.deps)
    planning.start_next("shop", world.deps)
    return hashes


def suspects_of_a_batch(world, monkeypatch, digits="234"):
    """Three commits that went wrong together; from now on all is well."""
    hashes = batch_of_three(world, monkeypatch, digits)
    world.metrics.share_of = lambda _name, role, _at: 0.0 if role == "canary" else 1.0
    world.run(seconds=300, until=lambda: all(commit_of(world, sha).suspect for sha in hashes))
    assert all(commit_of(world, sha).suspect for sha in hashes)
    world.metrics.share_of = lambda *_: 1.0
    return hashes


@pytest.mark.parametrize("fixes", [1, 3])
def test_what_brings_a_failed_batch_again_is_wished_anew(world, monkeypatch, fixes):
    """Nobody is barred, and all three were taken back: a `deploy --now` of before is withdrawn, unless it undoes them all."""
    hashes = batch_of_three(world, monkeypatch)
    wanted = world.workshop.push("\n".join(f"This reverts commit {sha}." for sha in hashes[:fixes]))
    world.run(until=lambda: world.newest().state is RolloutState.EVALUATING_CANARY)
    read(world)
    with world.store.transaction() as tx:
        tx.commits.wish_now(tx.commits.get("shop", wanted), "we need it", "ann")
    world.metrics.share_of = lambda _name, role, _at: 0.0 if role == "canary" else 1.0
    world.run(seconds=300, until=lambda: all(commit_of(world, sha).suspect for sha in hashes))
    with world.store.reading() as tx:
        left = [one.sha for one in tx.commits.wanted_now("shop")]
    assert left == ([wanted] if fixes == 3 else [])


def rollouts_of(world):
    with world.store.reading() as tx:
        return [tx.rollouts.get(number) for number in range(2, world.newest().id + 1)]


@pytest.mark.parametrize("culprit", [1, 2, 3])
def test_the_culprit_of_a_batch_is_barred_after_two_more_canaries_at_most(world, monkeypatch, culprit):
    """At position 1, 2 or 3: the innocent before it ship, it is barred, and those after it wait for its fix."""
    hashes = batch_of_three(world, monkeypatch)
    goes_bad(world, hashes[culprit - 1])
    world.run(seconds=900)
    assert commit_of(world, hashes[culprit - 1]).state is CommitState.BARRED
    first, *others = rollouts_of(world)
    assert first.commits == tuple(hashes)
    assert [one.commits for one in others] == [(sha,) for sha in hashes[: min(culprit, 2)]]
    expected = hashes[culprit - 2] if culprit > 1 else f"{1:040x}"
    assert set(world.runs().values()) == {expected}
    for later in hashes[culprit:]:
        assert commit_of(world, later).state is CommitState.PASSED
        assert not commit_of(world, later).suspect
    if culprit == 3:
        assert any(hashes[2][:12] in str(told) and "Ann" in str(told) for told in world.notifier.sent)


def goes_out(world, monkeypatch):
    """A batch whose canary has passed, and which is on its way to the other hosts."""
    hashes = batch_of_three(world, monkeypatch)
    world.run(seconds=300, until=lambda: world.newest().state is RolloutState.FANNING_OUT)
    return hashes


def is_out(world, monkeypatch):
    hashes = batch_of_three(world, monkeypatch)
    assert world.settle().state is RolloutState.DONE
    return hashes


def out_one_by_one(world, many):
    hashes = []
    for _ in range(many):
        hashes.append(world.push())
        assert world.settle().state is RolloutState.DONE
    return hashes


def stop_it(world, *, keep=False):
    stopping.stop(world.newest().id, world.deps, who="ann", why="it is slow", keep=keep)


def roll_it_back(world):
    stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="ann", why="it is slow")


@pytest.mark.parametrize(
    ("so_far", "take_back"),
    [
        (batch_of_three, stop_it),
        (goes_out, stop_it),
        (goes_out, lambda world: stop_it(world, keep=True)),
        (is_out, roll_it_back),
    ],
    ids=["before its canary", "in the fan-out", "and kept", "done"],
)
def test_what_a_person_takes_back_ships_nothing_of_itself_again(world, monkeypatch, so_far, take_back):
    """All of a batch is barred: one by one it would pass the canary that has passed it already, and an innocent one be found guilty."""
    hashes = so_far(world, monkeypatch)
    number = world.newest().id
    take_back(world)
    world.run(seconds=600)
    assert world.newest().id == number
    for sha in hashes:
        assert (commit_of(world, sha).state, commit_of(world, sha).reason) == (
            CommitState.BARRED,
            "it is slow",
        )


@pytest.mark.parametrize("left", [1, 3])
@pytest.mark.parametrize("together", [True, False])
def test_what_rollback_to_takes_back_is_barred_off_the_branch_too(world, monkeypatch, together, left):
    """In one rollout or in three, and however many of them were forced off before: when they are back nothing of them ships."""
    first = world.workshop.commits[0].sha
    hashes = is_out(world, monkeypatch) if together else out_one_by_one(world, 3)
    pushed = list(world.workshop.commits)
    del world.workshop.commits[-left:]
    read(world)
    stopping.roll_back_done(world.config.app(None), world.deps, to=first, who="ann", why="it is slow")
    world.settle()
    number = world.newest().id
    assert [commit_of(world, sha).state for sha in hashes] == [CommitState.BARRED] * 3
    world.workshop.commits[:] = pushed
    read(world)
    world.run(seconds=300)
    assert (world.newest().id, set(world.runs().values())) == (number, {first})


def test_rollback_to_bars_each_once_and_for_one_reason(world):
    """What a rollout since has brought is barred with that, and not again for its place on the branch."""
    first, *hashes = out_one_by_one(world, 3)
    why = "slow; and: wrong"
    stopping.roll_back_done(world.config.app(None), world.deps, to=first, who="ann", why=why)
    assert [bars.reasons(commit_of(world, sha).reason) for sha in hashes] == [["slow; and wrong"]] * 2


@pytest.mark.parametrize("place", [2, 3])
def test_rollback_to_what_was_forced_off_the_branch_bars_what_replaced_it(world, place):
    """A person amended it, or squashed it with the one before, and shipped that: back on what ran, that one is barred."""
    runs = out_one_by_one(world, 2)[-1]
    del world.workshop.commits[place - 1 :]
    anew = "d" * 40
    world.workshop.commits.append(BranchCommit(anew, place, "anew", "Ann", "anew"))
    read(world)
    wish = intake.Wish("it is better", "ann")
    intake.enqueue(world.config.app(None), anew, world.deps, who="ann", now=wish)
    world.run(seconds=120)
    assert set(world.runs().values()) == {anew}
    stopping.roll_back_done(world.config.app(None), world.deps, to=runs, who="ann", why="it is not")
    world.run(seconds=120)
    assert set(world.runs().values()) == {runs}
    assert (commit_of(world, anew).state, commit_of(world, runs).state) == (
        CommitState.BARRED,
        CommitState.PASSED,
    )


def test_the_innocent_of_what_a_person_took_back_ship_when_somebody_says_so(world, monkeypatch):
    """Of three two are let go, and go out; the third one waits for its fix."""
    hashes = is_out(world, monkeypatch)
    roll_it_back(world)
    world.settle()
    for sha in hashes[:2]:
        bars.unbar("shop", sha, world.deps, who="ann", why="it was the third")
    world.run(seconds=600)
    assert set(world.runs().values()) == {hashes[1]}
    assert commit_of(world, hashes[2]).state is CommitState.BARRED


def test_a_stop_of_what_has_failed_its_canary_says_nothing_more(world, monkeypatch):
    """The failure came first: while it is taken back a person stops it too, and the culprit is looked for all the same."""
    hashes = batch_of_three(world, monkeypatch)
    goes_bad(world, hashes[1])
    world.run(seconds=300, until=lambda: world.newest().state is RolloutState.ROLLING_BACK)
    assert world.newest().state is RolloutState.ROLLING_BACK
    stop_it(world)
    world.run(seconds=900)
    assert [one.commits for one in rollouts_of(world)[1:]] == [(sha,) for sha in hashes[:2]]
    assert commit_of(world, hashes[1]).reason.startswith("canary failed")


def test_a_suspect_that_a_person_stops_clears_none_of_its_batch(world, monkeypatch):
    """It is barred, and no culprit is found by that: mended, the others go out one by one still, and the last one has a canary of its own."""
    hashes = suspects_of_a_batch(world, monkeypatch)
    world.run(seconds=60, until=lambda: world.newest().commit == hashes[0])
    stop_it(world)
    world.run(seconds=300)
    assert commit_of(world, hashes[0]).state is CommitState.BARRED
    assert all(commit_of(world, sha).suspect for sha in hashes[1:])
    before = world.newest().id
    bars.unbar("shop", hashes[0], world.deps, who="ann", why="it was the network")
    world.run(seconds=600)
    assert [one.commits for one in rollouts_of(world) if one.id > before] == [(sha,) for sha in hashes]


@pytest.mark.parametrize("word", ["bar", "unbar"])
def test_a_persons_word_on_one_suspect_ends_the_elimination(world, monkeypatch, word):
    """When a person has barred or cleared one of three, the one that is left at last is not guilty for that."""
    hashes = suspects_of_a_batch(world, monkeypatch)
    getattr(bars, word)("shop", hashes[1], world.deps, who="ann", why="mine")
    world.run(seconds=300)
    assert commit_of(world, hashes[2]).state is CommitState.PASSED


def test_a_revert_of_one_suspect_is_not_to_blame_for_another_one(world, monkeypatch):
    """The middle one of a batch is reverted, and cannot be without the bad last one: that is barred, and so says `show`."""
    hashes = batch_of_three(world, monkeypatch)
    goes_bad(world, hashes[2])
    world.run(seconds=300, until=lambda: all(commit_of(world, sha).suspect for sha in hashes))
    revert = world.push(f"This reverts commit {hashes[1]}.")
    world.run(seconds=900)
    assert world.newest().commits == (hashes[1], hashes[2], revert)
    assert [sha for sha in (*hashes, revert) if commit_of(world, sha).state is CommitState.BARRED] == [
        hashes[2]
    ]
    with world.store.reading() as tx:
        guilty, suspects = bars.blamed(tx, world.newest())
    assert ([one.sha for one in guilty], suspects) == ([hashes[2]], [])


def test_what_is_barred_when_a_revert_comes_again_is_what_why_foresees(world, monkeypatch):
    """A revert of one suspect fails with the other ones, is amended, and comes again: they are barred, not the revert, and none was a mere suspect."""
    monkeypatch.setitem(world.config.app(None).queue.__dict__, "most", 4)
    hashes = suspects_of_a_batch(world, monkeypatch, [digit * 40 for digit in "234"])
    with monkeypatch.context() as patch:
        patch.setattr(planning, "start_next", lambda *_, **__: None)
        world.run(seconds=300, until=lambda: world.newest().state is RolloutState.ROLLED_BACK)
        revert = world.push(f"This reverts commit {hashes[0]}.")
        tested(world, revert)
    with world.store.transaction() as tx:
        batch = [tx.commits.get("shop", sha) for sha in (*hashes, revert)]
        again = dataclasses.replace(world.newest(), commits=tuple(one.sha for one in batch))
        monkeypatch.setattr(bars, "brought_before", lambda _tx, its: (again, its) if len(its) == 4 else None)
        foreseen_of = explaining.why(tx, world.config.app(None), commit_of(world, revert)).because
        bars.after_failure(tx, again, who="bar", why="the same files")
    barred = [sha for sha in (*hashes, revert) if commit_of(world, sha).state is CommitState.BARRED]
    assert barred == hashes[1:]
    assert [commit_of(world, sha).suspect_of for sha in barred] == [None, None]
    assert f"{barred[0][:12]} is barred" in foreseen_of


def test_why_of_what_is_reverted_behind_a_barred_commit_says_that_it_ships_with_its_revert(world):
    """It lies before the barred one, which keeps nothing but its revert."""
    first, barred = (world.workshop.push() for _ in range(2))
    revert = world.workshop.push(f"This reverts commit {first}.")
    read(world)
    bars.bar("shop", barred, world.deps, who="ann", why="slow")
    tested(world, first, barred, revert)
    assert (
        f"{first[:12]} ships only together with {revert[:12]}, which undoes it; {barred[:12]} is barred"
        in (why(world, first).because)
    )
    assert "ships only together" not in why(world, revert).because


def test_who_is_left_is_not_guilty_when_the_other_suspect_was_taken_off_the_branch(world, monkeypatch):
    """The last of three was forced away, perhaps because it was the bad one: the second has a canary of its own, and ships."""
    _, second, third = suspects_of_a_batch(world, monkeypatch)
    world.workshop.commits.pop()
    intake.poll("shop", world.deps, force=True)
    assert not commit_of(world, third).on_branch
    world.run(seconds=300)
    assert set(world.runs().values()) == {second}
    assert commit_of(world, third).state is CommitState.BARRED  # and stays away, under whatever hash


@pytest.mark.parametrize("let_go", [0, 1, 2])
def test_who_lets_one_suspect_go_does_not_send_the_batch_out_together_again(world, monkeypatch, let_go):
    """They go out one by one all the same, also the one that was let go: what failed together is known to be bad."""
    hashes = suspects_of_a_batch(world, monkeypatch)
    before = world.newest().id
    bars.unbar("shop", hashes[let_go], world.deps, who="ann", why="mine is innocent")
    world.run(seconds=900)
    assert [one.commits for one in rollouts_of(world) if one.id > before] == [(sha,) for sha in hashes]
    assert set(world.runs().values()) == {hashes[2]}


def out_again_after_a_persons_word(world, monkeypatch, trees=(None,) * 3):
    """A batch that a person took back and let go: it goes out as it did, and from now on its canary fails."""
    hashes = batch_of_three(world, monkeypatch, trees=trees)
    assert world.settle().state is RolloutState.DONE
    roll_it_back(world)
    world.settle()
    with monkeypatch.context() as patch:
        patch.setattr(planning, "start_next", lambda *_, **__: None)
        for sha in hashes:
            bars.unbar("shop", sha, world.deps, who="ann", why="it was the weather")
    planning.start_next("shop", world.deps)
    assert world.newest().commits == tuple(hashes)
    return hashes


def test_who_was_let_go_before_the_batch_failed_is_a_suspect_like_any_other(world, monkeypatch):
    """The canary has refuted that word: with two more canaries the culprit is found, and not with three."""
    hashes = out_again_after_a_persons_word(world, monkeypatch)
    goes_bad(world, hashes[2])
    world.run(seconds=900)
    assert [one.commits for one in rollouts_of(world)[2:]] == [(sha,) for sha in hashes[:2]]
    assert commit_of(world, hashes[2]).state is CommitState.BARRED


def test_who_was_let_go_before_the_batch_failed_may_be_let_go_once_more(world, monkeypatch):
    """It is suspect anew, and a new word on it is heard."""
    hashes = out_again_after_a_persons_word(world, monkeypatch)
    world.metrics.share_of = lambda _name, role, _at: 0.0 if role == "canary" else 1.0
    world.run(seconds=300, until=lambda: all(commit_of(world, sha).suspect for sha in hashes))
    allowed, lifted = bars.unbar("shop", hashes[1], world.deps, who="ann", why="mine is innocent")
    assert (allowed.suspect, allowed.unbarred, lifted) == (True, True, None)


def test_a_batch_that_was_let_go_and_failed_then_does_not_ship_squashed(world, monkeypatch):
    """What was said of its last commit before it failed is no word on what failed."""
    hashes = out_again_after_a_persons_word(world, monkeypatch, [digit * 40 for digit in "abc"])
    world.metrics.share_of = lambda _name, role, _at: 0.0 if role == "canary" else 1.0
    world.run(seconds=300, until=lambda: all(commit_of(world, sha).suspect for sha in hashes))
    world.metrics.share_of = lambda *_: 1.0
    (squashed,) = made_anew(world, "c" * 40)
    world.run(seconds=300)
    assert commit_of(world, squashed).state is CommitState.BARRED
    assert squashed not in world.runs().values()


def test_who_is_left_is_not_guilty_when_a_person_had_barred_another_one_before_the_batch_failed(
    world, monkeypatch
):
    """The second of three was barred on its way, and may be what failed: the third one is not barred by elimination."""
    hashes = batch_of_three(world, monkeypatch)
    world.metrics.share_of = lambda _name, role, _at: 0.0 if role == "canary" else 1.0
    world.run(seconds=60, until=lambda: world.newest().state is RolloutState.EVALUATING_CANARY)
    bars.bar("shop", hashes[1], world.deps, who="ann", why="wait for the press release")
    world.run(seconds=300, until=lambda: world.newest().state is RolloutState.ROLLING_BACK)
    world.metrics.share_of = lambda *_: 1.0
    world.run(seconds=300)
    assert set(world.runs().values()) == {hashes[0]}
    assert commit_of(world, hashes[2]).state is CommitState.PASSED


def told_of(world, sha):
    with world.store.reading() as tx:
        return explaining.why(tx, world.config.app(None), tx.commits.get("shop", sha)).because


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize(
    "state", [RolloutState.EVALUATING_CANARY, RolloutState.FANNING_OUT, RolloutState.DONE]
)
def test_what_is_barred_on_its_way_or_out_keeps_back_what_comes_after_it(world, monkeypatch, state, which):
    """Its rollout goes on; no other one does without its revert, be it planned already, and all are told."""
    hashes = batch_of_three(world, monkeypatch)
    world.run(seconds=300, until=lambda: world.newest().state is state)
    bad = hashes[which]
    if state is RolloutState.FANNING_OUT:
        world.push()
        world.run(seconds=10, until=lambda: world.newest().is_ahead)
    bars.bar("shop", bad, world.deps, who="ann", why="slow query")
    after = world.push()
    world.run(seconds=300)
    assert set(world.runs().values()) == {hashes[2]}
    assert f"although {bad[:12]} is barred: slow query (what comes after it waits" in told_of(world, bad)
    assert f"{bad[:12]}, which is out already or on its way, is barred" in told_of(world, after)
    fix = world.push(f"This reverts commit {bad}.")
    world.run(seconds=120)
    assert set(world.runs().values()) == {fix}
    assert bad[:12] not in told_of(world, fix)
    last = world.push()
    world.run(seconds=120)
    assert set(world.runs().values()) == {last}


def test_behind_the_fix_that_is_planned_why_tells_when_a_commit_goes_out(world):
    """What is on its way is barred, and what is planned behind it mends that: the next one waits for the two of them only."""
    bad = world.push()
    world.run(seconds=300, until=lambda: world.newest().state is RolloutState.FANNING_OUT)
    bars.bar("shop", bad, world.deps, who="ann", why="slow query")
    fix = world.push(f"This reverts commit {bad}.")
    world.run(seconds=20, until=lambda: world.newest().is_ahead)
    assert (world.newest().commit, world.newest().is_ahead) == (fix, True)
    after = world.workshop.push()
    read(world)
    tested(world, after)
    told = foreseen(world, after)
    assert told.because.endswith("then goes out by itself")
    assert told.expected_at is not None


def test_the_fix_of_what_is_barred_and_out_is_barred_when_it_fails_and_not_tried_for_ever(world):
    """It takes another commit along, which could not go out without it: both together are no suspects that would go out one by one."""
    bad = out_one_by_one(world, 1)[0]
    bars.bar("shop", bad, world.deps, who="ann", why="slow query")
    after = world.push()
    world.run(seconds=60)
    fix = world.push(f"This reverts commit {bad}.")
    goes_bad(world, fix)
    world.run(seconds=300, until=lambda: world.newest().state is RolloutState.ROLLED_BACK)
    assert world.newest().commits == (after, fix)
    assert [commit_of(world, sha).state for sha in (after, fix)] == [CommitState.PASSED, CommitState.BARRED]
    assert not commit_of(world, after).suspect
    assert f"{fix[:12]} is barred" in told_of(world, after)
    world.metrics.share_of = lambda *_: 1.0
    better = world.push(f"Rollout-Fixes: {fix}")
    world.run(seconds=300)
    assert set(world.runs().values()) == {better}


def test_what_is_barred_below_a_batch_on_its_way_makes_none_of_it_guilty(world, monkeypatch):
    """When the three had begun a person barred what runs, which none of them mends: each is a suspect as it was before."""
    runs = world.workshop.commits[0].sha
    hashes = batch_of_three(world, monkeypatch)
    world.metrics.share_of = lambda _name, role, _at: 0.0 if role == "canary" else 1.0
    world.run(seconds=60, until=lambda: world.newest().state is RolloutState.EVALUATING_CANARY)
    bars.bar("shop", runs, world.deps, who="ann", why="slow query")
    world.run(seconds=300, until=lambda: world.newest().state is RolloutState.ROLLED_BACK)
    assert [(one.state, one.suspect) for one in (commit_of(world, sha) for sha in hashes)] == [
        (CommitState.PASSED, True)
    ] * 3


@pytest.mark.parametrize("way", ["unbar", "deploy --now"])
def test_a_person_lets_go_what_comes_after_what_is_barred_and_out(world, way):
    """By lifting the bar, or by wanting the next one out all the same: then the one after it goes out by itself."""
    bad = out_one_by_one(world, 1)[0]
    bars.bar("shop", bad, world.deps, who="ann", why="slow query")
    after = world.push()
    world.run(seconds=60)
    assert set(world.runs().values()) == {bad}
    if way == "unbar":
        bars.unbar("shop", bad, world.deps, who="ann", why="it was the network")
    else:
        wish = intake.Wish("it is urgent", "ann")
        intake.enqueue(world.config.app(None), after, world.deps, who="ann", now=wish)
    world.run(seconds=120)
    last = world.push()
    world.run(seconds=120)
    assert set(world.runs().values()) == {last}


def test_a_bar_says_what_it_does_not_keep_back(world):
    """Of what runs, that it stays there and what comes after it waits; of what is older, that this does not."""
    older, runs = out_one_by_one(world, 2)
    for sha, says in (
        (older, f"inside of {runs[:12]}, which runs: what comes after that goes on"),
        (runs, "waits"),
    ):
        bars.bar("shop", sha, world.deps, who="ann", why="slow query")
        with world.store.reading() as tx:
            assert says in bars.what_a_bar_leaves(tx, commit_of(world, sha))


def test_a_bar_on_what_runs_names_what_is_on_its_way_behind_it(world):
    """That is what the next one follows, and what is to be barred so that nothing goes on; to bar what runs again does nothing."""
    runs = out_one_by_one(world, 1)[-1]
    following = world.push()
    world.run(seconds=300, until=lambda: world.newest().state is RolloutState.EVALUATING_CANARY)
    bars.bar("shop", runs, world.deps, who="ann", why="slow query")
    with world.store.reading() as tx:
        told = bars.what_a_bar_leaves(tx, commit_of(world, runs))
    assert told.startswith(
        f"it is out, inside of {following[:12]}, which is on its way: what comes after that goes on"
    )
    assert f"rollout bar {following[:12]}" in told


def test_a_bar_leaves_nothing_of_what_has_the_place_of_what_runs_and_was_forced_off(world):
    """An amended commit that nobody has is not out for standing where what runs stood."""
    out_one_by_one(world, 2)
    world.workshop.commits.pop()
    amended = "d" * 40
    place = len(world.workshop.commits) + 1
    world.workshop.commits.append(BranchCommit(amended, place, "amended", "Ann", "amended"))
    read(world)
    tested(world, amended)
    bars.bar("shop", amended, world.deps, who="ann", why="slow query")
    with world.store.reading() as tx:
        assert bars.what_a_bar_leaves(tx, commit_of(world, amended)) is None


def test_why_tells_of_the_failed_canary_of_what_a_person_had_barred_before(world):
    """On its way somebody bars it for another reason: both are told, in one sentence with the way at its end, and where the rest is."""
    bad = world.push()
    goes_bad(world, bad)
    world.run(seconds=60, until=lambda: world.newest().state is RolloutState.EVALUATING_CANARY)
    bars.bar("shop", bad, world.deps, who="ann", why="wait for the press release")
    assert world.settle().state is RolloutState.ROLLED_BACK
    with world.store.reading() as tx:
        told = explaining.why(tx, world.config.app(None), commit_of(world, bad)).because
    assert told.startswith("barred: wait for the press release; and: canary failed: ")
    assert told.endswith(
        "(rollout show 2); a later commit that says so may mend it, or: rollout unbar 000000000000 (for all of that)"
    )
    assert ". " not in told


def test_what_stands_between_reasons_divides_none_that_a_person_gave(world):
    """Whoever writes it has given one reason, and `why` tells of one."""
    sha = world.push()
    bars.bar("shop", sha, world.deps, who="ann", why="it is slow; and: it leaks")
    world.run(seconds=30)
    assert commit_of(world, sha).state is CommitState.BARRED
    assert bars.reasons(commit_of(world, sha).reason) == ["it is slow; and it leaks"]


def test_nothing_is_promised_of_the_last_suspect_nor_behind_it(world, monkeypatch):
    """When all goes well it is barred without a canary: foreseen before the isolation begins, and while the first one is under way."""
    hashes = suspects_of_a_batch(world, monkeypatch)
    app = world.config.app(None)

    def told():
        with world.store.reading() as tx:
            return [explaining.why(tx, app, tx.commits.get("shop", sha)) for sha in (*hashes, later)]

    def is_told():
        first, second, *never = told()
        assert None not in (first.expected_at, second.expected_at)
        stuck = f"; once the others of its batch are out and well, {hashes[2][:12]} is barred, and so is all"
        assert all(one.expected_at is None and stuck in one.because for one in never)

    with monkeypatch.context() as patch:
        patch.setattr(planning, "start_next", lambda *_, **__: None)
        later = world.push()
        world.run(seconds=60)
        is_told()
    world.run(seconds=60, until=lambda: world.newest().state is RolloutState.EVALUATING_CANARY)
    assert world.newest().commits == (hashes[0],)
    is_told()
    fix = world.push(f"This reverts commit {hashes[2]}.")
    assert told()[3].because.endswith("then goes out with 2 others")
    world.run(seconds=900)
    assert set(world.runs().values()) == {fix}


@pytest.mark.parametrize("word", ["bar", "unbar"])
def test_a_word_on_one_batch_says_nothing_of_another(world, monkeypatch, word):
    """A batch is forced away, the next one goes wrong too; who bars one of the first does not send the second out together."""
    first = suspects_of_a_batch(world, monkeypatch)
    del world.workshop.commits[1:]
    second = suspects_of_a_batch(world, monkeypatch, "abc")
    getattr(bars, word)("shop", first[0], world.deps, who="ann", why="mine")
    assert all(commit_of(world, sha).suspect for sha in second)


@pytest.mark.parametrize("culprit", [1, 2, 3])
def test_a_batch_that_went_wrong_and_is_rebased_goes_out_one_by_one(world, monkeypatch, culprit):
    """Other hashes, the same files: they do not go out together once more, and the culprit is found among them as it would have been."""
    before = suspects_of_a_batch(world, monkeypatch)
    trees = [digit * 40 for digit in "bcd"]
    for sha, tree in zip(before, trees, strict=True):
        kept_by_git(world, sha, tree)
    read(world)
    del world.workshop.commits[1:]
    again = batch_of_three(world, monkeypatch, "789", trees)
    goes_bad(world, again[culprit - 1])
    world.run(seconds=900)
    assert [one.commits for one in rollouts_of(world)[1:]] == [(sha,) for sha in again[: min(culprit, 2)]]
    assert commit_of(world, again[culprit - 1]).state is CommitState.BARRED
    assert not any(commit_of(world, sha).suspect for sha in [*before, *again[culprit:]])


def made_anew(world, *trees, message="squashed"):
    """What waits is forced away for as many commits as there are trees; all of them have passed before anything goes out."""
    with world.store.reading() as tx:
        runs = planning.released(tx, "shop").position
    del world.workshop.commits[runs:]
    for number, tree in enumerate(trees):
        sha = f"{7 + number}" * 40
        world.workshop.commits.append(
            BranchCommit(sha, runs + 1 + number, message, "Ann", message, tree=tree)
        )
    read(world)
    hashes = [one.sha for one in world.workshop.commits[runs:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "start_next", lambda *_, **__: None)
        for sha in hashes:
            testing.run_tests(commit_of(world, sha).id, world.deps)
    return hashes


def a_failed_batch(world, monkeypatch, culprit=None):
    """Its last commit has the files `c`; `culprit`: from 0, it was found."""
    hashes = batch_of_three(world, monkeypatch, trees=[digit * 40 for digit in "abc"])
    if culprit is None:
        world.metrics.share_of = lambda _name, role, _at: 0.0 if role == "canary" else 1.0
        with monkeypatch.context() as patch:
            patch.setattr(planning, "start_next", lambda *_, **__: None)
            world.run(seconds=300, until=lambda: world.newest().state is RolloutState.ROLLED_BACK)
        assert all(commit_of(world, sha).suspect for sha in hashes)
    else:
        goes_bad(world, hashes[culprit])
        world.run(seconds=900)
        assert commit_of(world, hashes[culprit]).state is CommitState.BARRED
    world.metrics.share_of = lambda *_: 1.0
    return hashes


@pytest.mark.parametrize("culprit", [None, 0, 1])
def test_a_batch_that_went_wrong_does_not_ship_again_squashed(world, monkeypatch, culprit):
    """One commit with its very files, whether or not somebody knows which of the three was bad: that one of them was is known."""
    hashes = a_failed_batch(world, monkeypatch, culprit)
    before = world.newest().id
    (squashed,) = made_anew(world, "c" * 40)
    world.run(seconds=300)
    assert (world.newest().id, commit_of(world, squashed).state) == (before, CommitState.BARRED)
    assert commit_of(world, squashed).reason.startswith(
        "the same files as rollout 2 brought, which was taken back"
    )
    assert squashed not in world.runs().values()
    assert commit_of(world, hashes[2]).state is CommitState.PASSED


def foreseen(world, sha):
    with world.store.reading() as tx:
        return explaining.why(tx, world.config.app(None), tx.commits.get("shop", sha))


def test_what_was_taken_back_is_promised_nothing_before_its_turn_either(world, monkeypatch):
    """Squashed, it will be barred when it is planned; until then it waits in the queue, and `why` asks what planning will."""
    a_failed_batch(world, monkeypatch, 0)
    (squashed,) = made_anew(world, "c" * 40)
    told = foreseen(world, squashed)
    assert told.because.startswith(
        "tested; when its turn comes, as rollout 2 brought the same files and was taken back,"
        f" {squashed[:12]} is barred, and so is all that comes after it"
    )
    assert told.expected_at is None


def test_what_is_cut_otherwise_is_told_to_go_out_one_by_one_and_the_last_one_not_at_all(world, monkeypatch):
    """They have waited for long, and would go out together: as planning will have it, the first goes alone, and the last never."""
    a_failed_batch(world, monkeypatch, 0)
    first, second, last = made_anew(world, "d" * 40, "e" * 40, "c" * 40)
    with world.store.transaction() as tx:
        for sha in (first, second, last):
            tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 1500.0)
    assert foreseen(world, first).because == "tested, then goes out by itself"
    assert foreseen(world, second).because == "tested, 1 rollout before it, then goes out by itself"
    told = foreseen(world, last)
    assert told.because.startswith(
        f"tested; once the others of its batch are out and well, {last[:12]} is barred"
    )
    assert told.expected_at is None


def test_a_batch_that_went_wrong_and_is_cut_otherwise_goes_out_one_by_one(world, monkeypatch):
    """Other files in between and the same in the end: not together, and the last one not at all, as nothing else is left of it."""
    a_failed_batch(world, monkeypatch)
    before = world.newest().id
    again = made_anew(world, "d" * 40, "e" * 40, "c" * 40)
    world.run(seconds=900)
    assert [one.commits for one in rollouts_of(world) if one.id > before] == [(sha,) for sha in again[:2]]
    assert commit_of(world, again[2]).state is CommitState.BARRED


@pytest.mark.parametrize("way", ["a trailer", "unbar", "deploy --now"])
def test_a_persons_word_counts_more_than_that_the_same_files_went_wrong(world, monkeypatch, way):
    """What was wrong was elsewhere: the squashed batch ships."""
    hashes = a_failed_batch(world, monkeypatch)
    trailer = f"\n\nRollout-Fixes: {hashes[0]}" if way == "a trailer" else ""
    (squashed,) = made_anew(world, "c" * 40, message=f"squashed{trailer}")
    if way == "deploy --now":
        wish = intake.Wish("it was the network", "ann")
        intake.enqueue(world.config.app(None), squashed, world.deps, who="ann", now=wish)
    world.run(seconds=120)
    if way == "unbar":
        bars.unbar("shop", squashed, world.deps, who="ann", why="it was the network")
    world.run(seconds=200)
    assert set(world.runs().values()) == {squashed}


def test_the_culprit_that_is_let_go_is_not_tried_together_with_its_batch_again(world, monkeypatch):
    """It was found by its own canary, and a person unbars it: what failed together goes out one by one still."""
    hashes = a_failed_batch(world, monkeypatch, 0)
    before = world.newest().id
    bars.unbar("shop", hashes[0], world.deps, who="ann", why="it was the network")
    world.run(seconds=900)
    assert [one.commits for one in rollouts_of(world) if one.id > before] == [(sha,) for sha in hashes]


@pytest.mark.parametrize("found", [False, True])
def test_a_word_on_the_last_suspect_is_none_on_the_whole_batch(world, monkeypatch, found):
    """The last one of three is let go, and has a way of its own; squashed into one commit the three wait for a person all the same."""
    hashes = a_failed_batch(world, monkeypatch)
    bars.unbar("shop", hashes[2], world.deps, who="ann", why="mine is innocent")
    if found:  # it is a suspect no more then
        goes_bad(world, hashes[1])
        planning.start_next("shop", world.deps)
        world.run(seconds=900)
        assert commit_of(world, hashes[1]).state is CommitState.BARRED
        world.metrics.share_of = lambda *_: 1.0
        roll_it_back(world)
        world.settle()
    (squashed,) = made_anew(world, "c" * 40)
    world.run(seconds=300)
    assert commit_of(world, squashed).state is CommitState.BARRED
    assert squashed not in world.runs().values()


def test_who_lets_the_culprit_go_lets_its_files_go_too(world, monkeypatch):
    """The last one of three was found, and it was the network after all: it goes out, also when its message is amended."""
    hashes = a_failed_batch(world, monkeypatch, 2)
    assert set(world.runs().values()) == {hashes[1]}
    with monkeypatch.context() as patch:
        patch.setattr(planning, "start_next", lambda *_, **__: None)
        bars.unbar("shop", hashes[2], world.deps, who="ann", why="it was the network")
    (amended,) = made_anew(world, "c" * 40)
    world.run(seconds=300)
    assert set(world.runs().values()) == {amended}


def test_a_suspect_that_comes_back_is_one_again(world, monkeypatch):
    """What was forced away for its rebased self, which is suspected in its place, is forced back."""
    hashes = suspects_of_a_batch(world, monkeypatch)
    world.run(seconds=60, until=lambda: world.newest().commit == hashes[0])
    kept_by_git(world, hashes[2], "d" * 40)
    read(world)
    first = world.workshop.commits[-1]
    again = dataclasses.replace(first, sha="7" * 40)
    for one, other in ((again, first), (first, again)):
        world.workshop.commits[-1] = one
        read(world)
        if one is again:
            testing.run_tests(commit_of(world, again.sha).id, world.deps)
        assert (commit_of(world, one.sha).suspect, commit_of(world, other.sha).suspect) == (True, False)


def test_who_was_let_go_is_not_suspected_for_a_twins_sake(world, monkeypatch):
    """A person has cleared it, or its author says that it mends what is suspected."""
    hashes = suspects_of_a_batch(world, monkeypatch)
    kept_by_git(world, hashes[2], "d" * 40)
    read(world)
    for message in ("a change", f"once more\n\nRollout-Fixes: {hashes[2]}"):
        sha = ("8" if message == "a change" else "9") * 40
        world.workshop.commits[-1] = dataclasses.replace(world.workshop.commits[-1], sha=sha, message=message)
        read(world)
        if message == "a change":
            bars.bar("shop", sha, world.deps, who="ann", why="no")
            bars.unbar("shop", sha, world.deps, who="ann", why="checked")
        testing.run_tests(commit_of(world, sha).id, world.deps)
        assert commit_of(world, sha).state is CommitState.PASSED
        assert not commit_of(world, sha).suspect


def same_release(world, monkeypatch, sha, other):
    """Both have the same bytes."""
    build = world.workshop.build

    def built(app, config, commit, needed):
        if commit == sha:
            return Release(sha, other + "0" * 24, f"/nowhere/{sha}.tar.gz", 1000), model.TestResult(
                True, "built", ""
            )
        return build(app, config, commit)

    monkeypatch.setattr(world.workshop, "build", built)


def barred(world):
    """A commit whose canary answered errors."""
    bad = world.push()
    goes_bad(world, bad)
    world.settle()
    world.run(seconds=60)
    assert commit_of(world, bad).state is CommitState.BARRED
    world.metrics.share_of = lambda *_: 1.0
    return bad


def amended(world, number):
    """The newest commit of the branch, under another hash."""
    again = f"{number:x}" * 40
    position = len(world.workshop.commits)
    world.workshop.commits[-1] = BranchCommit(again, position, "amended", "Ann", "amended")
    return again


def test_the_same_bytes_do_not_ship_under_another_hash(world, monkeypatch):
    """An amended commit of a barred one, or a revert of its revert, is barred when it passes, until a person says otherwise."""
    bad = barred(world)
    again = amended(world, 15)
    same_release(world, monkeypatch, again, bad)
    intake.poll("shop", world.deps, force=True)
    world.run(seconds=120)
    commit = commit_of(world, again)
    assert commit.state is CommitState.BARRED
    assert f"the same bytes as {bad[:12]}" in commit.reason
    assert again not in world.runs().values()
    bars.unbar("shop", again, world.deps, who="me", why="it was the network")
    world.run(seconds=120)
    assert set(world.runs().values()) == {again}


def test_the_word_of_a_person_lifts_also_the_bar_of_bytes(world, monkeypatch):
    """A commit that changes nothing and says that it mends the barred one ships: what was wrong was elsewhere."""
    bad = barred(world)
    fix = f"{3:040x}"
    same_release(world, monkeypatch, fix, bad)
    world.workshop.commits.append(BranchCommit(fix, 3, "Again", "Ann", f"Again\n\nRollout-Fixes: {bad}"))
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    world.run(seconds=120)
    assert set(world.runs().values()) == {fix}


def test_bytes_that_the_fleet_runs_are_not_barred_for_a_neighbours_sake(world, monkeypatch):
    """A commit that changes nothing in the release was barred: the one that undoes it ships."""
    good = f"{1:040x}"
    same_release(world, monkeypatch, f"{2:040x}", good)
    bad = barred(world)
    fix = f"{3:040x}"
    same_release(world, monkeypatch, fix, good)
    world.workshop.commits.append(BranchCommit(fix, 3, "Revert", "Ann", f"This reverts commit {bad}."))
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    world.run(seconds=120)
    assert set(world.runs().values()) == {fix}


@pytest.mark.parametrize("way", ["webhook", "poll", "sweep", "deploy of the head", "retry", "resume"])
def test_after_a_rollback_nothing_ships_the_same_again(world, way):
    """Neither a replayed webhook, nor the poller, nor the reconciler, nor a deploy without --now, nor a retry of the rollout."""
    bad = world.push()
    assert world.settle().state is RolloutState.DONE
    stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="me", why="it is slow")
    world.run(seconds=120)
    match way:
        case "webhook":
            push = Push("github", "again", "push", full_name="ann/shop", branch="main", head=bad)
            intake.receive_all([(push, world.config.app(None))], world.deps)
        case "poll":
            intake.poll("shop", world.deps, force=True)
        case "sweep":
            reconcile.sweep(world.deps)
        case "deploy of the head":
            with pytest.raises(Conflict, match="is barred"):
                intake.enqueue(world.config.app(None), None, world.deps, who="me")
        case "retry" | "resume":
            with pytest.raises(Conflict):
                getattr(halts, way)(world.newest().id, world.deps, who="me")
    world.run(seconds=300)
    assert set(world.runs().values()) == {f"{1:040x}"}
    assert world.newest().state is RolloutState.ROLLED_BACK


def test_the_revert_of_the_revert_does_not_ship(world, monkeypatch):
    """The revert goes out; what brings the bad bytes back is barred when it passes."""
    bad = barred(world)
    revert = world.push(f"This reverts commit {bad}.")
    world.run(seconds=120)
    assert set(world.runs().values()) == {revert}
    again = f"{4:040x}"
    same_release(world, monkeypatch, again, bad)
    assert world.push(f"This reverts commit {revert}.") == again
    world.run(seconds=120)
    assert commit_of(world, again).state is CommitState.BARRED
    assert set(world.runs().values()) == {revert}


def test_a_twin_that_has_passed_already_is_barred_with_the_first(world, monkeypatch):
    """It waits in the queue, tested, when its bytes fail under the other hash."""
    bad, twin = f"{2:040x}", f"{3:040x}"
    same_release(world, monkeypatch, twin, bad)
    world.push()
    goes_bad(world, bad)
    world.run(seconds=60, until=lambda: world.newest().commit == bad)
    world.push()
    world.run(seconds=1, until=lambda: commit_of(world, twin).state is CommitState.PASSED)
    assert commit_of(world, twin).state is CommitState.PASSED
    world.run(seconds=300)
    assert commit_of(world, twin).state is CommitState.BARRED
    assert set(world.runs().values()) == {f"{1:040x}"}


def kept_by_git(world, sha, tree):
    """Git says what is in this commit of the branch."""
    commits = world.workshop.commits
    at = next(number for number, one in enumerate(commits) if one.sha == sha)
    commits[at] = dataclasses.replace(commits[at], tree=tree)


def the_same_files_again(world):
    """A barred commit, its revert, which is out, and what brings the barred one's files back in other bytes."""
    bad = barred(world)
    kept_by_git(world, bad, "b" * 40)
    revert = world.push(f"This reverts commit {bad}.")
    world.run(seconds=120)
    assert set(world.runs().values()) == {revert}
    world.workshop.push(f"This reverts commit {revert}.", tree="b" * 40)
    read(world)
    world.run(seconds=120)
    return bad, revert, f"{4:040x}"


def test_the_same_files_do_not_ship_again_although_their_build_never_gives_the_same_bytes(world):
    """A revert of the revert is barred by git's own hash of what is in it, and says of which commit."""
    bad, revert, again = the_same_files_again(world)
    commit = commit_of(world, again)
    assert commit.digest != commit_of(world, bad).digest
    assert (commit.state, commit.same_as) == (CommitState.BARRED, bad)
    assert f"the same files as {bad[:12]}" in commit.reason
    assert set(world.runs().values()) == {revert}


def test_an_unbar_lets_those_go_that_were_barred_for_being_the_same(world):
    """Nothing else holds them; the new push of the same files is not barred either."""
    bad, _, again = the_same_files_again(world)
    bars.unbar("shop", bad, world.deps, who="me", why="it was the network")
    assert commit_of(world, again).state is CommitState.PASSED
    world.run(seconds=120)
    assert set(world.runs().values()) == {again}
    world.workshop.push("once more", tree="b" * 40)
    read(world)
    world.run(seconds=120)
    assert set(world.runs().values()) == {f"{5:040x}"}


def test_an_unbar_does_not_let_go_of_what_is_barred_for_its_own_sake_too(world):
    """A person barred the twin by name: unbarring the first says nothing of it."""
    bad, revert, again = the_same_files_again(world)
    bars.bar("shop", again, world.deps, who="me", why="not this one either")
    bars.unbar("shop", bad, world.deps, who="me", why="it was the network")
    world.run(seconds=120)
    assert commit_of(world, again).reason == "not this one either"
    assert set(world.runs().values()) == {revert}


def test_an_unbar_does_not_let_go_of_what_is_the_same_as_another_barred_one(world):
    """The same files were barred twice for their own sake: one word is not enough."""
    bad, _, again = the_same_files_again(world)
    bars.unbar("shop", again, world.deps, who="me", why="once more")
    bars.bar("shop", again, world.deps, who="me", why="no, it is bad")
    third = world.workshop.push("once more", tree="b" * 40)
    read(world)
    world.run(seconds=120)
    assert commit_of(world, third).same_as == again
    bars.unbar("shop", again, world.deps, who="me", why="it was the network")
    assert (commit_of(world, third).state, commit_of(world, third).same_as) == (CommitState.BARRED, bad)


def test_files_that_the_fleet_runs_are_not_barred_for_a_neighbours_sake(world):
    """An empty commit failed its canary: the files are those that run well, and the next push of them ships."""
    kept_by_git(world, f"{1:040x}", "a" * 40)
    bad = barred(world)
    kept_by_git(world, bad, "a" * 40)
    fix = world.workshop.push(f"This reverts commit {bad}.", tree="a" * 40)
    read(world)
    world.run(seconds=120)
    assert set(world.runs().values()) == {fix}


def test_the_word_of_a_person_lifts_also_the_bar_of_files(world):
    """A commit with the same files that says that it mends the barred one ships."""
    bad = barred(world)
    kept_by_git(world, bad, "b" * 40)
    fix = world.workshop.push(f"Again\n\nRollout-Fixes: {bad}", tree="b" * 40)
    read(world)
    world.run(seconds=120)
    assert set(world.runs().values()) == {fix}


def test_a_tested_twin_of_the_same_files_is_barred_with_the_first(world):
    """It waits in the queue when its files fail under the other hash."""
    bad, twin = f"{2:040x}", f"{3:040x}"
    world.workshop.push(tree="b" * 40)
    read(world)
    goes_bad(world, bad)
    world.run(seconds=60, until=lambda: world.newest().commit == bad)
    world.workshop.push(tree="b" * 40)
    read(world)
    world.run(seconds=1, until=lambda: commit_of(world, twin).state is CommitState.PASSED)
    assert commit_of(world, twin).state is CommitState.PASSED
    world.run(seconds=300)
    assert (commit_of(world, twin).state, commit_of(world, twin).same_as) == (CommitState.BARRED, bad)


def test_a_rolled_back_rollout_is_not_retried(world):
    """`retry` of it is refused, and nothing goes out."""
    world.push()
    world.settle()
    stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="me", why="it is slow")
    rolled = world.settle()
    with pytest.raises(Conflict):
        halts.retry(rolled.id, world.deps, who="me")
    world.run(seconds=120)
    assert world.newest().id == rolled.id
    assert set(world.runs().values()) == {f"{1:040x}"}


@pytest.mark.parametrize(
    ("later", "ships"),
    [
        (("a change",), False),
        (("This reverts commit {bad}",), True),
        (("Rollout-Fixes: {bad}",), True),
        (("This reverts commit {bad}", "This reverts commit {fix}"), False),
    ],
)
def test_what_was_barred_before_the_first_release_keeps_the_head_back(tmp_path, monkeypatch, later, ships):
    """The head has all that is older in it: it waits for a revert of the first commit that went wrong, also before anything is out."""
    world = World(tmp_path, monkeypatch, hosts=3)
    bad = world.push()
    world.run(until=lambda: world.newest() is not None)
    stopping.stop(world.newest().id, world.deps, who="ann", why="it is bad")
    world.settle()
    fix = bad
    for message in later:
        head = fix = world.push(message.format(bad=bad, fix=fix))
        testing.run_tests(commit_of(world, head).id, world.deps)
    world.run(seconds=60)
    with world.store.reading() as tx:
        told = planning.waits_for(world.config.app(None), tx)
    assert (world.newest().commit == head) is ships, told
    assert ships or "is barred" in told


def old_suspects_without_the_archive_of(world, monkeypatch, number):
    """Suspects of a batch that have waited past the goal; the archive of one of them made room, and nothing runs."""
    hashes = suspects_of_a_batch(world, monkeypatch)

    def over():
        return world.newest().state is RolloutState.ROLLED_BACK

    with monkeypatch.context() as patch:
        patch.setattr(planning, "start_next", lambda *_, **__: None)
        world.run(seconds=300, until=over)
    assert over()
    with world.store.transaction() as tx:
        for sha in hashes:
            tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 9000.0)
    world.workshop.gone.add(hashes[number])
    return hashes


def test_a_suspect_whose_archive_is_built_again_goes_out_alone_all_the_same(world, monkeypatch):
    """However long it has waited: the next suspect does not take it along, and only the guilty one is barred."""
    hashes = old_suspects_without_the_archive_of(world, monkeypatch, 0)
    goes_bad(world, hashes[2])
    before = world.newest().id
    assert planning.start_next("shop", world.deps) is None
    assert commit_of(world, hashes[0]).is_built_again
    assert planning.start_next("shop", world.deps) is None
    with world.store.reading() as tx:
        waits = planning.waits_for(world.config.app(None), tx)
    assert waits == f"waits for the archive of {hashes[0][:12]}, which is built again"
    world.run(seconds=900)
    assert [one.commits for one in rollouts_of(world) if one.id > before] == [(sha,) for sha in hashes[:2]]
    states = [commit_of(world, sha).state for sha in hashes]
    assert states == [CommitState.PASSED, CommitState.PASSED, CommitState.BARRED]


def test_a_suspect_whose_archive_is_built_again_is_still_one_of_its_batch(world, monkeypatch):
    """Wanted by a person, it is built while an older one goes out: of the two that are left none is the culprit by elimination."""
    hashes = old_suspects_without_the_archive_of(world, monkeypatch, 1)
    intake.enqueue(world.config.app(None), hashes[1], world.deps, who="ann", now=intake.Wish("urgent", "ann"))
    assert commit_of(world, hashes[1]).is_built_again
    first = planning.start_next("shop", world.deps)
    assert first.commits == (hashes[0],)
    with world.store.transaction() as tx:
        bars.after_success(tx, first, who="test")
    assert not commit_of(world, hashes[2]).bar_wanted
    assert commit_of(world, hashes[2]).state is CommitState.PASSED


def test_why_of_what_a_rollback_went_past_says_what_became_of_it(world, monkeypatch):
    """It went out once, and was taken back with what came after it: the bar is told and what lifts it, and then its next turn."""
    first, past, last = out_one_by_one(world, 3)
    stopping.roll_back_done(world.config.app(None), world.deps, to=first, who="ann", why="slow")
    world.run(seconds=60)
    assert set(world.runs().values()) == {first}
    assert [why(world, sha).because.startswith("barred: slow") for sha in (past, last)] == [True, True]
    assert why(world, first).because.startswith("went out")
    monkeypatch.setattr(planning, "start_next", lambda *_, **__: None)
    bars.unbar("shop", past, world.deps, who="ann", why="it was the network")
    assert why(world, past).because.startswith("tested")


def by_its_canary(world):
    """The bad commit, found by its canary."""
    bad = world.push()
    goes_bad(world, bad)
    world.settle()
    return bad


def inside_a_merge(world):
    """The bad commit, barred by a person, that came in with a merge."""
    _, (bad, _) = world.workshop.merge("one", "two")
    read(world)
    bars.bar("shop", bad, world.deps, who="ann", why="slow")
    world.metrics.share_of = lambda _name, role, _at: 0.0 if role == "canary" else 1.0
    return bad


@pytest.mark.parametrize("barred", [by_its_canary, inside_a_merge])
def test_what_was_barred_before_explains_why_a_batch_went_wrong(world, barred):
    """A person ships what comes after it, which fails: nobody else is barred, and the fix lets all of them go."""
    bad = barred(world)
    later = world.push()
    world.run(seconds=30)
    before = world.newest().id
    wish = intake.Wish("hurry", "ann")
    intake.enqueue(world.config.app(None), later, world.deps, who="ann", now=wish)
    world.run(
        seconds=200,
        until=lambda: world.newest().state is RolloutState.ROLLED_BACK and world.newest().id > before,
    )
    failed = world.newest()
    assert failed.commit == later
    assert len(failed.commits) == 2
    assert (commit_of(world, later).state, commit_of(world, later).suspect) == (CommitState.PASSED, True)
    with world.store.reading() as tx:
        told = [event.why for event in tx.events.of_rollout(failed.id) if event.what == "explained"]
    assert told == [f"nobody else is barred: {bad[:12]}, which it brought, was barred before"]
    world.metrics.share_of = lambda *_: 1.0
    fix = world.push(f"Mend it\n\nThis reverts commit {bad}.")
    world.run(seconds=300)
    assert world.newest().commits == (*failed.commits, fix)
    assert set(world.runs().values()) == {fix}


def test_what_a_person_has_barred_and_goes_wrong_alone_is_barred_for_that_too(world):
    """It explains nothing but itself."""
    bad = world.push()
    world.run(
        seconds=200,
        until=lambda: world.newest().commit == bad and world.newest().state is RolloutState.EVALUATING_CANARY,
    )
    bars.bar("shop", bad, world.deps, who="ann", why="slow")
    goes_bad(world, bad)
    assert world.settle().state is RolloutState.ROLLED_BACK
    assert [reason.partition(" ")[0] for reason in bars.reasons(commit_of(world, bad).reason)] == [
        "slow",
        "canary",
    ]


def test_a_bar_that_is_said_while_a_batch_is_on_its_way_explains_nothing(world, monkeypatch):
    """Automation ships nothing that is barred: what fails is suspect, or barred, as ever."""
    hashes = batch_of_three(world, monkeypatch)
    world.run(seconds=200, until=lambda: world.newest().state is RolloutState.EVALUATING_CANARY)
    assert world.newest().commits == tuple(hashes)
    bars.bar("shop", hashes[0], world.deps, who="ann", why="slow")
    goes_bad(world, hashes[2])
    world.run(seconds=200, until=lambda: world.newest().state is RolloutState.ROLLED_BACK)
    last = commit_of(world, hashes[2])
    assert last.suspect or last.is_barred


@pytest.mark.parametrize("reverted", [False, True])
def test_a_red_one_that_was_taken_along_is_named_with_who_is_barred(world, reverted):
    """It may be what was wrong, unless the barred one undoes it."""
    world.push()
    world.settle()
    red = world.push(fails=True)
    world.run(seconds=60)
    message = f"This reverts commit {red}." if reverted else "a change"
    world.metrics.share_of = lambda _name, role, _at: 0.0 if role == "canary" else 1.0
    later = world.push(message)
    failed = world.settle()
    assert failed.commits == (red, later)
    barred = commit_of(world, later)
    assert barred.state is CommitState.BARRED
    along = f", or what it took along without a passed test did: {red[:12]} (rollout show {failed.id})"
    assert barred.reason.endswith(along) is not reverted


def test_who_is_left_of_a_batch_is_barred_with_the_red_one_that_was_taken_along(world):
    """[good, red, last] fails, and the good one goes out alone: the revert of the red one lets the last one go too."""
    good_ones = []
    world.metrics.share_of = lambda _name, role, _at: float(
        role != "canary" or world.newest().commit in good_ones
    )
    freezes.freeze(world.config.app(None), world.deps, who="ann", why="lunch", until=None)
    good, red, last = world.push(), world.push(fails=True), world.push()
    good_ones.append(good)
    world.run(seconds=60)
    world.seconds += 2000
    freezes.unfreeze(world.config.app(None), world.deps, who="ann", why="back")
    world.run(seconds=900, until=lambda: commit_of(world, last).state is CommitState.BARRED)
    batch = next(one.id for one in rollouts_of(world) if one.commits == (good, red, last))
    barred = commit_of(world, last)
    assert barred.reason.endswith(
        f", or what it took along without a passed test did: {red[:12]} (rollout show {batch})"
    )
    good_ones.append(world.push(f"This reverts commit {red}."))
    world.run(seconds=400, until=lambda: set(world.runs().values()) == {good_ones[-1]})
    assert set(world.runs().values()) == {good_ones[-1]}


@pytest.mark.parametrize(("first", "person"), [("head", None), ("red", None), ("head", "ann")])
def test_the_revert_of_what_rode_along_lets_the_innocent_go(world, monkeypatch, first, person):
    """[red, head] fails, and with the revert of one of them again: that of the other one lets all of them go, but not what a person has barred too."""
    monkeypatch.setitem(world.config.app("shop").queue.__dict__, "most", 5)
    named = {"red": world.push(fails=True), "head": world.push()}
    bad = {named["head"]}
    world.metrics.share_of = lambda _name, role, _at: float(
        role != "canary" or world.newest().commit not in bad
    )

    def is_barred(sha):
        return lambda: commit_of(world, sha).state is CommitState.BARRED

    world.run(until=is_barred(named["head"]), seconds=300)
    wrong = world.push(f"This reverts commit {named.pop(first)}.")
    bad.add(wrong)
    world.run(until=is_barred(wrong), seconds=300)
    assert commit_of(world, wrong).state is CommitState.BARRED
    if person:
        bars.bar("shop", wrong, world.deps, who=person, why="it looks odd")
    fix = world.push(f"This reverts commit {named.popitem()[1]}.")
    world.run(until=lambda: set(world.runs().values()) == {fix}, seconds=300)
    assert (set(world.runs().values()) == {fix}) is (person is None)


@pytest.mark.parametrize("meanwhile", ["passed", "built again"])
def test_what_has_passed_since_explains_no_bar_any_more(world, meanwhile):
    """Also while its archive is built again: a revert of it lets nobody go that went wrong together with it."""
    red = world.push(fails=True)
    world.run(seconds=60)
    world.metrics.share_of = lambda _name, role, _at: 0.0 if role == "canary" else 1.0
    head = world.push()
    world.settle()
    world.metrics.share_of = lambda *_: 1.0

    def may_be_bad_instead():
        with world.store.reading() as tx:
            return bars.candidate(tx.commits.get("shop", head), tx).took_along

    assert may_be_bad_instead() == {red}
    world.workshop.failing.clear()
    intake.enqueue(world.config.app(None), red, world.deps, who="ann")
    tested(world, red)
    if meanwhile == "built again":
        world.workshop.gone.add(red)
        with world.store.transaction() as tx:
            assert planning.is_built_again(tx, tx.commits.get("shop", red), world.deps)
    assert may_be_bad_instead() == frozenset()


def hurried(world, sha):
    wish = intake.Wish("hurry", "ann")
    intake.enqueue(world.config.app(None), sha, world.deps, who="ann", now=wish)


def barred_and_past_it(world, many=1):
    """A person has barred a good commit, and another one ships what comes after it, the last of which is bad: it is taken back."""
    good = world.push()
    bars.bar("shop", good, world.deps, who="ann", why="not before Monday")
    later = [world.push() for _ in range(many)]
    world.run(seconds=30)
    goes_bad(world, later[-1])
    hurried(world, later[-1])
    world.run(seconds=200, until=lambda: world.newest().state is RolloutState.ROLLED_BACK)
    assert world.newest().commits == (good, *later)
    return good, *later


def test_what_went_wrong_past_a_bar_does_not_ship_again_when_the_bar_is_lifted(world):
    """What was barred goes out alone, and is well: then nothing is left of what failed but the other one, and no canary has it again."""
    good, bad = barred_and_past_it(world)
    number = world.newest().id
    bars.unbar("shop", good, world.deps, who="ann", why="it is Monday")
    assert why(world, bad).expected_at is None
    assert "once the others of its batch are out and well" in why(world, bad).because
    world.run(seconds=600)
    assert [one.commits for one in rollouts_of(world) if one.id > number] == [(good,)]
    assert commit_of(world, bad).state is CommitState.BARRED


def test_what_went_wrong_past_a_bar_goes_out_one_by_one_when_the_bar_is_lifted(world):
    """Each could have been it: the one in between ships, and the last one is barred without a canary of its own."""
    good, between, bad = barred_and_past_it(world, 2)
    number = world.newest().id
    bars.unbar("shop", good, world.deps, who="ann", why="it is Monday")
    world.run(seconds=900)
    assert [one.commits for one in rollouts_of(world) if one.id > number] == [(good,), (between,)]
    assert commit_of(world, bad).state is CommitState.BARRED


def test_what_was_barred_before_and_fails_alone_clears_those_that_were_brought_past_it(world):
    """It explains the other failure too, as any culprit of a batch does."""
    bad, later = barred_and_past_it(world)
    goes_bad(world, bad)
    assert commit_of(world, later).suspect
    bars.unbar("shop", bad, world.deps, who="ann", why="it is Monday")
    world.run(seconds=600)
    assert commit_of(world, bad).state is CommitState.BARRED
    assert (commit_of(world, later).state, commit_of(world, later).suspect) == (CommitState.PASSED, False)


def test_a_bar_that_is_said_while_a_persons_rollout_is_on_its_way_explains_nothing(world, monkeypatch):
    """It was no reason to expect anything of it: what fails is suspect, or barred, as ever."""
    good, bad = world.workshop.push(), world.workshop.push()
    read(world)
    with monkeypatch.context() as patch:
        patch.setattr(planning, "start_next", lambda *_, **__: None)
        tested(world, good, bad)
    goes_bad(world, bad)
    hurried(world, bad)
    world.run(seconds=200, until=lambda: world.newest().state is RolloutState.EVALUATING_CANARY)
    assert world.newest().commits == (good, bad)
    bars.bar("shop", good, world.deps, who="ann", why="the docs are not ready")
    world.run(seconds=200, until=lambda: world.newest().state is RolloutState.ROLLED_BACK)
    number = world.newest().id
    bars.unbar("shop", good, world.deps, who="ann", why="they are")
    world.run(seconds=600)
    assert [one.commits for one in rollouts_of(world) if one.id > number] == [(good,)]
    assert commit_of(world, bad).state is CommitState.BARRED


def test_what_goes_wrong_past_a_bar_refutes_who_let_the_same_go_before(world):
    """Who forces the branch back to the hash that was let go does not ship what was just taken back."""
    good = world.push()
    bars.bar("shop", good, world.deps, who="ann", why="not before Monday")
    world.workshop.push(tree="b" * 40)
    read(world)
    world.run(seconds=30)
    before = world.workshop.commits[-1]
    for act in (bars.bar, bars.unbar):
        act("shop", before.sha, world.deps, who="ann", why="odd")
    amended = "f" * 40
    world.workshop.commits[-1] = dataclasses.replace(before, sha=amended)
    read(world)
    world.run(seconds=30)
    goes_bad(world, amended)
    hurried(world, amended)
    world.run(seconds=200, until=lambda: world.newest().state is RolloutState.ROLLED_BACK)
    world.metrics.share_of = lambda *_: 1.0
    world.workshop.commits[-1] = before
    read(world)
    bars.unbar("shop", good, world.deps, who="ann", why="it is Monday")
    world.run(seconds=600)
    assert set(world.runs().values()) == {good}
    assert commit_of(world, before.sha).state is CommitState.BARRED
