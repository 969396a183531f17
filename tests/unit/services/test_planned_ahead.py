"""The rollout that is planned and prepared while the one before it fans out: what begins, what does not, and who is not in whose way."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.cli import finding
from rollout.domain.model import BranchCommit
from rollout.domain.states import CommitState, HostState, RolloutState
from rollout.errors import Conflict
from rollout.services import (
    bars,
    explaining,
    foreseeing,
    freezes,
    halts,
    hosts,
    intake,
    planning,
    rollouts,
    stopping,
    testing,
    views,
)
from rollout.store import clock
from tests.support.branch import commit_of
from tests.support.checker import read
from tests.support.checker.check import check
from tests.support.released import released

R, H = RolloutState, HostState
ME = {"who": "ann", "why": "because"}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Six hosts with a first release, switched one after the other, each by a message of its own."""
    monkeypatch.setattr(hosts, "IN_A_ROW", 1)
    return released(tmp_path, monkeypatch, hosts=6, fan_out='mode = "strict"')


def states(world):
    with world.store.reading() as tx:
        found = [*tx.rollouts.unfinished("shop"), *tx.rollouts.finished("shop", 10)]
        return {one.id: one.state for one in found}


def rollout(world, number):
    with world.store.reading() as tx:
        return tx.rollouts.get(number)


def of(world, number, *wanted):
    with world.store.reading() as tx:
        return [host.name for host in tx.hosts.of(number, *wanted)]


def passed(world, sha):
    with world.store.reading() as tx:
        return tx.commits.get("shop", sha).state is CommitState.PASSED


def run_until(world, what):
    world.run(until=what, seconds=120)
    assert what()


def pushed(world):
    sha = world.push()
    run_until(world, lambda: passed(world, sha))
    return sha


def planned(world, *, prepared=0):
    """Rollout 2 fans out, and 3 waits for it, with so many hosts prepared."""
    world.push()
    run_until(world, lambda: states(world).get(2) is R.FANNING_OUT)
    sha = world.push()
    run_until(world, lambda: 3 in states(world) and len(of(world, 3, H.PREPARED)) >= prepared)
    assert states(world)[2] is R.FANNING_OUT
    return sha


def planned_batch(world, monkeypatch):
    """As `planned`, of three commits that have waited for long."""
    world.push()
    run_until(world, lambda: states(world).get(2) is R.FANNING_OUT)
    with monkeypatch.context() as patch:
        patch.setattr(planning, "start_next", lambda *_, **__: None)
        hashes = [world.push() for _ in range(3)]
        with world.store.transaction() as tx:
            for sha in hashes:
                tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 1700.0)
        for sha in hashes:
            testing.run_tests(commit_of(world, sha).id, world.deps)
    planning.start_next("shop", world.deps)
    assert states(world)[2] is R.FANNING_OUT
    assert rollout(world, 3).commits == tuple(hashes)
    return hashes


def between(world):
    """Rollout 2 is done, and 3 has not begun yet."""
    sha = planned(world)
    run_until(world, lambda: states(world)[2] is R.DONE)
    assert states(world)[3] is R.PENDING
    return sha


def to_the_end(world):
    sha = world.workshop.commits[-1].sha
    run_until(world, lambda: set(world.runs().values()) == {sha} and world.newest().state is R.DONE)
    assert check(read.world(world, at_rest=True)) == []


def test_the_next_one_is_prepared_while_one_fans_out_and_begins_when_that_is_done(world):
    """It follows what fans out, not what runs; a host is prepared when it is done, and switched when the rollout before is."""
    planned(world, prepared=3)
    waits = rollout(world, 3)
    assert (waits.state, waits.previous, waits.began_s) == (R.PENDING, rollout(world, 2).commit, None)
    assert set(of(world, 3, H.PREPARED, H.PREPARING)) <= set(of(world, 2, H.DONE))
    to_the_end(world)
    assert states(world) == {1: R.DONE, 2: R.DONE, 3: R.DONE}
    order = [(row["rollout"], row["what"]) for row in read.world(world, at_rest=True).rows("events")]
    assert order.index((3, "prepared")) < order.index((2, "finish")) < order.index((3, "start"))
    assert order.index((3, "start")) < order.index((3, "activate"))


def test_its_duration_begins_when_it_begins(world):
    """Waiting for the one before is no part of what a rollout takes, so selection is not misled."""
    planned(world)
    world.seconds += 1000.0
    at = rollout(world, 3).started_at
    to_the_end(world)
    with world.store.reading() as tx:
        newest, before, *_ = tx.rollouts.durations("shop")
    assert before > 1000.0
    assert newest < 200.0
    assert rollout(world, 3).started_at > at


@pytest.mark.parametrize("how", ["stop", "halt"])
def test_when_the_one_before_does_not_end_well_it_is_set_aside_and_planned_anew(world, how):
    """Stopped or halted: nothing comes of what was to follow it, its prepares are cut, and the commit goes out otherwise."""
    sha = planned(world, prepared=1)
    if how == "stop":
        stopping.stop(2, world.deps, **ME)
    else:
        with world.store.transaction() as tx:
            rollouts.halt(tx, tx.rollouts.lock(2), "trouble")
    run_until(world, lambda: states(world)[3] is R.ERROR)
    assert not of(world, 3, H.PREPARING)
    assert "planned anew" in rollout(world, 3).reason
    if how == "stop":
        bars.unbar("shop", rollout(world, 2).commit, world.deps, **ME)
    else:
        halts.resume(2, world.deps, **ME)
    to_the_end(world)
    assert sha in world.newest().commits
    assert world.newest().id > 3


def test_nothing_is_prepared_ahead_behind_a_rollout_that_stands_still(world):
    """Whoever looks at it before it is set aside sends nothing for a rollout that may never come."""
    planned(world)
    assert rollouts.look(3, world.deps) != []
    with world.store.transaction() as tx:
        rollouts.halt(tx, tx.rollouts.lock(2), "too many failed")
        tx.hosts.rung([host.id for host in tx.hosts.of(3)], 0.0)
    assert states(world)[3] is R.PENDING
    assert rollouts.look(3, world.deps) == []


def test_what_begins_is_what_would_be_planned_then(world):
    """Commits have grown old meanwhile, so selection takes two together: the one that waits is set aside for that."""
    planned(world)
    second = pushed(world)
    run_until(world, lambda: states(world)[2] is R.DONE)
    world.seconds += 29 * 60
    to_the_end(world)
    assert states(world)[3] is R.ERROR
    assert f"{second[:12]} goes out in its place" in rollout(world, 3).reason
    assert rollout(world, 4).commits == (*rollout(world, 3).commits, second)


def test_a_new_bar_sets_it_aside(world):
    """A person bars its commit while it waits."""
    sha = planned(world)
    bars.bar("shop", sha, world.deps, **ME)
    run_until(world, lambda: states(world)[3] is R.ERROR)
    run_until(world, lambda: states(world)[2] is R.DONE)
    world.run(seconds=30)
    assert set(states(world)) == {1, 2, 3}


def test_a_freeze_keeps_it_from_beginning(world):
    """It is planned anew when the freeze is over."""
    planned(world)
    freezes.freeze(world.config.app("shop"), world.deps, until=None, **ME)
    run_until(world, lambda: states(world)[2] is R.DONE and states(world)[3] is R.ERROR)
    world.run(seconds=30)
    assert set(states(world)) == {1, 2, 3}
    freezes.unfreeze(world.config.app("shop"), world.deps, **ME)
    to_the_end(world)


def test_a_freeze_ends_its_preparing_at_once(world):
    """It does not wait for its start: the rollout that fans out goes on alone, and nothing is put on hosts for another one."""
    planned(world, prepared=1)
    freezes.freeze(world.config.app("shop"), world.deps, until=None, **ME)
    with world.store.reading() as tx:
        told = explaining.coming(tx, world.config.app("shop"))
    assert "as rollout 3, of which nothing comes: frozen by ann: because" in told.because
    assert told.expected_at is None
    rollouts.deploy_canary(3, world.deps)  # as it looks once a second
    assert (states(world)[2], states(world)[3]) == (R.FANNING_OUT, R.ERROR)
    prepared = of(world, 3, H.PREPARED)
    run_until(world, lambda: states(world)[2] is R.DONE)
    assert (of(world, 3, H.PREPARED), set(states(world))) == (prepared, {1, 2, 3})
    freezes.unfreeze(world.config.app("shop"), world.deps, **ME)
    to_the_end(world)


def test_an_app_that_is_taken_out_while_it_fans_out(world):
    """The rollout that is under way comes to its end by the policy it has; what waits behind it is set aside."""
    planned(world, prepared=1)
    sha = rollout(world, 2).commit
    world.config.apps.pop("shop")
    with world.store.transaction() as tx:
        tx.rollouts.update(tx.rollouts.get(2), due_at=0.0)
    rollouts.fan_out(2, world.deps)
    run_until(world, lambda: states(world)[2] is R.DONE and states(world)[3] is R.ERROR)
    assert set(world.runs().values()) == {sha}


def test_another_rollout_toml_sets_it_aside(world):
    """What a person has configured meanwhile is what goes out."""
    planned(world)
    app = world.config.app("shop")
    slower = app.model_copy(update={"fan_out": app.fan_out.model_copy(update={"retries": 7})})
    world.config.apps["shop"] = slower
    to_the_end(world)
    assert "rollout.toml has changed" in rollout(world, 3).reason
    assert rollout(world, 4).policy["fan_out"]["retries"] == 7


def test_what_another_rollout_toml_will_make_of_it_is_what_why_tells(world, monkeypatch):
    """Three wait together, and `queue.most` is one from now on: each is promised its own turn, though nobody sets the rollout aside before its time."""
    hashes = planned_batch(world, monkeypatch)
    app = world.config.app("shop")
    world.config.apps["shop"] = app.model_copy(update={"queue": app.queue.model_copy(update={"most": 1})})
    with world.store.reading() as tx:
        its = world.config.app("shop")
        told = [explaining.why(tx, its, tx.commits.get("shop", sha)).because for sha in hashes]
        foreseen = [foreseeing.forecast(tx, its, tx.commits.get("shop", sha)) for sha in hashes]
        coming = explaining.coming(tx, its).because
    assert [[one.sha for one in each.commits] for each in foreseen] == [[sha] for sha in hashes]
    assert [each.rounds for each in foreseen] == [0, 1, 2]
    assert all("waits for rollout 2" in because and "rollout 3" not in because for because in (*told, coming))
    to_the_end(world)
    assert states(world)[3] is R.ERROR
    assert [rollout(world, number).commits for number in (4, 5, 6)] == [(sha,) for sha in hashes]


@pytest.mark.parametrize("passes", [True, False])
def test_what_is_reverted_meanwhile_is_set_aside_at_once(world, passes):
    """Nobody reads that what was just reverted goes out alone: it waits for its revert, and goes out with that."""
    reverted = planned(world)
    fix = world.push(f"Revert it\n\nThis reverts commit {reverted}.", fails=not passes)
    run_until(world, lambda: states(world)[3] is R.ERROR)
    assert states(world)[2] is R.FANNING_OUT
    assert f"ships only together with {fix[:12]}" in rollout(world, 3).reason
    if passes:
        to_the_end(world)
        assert rollout(world, 4).commits == (reverted, fix)
    else:
        run_until(world, lambda: states(world)[2] is R.DONE)
        world.run(seconds=60)
        assert 4 not in states(world)


def test_a_later_revert_of_something_else_leaves_what_is_planned_ahead(world):
    """Only what it would bring counts."""
    planned(world)
    world.push(f"Revert it\n\nThis reverts commit {rollout(world, 1).commit}.")
    run_until(world, lambda: states(world)[2] is R.DONE)
    run_until(world, lambda: states(world)[3] is R.DONE)


def wish(world, sha):
    intake.enqueue(world.config.app("shop"), sha, world.deps, who="ann", now=intake.Wish("now", "ann"))


def test_a_wish_that_is_said_while_one_fans_out_goes_before_what_was_planned_ahead(world):
    """The hotfix waits for what fans out, which goes on, and not for the rollout that nobody asked for."""
    planned(world)
    sha = world.push()
    run_until(world, lambda: passed(world, sha))
    wish(world, sha)
    assert (states(world)[2], states(world)[3]) == (R.FANNING_OUT, R.ERROR)
    to_the_end(world)
    assert states(world)[2] is R.DONE
    assert (rollout(world, 4).commit, rollout(world, 4).requested_by) == (sha, "ann")


def test_a_wish_that_passes_meanwhile_sets_aside_what_is_planned_ahead_at_once(world):
    """Said while its tests run, it does not wait for the end of the fan-out: nothing is prepared, or promised, that would go out before it."""
    ahead = planned(world)
    sha = world.workshop.push()
    wish(world, sha)
    with world.store.transaction() as tx:
        tx.turns.rung([tx.commits.get("shop", sha).id], 60.0)  # its tests take their time
    planning.start_next("shop", world.deps)
    assert states(world)[4] is R.PENDING
    run_until(world, lambda: passed(world, sha))
    with world.store.reading() as tx:
        told = explaining.why(tx, world.config.app("shop"), tx.commits.get("shop", ahead)).because
    assert f"of which nothing comes: {sha[:12]} goes out in its place: ann: now" in told
    run_until(world, lambda: states(world)[4] is R.ERROR)
    assert states(world)[2] is R.FANNING_OUT
    to_the_end(world)
    assert rollout(world, 5).commits == (ahead, sha)


@pytest.mark.parametrize("its_own", [True, False], ids=["itself", "what it takes along"])
def test_a_revert_that_is_pushed_later_withdraws_a_wish(world, its_own):
    """Of two people's words the later one counts: what was just reverted does not go out without its revert, and who wanted it is told."""
    below = planned(world)
    sha = pushed(world)
    wish(world, sha)
    bad = sha if its_own else below
    fix = pushed_as(world, f"Revert it\n\nThis reverts commit {bad}.")
    (told,) = withdrawn(world)
    assert told.startswith(
        f"ann said: now; pushed since: commit {bad[:12]}, which it would bring, ships only together with {fix[:12]}, which"
        f" undoes it.\nNext: if it is to go out all the same, rollout deploy {sha[:12]} --now"
    )
    to_the_end(world)
    assert all(fix in one.commits for one in whole(world) if bad in one.commits)


def test_a_wish_that_is_said_after_the_revert_goes_out_without_it(world):
    """The later word is the wish; what else is pushed, or is read again, changes nothing of it."""
    planned(world)
    sha = pushed(world)
    fix = pushed_as(world, f"Revert it\n\nThis reverts commit {sha}.")
    wish(world, sha)
    pushed_as(world, f"Revert the revert\n\nThis reverts commit {fix}.")
    run_until(world, lambda: rollout_of(world, sha) is not None)
    assert rollout_of(world, sha).requested_by == "ann"
    assert withdrawn(world) == []


def pushed_as(world, message):
    sha = world.push(message)
    run_until(world, lambda: passed(world, sha))
    return sha


def withdrawn(world):
    world.run(seconds=5)
    return [text for title, text in world.notifier.sent if "withdrawn" in title]


def whole(world):
    with world.store.reading() as tx:
        return [one for one in tx.rollouts.finished("shop", 10) if one.state is R.DONE]


def rollout_of(world, sha):
    with world.store.reading() as tx:
        active = tx.rollouts.active("shop")
        return active if active is not None and active.commit == sha else None


def test_a_wish_for_what_fans_out_is_refused_and_leaves_what_is_planned_ahead(world):
    """Of what goes out already no wish is left that would bring it again later; and nothing is set aside for it."""
    planned(world)
    with pytest.raises(Conflict, match="goes out already: rollout 2 of shop is fanning_out"):
        wish(world, rollout(world, 2).commit)
    assert states(world)[3] is R.PENDING
    with world.store.reading() as tx:
        assert tx.commits.wanted_now("shop") == []


def test_before_a_canary_has_passed_a_wish_is_refused_with_what_works(world):
    """That rollout may fail yet, and who is in a hurry ends it: the refusal says so, and that it may be said again later."""
    world.push()
    run_until(world, lambda: world.newest().state is R.EVALUATING_CANARY)
    sha = world.push()
    with pytest.raises(Conflict, match="rollout 2 of shop is evaluating_canary") as refused:
        wish(world, sha)
    assert "rollout stop 2" in refused.value.remedy
    assert "once it fans out" in refused.value.remedy


@pytest.mark.parametrize("its_own", [True, False])
def test_while_a_rollout_is_taken_back_a_wish_is_refused_with_wait_until_it_is_over(world, its_own):
    """Who has just stopped it is told neither to stop it, nor to wait until it fans out, nor that what it took along goes out."""
    world.push()
    run_until(world, lambda: world.newest().state is R.EVALUATING_CANARY)
    sha = world.newest().commit if its_own else world.push()
    stopping.stop(2, world.deps, **ME)
    if its_own:
        bars.unbar("shop", sha, world.deps, **ME)
    assert states(world)[2] is R.STOPPING
    with pytest.raises(Conflict) as refused:
        wish(world, sha)
    assert str(refused.value) == "rollout 2 of shop is stopping"
    assert refused.value.remedy == "wait until it is over: `rollout status 2`"


def test_of_what_is_halted_a_wish_is_refused_with_who_decides(world):
    """A commit of a halted rollout does not go out until a person says so, and is not said to."""
    planned(world)
    with world.store.transaction() as tx:
        rollouts.halt(tx, tx.rollouts.lock(2), "trouble")
    with pytest.raises(Conflict, match="is in rollout 2 of shop, which is halted") as refused:
        wish(world, rollout(world, 2).commit)
    assert refused.value.remedy == "a person decides: `rollout show 2`"


def test_a_wish_goes_before_what_waits(world):
    """When the one before is done, a person's wish is planned, as his."""
    between(world)
    sha = world.workshop.push()
    intake.enqueue(world.config.app("shop"), sha, world.deps, who="ann", now=intake.Wish("now", "ann"))
    assert states(world)[3] is R.ERROR
    run_until(world, lambda: passed(world, sha))
    to_the_end(world)
    assert (world.newest().commit, world.newest().requested_by) == (sha, "ann")


def test_a_wish_that_passes_while_another_waits_is_not_planned_ahead(world):
    """It is planned when it can begin, with its reason; what waited is set aside."""
    planned(world)
    sha = pushed(world)
    with world.store.transaction() as tx:
        tx.commits.wish_now(tx.commits.get("shop", sha), "mends the till", "ann")
    to_the_end(world)
    assert states(world)[3] is R.ERROR
    assert (rollout(world, 4).commit, rollout(world, 4).requested_by) == (sha, "ann")


def test_a_wish_is_not_planned_ahead(world):
    """It would lose its reason, and its way past a freeze: it is planned when it can begin."""
    world.push()
    run_until(world, lambda: states(world).get(2) is R.FANNING_OUT)
    sha = world.push()
    with world.store.transaction() as tx:
        tx.commits.wish_now(tx.commits.get("shop", sha), "mends the till", "ann")
    run_until(world, lambda: passed(world, sha))
    planning.start_next("shop", world.deps)
    assert (states(world)[2], 3 in states(world)) == (R.FANNING_OUT, False)
    to_the_end(world)
    assert rollout(world, 3).requested_by == "ann"


def test_what_was_to_follow_something_else_does_not_begin(world):
    """Whatever became of the one before: what runs is what it was planned to follow, or it is planned anew."""
    between(world)
    with world.store.transaction() as tx:
        waits = tx.rollouts.update(tx.rollouts.get(3), previous=rollout(world, 1).commit)
        assert "which is not what runs" in planning.outdated(tx, world.config.app("shop"), waits)


def test_of_an_app_that_is_not_configured_any_more_it_does_not_begin(world):
    """Taken out of rollout.toml meanwhile, an app gets nothing that was only made ready."""
    between(world)
    world.config.apps.pop("shop")
    rollouts.deploy_canary(3, world.deps)
    assert (states(world)[3], rollout(world, 3).reason) == (
        R.ERROR,
        "app shop is not in rollout.toml any more",
    )


def test_a_wish_is_still_one_after_a_reboot(world, monkeypatch):
    """A rollout that was about to begin is not taken for one that was planned ahead: nobody sets it aside."""
    sha = world.workshop.push()
    intake.enqueue(world.config.app("shop"), sha, world.deps, who="ann", now=intake.Wish("the till", "ann"))
    run_until(world, lambda: states(world).get(2) is R.PENDING)
    monkeypatch.setattr(clock, "boot_of", lambda _connection: "another boot")
    world.store.prepare()
    halts.include("shop", ["web01"], world.deps, who="bob")
    run_until(world, lambda: states(world)[2] is R.DONE)
    assert (rollout(world, 2).commit, rollout(world, 2).requested_by) == (sha, "ann")


def test_a_rollback_is_not_in_conflict_with_it(world):
    """What was to follow the rollout that goes back is set aside, and follows what ran before."""
    between(world)
    stopping.roll_back_done(world.config.app("shop"), world.deps, to=None, **ME)
    assert (states(world)[2], states(world)[3]) == (R.ROLLING_BACK, R.ERROR)
    run_until(world, lambda: states(world)[2] is R.ROLLED_BACK)
    assert check(read.world(world, at_rest=False)) == []


def test_a_stop_without_a_number_means_what_fans_out(world, monkeypatch):
    """The one that waits is not a second one to choose from."""
    planned(world)
    with world.store.reading() as tx:
        found = tx.rollouts.unfinished("shop")
    monkeypatch.setattr(finding, "unfinished", lambda _call: found)
    assert [one.id for one in found] == [2, 3]
    assert finding.to_stop(None, None).id == 2


def test_it_can_be_stopped_by_its_number(world):
    """The one that fans out goes on, nothing was touched, and the commit is barred as by every stop."""
    sha = planned(world, prepared=1)
    accepted = stopping.stop(3, world.deps, **ME)
    assert (accepted.rollout.state, accepted.leased) == (R.ERROR, ())
    assert stopping.stop(3, world.deps, **ME).rollout.state is R.ERROR
    run_until(world, lambda: states(world)[2] is R.DONE)
    world.run(seconds=30)
    assert set(states(world)) == {1, 2, 3}
    with world.store.reading() as tx:
        assert tx.commits.get("shop", sha).state is CommitState.BARRED


def test_a_batch_that_is_stopped_by_its_number_stays_away(world, monkeypatch):
    """It never ran: all of it is barred, none goes out alone, and none is found guilty of anything."""
    hashes = planned_batch(world, monkeypatch)
    stopping.stop(3, world.deps, who="ann", why="not now")
    world.run(seconds=600)
    assert set(states(world)) == {1, 2, 3}
    for sha in hashes:
        assert (commit_of(world, sha).state, commit_of(world, sha).reason) == (CommitState.BARRED, "not now")


def test_a_batch_is_set_aside_at_once_when_its_oldest_commit_is_barred(world, monkeypatch):
    """It is not prepared any more, and promises nothing, while the one before it is on its way still."""
    hashes = planned_batch(world, monkeypatch)
    bars.bar("shop", hashes[0], world.deps, **ME)
    with world.store.reading() as tx:
        why = explaining.why(tx, world.config.app(None), tx.commits.get("shop", hashes[2]))
    assert (why.expected_at, "of which nothing comes" in why.because) == (None, True)
    rollouts.deploy_canary(3, world.deps)  # as it looks once a second
    assert (states(world)[2], states(world)[3]) == (R.FANNING_OUT, R.ERROR)


@pytest.mark.parametrize("verb", ["exclude", "include"])
def test_other_hosts_are_another_plan(world, verb):
    """Its fleet was frozen before; it is planned anew, with the hosts that are in then."""
    if verb == "include":
        halts.exclude("shop", ["web06"], world.deps, **ME)
    planned(world)
    if verb == "include":
        halts.include("shop", ["web06"], world.deps, who="ann")
    else:
        halts.exclude("shop", ["web06"], world.deps, **ME)
    assert states(world)[3] is R.ERROR
    run_until(world, lambda: states(world).get(4) is R.DONE)
    assert rollout(world, 4).total == (6 if verb == "include" else 5)


def test_what_cannot_be_prepared_ahead_does_not_count(world):
    """A host without room is tried again, and fails only in a rollout that has begun."""
    full = world.fleet.hosts["web01"]
    world.push()
    run_until(world, lambda: states(world).get(2) is R.FANNING_OUT)
    full.no_room = True
    world.push()
    run_until(world, lambda: 3 in states(world) and any("full" in (told or "") for told in errors(world, 3)))
    assert (rollout(world, 3).failed, of(world, 3, H.FAILED)) == (0, [])
    full.no_room = False
    to_the_end(world)


def errors(world, number):
    with world.store.reading() as tx:
        return [host.error for host in tx.hosts.of(number)]


def test_only_hosts_that_are_done_are_prepared_and_few_at_a_time(world):
    """One that has not got, or not taken, the release before gets no other one; and a tenth of the slots is used."""
    planned(world)
    ready = of(world, 2, H.DONE)
    assert 0 < len(ready) < 6
    few = replace(world.deps, settings=world.deps.settings.model_copy(update={"slots": 10}))
    with world.store.transaction() as tx:
        waits = tx.rollouts.get(3)
        rings = rollouts.prepare_ahead(tx, waits, few)
        assert [(ring.arguments[2], ring.priority) for ring in rings] == [(ready[0], 9)]
        assert rollouts.prepare_ahead(tx, waits, few) == []  # one is under way
        assert {ring.arguments[2] for ring in rollouts.prepare_ahead(tx, waits, world.deps)} <= set(ready)


def test_nothing_is_prepared_ahead_while_the_one_before_needs_the_slots(world):
    """Its activations and prepares come first."""
    planned(world)
    with world.store.transaction() as tx:
        waits, before = tx.rollouts.get(3), tx.rollouts.get(2)
        tx.rollouts.update(before, in_flight=int(0.8 * world.deps.settings.slots))
        assert rollouts.prepare_ahead(tx, waits, world.deps) == []


def test_a_message_for_it_switches_nothing(world):
    """Whoever can write to the broker may send an activation: the row says that it has not begun (I11, I15)."""
    planned(world, prepared=1)
    with world.store.reading() as tx:
        early = tx.hosts.of(3, H.PREPARED)[0]
    hosts.deploy(early.rollout, early.id, world.deps)
    assert early.name in of(world, 3, H.PREPARED)
    assert world.runs()[early.name] == rollout(world, 2).commit


def test_a_host_in_the_hands_of_the_one_before_is_not_read_for_one_that_was_set_aside(world):
    """A look seals: it would refuse what the active rollout has sent."""
    planned(world)
    with world.store.transaction() as tx:
        planning.set_aside(tx, tx.rollouts.lock(3), "tried", who="test")
        host = tx.hosts.of(2)[-1]
        tx.fleet.unread(replace(host, epoch=2**61))
        assert tx.hosts.to_look_at() == []


def test_people_are_told_what_it_waits_for(world):
    """`why`, `status` and `plan` name both numbers, and the time is that of both."""
    sha = planned(world)
    app = world.config.app("shop")
    with world.store.reading() as tx:
        told = explaining.why(tx, app, tx.commits.get("shop", sha))
        next_one, foreseen = explaining.coming(tx, app), foreseeing.forecast(tx, app)
        typical_s = foreseeing.typical_s(tx, "shop")
        shown = views.rollouts(tx, tx.rollouts.unfinished("shop"))
        before = explaining.why(tx, app, tx.commits.get("shop", tx.rollouts.get(2).commit))
    assert told.because.startswith("planned as rollout 3, begins when rollout 2 is done (")
    assert next_one.because == f"commit {sha[:12]}: {told.because}"
    assert [one.sha for one in foreseen.commits] == [sha]
    assert [one["begins_after"] for one in shown] == [None, 2]
    off = told.expected_at - before.expected_at - timedelta(seconds=typical_s)
    assert abs(off) < timedelta(seconds=1)


def test_what_comes_after_it_waits_for_both(world):
    """A third commit's way is told with the rollout that is planned before it."""
    planned(world)
    third = pushed(world)
    app = world.config.app("shop")
    with world.store.reading() as tx:
        told = explaining.why(tx, app, tx.commits.get("shop", third))
    assert "waits for rollout 2 (" in told.because
    assert "1 rollout before it" in told.because


def test_what_was_forced_off_the_branch_is_not_waited_with(world):
    """A force-push drops what fans out and what was planned behind it: nothing comes of that, and a person decides what follows."""
    planned(world, prepared=1)
    dropped = [one.sha for one in world.workshop.commits[-2:]]
    new = "e" * 40
    world.workshop.commits[-2:] = [BranchCommit(new, 2, "new", "Ann", "new")]
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")

    def why(sha):
        with world.store.reading() as tx:
            return explaining.why(tx, world.config.app(None), tx.commits.get("shop", sha)).because

    assert "no longer on the branch" in why(dropped[1])
    run_until(world, lambda: passed(world, new))
    assert states(world)[2] is R.FANNING_OUT
    assert why(new) == f"tested, waits for rollout 2 ({rollout(world, 2).done} of 6 hosts); {planning.GONE}"
    with world.store.transaction() as tx:
        planning.make_way(tx, world.config.app("shop"), "as whoever looks at it next", who="ann")
        assert explaining.coming(tx, world.config.app(None)).because == planning.GONE
    run_until(world, lambda: states(world)[2] is R.DONE)
    world.run(seconds=60)
    assert (states(world)[3], set(world.runs().values())) == (R.ERROR, {dropped[0]})
