"""Each webhook comes to exactly one end, in the transaction of what decides over its commit."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.domain.model import Push
from rollout.domain.states import ACTIVE, CommitState, RolloutState
from rollout.errors import ServiceUnavailable
from rollout.services import bars, deliveries, freezes, intake, reconcile, rollouts
from rollout.store.store import Transaction
from tests.support.checker.check import check
from tests.support.checker.read import world as told
from tests.support.world import World


@pytest.fixture
def world(tmp_path, monkeypatch):
    made = World(tmp_path, monkeypatch, hosts=3)
    yield made
    assert check(replace(told(made), at_rest=False)) == []


def webhook(world, sha, name="guid"):
    """GitHub says that the branch's head is this one; the delivery's number."""
    push = Push("github", f"{name}-{sha[-4:]}", "push", full_name="shop", branch="main", head=sha)
    return intake.receive_all([(push, world.config.app("shop"))], world.deps)[0].delivery


def pushed(world, message="a change", **more):
    """A commit on the branch that a webhook tells of; its hash, and the delivery."""
    sha = world.workshop.push(message, **more)
    return sha, webhook(world, sha)


def end(world, number):
    """Outcome and what it names; None instead of the latter while it has no end."""
    with world.store.reading() as tx:
        found = next(one for one in tx.deliveries.newest("shop", 100) if one.id == number)
    assert (found.settled_at is None) == (found.outcome == "accepted")
    return found.outcome, found.ref


def reason(world, number):
    with world.store.reading() as tx:
        return next(one.reason for one in tx.deliveries.newest("shop", 100) if one.id == number)


def a_day_later(monkeypatch):
    later = Transaction.today() + timedelta(days=1, seconds=1)
    monkeypatch.setattr(Transaction, "today", staticmethod(lambda: later))


def tested(world):
    """Run until no commit waits for its tests."""

    def over():
        with world.store.reading() as tx:
            return not tx.commits.unfinished("shop")

    world.run(until=over)


def test_it_is_started_in_the_moment_its_rollout_begins(world):
    """Not before, and it stays so whatever becomes of the rollout."""
    sha, number = pushed(world)
    world.run(until=lambda: world.newest() is not None)
    assert (world.newest().state, end(world, number)) == (RolloutState.PENDING, ("accepted", None))
    world.run(until=lambda: world.newest().state is not RolloutState.PENDING)
    assert end(world, number) == ("started", "rollout 1")
    bars.bar("shop", sha, world.deps, who="me", why="no")
    world.settle()
    assert end(world, number) == ("started", "rollout 1")


def is_active(rollout):
    return rollout.state in ACTIVE


def planned(world):
    """A push whose rollout is planned, and has not begun: the delivery."""
    _, number = pushed(world)
    world.run(until=lambda: world.newest() is not None)
    assert world.newest().state is RolloutState.PENDING
    return number


def test_a_freeze_between_planning_and_beginning_leaves_it_open(world):
    """The rollout is set aside; the delivery names the one that brings its commit afterwards, and ends once."""
    number = planned(world)
    freezes.freeze(world.config.app("shop"), world.deps, who="me", why="the fair", until=None)
    world.run(seconds=30)
    assert (world.newest().id, world.newest().state) == (1, RolloutState.ERROR)
    assert end(world, number) == ("accepted", None)
    freezes.unfreeze(world.config.app("shop"), world.deps, who="me", why="it is over")
    world.run(until=lambda: world.newest().id == 2 and world.newest().state is RolloutState.DONE)
    assert end(world, number) == ("started", "rollout 2")


def test_a_bar_between_planning_and_beginning_rejects_it(world):
    """Nothing was started, and nothing says so."""
    number = planned(world)
    sha = world.newest().commit
    bars.bar("shop", sha, world.deps, who="me", why="not this one")
    world.run(seconds=30)
    assert world.newest().state is RolloutState.ERROR
    assert end(world, number) == ("rejected", f"commit {sha}")


def test_an_app_that_is_taken_out_between_planning_and_beginning_is_an_error(world, monkeypatch):
    """Its rollout never begins, nobody says that it did, and a day later the delivery ends with the reason."""
    number = planned(world)
    config = replace(world.deps.config, apps={"other": world.config.app("shop")})
    rollouts.deploy_canary(world.newest().id, replace(world.deps, config=config))
    assert world.newest().state is RolloutState.ERROR
    assert end(world, number) == ("accepted", None)
    a_day_later(monkeypatch)
    deliveries.give_up(replace(world.deps, config=config))
    assert end(world, number) == ("error", None)


def test_an_app_whose_table_is_wrong_between_planning_and_beginning_waits(world, monkeypatch):
    """It was not taken out: its rollout, its hosts and its delivery are there when the table is mended, however late."""
    number = planned(world)
    config = replace(world.deps.config, apps={}, left_out={"shop": "1 to mend"})
    rollouts.deploy_canary(world.newest().id, replace(world.deps, config=config))
    assert world.newest().state is RolloutState.PENDING
    with monkeypatch.context() as patch:
        a_day_later(patch)
        assert deliveries.give_up(replace(world.deps, config=config)) == 0
    assert end(world, number) == ("accepted", None)
    world.settle()
    assert end(world, number) == ("started", "rollout 1")


def test_an_app_whose_table_is_wrong_when_its_rollout_is_under_way_goes_on(world):
    """By what that was planned with: a worker that begins meanwhile brings it to its end."""
    number = planned(world)
    world.run(until=lambda: world.newest().state in ACTIVE)
    right = world.deps
    world.deps = replace(right, config=replace(right.config, apps={}, left_out={"shop": "1 to mend"}))
    world.run(until=lambda: world.newest().state is RolloutState.DONE)
    world.deps = right
    assert end(world, number) == ("started", "rollout 1")


def test_one_that_comes_while_its_rollout_is_only_planned_has_no_end_yet(world):
    """Polling found the commit; the webhook that comes late shares its end."""
    sha = world.push()
    world.run(until=lambda: world.newest() is not None)
    late = webhook(world, sha)
    assert (world.newest().state, end(world, late)) == (RolloutState.PENDING, ("accepted", None))
    world.settle()
    assert end(world, late) == ("started", "rollout 1")


def test_one_whose_rollout_is_planned_ahead_has_no_end_until_that_begins(world):
    """Until then it may be planned anew, and ship with another one."""
    pushed(world)
    pushed(world)
    world.settle()
    pushed(world)
    world.run(until=lambda: world.newest().id == 2 and world.newest().state is RolloutState.FANNING_OUT)
    _, number = pushed(world)
    world.run(until=lambda: world.newest().is_ahead)
    assert (world.newest().id, end(world, number)) == (3, ("accepted", None))
    world.run(until=lambda: world.newest().state is RolloutState.DEPLOYING_CANARY)
    assert end(world, number) == ("started", "rollout 3")


def test_the_lower_ones_of_a_batch_are_superseded(world):
    """By the rollout that ships the newest of them."""
    pushed(world)
    world.settle()
    lower = [pushed(world)[1] for _ in range(2)]
    sha, last = pushed(world)
    urgent = intake.Wish("at once", "me")
    intake.enqueue(world.config.app("shop"), sha, world.deps, who="me", now=urgent)
    tested(world)
    world.run(until=lambda: world.newest().commits[-1] == sha and is_active(world.newest()))
    number = world.newest().id
    assert len(world.newest().commits) > 1
    carried = dict(zip((f"{2:040x}", f"{3:040x}", sha), (*lower, last), strict=True))
    for one in world.newest().commits:
        outcome = "started" if one == sha else "superseded"
        assert end(world, carried[one]) == (outcome, f"rollout {number}")


def test_before_the_first_release_the_older_ones_are_superseded_by_the_head(world):
    """The head alone is shipped."""
    _, first = pushed(world)
    _, second = pushed(world)
    world.settle()
    assert world.newest().commits == (f"{2:040x}",)
    assert end(world, first) == ("superseded", "rollout 1")
    assert end(world, second) == ("started", "rollout 1")


def test_red_tests_reject_it_and_a_retest_does_not_open_it_again(world):
    """It ends once: that the commit passes and ships later on is told of the commit, not of the delivery."""
    sha, number = pushed(world, fails=True)
    tested(world)
    assert end(world, number) == ("rejected", f"commit {sha}")
    assert "exit status 1" in reason(world, number)
    world.workshop.failing.clear()
    intake.enqueue(world.config.app("shop"), sha, world.deps, who="me")
    world.settle()
    assert world.newest().commit == sha
    assert end(world, number) == ("rejected", f"commit {sha}")


def test_a_bar_rejects_it_and_an_unbar_does_not_open_it_again(world):
    """Also one that is barred as soon as it passes."""
    sha, number = pushed(world)
    bars.bar("shop", sha, world.deps, who="me", why="not this one")
    tested(world)
    assert end(world, number) == ("rejected", f"commit {sha}")
    assert "not this one" in reason(world, number)
    bars.unbar("shop", sha, world.deps, who="me", why="after all")
    world.settle()
    assert world.newest().commit == sha
    assert end(world, number) == ("rejected", f"commit {sha}")


def test_a_passed_one_that_is_barred_while_it_waits_is_rejected(world):
    """In the transaction of the bar."""
    pushed(world)
    world.settle()
    freezes.freeze(world.config.app("shop"), world.deps, who="me", why="the fair", until=None)
    sha, number = pushed(world)
    tested(world)
    assert end(world, number) == ("accepted", None)
    bars.bar("shop", sha, world.deps, who="me", why="no")
    assert end(world, number) == ("rejected", f"commit {sha}")


def test_one_that_leaves_the_branch_is_superseded_by_the_head(world):
    """By a forced push, before anything else was decided."""
    pushed(world)
    world.settle()
    pushed(world, fails=True)
    kept = world.workshop.commits[-1].sha
    _, number = pushed(world)
    intake.read_branch(world.config.app("shop"), world.deps, who="test", why="looked")
    world.workshop.commits.pop()
    intake.poll("shop", world.deps, force=True)
    assert end(world, number) == ("superseded", f"commit {kept}")


def test_a_second_webhook_names_the_first(world):
    """The same delivery sent again, another one of the same push, and one that comes when all is over."""
    sha, first = pushed(world)
    again, other = webhook(world, sha), webhook(world, sha, name="other")
    world.settle()
    late = webhook(world, sha, name="late")
    assert {end(world, number) for number in (again, other, late)} == {("duplicate", f"delivery {first}")}
    assert "was sent before" in reason(world, again)
    assert f"told of by delivery {first}" in reason(world, other)
    assert end(world, first) == ("started", "rollout 1")


def test_one_of_what_polling_found_ends_as_the_first(world):
    """While the commit is on its way it is accepted and comes to its own end; after that it is a duplicate of the decision."""
    sha = world.push()
    early = webhook(world, sha, name="early")
    assert end(world, early) == ("accepted", None)
    world.settle()
    assert end(world, early) == ("started", "rollout 1")
    polled = world.push()
    world.settle()
    world.run(until=lambda: world.newest().state is RolloutState.DONE and world.newest().id == 2)
    assert end(world, webhook(world, polled)) == ("duplicate", "rollout 2")


def test_two_in_the_wrong_order_ship_the_newer_one_and_end_both(world):
    """The older push's webhook comes when the newer commit is out: superseded, and nothing goes backwards."""
    pushed(world)
    world.settle()
    older, newer = world.workshop.push(), world.workshop.push()
    last = webhook(world, newer)
    first = webhook(world, older)
    world.settle()
    world.run(until=lambda: newer in world.newest().commits and world.newest().state is RolloutState.DONE)
    assert end(world, last)[0] == "started"
    assert end(world, first)[0] in {"started", "superseded"}
    assert set(world.runs().values()) == {newer}


def test_one_of_a_commit_far_below_what_runs_is_superseded(world):
    """Before the first release only the head has a row: an older push that is told of late ships nothing."""
    older = world.workshop.push()
    pushed(world)
    world.settle()
    number = webhook(world, older)
    tested(world)
    assert end(world, number) == ("superseded", f"commit {2:040x}")
    assert world.newest().id == 1


def test_what_git_does_not_confirm_for_a_day_is_an_error(world, monkeypatch):
    """The server is away, or never had the commit on the branch; until then it waits."""
    number = webhook(world, "f" * 40)
    pushed(world)
    world.run(seconds=120)
    assert end(world, number) == ("accepted", None)
    reconcile.tidy(world.deps)
    assert end(world, number) == ("accepted", None)
    a_day_later(monkeypatch)
    reconcile.tidy(world.deps)
    assert end(world, number) == ("error", None)
    assert "not on branch" in reason(world, number)


def test_a_server_that_is_away_for_a_day_is_an_error_and_a_freeze_is_not(world, monkeypatch):
    """Of what waits for a person or a window the answer is known."""
    pushed(world)
    world.settle()
    freezes.freeze(world.config.app("shop"), world.deps, who="me", why="the fair", until=None)
    _, waits = pushed(world)
    tested(world)

    def away(*_args, **_options):
        raise ServiceUnavailable("the git server does not answer")

    monkeypatch.setattr(world.workshop, "fetch", away)
    lost = webhook(world, "d" * 40)
    world.run(seconds=30)
    a_day_later(monkeypatch)
    assert deliveries.give_up(world.deps) == 1
    assert end(world, lost) == ("error", None)
    assert "the git server does not answer" in reason(world, lost)
    assert end(world, waits) == ("accepted", None)


def test_one_of_an_app_that_is_gone_is_an_error(world, monkeypatch):
    """Nobody decides over its commits any more."""
    _, number = pushed(world)
    a_day_later(monkeypatch)
    config = replace(world.deps.config, apps={"other": world.config.app("shop")})
    deliveries.give_up(replace(world.deps, config=config))
    assert end(world, number) == ("error", None)


def test_one_that_cannot_be_read_is_rejected(world):
    """Somebody who knows the secret sent it, so it is kept."""
    unreadable = [(Push("github", name, "other"), f"{name} is not JSON") for name in ("one", "two")]
    told = intake.reject_all(unreadable, world.deps)
    with world.store.reading() as tx:
        found = {one.id: one for one in tx.deliveries.newest(None, 2)}
    rows = [found[one.delivery] for one in told]
    assert [(row.delivery, row.outcome, row.app) for row in rows] == [
        (name, "rejected", None) for name in ("one", "two")
    ]


def test_nothing_is_said_of_a_decision_that_is_undone(world, monkeypatch):
    """The end is written in the transaction that decides: a crash before its commit leaves neither."""
    _, number = pushed(world, fails=True)
    true = deliveries.settle

    def then_dies(tx, app):
        true(tx, app)
        raise RuntimeError("the worker dies here")

    monkeypatch.setattr(deliveries, "settle", then_dies)
    with pytest.raises(RuntimeError, match="dies"):
        tested(world)
    assert end(world, number) == ("accepted", None)
    with world.store.reading() as tx:
        assert tx.commits.get("shop", f"{1:040x}").state is not CommitState.FAILED
