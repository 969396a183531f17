"""`rollout why`: every state of a commit has its sentence, and a time where one can be known."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rollout.domain.model import BranchCommit
from rollout.domain.states import FINISHED, STAGES, CommitState, RolloutEvent, RolloutState
from rollout.errors import MetricUnavailable
from rollout.services import bars, explaining, foreseeing, freezes, planning, stopping, views
from rollout.store.apps import LOOK_S
from rollout.store.rollouts import Rollouts
from rollout.store.store import Transaction
from tests.support.branch import coming, commit_of, read, tested, why
from tests.support.fakes import a_commit, a_deps, a_rollout
from tests.support.released import released
from tests.support.world import World


@pytest.fixture
def measured(world):
    """With two rollouts more: the first one of an app is shorter, as its canary has nothing to be compared with."""
    for _ in range(2):
        world.push()
        world.settle()
        world.run(until=lambda: world.newest().state is RolloutState.DONE)
    return world


def typical_s(world):
    with world.store.reading() as tx:
        return foreseeing.typical_s(tx, "shop")


def until(world, state):
    begun = world.newest().id
    last = begun if world.newest().state not in FINISHED else begun + 1
    world.run(until=lambda: world.newest().id == last and world.newest().state is state, seconds=60)
    assert world.newest().state is state


def test_before_and_in_its_tests(world):
    """Who is before it, and when it should be out all the same."""
    first, second = world.workshop.push(), world.workshop.push()
    read(world)
    assert why(world, first).because == "waits for its tests, then goes out by itself"
    assert why(world, first).expected_at is not None
    with world.store.transaction() as tx:
        tx.commits.claim_tests(commit_of(world, first).id, "worker", 15.0)
    assert why(world, first).because == "tests run, then goes out by itself"
    assert why(world, second).because == ("waits for its tests, 1 rollout before it, then goes out by itself")
    assert why(world, second).expected_at > why(world, first).expected_at


def test_before_its_tests_it_says_what_will_be_in_the_way(world):
    """Behind a barred commit nothing is promised, though it is not tested yet."""
    bad = world.push()
    bars.bar("shop", bad, world.deps, who="ann", why="slow")
    world.run(seconds=30)
    later = world.workshop.push()
    read(world)
    assert why(world, later).because.startswith(f"waits for its tests; {bad[:12]} is barred")
    assert why(world, later).expected_at is None


def test_what_is_barred_in_test_keeps_back_what_comes_after_it(world):
    """Nothing is promised of commits behind one that a person has barred while it was in test; but with its revert they go out."""
    bad, later = world.workshop.push(), world.workshop.push()
    read(world)
    bars.bar("shop", bad, world.deps, who="ann", why="slow")
    told = why(world, later)
    assert told.because.startswith(f"waits for its tests; {bad[:12]} is barred")
    assert told.expected_at is None
    fix = world.workshop.push(f"This reverts commit {bad}.")
    read(world)
    assert why(world, later).because == "waits for its tests, then goes out with 2 others"
    assert why(world, fix).expected_at is not None


def test_while_git_says_nothing_of_a_new_head_nothing_is_promised(world):
    """A webhook told of a head that nobody could read: what would go out may have been forced off the branch by it."""
    sha = world.push()
    world.seconds += 2 * LOOK_S
    with world.store.transaction() as tx:
        tx.apps.told({"shop"})
    waits = "waits for its tests; the branch is read again first: commits of it that would go out are not known yet"
    assert why(world, sha) == explaining.Why(waits)
    with world.store.reading() as tx:
        assert explaining.coming(tx, world.config.app(None)) == explaining.Why(planning.UNREAD)
    read(world)
    assert why(world, sha).expected_at is not None


def test_what_failed_says_where_its_output_is(world):
    """And no time: somebody has to mend it."""
    bad = world.push(fails=True)
    world.run(seconds=30)
    told = why(world, bad)
    assert told.because == f"its tests failed: exit status 1; what they printed: rollout log {bad[:12]}"
    assert told.expected_at is None


def test_a_red_commit_says_with_whom_it_goes_out(world):
    """It never goes out by itself, but a later one that passed takes it along: before, meanwhile and afterwards."""
    bad, good = world.workshop.push(fails=True), world.workshop.push()
    read(world)
    tested(world, bad, bad)
    red = f"its tests failed: exit status 1; what they printed: rollout log {bad[:12]}"
    assert why(world, bad).because == red
    tested(world, good)
    along = f"{red}; it is taken along by {good[:12]}, which came later and passed: "
    assert why(world, bad).because == f"{along}planned as rollout 2, which begins at once"
    assert why(world, bad).expected_at is not None
    until(world, RolloutState.DONE)
    assert why(world, bad).because.startswith(f"{along}went out with rollout 2 on ")


def test_a_red_commit_before_its_rollout_is_planned(world):
    """What keeps the one that takes it along is said of it too."""
    freezes.freeze(world.config.app("shop"), world.deps, who="ann", why="the sale", until=None)
    bad, good = world.workshop.push(fails=True), world.workshop.push()
    read(world)
    tested(world, bad, bad, good)
    assert why(world, bad).because.endswith(
        f"it is taken along by {good[:12]}, which came later and passed: tested, frozen by ann: the sale"
    )
    assert why(world, bad).expected_at is None


def test_a_head_that_git_does_not_have_is_not_found(world):
    """A webhook told of it: before the branch is read, after git did not have it, and when it is given up."""
    with world.store.transaction() as tx:
        ghost, _ = tx.commits.add("shop", "d" * 40, who="test", why="a webhook")
    told = why(world, ghost.sha)
    assert told.because.startswith("not found on branch main yet, waits for its tests, then goes out")
    tested(world, ghost.sha)
    told = why(world, ghost.sha)
    assert told.because.startswith("not on branch main of ")
    assert told.because.endswith(" yet: a webhook told of it, and it is looked for again")
    assert told.expected_at is None
    world.run(seconds=600)
    assert why(world, ghost.sha).because == commit_of(world, ghost.sha).reason
    assert why(world, ghost.sha).because.startswith("not on branch main of ")


def test_an_empty_installation_says_what_to_do_first(tmp_path, monkeypatch):
    """Nothing was released, and there is no newest commit either."""
    world = World(tmp_path, monkeypatch, hosts=3)
    with world.store.reading() as tx:
        told = explaining.coming(tx, world.config.app(None))
    assert told.because == (
        "nothing was released yet, and no commit of branch main is known: push one, or have the branch's head looked up"
        " now with `rollout deploy`"
    )


def test_while_a_canary_cannot_be_read_no_time_is_promised(world, monkeypatch):
    """It does not pass before it can: neither its own commit, nor what comes behind, has a time until then."""
    sha, true = world.push(), world.metrics.read

    def read_nothing(target, role, *its, **more):
        if role == "canary":
            raise MetricUnavailable("there is no access log yet")
        return true(target, role, *its, **more)

    monkeypatch.setattr(world.metrics, "read", read_nothing)
    until(world, RolloutState.EVALUATING_CANARY)
    later = world.push()
    world.run(seconds=20)
    told = why(world, sha)
    assert re.fullmatch(
        r"in rollout 2: its canary is watched, and could not be read for \d+ s; what cannot be read does not pass: rollout check says"
        r" why it cannot",
        told.because,
    )
    assert (told.expected_at, why(world, later).expected_at, coming(world).expected_at) == (None, None, None)
    monkeypatch.setattr(world.metrics, "read", true)
    world.run(seconds=4)
    assert why(world, sha).because == "in rollout 2: its canary is watched"
    assert None not in {why(world, sha).expected_at, why(world, later).expected_at}


def test_in_each_stage_of_its_rollout(world):
    """How far it is, and when it should be everywhere."""
    sha = world.push()
    until(world, RolloutState.PENDING)
    assert why(world, sha).because == "planned as rollout 2, which begins at once"
    until(world, RolloutState.DEPLOYING_CANARY)
    assert why(world, sha).because == "in rollout 2: its canary is being switched"
    until(world, RolloutState.EVALUATING_CANARY)
    assert why(world, sha).because == "in rollout 2: its canary is watched"
    until(world, RolloutState.FANNING_OUT)
    assert why(world, sha).because == "in rollout 2: 1 of 3 hosts have it"
    assert why(world, sha).expected_at is not None
    until(world, RolloutState.DONE)
    told = why(world, sha)
    assert told.because.startswith("went out with rollout 2 on ")
    assert told.because.endswith(" UTC, and runs")
    assert told.expected_at is None
    assert why(world, f"{1:040x}").because.endswith(f", and {sha[:12]} runs since")


def test_behind_a_rollout_it_says_with_whom_it_goes_out(world, monkeypatch):
    """As selection would choose by now: how many before it, how many with it, and when."""
    world.push()
    until(world, RolloutState.EVALUATING_CANARY)
    monkeypatch.setattr(planning, "start_next", lambda *_, **__: None)
    next_one, after = world.workshop.push(), world.workshop.push()
    read(world)
    tested(world, next_one, after)
    told = why(world, next_one)
    assert told.because == "tested, waits for rollout 2 (1 of 3 hosts), then goes out by itself"
    assert why(world, after).because == (
        "tested, waits for rollout 2 (1 of 3 hosts), 1 rollout before it, then goes out by itself"
    )
    assert why(world, after).expected_at > told.expected_at
    with world.store.transaction() as tx:
        for sha in (next_one, after):
            tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 1500.0)
    assert why(world, next_one).because.endswith("then goes out with 1 other")


@pytest.mark.parametrize(
    ("took_s", "company"), [(1.0, "with 1 other"), (400.0, "by itself"), (None, "by itself")]
)
def test_what_has_passed_goes_out_without_tests_that_outlast_what_is_under_way(
    world, monkeypatch, took_s, company
):
    """The one above it would go along, if its tests were over by then; nobody knows when those of a CI server are."""
    world.push()
    until(world, RolloutState.EVALUATING_CANARY)
    monkeypatch.setattr(planning, "start_next", lambda *_, **__: None)
    next_one, above = world.workshop.push(), world.workshop.push()
    read(world)
    tested(world, next_one)
    with world.store.transaction() as tx:
        for sha in (next_one, above):
            tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 1500.0)
        tx.commits.update(tx.commits.get("shop", next_one), took_s=took_s or 1.0)
    its = world.config.app(None)
    if took_s is None:
        tests = its.tests.model_copy(update={"source": "external", "required": ("unit",)})
        its = its.model_copy(update={"tests": tests})
    with world.store.reading() as tx:
        active, today = world.newest(), tx.today()
        told = explaining.why(tx, its, tx.commits.get("shop", next_one))
        foreseen = foreseeing.forecast(tx, its)
        over_at = foreseeing.ends_at(tx, its, active) + timedelta(seconds=foreseeing.typical_s(tx, "shop"))
    assert told.because == f"tested, waits for rollout 2 (1 of 3 hosts), then goes out {company}"
    assert (told.expected_at - today).total_seconds() == pytest.approx(
        (over_at - today).total_seconds(), abs=5.0
    )
    assert foreseen.commits[0].sha == next_one
    assert len(foreseen.commits) == 1 + (company != "by itself")


def test_what_is_in_test_goes_out_as_soon_as_it_has_passed(world, monkeypatch):
    """Were all tested they would go out together, as the goal is near: the first one is out long before the tests of the others are over."""
    hashes = [world.workshop.push() for _ in range(3)]
    read(world)
    with world.store.transaction() as tx:
        for sha in hashes:
            tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 1500.0)
        tx.commits.update(tx.commits.get("shop", f"{1:040x}"), took_s=400.0)
    its = world.config.app(None)
    its = its.model_copy(update={"tests": its.tests.model_copy(update={"parallel": 1})})
    with world.store.reading() as tx:
        today = tx.today()
        monkeypatch.setattr(Transaction, "today", staticmethod(lambda: today))
        told = [explaining.why(tx, its, tx.commits.get("shop", sha)) for sha in hashes]
    assert [one.because for one in told] == [
        f"waits for its tests, {before}then goes out by itself"
        for before in ("", "1 rollout before it, ", "2 rollouts before it, ")
    ]
    each_s = typical_s(world)
    assert [(one.expected_at - today).total_seconds() for one in told] == pytest.approx(
        [400.0 + each_s, 800.0 + each_s, 1200.0 + each_s]
    )


def test_halted_and_taken_back(world):
    """A person decides, or has decided: no time is promised."""
    sha = world.push()
    until(world, RolloutState.EVALUATING_CANARY)
    with world.store.transaction() as tx:
        from rollout.services import rollouts

        rollouts.halt(tx, tx.rollouts.lock(world.newest().id), "too many failed.")  # a judge's are sentences
    assert why(world, sha) == explaining.Why(
        "in rollout 2, which is halted: too many failed; a person decides: rollout show 2"
    )
    later = world.workshop.push()
    read(world)
    tested(world, later)
    assert why(world, later) == explaining.Why(
        "tested, waits for rollout 2, which is halted; a person decides: rollout show 2"
    )
    bars.bar("shop", sha, world.deps, who="ann", why="slow query")
    barred = f"although {sha[:12]} is barred: slow query (to take it back: rollout stop 2)"
    assert why(world, sha).because == (
        f"in rollout 2, which is halted: too many failed, {barred}; a person decides: rollout show 2"
    )
    stopping.stop(world.newest().id, world.deps, who="ann", why="it is slow")
    assert "in rollout 2, which is being taken back" in why(world, sha).because
    world.run(seconds=60)
    assert commit_of(world, sha).state is CommitState.BARRED
    assert why(world, sha).because.startswith("barred: ")
    assert f"rollout unbar {sha[:12]}" in why(world, sha).because
    assert f"{sha[:12]} is barred" in why(world, later).because
    assert why(world, later).expected_at is None


def test_what_is_taken_back_with_the_first_release_is_not_out(world):
    """After `rollback --to` the first one, and `rollback` of that, nothing runs: what had gone out in between waits for the head again."""
    second = world.push()
    until(world, RolloutState.DONE)
    world.push()
    until(world, RolloutState.DONE)
    for to in (f"{1:040x}", None):
        stopping.roll_back_done(world.config.app(None), world.deps, to=to, who="ann", why="slow")
        world.run(seconds=60)
    head = world.push()
    bars.unbar("shop", second, world.deps, who="ann", why="it was not this one")
    assert why(world, second).because.startswith(f"older than {head[:12]}, and inside of it: ")


def test_frozen_dropped_and_outrun(world):
    """A freeze says until when, a commit that left the branch and one that runs inside another say so."""
    freezes.freeze(world.config.app(None), world.deps, who="ann", why="the sale", until=None)
    held = world.push()
    assert why(world, held) == explaining.Why("waits for its tests, frozen by ann: the sale")
    world.run(seconds=30)
    assert why(world, held) == explaining.Why("tested, frozen by ann: the sale")
    freezes.unfreeze(world.config.app(None), world.deps, who="ann", why="it has an end")
    freezes.freeze(
        world.config.app(None), world.deps, who="ann", why="the sale", until=datetime(2100, 1, 1, tzinfo=UTC)
    )
    told = why(world, held)
    assert told.because == (
        "tested, frozen until Fri 2100-01-01 00:00 UTC by ann: the sale, then goes out by itself"
    )
    assert told.expected_at - datetime(2100, 1, 1, tzinfo=UTC) == timedelta(seconds=typical_s(world))
    world.workshop.commits.pop()
    world.push()
    read(world)
    with world.store.transaction() as tx:
        tx.commits.update(tx.commits.get("shop", held), on_branch=False)
    assert why(world, held) == explaining.Why("no longer on branch main")
    with world.store.transaction() as tx:
        tx.commits.update(tx.commits.get("shop", held), on_branch=True, position=0)
    assert why(world, held).because == "older than 000000000000, which runs: what it changed is in there"


@pytest.mark.parametrize("from_state", [None, RolloutState.PENDING, RolloutState.EVALUATING_CANARY])
def test_the_expected_time_is_right_within_a_fifth(measured, from_state):
    """Foreseen when it passed its tests, when it was planned and halfway of its canary: when the clock says done."""
    sha = measured.push()
    begun = measured.seconds
    if from_state is None:
        tested(measured, sha)
    else:
        until(measured, from_state)
    if from_state is RolloutState.EVALUATING_CANARY:
        measured.run(seconds=15)
    left = why(measured, sha).expected_at - datetime.now(UTC)  # the world's clock stands still meanwhile
    asked = measured.seconds
    until(measured, RolloutState.DONE)
    assert left.total_seconds() > 0
    assert abs(asked + left.total_seconds() - measured.seconds) < (measured.seconds - begun) / 5


def test_commits_behind_a_rollout_go_out_when_it_was_foreseen(measured):
    """The sum of what is left of the one under way and of its own: one after the other, as the sentence says."""
    measured.push()
    until(measured, RolloutState.EVALUATING_CANARY)
    sha = measured.push()
    tested(measured, sha)
    begun, left = measured.seconds, why(measured, sha).expected_at - datetime.now(UTC)
    assert why(measured, sha).because == (
        "tested, waits for rollout 4 (1 of 3 hosts), then goes out by itself"
    )
    measured.run(until=lambda: measured.newest().id == 5 and measured.newest().state is RolloutState.DONE)
    assert measured.newest().commit == sha
    assert abs(left.total_seconds() - (measured.seconds - begun)) < (measured.seconds - begun) / 5


def test_what_waits_grows_older_from_rollout_to_rollout(measured, monkeypatch):
    """What would miss the goal when its turn comes goes out with others, and is told so: as many at once as come."""
    for _ in range(2):
        measured.push()
        measured.settle()
    app = measured.config.app(None)
    with measured.store.reading() as tx:
        lasts = max(tx.rollouts.durations("shop"))
    monkeypatch.setitem(app.__dict__, "queue", app.queue.model_copy(update={"goal": 3 * lasts + 1}))
    hashes = [measured.workshop.push() for _ in range(7)]
    with monkeypatch.context() as patch:
        patch.setattr(planning, "start_next", lambda *_, **__: None)
        read(measured)
        tested(measured, *hashes)
    begun, asked_at = measured.seconds, datetime.now(UTC)
    told = [(why(measured, sha).expected_at - asked_at).total_seconds() for sha in hashes]
    last = measured.newest().id
    planning.start_next("shop", measured.deps)
    out = {}

    def over():
        with measured.store.reading() as tx:
            done = tx.rollouts.newest_done("shop")
        if done.id > last:
            out.update((sha, measured.seconds - begun) for sha in done.commits if sha not in out)
        return len(out) == len(hashes)

    measured.run(until=over)
    assert told == pytest.approx([out[sha] for sha in hashes], rel=0.2)


def test_waiting_for_the_tests_of_one_below(world, monkeypatch):
    """A commit that passed and goes out with an older one says whose tests it waits for, and when all the same."""
    monkeypatch.setattr(planning, "start_next", lambda *_, **__: None)
    below, above = world.workshop.push(), world.workshop.push()
    read(world)
    tested(world, above)
    with world.store.transaction() as tx:
        for sha in (below, above):
            tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 1500.0)
    told = why(world, above)
    assert told.because == "tested, waits for the tests of 1 commit below it, then goes out with 1 other"
    assert told.expected_at is not None


@pytest.mark.parametrize("below", [0, 1])
def test_waiting_for_the_tests_of_what_undoes_it(world, monkeypatch, below):
    """What lies above is no commit below it, and is waited for up to the revert only: it would go out without the others."""
    monkeypatch.setattr(planning, "start_next", lambda *_, **__: None)
    older = [world.workshop.push() for _ in range(below)]
    undone = world.workshop.push()
    hashes = [*older, undone, world.workshop.push(f"This reverts commit {undone}."), world.workshop.push()]
    read(world)
    tested(world, undone)
    with world.store.transaction() as tx:
        for sha in hashes:
            tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 1500.0)
    app = world.config.app(None)
    queue, tests = app.queue.model_copy(update={"most": 4}), app.tests.model_copy(update={"parallel": 4})
    app = app.model_copy(update={"queue": queue, "tests": tests})
    with world.store.reading() as tx:
        told = explaining.why(tx, app, tx.commits.get("shop", undone))
    above = "1 commit below it and 1 commit above it" if below else "1 commit above it"
    assert told.because == f"tested, waits for the tests of {above}, then goes out with {below + 2} others"
    assert told.expected_at is not None


def test_what_a_person_wants_out_goes_before_the_queue(world, monkeypatch):
    """`deploy --now` waits for nobody but what is under way, and says who wanted it and why."""
    monkeypatch.setattr(planning, "start_next", lambda *_, **__: None)
    hashes = [world.workshop.push() for _ in range(5)]
    read(world)
    tested(world, *hashes)
    assert "1 rollout before it" in why(world, hashes[-3]).because
    with world.store.transaction() as tx:
        tx.commits.wish_now(tx.commits.get("shop", hashes[-1]), "the login", "ann")
    told = why(world, hashes[-1])
    assert told.because == "tested, then goes out with 4 others, before the queue: ann: the login"
    assert told.expected_at is not None


def wanted(world, sha):
    """As `deploy --now` marks it."""
    with world.store.transaction() as tx:
        tx.commits.wish_now(tx.commits.get("shop", sha), "the login", "ann")


def test_what_a_person_wants_out_waits_for_no_other_tests(world, monkeypatch):
    """Tested itself, it goes out over what is in test below it; and what is below goes out with it, and says so."""
    with monkeypatch.context() as patch:
        patch.setattr(planning, "start_next", lambda *_, **__: None)
        below, other, above = (world.workshop.push() for _ in range(3))
        read(world)
        tested(world, below, above)
    wanted(world, above)
    told = why(world, above)
    assert told.because == "tested, then goes out with 2 others, before the queue: ann: the login"
    assert told.expected_at - datetime.now(UTC) < timedelta(seconds=typical_s(world) + 1)
    assert why(world, below).because == "tested, then goes out with 2 others"
    assert why(world, below).expected_at is not None
    planning.start_next("shop", world.deps)
    assert world.newest().commits == (below, other, above)


def test_in_a_freeze_a_hotfix_in_test_has_no_rollout_of_the_frozen_queue_before_it(world):
    """It takes along what is frozen below it, and both say so."""
    freezes.freeze(world.config.app(None), world.deps, who="ben", why="the sale", until=None)
    below, fix = world.workshop.push(), world.workshop.push()
    read(world)
    tested(world, below)
    wanted(world, fix)
    told = why(world, fix)
    assert told.because == "waits for its tests, then goes out with 1 other, before the queue: ann: the login"
    assert told.expected_at is not None
    assert why(world, below).because == (
        f"tested, waits for the tests of {fix[:12]}, which ann wants out, then goes out with 1 other"
    )
    assert why(world, below).expected_at == pytest.approx(told.expected_at, abs=timedelta(seconds=5))


@pytest.mark.parametrize("test", [False, True])
def test_what_a_person_wants_out_after_a_force_push_goes_alone(world, monkeypatch, test):
    """What runs has left the branch: automation waits for a person, who has said what comes next."""
    monkeypatch.setattr(world.workshop, "commits", [BranchCommit("e" * 40, 1, "new", "Ann", "new")])
    read(world)
    if test:
        tested(world, "e" * 40)
    assert "a person may" in why(world, "e" * 40).because
    wanted(world, "e" * 40)
    before = "tested" if test else "waits for its tests"
    told = why(world, "e" * 40)
    assert told.because == f"{before}, then goes out by itself, before the queue: ann: the login"
    assert told.expected_at is not None
    world.run(seconds=120, until=lambda: world.newest().id == 2)
    assert world.newest().commits == ("e" * 40,)


def test_before_the_first_release_the_older_ones_are_inside_the_head(tmp_path, monkeypatch):
    """Only the head goes out first: an older one says in which, and when that is."""
    world = World(tmp_path, monkeypatch, hosts=3)
    monkeypatch.setattr(planning, "start_next", lambda *_, **__: None)
    older, head = world.push(), world.push()
    told = why(world, older)
    assert told.because.startswith(f"older than {head[:12]}, and inside of it: waits for its tests")
    assert told.expected_at is not None


def test_a_check_of_somebody_else_has_no_time(world, monkeypatch):
    """Nobody can tell when a CI server reports: null."""
    sha = world.push()
    config = world.config.app(None)
    tests = config.tests.model_copy(update={"source": "external", "required": ("unit",)})
    with world.store.reading() as tx:
        app = config.model_copy(update={"tests": tests})
        told = explaining.why(tx, app, tx.commits.get("shop", sha))
    assert told == explaining.Why("waits for its tests, then goes out by itself")


def test_where_a_person_is_asked_there_is_no_time(tmp_path):
    """With `confirm` a stage to come waits for a yes: null until it is given, and for all that comes behind."""
    deps = a_deps(tmp_path, fan_out='confirm = ["fan_out"]')
    a_rollout(deps, state="done")
    own, later = a_commit(deps), a_commit(deps)

    def told(commit):
        with deps.store.reading() as tx:
            return explaining.why(tx, deps.config.app("shop"), commit)

    rollout = a_rollout(deps, state="evaluating_canary", commit=own)
    asked = "in rollout 2: its canary is watched; then a person is asked whether it goes on"
    assert told(own) == explaining.Why(asked)
    assert told(later).expected_at is None
    with deps.store.transaction() as tx:
        tx.rollouts.change(tx.rollouts.get(rollout.id), RolloutEvent.CANARY_PASSED, who="test")
    assert told(own).because == "in rollout 2: 0 of 4 hosts have it"
    assert told(own).expected_at is not None
    assert told(later).expected_at is None


def test_beyond_what_is_foreseen(world, monkeypatch):
    """A commit behind very many says that, and before when nothing comes of it, and no time; the queue is written anew once only."""
    monkeypatch.setattr(foreseeing, "MOST_ROUNDS", 2)
    monkeypatch.setattr(planning, "start_next", lambda *_, **__: None)
    written = []
    monkeypatch.setattr(
        foreseeing, "replace", lambda one, **values: written.append(one) or replace(one, **values)
    )
    hashes = [world.workshop.push() for _ in range(9)]
    read(world)
    tested(world, *hashes)
    told = why(world, hashes[-1])
    with world.store.reading() as tx:
        then = freezes.text(world.config.app(None), tx.today() + 2 * timedelta(seconds=typical_s(world)))
    assert told == explaining.Why(f"tested; more than 2 rollouts go before it, so not before {then}")
    assert [one.sha for one in written] == hashes


C, R = CommitState, RolloutState
UNDER_WAY = [
    R.PENDING,
    R.DEPLOYING_CANARY,
    R.EVALUATING_CANARY,
    R.FANNING_OUT,
    R.HALTED,
    R.STOPPING,
    R.ROLLING_BACK,
]
OWN = {
    R.PENDING: "planned as rollout 2, which begins at once",
    R.DEPLOYING_CANARY: "in rollout 2: its canary is being switched",
    R.EVALUATING_CANARY: "in rollout 2: its canary is watched",
    R.FANNING_OUT: "in rollout 2: 0 of 4 hosts have it",
    R.HALTED: "in rollout 2, which is halted: 2 of 4 hosts failed; a person decides",
    R.STOPPING: "in rollout 2, which is being taken back: stopped by a test",
    R.ROLLING_BACK: "in rollout 2, which is being taken back: stopped by a test",
    R.DONE: "went out with rollout 2 on ",
    R.ROLLED_BACK: None,
    R.STOPPED: None,
    R.ERROR: None,
}
ALONE = {
    C.RECEIVED: "waits for its tests",
    C.TESTING: "tests run",
    C.PASSED: "tested",
    C.FAILED: "its tests failed: because",
    C.BARRED: "barred: because",
}
ENDS = {C.FAILED, C.BARRED}


def behind(state):
    """Of a commit that waits behind another one's rollout."""
    if state is R.HALTED:
        return "waits for rollout 2, which is halted; a person decides"
    if state in {R.STOPPING, R.ROLLING_BACK}:
        return "waits until rollout 2 is taken back"
    return "waits for rollout 2 (0 of 4 hosts), then goes out by itself"


SITUATIONS = {
    **{f"own {state}": (state, None, OWN[state] or "") for state in R},
    **{f"behind {state}": (None, state, behind(state)) for state in UNDER_WAY},
    "alone": (None, None, "then goes out by itself"),
    "frozen": (None, None, "frozen by ann: the sale"),
    "wanted": (None, None, "before the queue: ann: the login"),
    "off the branch": (None, None, "no longer on branch main"),
    "outrun": (None, None, "older than"),
    "barred": (None, None, "barred: slow"),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_state_has_its_sentence_in_every_situation(tmp_path, situation):
    """What a commit is and what happens around it: one line for each, and a time only where nobody has to act."""
    deps = a_deps(tmp_path)
    own, other, words = SITUATIONS[situation]
    a_rollout(deps, state="done")
    if other is not None:
        a_rollout(deps, state=other)
    commit = a_commit(deps)
    if own is not None:
        a_rollout(deps, state=own, commit=commit)
    values = {
        "wanted": {"now_by": "ann", "now_reason": "the login"},
        "off the branch": {"on_branch": False},
        "outrun": {"position": 0},
        "barred": {"bar_wanted": "slow"},
    }.get(situation, {})
    if situation == "frozen":
        freezes.freeze(deps.config.app("shop"), deps, who="ann", why="the sale", until=None)
    for state in C:
        if situation == "barred" and state in {C.PASSED, C.BARRED}:
            continue  # then its state says so
        with deps.store.transaction() as tx:
            reason = "because" if state in ENDS else None
            reds = int(state is C.FAILED)
            found = tx.commits.get("shop", commit.sha)
            tx.commits.update(found, state=state, reason=reason, reds=reds, **values)
        asked_at = datetime.now(UTC)
        with deps.store.reading() as tx:
            told = explaining.why(tx, deps.config.app("shop"), tx.commits.get("shop", commit.sha))
        assert "\n" not in told.because
        assert told.expected_at is None or told.expected_at >= asked_at
        if own is R.PENDING and state is not C.PASSED:
            set_aside = (
                f"planned as rollout 2, of which nothing comes: commit {commit.sha[:12]} is {state} since"
            )
            assert told.because.startswith(set_aside)
            assert told.expected_at is None
            continue
        although = f", although {commit.sha[:12]} is barred: because (to take it back: rollout stop 2)"
        if own in STAGES and state is C.BARRED:
            words = f"in rollout 2{although}: "
        if own is R.HALTED and state is C.BARRED:
            words = f"in rollout 2, which is halted: 2 of 4 hosts failed{although}; a person decides"
        own_word = situation == "outrun" or OWN.get(own) is not None
        own_word |= situation == "off the branch" and state not in ENDS
        assert told.because.startswith(words if own_word else ALONE[state])
        assert own_word or (state in ENDS and situation != "barred") or words in told.because
        over = situation in {"frozen", "off the branch", "outrun"} or other is R.HALTED
        over |= own in {R.HALTED, R.STOPPING, R.ROLLING_BACK, R.DONE}
        over |= state in ENDS and own not in {R.PENDING, *STAGES}
        over |= situation == "barred"
        assert (told.expected_at is None) == over


FRIDAY = datetime(2026, 11, 27, 14, 55, tzinfo=UTC)  # 15:55 in Berlin
WEEKEND = {"freeze": ("Fri 16:00 - Mon 08:00",), "time_zone": "Europe/Berlin", "goal": 7200.0}
MONDAY = datetime(2026, 11, 30, 7, 0, tzinfo=UTC)
TEN_MINUTES = timedelta(minutes=10)


@pytest.fixture
def friday(tmp_path, monkeypatch):
    """Five minutes before the weekend's window; a rollout is taken to last ten."""
    deps = a_deps(tmp_path)
    queue = deps.config.app("shop").queue.model_copy(update=WEEKEND)
    monkeypatch.setitem(deps.config.app("shop").__dict__, "queue", queue)
    monkeypatch.setattr(Transaction, "today", staticmethod(lambda: FRIDAY))
    monkeypatch.setattr(Rollouts, "durations", lambda *_: [600.0])
    monkeypatch.setattr(Rollouts, "age_s", lambda *_: 0.0)
    a_rollout(deps, state="done")
    return deps


def told_of(deps, commit):
    with deps.store.reading() as tx:
        return explaining.why(tx, deps.config.app("shop"), tx.commits.get("shop", commit.sha))


def test_a_window_that_will_have_begun_by_then_is_waited_for(friday):
    """What begins before the window is out at once; what comes after it waits for Monday, and both say so."""
    first, second = a_commit(friday), a_commit(friday)
    assert told_of(friday, first) == explaining.Why("tested, then goes out by itself", FRIDAY + TEN_MINUTES)
    assert told_of(friday, second) == explaining.Why(
        "tested, 1 rollout before it, then goes out by itself, but not before Mon 2026-11-30 08:00 CET, by a window of rollout.toml",
        MONDAY + TEN_MINUTES,
    )
    third = a_commit(friday)  # both have waited longer than the goal by then
    for commit in (second, third):
        assert "then goes out with 1 other, but not before Mon" in told_of(friday, commit).because
        assert told_of(friday, commit).expected_at == MONDAY + TEN_MINUTES


def test_what_is_planned_ahead_waits_for_a_window_too(friday):
    """It will be set aside when the window begins, and planned anew after it."""
    a_rollout(friday)
    planned = a_commit(friday)
    ahead = a_rollout(friday, state="pending", commit=planned)
    with friday.store.transaction() as tx:
        tx.rollouts.update(ahead, began_s=None)
    told = told_of(friday, planned)
    assert told.because.startswith(
        "planned as rollout 3, begins when rollout 2 is done (0 of 4 hosts), but not before Mon "
    )
    assert told.expected_at == MONDAY + TEN_MINUTES


def test_a_persons_word_waits_for_no_window(friday):
    """A hotfix goes out on Friday, and what lies below it with it."""
    a_rollout(friday)
    below, fix = a_commit(friday), a_commit(friday)
    with friday.store.transaction() as tx:
        tx.commits.wish_now(tx.commits.get("shop", fix.sha), "the login", "ann")
    freezes.freeze(friday.config.app("shop"), friday, who="bob", why="the sale", until=None)
    for commit in (below, fix):
        told = told_of(friday, commit)
        assert "frozen" not in told.because
        assert "not before" not in told.because
        assert told.expected_at == FRIDAY + 2 * TEN_MINUTES


def test_a_time_after_a_window_is_told_in_utc(friday, monkeypatch):
    """As the contract has it, whatever the time zone of the window; people read it on their own clock."""
    monkeypatch.setattr(Transaction, "today", staticmethod(lambda: FRIDAY + TEN_MINUTES))
    told = told_of(friday, a_commit(friday))
    assert views.moment(told.expected_at) == "2026-11-30T07:10:00.000Z"
    assert explaining.sentence(friday.config.app("shop"), told, FRIDAY).endswith(", at about Mon 08:10 CET")


def test_a_time_that_is_far_away_has_its_date(friday):
    """The name of a day alone would be that of this week."""
    told = explaining.Why("tested", FRIDAY + timedelta(days=21))
    assert (
        explaining.sentence(friday.config.app("shop"), told, FRIDAY)
        == "tested, at about Fri 2026-12-18 15:55 CET"
    )


def test_a_rollout_that_is_late_ends_in_the_future(tmp_path, monkeypatch):
    """By those before it that took longer; when none did, by the hosts that are still to come."""
    deps = a_deps(tmp_path)
    for _ in range(3):
        a_rollout(deps, state="done")
    commit = a_commit(deps)
    a_rollout(deps, commit=commit, hosts={"shop01": "done"})
    now = datetime.now(UTC)
    monkeypatch.setattr(Transaction, "today", staticmethod(lambda: now))
    monkeypatch.setattr(Rollouts, "durations", lambda *_: [100.0, 100.0, 300.0])
    monkeypatch.setattr(Rollouts, "age_s", lambda *_: 120.0)
    assert told_of(deps, commit).expected_at == now + timedelta(seconds=180)
    monkeypatch.setattr(Rollouts, "age_s", lambda *_: 400.0)
    assert told_of(deps, commit).expected_at == now + timedelta(seconds=75)  # three of four hosts
    behind = told_of(deps, a_commit(deps))
    assert behind.expected_at == now + timedelta(seconds=175)


def test_a_barred_commit_says_who_takes_it_along(world, monkeypatch):
    """With the commit that undoes it, it goes out all the same: the sentence does not ask for one that is there."""
    monkeypatch.setattr(planning, "start_next", lambda *_, **__: None)
    bad = world.workshop.push()
    read(world)
    tested(world, bad)
    bars.bar("shop", bad, world.deps, who="ann", why="slow")
    alone = f"barred: slow; a later commit that says so may mend it, or: rollout unbar {bad[:12]}"
    assert why(world, bad) == explaining.Why(alone)
    fix = world.workshop.push(f"Take it back\n\nThis reverts commit {bad}.")
    read(world)
    tested(world, fix)
    told = why(world, bad)
    assert told.because == (
        f"barred: slow; it is taken along by {fix[:12]}, which came later: tested, then goes out with 1 other"
    )
    assert told.expected_at is not None


def test_a_suspect_says_why_it_goes_out_alone(world, monkeypatch):
    """Its batch went wrong, and nobody knows yet which one of it was bad."""
    monkeypatch.setattr(planning, "start_next", lambda *_, **__: None)
    hashes = [world.workshop.push() for _ in range(2)]
    read(world)
    tested(world, *hashes)
    with world.store.transaction() as tx:
        for sha in hashes:
            tx.commits.update(tx.commits.get("shop", sha), suspect=True, suspect_of=7)
    assert why(world, hashes[0]).because == (
        "tested, one of those that may be what went wrong with rollout 7, then goes out by itself"
    )


def test_with_nothing_under_way_the_next_commit_is_told_with_its_time(world, monkeypatch):
    """Also while it is in test; a freeze, and that nothing is new, are told as always."""
    monkeypatch.setattr(planning, "start_next", lambda *_, **__: None)
    assert coming(world).because.startswith("there is nothing new")
    sha = world.workshop.push()
    read(world)
    assert coming(world).because == f"commit {sha[:12]}: waits for its tests, then goes out by itself"
    assert coming(world).expected_at == pytest.approx(why(world, sha).expected_at, abs=timedelta(seconds=5))
    tested(world, sha)
    freezes.freeze(world.config.app(None), world.deps, who="ann", why="the sale", until=None)
    assert coming(world) == explaining.Why(f"commit {sha[:12]}: tested, frozen by ann: the sale")


def frozen(world, *, ends):
    with world.store.reading() as tx:
        end = tx.today() + timedelta(hours=2) if ends else None
    freezes.freeze(world.config.app(None), world.deps, who="ann", why="the sale", until=end)


@pytest.mark.parametrize("ends", [True, False])
def test_in_a_freeze_it_is_told_too_that_a_person_decides_afterwards(world, ends):
    """What runs was forced off the branch: who waits for the freeze's end is told at once that nothing follows by itself, and the freeze once."""
    world.push()
    world.settle()
    frozen(world, ends=ends)
    first = world.workshop.commits[0].sha
    forced = BranchCommit("f" * 40, 2, "a change", "Ann", "forced", (first,))
    world.workshop.commits[1:] = [forced]
    read(world)
    world.run(seconds=60)
    for told in (why(world, forced.sha), coming(world)):
        assert told.because.count("by ann: the sale") == 1
        assert (told.because.endswith(planning.GONE), told.expected_at) == (True, None)


@pytest.mark.parametrize("ends", [True, False])
def test_in_a_freeze_it_is_told_too_what_is_barred_before_it(world, ends):
    """The freeze's end brings it no further: that needs a revert, or a person's word, which can be had now."""
    bad = world.push()
    bars.bar("shop", bad, world.deps, who="ann", why="slow")
    world.run(seconds=30)
    frozen(world, ends=ends)
    later = world.push()
    world.run(seconds=30)
    for told in (why(world, later), coming(world)):
        assert told.because.count("by ann: the sale") == 1
        assert (f"the sale; {bad[:12]} is barred" in told.because, told.expected_at) == (True, None)


def test_a_halt_and_a_freeze_are_told_together(world):
    """Each of them keeps what waits, and who lifts one of them alone learns of the other at once."""
    world.push()
    until(world, RolloutState.FANNING_OUT)
    with world.store.transaction() as tx:
        rollout = tx.rollouts.lock(world.newest().id)
        tx.rollouts.change(rollout, RolloutEvent.HALT, who="test", why="hosts failed", reason="hosts failed")
    later = world.workshop.push()
    read(world)
    frozen(world, ends=False)
    for told in (why(world, later), coming(world)):
        assert told.because.endswith(f"rollout show {rollout.id}; frozen by ann: the sale")
        assert told.expected_at is None


@pytest.mark.parametrize("hosts", [1, 3])
def test_what_the_next_one_replaces_is_not_on_its_way_back(tmp_path, monkeypatch, hosts):
    """While the next rollout has switched every host, and is not done, nothing goes back to what it replaces."""
    world = released(tmp_path, monkeypatch, hosts=hosts)
    first = world.workshop.commits[0].sha
    world.push()
    world.run(until=lambda: set(world.runs().values()) == {world.workshop.commits[-1].sha})
    assert world.newest().state in STAGES
    assert "on its way back" not in why(world, first).because
