"""Runs of a commit's tests: tried again when red, bounded, so many at a time, apps in turn, and told to people."""

import pytest

from rollout.cli.commits import Way
from rollout.domain import model
from rollout.domain.pipeline import run_tests
from rollout.domain.states import CommitState
from rollout.services import (
    explaining,
    foreseeing,
    freezes,
    intake,
    planning,
    reconcile,
    telling,
    testing,
    turns,
    views,
)
from rollout.services.testing import MOST_LOST
from rollout.store.apps import Apps
from rollout.store.commits import Commits
from tests.support.branch import commit_of, read
from tests.support.fakes import a_commit, a_deps
from tests.support.world import World

LEASE_S = 15.0


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch, hosts=2)


def with_results(world, *passed):
    """The next runs of tests end like that; the last one's end is that of all further ones."""
    left, runs = list(passed), []

    def run(_app, _config, commit, *, go_on):
        assert go_on()
        runs.append(commit)
        good = left.pop(0) if len(left) > 1 else left[0]
        return model.TestResult(good, "ok" if good else "exit status 1", f"output {len(runs)}")

    world.workshop.run_tests = run
    return runs


def titles(world):
    with world.store.reading() as tx:
        return [notice.title for notice in tx.notices.claim(0.0, limit=100)]


def test_a_commit_that_passes_after_a_red_run_is_flaky_visibly(world):
    """It may ship; its row, the API's JSON and a notice say that it was red on the same bytes."""
    runs = with_results(world, False, True)
    sha = world.push()
    world.run(seconds=20)
    commit = commit_of(world, sha)
    assert (commit.state, commit.flaky, commit.reds, len(runs)) == (CommitState.PASSED, True, 1, 2)
    assert "output 1" in commit.output
    assert "output 2" in commit.output
    with world.store.reading() as tx:
        assert views.commit(tx, commit)["tests"] | {"took_s": 0} == {
            "runs": 2,
            "red": 1,
            "flaky": True,
            "took_s": 0,
        }
    assert any("is flaky" in title for title, _ in world.notifier.sent)
    assert "flaky: passed after 1 red" in telling.told_of_tests(commit)


def test_red_runs_are_bounded(world):
    """With `retries = 1` the second red run is the last one, and a commit that only passes is not flaky."""
    runs = with_results(world, False)
    sha = world.push()
    world.run(seconds=120)
    commit = commit_of(world, sha)
    assert (commit.state, commit.flaky, len(runs)) == (CommitState.FAILED, False, 2)
    with_results(world, True)
    assert not commit_of(world, world.push()).flaky


def test_a_commit_that_kills_its_worker_is_given_up(world):
    """D5: after MOST_LOST runs that ended with their worker it has failed, and says that its tests did it."""
    sha = world.workshop.push()
    runs = []

    def die(*_args, **_more):
        runs.append(1)
        raise KeyboardInterrupt

    world.workshop.run_tests = die
    testing.intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    for _ in range(MOST_LOST + 3):
        with_dying_worker(world, commit_of(world, sha))
    commit = commit_of(world, sha)
    assert (commit.state, len(runs)) == (CommitState.FAILED, MOST_LOST)
    assert f"ended with their worker {MOST_LOST} times" in commit.reason


def with_dying_worker(world, commit):
    try:
        testing.run_tests(commit.id, world.deps)
    except KeyboardInterrupt:
        world.seconds += LEASE_S + 1


def test_a_git_server_that_is_down_is_not_a_lost_worker(world):
    """A worker that lives to report begins the count anew: only tests that end it are given up."""
    sha = world.workshop.push()
    testing.intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    with world.store.transaction() as tx:
        tx.commits.update(tx.commits.get("shop", sha), lost=MOST_LOST - 1)
    testing.run_tests(commit_of(world, sha).id, world.deps)
    assert (commit_of(world, sha).state, commit_of(world, sha).lost) == (CommitState.PASSED, 0)


def parallel_of(deps, app, number):
    tests = deps.config.app(app).tests.model_copy(update={"parallel": number})
    object.__setattr__(deps.config.apps[app], "tests", tests)


def test_no_more_are_tested_at_a_time_than_the_app_says(tmp_path):
    """A message too many finds no room, and its commit waits."""
    deps = a_deps(tmp_path)
    parallel_of(deps, "shop", 2)
    commits = [a_commit(deps, passed=None) for _ in range(3)]
    with deps.store.transaction() as tx:
        claims = [tx.commits.claim_tests(one.id, f"w{one.id}", LEASE_S, parallel=2) for one in commits]
    assert [claim is not None for claim in claims] == [True, True, False]
    testing.run_tests(commits[2].id, deps)
    with deps.store.reading() as tx:
        assert tx.commits.by_id(commits[2].id).state is CommitState.RECEIVED
        assert not turns.any_due(tx, deps.config.app("shop"), deps)


def test_apps_take_turns(tmp_path):
    """However many of one app's commits wait, another app's first one has as many messages before it as fit at a time."""
    deps = a_deps(tmp_path, apps=("shop", "blog"))
    flood = [a_commit(deps, passed=None) for _ in range(40)]
    other = a_commit(deps, app="blog", passed=None)
    reconcile._ring_part(reconcile._due_tests, deps, None)
    first = run_tests(flood[-1].id)  # too many wait: the head shows at once whether the branch is red
    assert [ring.arguments for ring in deps.bell.rung] == [first.arguments, run_tests(other.id).arguments]
    testing.run_tests(flood[-1].id, deps)
    tested = [ring for ring in deps.bell.rung[2:] if ring.task == first.task]
    assert [ring.arguments for ring in tested] == [run_tests(flood[0].id).arguments]


def test_in_a_crowd_as_many_as_may_ship_at_once_are_tested_first(tmp_path):
    """`queue.most` says how many that are."""
    deps = a_deps(tmp_path)
    parallel_of(deps, "shop", 7)
    shop = deps.config.app("shop")
    object.__setattr__(shop, "queue", shop.queue.model_copy(update={"most": 5}))
    flood = [a_commit(deps, passed=None).id for _ in range(20)]
    with deps.store.transaction() as tx:
        rings = turns.take(tx, shop, deps)
    assert [ring.arguments[0] for ring in rings] == [flood[-1], *flood[:5], flood[-2]]


def test_a_red_branch_names_its_first_red_commit_and_author_once(world):
    """People are told who made it red, once, and not of those that came on top; green again, it is forgotten."""
    world.push()
    world.settle()
    red = world.push(fails=True)
    world.push(fails=True)
    world.run(seconds=60)
    told = [title for title, _ in world.notifier.sent if "is red since" in title]
    assert told == [f"shop: main is red since {red[:12]} by Ann <ann@example.com>"]
    with world.store.reading() as tx:
        assert telling.first_red(tx, world.config.app("shop")).sha == red
    world.push()
    world.settle()
    with world.store.reading() as tx:
        assert telling.first_red(tx, world.config.app("shop")) is None


def test_who_was_told_to_have_made_the_branch_red_is_found_without_reading_the_others(world, monkeypatch):
    """However many came on top, and until it is good itself or a newer one is."""
    world.push()
    world.settle()
    red, other = world.push(fails=True), world.push(fails=True)
    world.run(seconds=60)
    app = world.config.app("shop")

    def first_red():
        with world.store.reading() as tx:
            found = telling.first_red(tx, app)
        return found and found.sha

    with monkeypatch.context() as patch:
        patch.setattr(Commits, "after_the_last_good", lambda *_: pytest.fail("all of them are read"))
        assert first_red() == red
    world.workshop.failing.discard(red)
    intake.enqueue(app, red, world.deps, who="ann")
    assert first_red() == other
    world.run(seconds=60)
    assert first_red() == other
    world.push()
    world.run(seconds=60)
    assert first_red() is None


def test_while_no_commit_has_failed_nobody_reads_the_branch_for_who_made_it_red(world, monkeypatch):
    """However many wait for their tests: each sweep, status and page asks."""
    world.workshop.push()
    read(world)
    monkeypatch.setattr(Commits, "after_the_last_good", lambda *_: pytest.fail("all of them are read"))
    with world.store.reading() as tx:
        assert telling.first_red(tx, world.config.app("shop")) is None


def test_what_is_built_again_is_told_of_as_good(world):
    """It passed: the branch is not red by what is below it, it is not told of as flaky again, and its tests do not run."""
    with_results(world, True)
    world.push()
    world.settle()
    app = world.config.app(None)
    freezes.freeze(app, world.deps, who="ann", why="weekend", until=None)
    with_results(world, False)
    red = world.push()
    world.run(seconds=60)
    with_results(world, False, True)
    sha = world.push()
    world.run(seconds=60)
    told = list(world.notifier.sent)
    world.workshop.gone.add(sha)
    freezes.unfreeze(app, world.deps, who="ann", why="monday")
    assert planning.start_next("shop", world.deps) is None
    assert commit_of(world, red).state is CommitState.FAILED
    with world.store.transaction() as tx:
        commit = tx.commits.get("shop", sha)
        assert telling.first_red(tx, world.config.app("shop")) is None
        assert telling.where(commit) == "passed, and its archive is built again"
        assert "its archive is built again" in explaining.why(tx, app, commit).because
        telling.red_branch(tx, app)
    with world.store.reading() as tx:
        way = Way(None, app, sha, frozenset())
        assert way._waits_for(tx, commit) == (telling.where(commit), False)
    world.settle()
    assert set(world.runs().values()) == {sha}
    assert [
        title for title, _ in world.notifier.sent[len(told) :] if "red" in title or "flaky" in title
    ] == []


def test_before_the_first_release_the_first_red_commit_is_named_too(world):
    """Nothing runs yet, and each new head is tested: who broke the branch is told once, and not each who came after him."""
    red = world.push(fails=True)
    world.run(seconds=20)
    world.push(fails=True)
    world.run(seconds=20)
    told = [title for title, _ in world.notifier.sent if "is red since" in title]
    assert told == [f"shop: main is red since {red[:12]} by Ann <ann@example.com>"]
    with world.store.reading() as tx:
        assert telling.first_red(tx, world.config.app("shop")).sha == red


def test_a_suite_that_becomes_slow_is_told_once(tmp_path):
    """More than five minutes earn a warning when it begins, in a notice and beside the output."""
    deps = a_deps(tmp_path)
    app = deps.config.app("shop")
    slow = model.TestResult(passed=True, reason="ok", output="", took_s=301.0)
    for _ in range(2):
        commit = a_commit(deps)
        with deps.store.transaction() as tx:
            telling.slow(tx, app, commit, slow)
            commit = tx.commits.update(tx.commits.by_id(commit.id), took_s=301.0, tested_at=tx.today())
    with deps.store.transaction() as tx:
        notices = tx.notices.claim(1.0, limit=10)
    assert [notice.title for notice in notices] == ["shop: the tests took 5.0 min"]
    assert telling.told_of_tests(commit) == ["the tests took 301.0 s, more than 5 min"]


def test_a_red_run_does_not_tell_how_long_tests_take(tmp_path):
    """It ended with its first failure: the suite is as slow as before, and the next commit's tests take as long as those that passed."""
    deps = a_deps(tmp_path)
    app = deps.config.app("shop")
    for passed, took_s in ((True, 400.0), (False, 5.0), (True, 410.0), (False, 900.0)):
        commit = a_commit(deps, passed=passed)
        result = model.TestResult(passed=passed, reason="its end", output="", took_s=took_s)
        with deps.store.transaction() as tx:
            telling.slow(tx, app, commit, result)
            tx.commits.update(tx.commits.by_id(commit.id), took_s=took_s, tested_at=tx.today())
    with deps.store.transaction() as tx:
        titles = [notice.title for notice in tx.notices.claim(1.0, limit=10)]
        assert foreseeing.took_of_tests_s(tx, app) == 410.0
    assert titles == ["shop: the tests took 6.7 min"]


def test_what_is_claimed_is_what_it_is_when_nobody_else_decides(world, monkeypatch):
    """Who read the branch a moment before has found that it came in with a merge: it is not tested by itself."""
    runs, sha, lock, waited = with_results(world, True), world.push(), Apps.lock, []

    def lock_after_another(apps, app):
        if not waited:
            waited.append(app)
            apps._tx.connection.exec_driver_sql("UPDATE commits SET merged_into = 'e'")
        lock(apps, app)

    monkeypatch.setattr(Apps, "lock", lock_after_another)
    testing.run_tests(commit_of(world, sha).id, world.deps)
    assert (len(waited), runs, commit_of(world, sha).state) == (1, [], CommitState.RECEIVED)


def test_what_runs_and_is_built_again_is_seen_as_under_way(world):
    """For a host that lacks it: `status` says that its archive is built, and nobody is told that nothing will start."""
    sha = world.push()
    world.settle()
    with world.store.transaction() as tx:
        tx.apps.lock("shop")
        world.workshop.gone.add(sha)
        assert planning.is_built_again(tx, tx.commits.get("shop", sha), world.deps)
        assert [one.sha for one in planning.untested(tx, "shop")] == [sha]
        assert planning.stuck(world.config.app(None), tx) is None
