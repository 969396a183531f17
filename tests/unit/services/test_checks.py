"""CI servers decide: in time, early, late, contradicting, and what no report can do."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from sqlalchemy import update

from rollout.domain.deliveries import Outcome
from rollout.domain.model import BranchCommit, Check, CheckState, Member, Pull, Push, Role
from rollout.domain.pipeline import RUN_TESTS
from rollout.domain.states import CommitState, RolloutState
from rollout.errors import Conflict
from rollout.services import (
    bars,
    checks,
    explaining,
    freezes,
    halts,
    intake,
    planning,
    reconcile,
    stopping,
    telling,
    views,
)
from rollout.store import checks as rows
from rollout.store.checks import MOST_NAMES
from rollout.store.rollouts import Planned
from rollout.store.store import Transaction
from rollout.store.tables import commits
from rollout.webhooks import PROVIDERS
from tests.support import stores
from tests.support.world import World

S = CheckState
SHA = "b" * 40


@pytest.fixture
def world(tmp_path, monkeypatch):
    """An app whose checks `unit` and `lint` must be a success within an hour."""
    return of_ci_servers(World(tmp_path, monkeypatch, hosts=2))


def of_ci_servers(world):
    app = world.config.app("shop")
    tests = app.tests.model_copy(update={"source": "external", "required": ("unit", "lint")})
    config = replace(world.config, apps={"shop": app.model_copy(update={"tests": tests})})
    world.config, world.deps = config, replace(world.deps, config=config)
    world.workshop.run_tests = None  # nobody runs them here
    return world


def report(world, sha, name, state, url="", stamp=""):
    check = Check(name, S(state), url, stamp=stamp)
    (said,) = checks.report([world.config.app("shop")], sha, check, world.deps)
    return said


def why(world, sha):
    with world.store.reading() as tx:
        return explaining.why(tx, world.config.app("shop"), tx.commits.get("shop", sha))


def state_of(world, sha):
    with world.store.reading() as tx:
        return tx.commits.get("shop", sha)


def rollout(world, number):
    with world.store.reading() as tx:
        return tx.rollouts.get(number)


def passed(world):
    sha = world.push()
    report(world, sha, "unit", "success")
    report(world, sha, "lint", "success")
    return sha


def test_heads_of_pull_requests_wait_for_their_checks(world, monkeypatch):
    """Nothing is run nor built for them here: the CI server's word is their result, and a red one is told of, but not one without a word."""
    monkeypatch.setitem(world.config.app("shop").tests.__dict__, "pull_requests", True)
    monkeypatch.setattr(world.workshop, "build", lambda *_: pytest.fail("built"))
    world.workshop.push()
    unknown, good, bad = "7" * 40, "8" * 40, "9" * 40
    world.workshop.pulls = [
        Pull(6, "refs/pull/6/head", unknown, "rum", "Eve", "rum"),
        Pull(7, "refs/pull/7/head", good, "tea", "Eve", "tea"),
        Pull(8, "refs/pull/8/head", bad, "ale", "Eve", "ale"),
    ]
    intake.poll("shop", world.deps, force=True)
    for sha, state in ((good, "success"), (bad, "failure")):
        assert state_of(world, sha).state is CommitState.RECEIVED
        report(world, sha, "unit", state)
        report(world, sha, "lint", "success")
    world.run(seconds=30)
    assert [state_of(world, sha).state for sha in (good, bad)] == [CommitState.PASSED, CommitState.FAILED]
    world.run(seconds=3700)
    assert state_of(world, unknown).state is CommitState.FAILED
    titles = [title for title, _ in world.notifier.sent if "pull request" in title]
    assert titles == [f"shop: pull request 8 is red at {bad[:12]} by Eve"]


@pytest.mark.parametrize("person", [False, True], ids=["", "barred by a person too"])
@pytest.mark.parametrize("merged", [False, True])
def test_a_check_of_a_pull_request_that_is_a_success_after_all_takes_its_bar_back(
    world, monkeypatch, merged, person
):
    """It was to be barred as soon as it was merged; the check is good again before that, or while its release is built."""
    monkeypatch.setitem(world.config.app("shop").tests.__dict__, "pull_requests", True)
    world.workshop.push()
    head = "8" * 40
    world.workshop.pulls = [Pull(7, "refs/pull/7/head", head, "tea", "Eve", "tea")]
    intake.poll("shop", world.deps, force=True)
    for name in ("unit", "lint"):
        report(world, head, name, "success")
    world.run(seconds=30)
    report(world, head, "lint", "failure")
    if person:
        bars.bar("shop", head, world.deps, who="ann", why="not now")
    assert state_of(world, head).bar_wanted.startswith("check lint failed after the commit had passed")
    if merged:
        world.workshop.commits.append(BranchCommit(head, 2, "tea", "Eve", "tea"))
        intake.read_branch(world.config.app("shop"), world.deps, who="test", why="merged")
        assert state_of(world, head).state is CommitState.TESTING
    report(world, head, "unit", "success")
    assert state_of(world, head).is_barred
    report(world, head, "lint", "success")
    assert (state_of(world, head).bar_wanted, state_of(world, head).unbarred) == (
        "not now" if person else None,
        False,
    )
    wanted = CommitState.BARRED if merged and person else CommitState.PASSED
    world.run(seconds=30, until=lambda: state_of(world, head).state is wanted)
    assert state_of(world, head).state is wanted


def a_request(world, monkeypatch):
    """The head of one, known since just now, where CI servers have five minutes; a first release is out."""
    tests = world.config.app("shop").tests.__dict__
    monkeypatch.setitem(tests, "pull_requests", True)
    monkeypatch.setitem(tests, "deadline", 300.0)
    passed(world)
    world.settle()
    head = "8" * 40
    world.workshop.pulls = [Pull(7, "refs/pull/7/head", head, "tea", "Eve", "tea")]
    intake.poll("shop", world.deps, force=True)
    return head


def merged_as_it_is(world, head):
    """By a fast-forward, of which a webhook tells first; nothing is decided by that."""
    world.workshop.commits.append(BranchCommit(head, 2, "tea", "Eve", "tea"))
    push = Push("github", "d-1", "push", ("ann/shop",), "ann/shop", branch="main", head=head)
    (received,) = intake.receive_all([(push, world.config.app("shop"))], world.deps)
    assert received.outcome == Outcome.ACCEPTED
    intake.poll("shop", world.deps, force=True)


def end_of_its_push(world):
    with world.store.reading() as tx:
        (outcome,) = (one.outcome for one in tx.deliveries.newest("shop", 9) if one.delivery == "d-1")
    return outcome


@pytest.mark.parametrize("waited_s", [400, 280], ids=["too long", "almost too long"])
def test_a_request_that_waited_for_long_has_its_time_again_when_it_is_merged(world, monkeypatch, waited_s):
    """What decides may run on the branch only: nobody is told that it is late, no newer one takes it along untested, and its webhook has no end yet."""
    head = a_request(world, monkeypatch)
    world.run(seconds=waited_s)
    late = state_of(world, head).state is CommitState.FAILED
    assert late == (waited_s > 300)
    merged_as_it_is(world, head)
    report(world, head, "unit", "pending")
    world.run(seconds=60)
    assert why(world, head).because.startswith("waits for check unit")
    newer = passed(world)
    world.run(seconds=120)
    assert newer not in world.runs().values()
    assert not any("nobody says" in title for title, _ in world.notifier.sent)
    report(world, head, "unit", "success")
    report(world, head, "lint", "success")
    world.run(until=lambda: set(world.runs().values()) == {newer}, seconds=600)
    assert state_of(world, head).state is CommitState.PASSED
    assert end_of_its_push(world) == Outcome.STARTED


def test_one_that_nobody_speaks_of_after_its_merge_either_is_late_then(world, monkeypatch):
    """The time begins anew, once: people are told when that is over too."""
    head = a_request(world, monkeypatch)
    world.run(seconds=400)
    merged_as_it_is(world, head)
    world.run(seconds=400)
    assert state_of(world, head).state is CommitState.FAILED
    told = [title for title, _ in world.notifier.sent if "nobody says" in title]
    assert told == [f"shop: nobody says whether {head[:12]} by Eve is good"]


def test_a_report_on_an_outdated_head_of_a_request_is_kept(world, monkeypatch):
    """It is not put in line again, nor told of as the request's: that has a newer head, which is good."""
    head = a_request(world, monkeypatch)
    newer = "9" * 40
    world.workshop.pulls = [Pull(7, "refs/pull/7/head", newer, "tea", "Eve", "tea")]
    intake.poll("shop", world.deps, force=True)
    before = state_of(world, head)
    assert report(world, head, "unit", "failure").startswith("kept")
    assert state_of(world, head) == before
    for name in ("unit", "lint"):
        report(world, newer, name, "success")
    world.run(seconds=60)
    assert [state_of(world, sha).state for sha in (head, newer)] == [
        CommitState.RECEIVED,
        CommitState.PASSED,
    ]
    assert "has a newer head" in why(world, head).because
    assert not any("pull request" in title for title, _ in world.notifier.sent)


def pipeline(world, sha, status, ref="main", **more):
    """A GitLab webhook about a pipeline that ran for this branch."""
    attributes = {"sha": sha, "ref": ref, "status": status, "url": "https://git.example/1", "source": "push"}
    project = {"git_http_url": "https://git.example/shop.git"}
    body = {"object_kind": "pipeline", "object_attributes": attributes | more, "project": project}
    push = PROVIDERS["gitlab"].parse({"Content-Type": "application/json"}, json.dumps(body).encode())
    (received,) = checks.receive_all([(push, [world.config.app("shop")])], world.deps)
    return received


@pytest.fixture
def gitlab(world, monkeypatch):
    """As `world`; GitLab's pipeline decides."""
    monkeypatch.setitem(world.config.app("shop").tests.__dict__, "required", ("pipeline",))
    return world


def test_a_pipeline_of_another_branch_does_not_decide_on_a_commit_of_ours(gitlab):
    """A branch made from a red commit has a green pipeline with fewer jobs, and a red one bars nobody; a merge request's is not the branch's either."""
    sha = gitlab.push()
    pipeline(gitlab, sha, "failed")
    pipeline(gitlab, sha, "success", "mend-it")
    pipeline(gitlab, sha, "success", source="merge_request_event")
    gitlab.run(seconds=30)
    assert state_of(gitlab, sha).state is CommitState.FAILED
    pipeline(gitlab, sha, "success")
    gitlab.settle()
    pipeline(gitlab, sha, "failed", "experiment")
    gitlab.run(seconds=30)
    assert set(gitlab.runs().values()) == {sha}
    assert state_of(gitlab, sha).state is CommitState.PASSED


def test_a_pipeline_of_its_own_branch_decides_on_the_head_of_a_request(gitlab, monkeypatch):
    """It is told of before anybody knows the request, and counts once it is known."""
    monkeypatch.setitem(gitlab.config.app("shop").tests.__dict__, "pull_requests", True)
    gitlab.workshop.push()
    good, bad = "8" * 40, "9" * 40
    pipeline(gitlab, good, "success", "tea")
    gitlab.workshop.pulls = [
        Pull(number, f"refs/pull/{number}/head", sha, "tea", "Eve", "tea")
        for number, sha in ((7, good), (8, bad))
    ]
    intake.poll("shop", gitlab.deps, force=True)
    pipeline(gitlab, bad, "failed", source="merge_request_event")
    gitlab.run(seconds=30)
    assert [state_of(gitlab, sha).state for sha in (good, bad)] == [CommitState.PASSED, CommitState.FAILED]


@pytest.mark.parametrize("its_own", ["success", "failed"])
def test_a_merged_request_waits_for_the_pipeline_of_the_branch(gitlab, monkeypatch, its_own):
    """Its own, with other jobs, decided while it was a request; what the branch requires has yet to be said, and its webhook has no end before that."""
    monkeypatch.setitem(gitlab.config.app("shop").tests.__dict__, "pull_requests", True)
    first = gitlab.push()
    pipeline(gitlab, first, "success")
    gitlab.settle()
    head = "8" * 40
    gitlab.workshop.pulls = [Pull(7, "refs/pull/7/head", head, "tea", "Eve", "tea")]
    intake.poll("shop", gitlab.deps, force=True)
    pipeline(gitlab, head, its_own, "tea", source="merge_request_event")
    gitlab.run(seconds=30)
    ended = CommitState.PASSED if its_own == "success" else CommitState.FAILED
    assert state_of(gitlab, head).state is ended
    merged_as_it_is(gitlab, head)
    pipeline(gitlab, head, "running")
    gitlab.run(seconds=120)
    assert why(gitlab, head).because.startswith("waits for check pipeline")
    assert set(gitlab.runs().values()) == {first}
    pipeline(gitlab, head, "success")
    gitlab.run(until=lambda: set(gitlab.runs().values()) == {head}, seconds=600)
    assert set(gitlab.runs().values()) == {head}
    assert not state_of(gitlab, head).flaky
    assert end_of_its_push(gitlab) == Outcome.STARTED


def test_a_request_that_a_required_check_calls_red_is_red_on_the_branch_too(world, monkeypatch):
    """What the branch requires has spoken on that very commit: it waits for nothing, and ships when that check is good after all."""
    head = a_request(world, monkeypatch)
    report(world, head, "unit", "failure")
    world.run(seconds=30)
    merged_as_it_is(world, head)
    world.run(seconds=30)
    assert state_of(world, head).state is CommitState.FAILED
    assert [title for title, _ in world.notifier.sent if "main" in title] == [
        f"shop: main is red since {head[:12]} by Eve"
    ]
    assert end_of_its_push(world) == Outcome.REJECTED
    report(world, head, "unit", "success")
    report(world, head, "lint", "success")
    world.run(until=lambda: set(world.runs().values()) == {head}, seconds=600)
    assert set(world.runs().values()) == {head}


def github(world, sha, event, number, at, conclusion, **more):
    """A GitHub webhook about a run of this kind, called `unit`, that was over at this minute."""
    run = {"name": "unit", "head_sha": sha, "id": number, "status": "completed", "conclusion": conclusion}
    times = {"updated_at": at} if event == "workflow_run" else {"completed_at": at}
    body = {event: run | times | more, "repository": {"full_name": "ann/shop"}}
    headers = {"Content-Type": "application/json", "X-GitHub-Event": event}
    push = PROVIDERS["github"].parse(headers, json.dumps(body).encode())
    (received,) = checks.receive_all([(push, [world.config.app("shop")])], world.deps)
    return received


def test_a_red_one_is_taken_back_by_the_run_that_repeats_it_and_by_nothing_else(world):
    """Another suite's green under its name lets nothing ship, and `why` names who is red; run again it passes."""
    sha = world.push()
    report(world, sha, "lint", "success")
    github(world, sha, "workflow_run", 5, "2026-11-30T01:01:40Z", "failure")
    github(world, sha, "workflow_job", 501, "2026-11-30T01:02:00Z", "success")
    world.run(seconds=20)
    assert state_of(world, sha).reason == "check unit (github workflow_run) failed"
    report(world, sha, "unit", "success")
    github(world, sha, "workflow_run", 6, "2026-11-30T01:04:00Z", "success")
    world.run(seconds=20)
    assert state_of(world, sha).state is CommitState.FAILED
    github(world, sha, "workflow_run", 5, "2026-11-30T01:09:00Z", "success")
    world.run(seconds=20)
    assert state_of(world, sha).state is CommitState.PASSED
    with world.store.reading() as tx:
        told = views.commit(tx, tx.commits.get("shop", sha))["checks"]
    assert [(one["name"], one["state"]) for one in told] == [("lint", "success"), ("unit", "success")]


def test_a_word_on_a_run_that_was_run_again_is_a_duplicate(world):
    """It came late: what counts is the run that has its place."""
    sha = world.push()
    report(world, sha, "lint", "success")
    github(world, sha, "check_run", 8, "2026-11-30T01:02:00Z", "success")
    late = github(world, sha, "check_run", 7, "2026-11-30T01:01:00Z", "failure")
    assert late.outcome == Outcome.DUPLICATE
    world.run(seconds=20)
    assert state_of(world, sha).state is CommitState.PASSED


@pytest.mark.parametrize("order", [*permutations([(1, 1, "failure"), (2, 1, "failure"), (3, 2, "success")])])
def test_a_late_word_that_leaves_a_red_one_without_its_repetition_is_heard(world, order):
    """Of two red jobs of one name one was run again: in whatever order that comes the other one is red, and the commit does not pass."""
    freezes.freeze(world.config.app("shop"), world.deps, who="ann", why="nothing goes out", until=None)
    sha = world.push()
    report(world, sha, "lint", "success")
    for run, attempt, said in order:
        at = f"2026-11-30T01:0{run}:00Z"
        github(world, sha, "workflow_job", run, at, said, run_id=9, run_attempt=attempt)
        world.run(seconds=20)
    assert state_of(world, sha).state in {CommitState.FAILED, CommitState.BARRED}


def planned(sha):
    fleet = [(Member("web01", "127.1.0.1", 22, "deploy", {}, "/srv/shop"), Role.CANARY)]
    return Planned("shop", sha, [sha], None, "d" * 64, "automation", {}, 0, "ramp", 1, 1, fleet, ahead=True)


def test_a_commit_ships_when_every_required_check_is_a_success(world):
    """It waits until then, says for what, and what goes out is built by us."""
    sha = world.push()
    world.run(seconds=60)
    report(world, sha, "unit", "success")
    report(world, sha, "lint", "pending")
    world.run(seconds=60)
    assert state_of(world, sha).state is CommitState.RECEIVED
    assert state_of(world, sha).reason == "waits for check lint"
    report(world, sha, "lint", "success")
    world.settle()
    assert set(world.runs().values()) == {sha}
    with world.store.reading() as tx:
        assert tx.commits.release("shop", sha).digest == world.newest().digest


def test_one_required_failure_fails_the_commit(world):
    """Others are not waited for, and what is not required decides nothing."""
    sha = world.push()
    assert report(world, sha, "coverage", "failure") == "kept; not a required check"
    world.run(seconds=10)
    assert state_of(world, sha).state is CommitState.RECEIVED
    report(world, sha, "unit", "failure")
    world.run(seconds=10)
    assert (state_of(world, sha).state, state_of(world, sha).reason) == (
        CommitState.FAILED,
        "check unit failed",
    )


def test_a_failure_says_where_it_can_be_read(world):
    """The CI server has the output, so its address is named and not our log, which has nothing."""
    sha = world.push()
    report(world, sha, "unit", "failure", "https://ci.example.com/7")
    world.run(seconds=10)
    assert why(world, sha).because == "its tests failed: check unit failed: https://ci.example.com/7"
    sha = world.push()
    red = Check("lint", S.FAILURE, details="a.b: 1 is not 2")
    checks.report([world.config.app("shop")], sha, red, world.deps)
    world.run(seconds=10)
    assert (
        why(world, sha).because
        == f"its tests failed: check lint failed; what they printed: rollout log {sha[:12]}"
    )


def test_a_failure_that_comes_before_git_was_asked_is_told_of_with_its_author(world):
    """A webhook told of the commit, whose check failed at once: when git says whose it is, people are told that the branch is red, once."""
    passed(world)
    world.settle()
    sha = world.workshop.push()
    push = Push("github", "delivery", "push", full_name="ann/shop", branch="main", head=sha)
    intake.receive_all([(push, world.config.app("shop"))], world.deps)
    report(world, sha, "unit", "failure")
    world.run(seconds=10)
    assert (state_of(world, sha).state, state_of(world, sha).position) == (CommitState.FAILED, None)
    for _ in range(2):
        with world.store.reading() as tx:
            assert tx.apps.poll_is_due("shop", 0.0) or state_of(world, sha).position
        intake.poll("shop", world.deps, force=True)
        world.run(seconds=30)
    red = [title for title, _ in world.notifier.sent if "red since" in title]
    assert red == [f"shop: main is red since {sha[:12]} by Ann <ann@example.com>"]


def test_a_cancelled_run_is_as_good_as_none(world):
    """It says who was cancelled and where, nobody is blamed; run again it passes, and is not flaky."""
    sha = world.push()
    report(world, sha, "lint", "success")
    report(world, sha, "unit", "cancelled", "https://ci.example.com/7")
    world.run(seconds=60)
    assert state_of(world, sha).state is CommitState.RECEIVED
    told = why(world, sha)
    assert told.because == (
        "waits for check unit; unit was cancelled, run it again: https://ci.example.com/7, then goes out by itself"
    )
    assert told.expected_at is None
    report(world, sha, "unit", "success")
    world.run(seconds=20)
    assert (state_of(world, sha).state, state_of(world, sha).flaky) == (CommitState.PASSED, False)


def test_a_cancelled_run_is_over_at_the_time_limit(world):
    """Then it is not tested, says so, and people hear that nobody vouches for it and not that the branch is red."""
    passed(world)
    world.settle()
    sha = world.push()
    report(world, sha, "unit", "cancelled")
    world.run(seconds=3700)
    assert (state_of(world, sha).state, state_of(world, sha).reds) == (CommitState.FAILED, 0)
    assert why(world, sha).because == (
        "not tested: no result of check unit, lint after 3600 s; unit was cancelled, run it again"
    )
    (title,) = [title for title, _ in world.notifier.sent if "says whether" in title]
    assert title == f"shop: nobody says whether {sha[:12]} by Ann <ann@example.com> is good"
    with world.store.reading() as tx:
        assert f"nobody says whether {sha[:12]} is good" in planning.waits_for(world.config.app("shop"), tx)


@pytest.mark.parametrize("seconds", [60, 3700])
def test_cancelled_runs_stop_no_automation(world, seconds):
    """Neither before nor after their time limit: two that were cancelled go out at once with the third, which passed."""
    passed(world)
    world.settle()
    cancelled = [world.push(), world.push()]
    for sha in cancelled:
        report(world, sha, "unit", "cancelled")
    world.run(seconds=seconds)
    sha = passed(world)
    world.run(until=lambda: set(world.runs().values()) == {sha}, seconds=600)
    assert set(world.runs().values()) == {sha}
    assert list(world.newest().commits) == [*cancelled, sha]


def several_pushed_at_once(world):
    """Two commits above what is out, of which CI reports on the head only."""
    passed(world)
    world.settle()
    inner = world.workshop.push()
    return inner, passed(world)


def test_a_push_of_several_commits_goes_out_when_its_head_has_passed(world):
    """CI runs once for a push: a minute later the head takes along what was pushed with it, and people hear nothing of that."""
    inner, head = several_pushed_at_once(world)
    world.run(seconds=20)
    assert world.newest().commits != (inner, head)
    world.run(until=lambda: set(world.runs().values()) == {head}, seconds=180)
    assert list(world.newest().commits) == [inner, head]
    world.run(seconds=3700)
    assert not [title for title, _ in world.notifier.sent if "says whether" in title]


def red_ones(world):
    return [title for title, _ in world.notifier.sent if "red since" in title]


def stuck(world):
    with world.store.reading() as tx:
        return planning.stuck(world.config.app("shop"), tx)


def test_a_push_of_which_the_head_is_red_is_told_of_a_minute_later(world):
    """Of what was pushed with it CI says nothing, and nobody waits for that, `deploy --wait` neither: its author is named, once, and `status` says so."""
    passed(world)
    world.settle()
    inner = world.workshop.push()
    head = world.push()
    report(world, head, "unit", "failure")
    world.run(seconds=30)
    assert (red_ones(world), stuck(world)) == ([], None)
    world.run(seconds=90)
    assert red_ones(world) == [f"shop: main is red since {head[:12]} by Ann <ann@example.com>"]
    with world.store.reading() as tx:
        why_not = planning.waits_for(world.config.app("shop"), tx)
        assert telling.first_red(tx, world.config.app("shop")).sha == head
    assert why_not.startswith(f"{head[:12]} by Ann <ann@example.com> failed its tests")
    assert stuck(world) == why_not
    assert why(world, inner).because == (
        "waits for check unit, lint, on which CI reports nothing, though it did on a newer commit: have it run, then goes out by itself"
    )
    world.run(seconds=3700)
    assert state_of(world, inner).state is CommitState.FAILED
    assert len(red_ones(world)) == 1


def test_what_goes_out_with_a_head_that_has_passed_is_foreseen(world):
    """While the others have their minute, and when it is over and a freeze holds them: the head takes them along."""
    inner, head = several_pushed_at_once(world)
    world.run(until=lambda: state_of(world, head).state is CommitState.PASSED, seconds=20)
    told = why(world, head)
    assert (
        told.because == "tested, waits a minute for a report on 1 commit below it, then goes out with 1 other"
    )
    assert told.expected_at is not None
    with world.store.reading() as tx:
        coming = explaining.coming(tx, world.config.app("shop"))
    assert coming.because == f"commit {head[:12]}: {told.because}"
    along = f"waits for check unit, lint; it is taken along by {head[:12]}, which came later and passed: "
    assert why(world, inner).because == along + told.because
    freezes.freeze(world.config.app("shop"), world.deps, who="ann", why="a sale", until=None)
    world.run(seconds=300)
    assert why(world, head).because.startswith("tested, frozen by ann: a sale")
    assert why(world, inner).because.startswith(f"{along}tested, frozen by ann: a sale")


def test_a_check_that_reports_on_every_commit_keeps_no_push_back(world):
    """The other one that is required reports on heads only: a minute after the head has passed both go out."""
    inner, head = several_pushed_at_once(world)
    report(world, inner, "lint", "success")
    world.run(until=lambda: set(world.runs().values()) == {head}, seconds=180)
    assert list(world.newest().commits) == [inner, head]


@pytest.mark.parametrize("said", ["pending", "failure"])
def test_a_push_of_which_ci_says_something_is_no_silence(world, said):
    """Its run is waited for, and a red one goes out with the head as ever."""
    inner, head = several_pushed_at_once(world)
    report(world, inner, "unit", said)
    world.run(seconds=300)
    assert (set(world.runs().values()) == {head}) is (said == "failure")


def test_a_commit_whose_run_takes_a_little_longer_than_the_next_ones_is_waited_for(world, monkeypatch):
    """Of a CI server that says only results: a newer one's may come first."""
    late_s, began = [0.0], datetime.now(UTC)
    monkeypatch.setattr(Transaction, "today", staticmethod(lambda: began + timedelta(seconds=late_s[0])))
    passed(world)
    world.settle()
    inner, head = world.push(), world.push()
    for _ in range(10):
        world.run(seconds=30)
        late_s[0] += 30
    for name in ("unit", "lint"):
        report(world, head, name, "success")
    world.run(until=lambda: state_of(world, head).state is CommitState.PASSED, seconds=5)
    assert state_of(world, head).took_s == 300.0
    world.run(seconds=20)
    for name in ("unit", "lint"):
        report(world, inner, name, "success")
    world.settle()
    with world.store.reading() as tx:
        assert [list(one.commits) for one in tx.rollouts.numbered(2, 9, 9)] == [[head], [inner]]


def test_three_cancelled_runs_are_not_three_reds(world):
    """The fourth would be one commit more than the cap: that is said, with both ways on, and one of them is run again."""
    passed(world)
    world.settle()
    shas = [world.push(), world.push(), world.push()]
    for sha in shas:
        report(world, sha, "unit", "cancelled")
    fourth = passed(world)
    world.run(seconds=3700)
    with world.store.reading() as tx:
        told = planning.waits_for(world.config.app("shop"), tx)
    assert told.startswith(f"{fourth[:12]} could ship, but only together with 3 commits before it")
    assert f"have the checks of {shas[2][:12]} run again (`rollout why {shas[2][:12]}` says which)" in told
    assert "unit was cancelled, run it again" in why(world, shas[2]).because
    report(world, shas[2], "unit", "success")
    report(world, shas[2], "lint", "success")
    world.run(until=lambda: set(world.runs().values()) == {fourth}, seconds=600)
    with world.store.reading() as tx:
        assert [list(one.commits) for one in tx.rollouts.numbered(2, 9, 9)] == [[fourth], shas]


def test_what_ci_runs_again_is_waited_for(world):
    """A cancelled run that was started again is on its way like any other."""
    passed(world)
    world.settle()
    first, second = world.push(), passed(world)
    report(world, first, "unit", "cancelled")
    report(world, first, "unit", "pending")
    world.run(seconds=60)
    with world.store.reading() as tx:
        assert "waits for the tests of" in planning.waits_for(world.config.app("shop"), tx)
    assert second not in world.runs().values()


@pytest.mark.parametrize("result", ["success", "failure"])
def test_a_report_that_was_overtaken_by_its_result_changes_nothing(world, result):
    """That a run began comes after its end: it has ended. That another one began is news."""
    sha = world.push()
    report(world, sha, "unit", result, "https://ci.example.com/7")
    assert report(world, sha, "unit", "pending", "https://ci.example.com/7") == checks.LATE
    with world.store.reading() as tx:
        assert [check.state for check in tx.checks.of("shop", sha)] == [result]
    report(world, sha, "unit", "pending", "https://ci.example.com/8")
    with world.store.reading() as tx:
        assert [check.state for check in tx.checks.of("shop", sha)] == ["pending"]


def test_a_word_that_says_no_time_hides_none_that_did(world):
    """What is said over the API counts, and what a webhook said before it is no news when it comes again."""
    sha = world.push()
    report(world, sha, "unit", "success", stamp="1")
    report(world, sha, "unit", "failure")
    assert report(world, sha, "unit", "success", stamp="1") == checks.LATE
    with world.store.reading() as tx:
        assert [check.state for check in tx.checks.of("shop", sha)] == ["failure"]
    report(world, sha, "unit", "success", stamp="2")
    with world.store.reading() as tx:
        assert [check.state for check in tx.checks.of("shop", sha)] == ["success"]


@pytest.mark.parametrize("together", [False, True])
def test_a_report_without_a_time_that_is_sent_again_changes_nothing(world, together):
    """A success from before the failure, by its delivery's id: the commit stays failed; one with another id is news."""
    sha = world.push()

    def sent(delivery, state):
        said = Check("unit", S(state), source="github")
        names = world.config.app("shop").repository
        return Push("github", delivery, "report", (names,), "ann/shop", head=sha, check=said)

    told = [sent("1", "success"), sent("2", "failure"), sent("1", "success")]
    apps = [world.config.app("shop")]
    groups = [told] if together else [[one] for one in told]
    received = [
        end for group in groups for end in checks.receive_all([(one, apps) for one in group], world.deps)
    ]
    assert [end.outcome for end in received] == ["reported", "reported", "duplicate"]
    assert received[-1].reason == f"a report on commit {sha}: it was sent before"

    def state():
        with world.store.reading() as tx:
            return [check.state for check in tx.checks.of("shop", sha)]

    assert state() == ["failure"]
    checks.receive_all([(sent("3", "success"), apps)], world.deps)
    assert state() == ["success"]


def test_early_reports_wait_for_their_commit(world):
    """A CI server may be faster than the push's webhook."""
    sha = f"{1:040x}"
    assert report(world, sha, "unit", "success") == "kept until the commit is known"
    report(world, sha, "lint", "success")
    assert world.push() == sha
    world.run(seconds=10)
    assert state_of(world, sha).state is CommitState.PASSED


def test_commits_that_come_together_are_looked_at_together(world):
    """One that waits for its checks takes no place for tests: whoever finds that rings for the next one, and nobody waits for a sweep."""
    passed(world)
    world.settle()
    shas = [world.workshop.push() for _ in range(5)]
    intake.poll("shop", world.deps, force=True)
    world.run(seconds=3)
    assert {state_of(world, sha).reason for sha in shas} == {"waits for check unit, lint"}


@pytest.mark.parametrize(
    ("lint", "waits"),
    [
        ("pending", "waits for check lint, then goes out"),
        ("success", "checks passed: unit, lint, waits for its build, then goes out"),
        ("failure", "its tests failed: check lint failed"),
    ],
)
def test_a_commit_says_what_it_waits_for_while_another_one_is_built(world, lint, waits):
    """There is one place for tests, and that is taken for as long as a build takes: what was reported meanwhile is said all the same."""
    sha, other = world.push(), world.push()
    world.run(seconds=30)
    assert why(world, other).because.startswith("waits for check unit, lint")
    build, said = world.workshop.build, []

    def building(*args):
        if args[2] == sha:
            report(world, other, "unit", "success")
            report(world, other, "lint", lint)
            for _ in range(3):
                world.seconds += 5
                reconcile.sweep(world.deps)
            said.append(why(world, other).because)
        return build(*args)

    world.workshop.build = building
    for name in ("unit", "lint"):
        report(world, sha, name, "success")
    world.run(until=lambda: said, seconds=60)
    assert said[0].startswith(waits)
    assert ("goes out" in said[0]) is (lint != "failure")


def test_silence_fails_the_commit_and_a_late_report_saves_it(world):
    """After the deadline it has failed, naming what is missing; reports that come then decide again, and it is not flaky."""
    sha = world.push()
    report(world, sha, "unit", "success")
    world.run(seconds=3700)
    assert state_of(world, sha).state is CommitState.FAILED
    assert "no result of check lint after 3600 s" in state_of(world, sha).reason
    report(world, sha, "lint", "success")
    world.run(seconds=20)
    assert (state_of(world, sha).state, state_of(world, sha).flaky) == (CommitState.PASSED, False)


@pytest.mark.parametrize("good", [True, False])
def test_a_run_that_goes_on_after_the_deadline_is_waited_for(world, monkeypatch, good):
    """Somebody had CI run it again: its time begins anew, `why` says so, and no newer commit takes it along meanwhile; but not for ever."""
    monkeypatch.setitem(world.config.app("shop").tests.__dict__, "deadline", 300.0)
    passed(world)
    world.settle()
    sha = world.push()
    report(world, sha, "unit", "success")
    world.run(seconds=400)
    assert state_of(world, sha).state is CommitState.FAILED
    assert report(world, sha, "lint", "pending", "https://ci.example.com/2") == "taken"
    world.run(seconds=60)
    assert why(world, sha).because.startswith("waits for check lint")
    newer = passed(world)
    world.run(seconds=60)
    assert newer not in world.runs().values()
    if good:
        report(world, sha, "lint", "success", "https://ci.example.com/2")
    world.run(seconds=400)
    assert state_of(world, sha).state is (CommitState.PASSED if good else CommitState.FAILED)


def test_a_check_that_is_good_at_last_is_flaky(world):
    """Run again over there, on the same commit: it may ship, and its row says so."""
    sha = world.push()
    report(world, sha, "unit", "success")
    report(world, sha, "lint", "failure")
    world.run(seconds=10)
    assert state_of(world, sha).state is CommitState.FAILED
    report(world, sha, "lint", "success")
    world.run(seconds=10)
    assert (state_of(world, sha).state, state_of(world, sha).flaky) == (CommitState.PASSED, True)


def test_a_failure_after_the_commit_passed_bars_it(world):
    """While it waits to go out, a report that contradicts the earlier one keeps it in."""
    world.push()
    first = state_of(world, f"{1:040x}").sha
    report(world, first, "unit", "success")
    report(world, first, "lint", "success")
    world.run(until=lambda: world.newest() is not None, seconds=60)
    sha = passed(world)
    world.run(until=lambda: state_of(world, sha).state is CommitState.PASSED, seconds=5)
    report(world, sha, "lint", "failure")
    assert state_of(world, sha).state is CommitState.BARRED
    world.run(seconds=300)
    assert set(world.runs().values()) == {first}


def test_a_failure_that_bars_the_commit_is_told_once(world):
    """The branch stands by it: whose commit it is, and what leads on; however often that check fails."""
    passed(world)
    world.run(until=lambda: world.newest() is not None, seconds=60)
    sha = passed(world)
    world.run(until=lambda: state_of(world, sha).state is CommitState.PASSED, seconds=5)
    for number in (1, 2):
        report(world, sha, "lint", "failure", f"https://ci.example.com/{number}")
    world.run(seconds=60)
    (body,) = [body for title, body in world.notifier.sent if "check lint failed after" in title]
    assert f"Commit {sha[:12]} by Ann <ann@example.com> is barred: what comes after it waits" in body
    assert body.endswith(f"Next: rollout log {sha[:12]}, or rollout unbar {sha[:12]}")


def test_a_failure_that_bars_what_left_the_branch_is_not_told(world):
    """A force-push has replaced it: nothing waits behind it, though it is barred, should it come back."""
    passed(world)
    world.run(until=lambda: world.newest() is not None, seconds=60)
    sha = passed(world)
    world.run(until=lambda: state_of(world, sha).state is CommitState.PASSED, seconds=5)
    world.workshop.commits[-1:] = [BranchCommit("b" * 40, 2, "another one", "Zoe", "another one")]
    intake.read_branch(world.config.app("shop"), world.deps, who="poll", why="forced")
    report(world, sha, "lint", "failure")
    world.run(seconds=60)
    assert state_of(world, sha).state is CommitState.BARRED
    assert not any("check lint failed after" in title for title, _ in world.notifier.sent)


@pytest.mark.parametrize("person", [False, True], ids=["", "barred by a person too"])
def test_a_check_that_is_a_success_after_all_takes_its_bar_back(world, person):
    """Its word barred the commit, which ships when it was wrong; a bar of a person's stays."""
    first = passed(world)
    world.run(until=lambda: world.newest() is not None, seconds=60)
    sha = passed(world)
    world.run(until=lambda: state_of(world, sha).state is CommitState.PASSED, seconds=5)
    report(world, sha, "lint", "failure")
    report(world, sha, "unit", "success")
    assert state_of(world, sha).state is CommitState.BARRED
    if person:
        bars.bar("shop", sha, world.deps, who="ann", why="not now")
        assert state_of(world, sha).reason == "check lint failed after the commit had passed; and: not now"
    report(world, sha, "lint", "success")
    assert state_of(world, sha).reason == ("not now" if person else None)
    world.run(seconds=300)
    assert set(world.runs().values()) == {first if person else sha}


def test_a_check_that_is_required_no_more_takes_its_bar_back_too(world, monkeypatch):
    """Its word barred the commit when it was, and says now that it was wrong; what is not required says nothing else."""
    passed(world)
    world.run(until=lambda: world.newest() is not None, seconds=60)
    sha = passed(world)
    world.run(until=lambda: state_of(world, sha).state is CommitState.PASSED, seconds=5)
    report(world, sha, "lint", "failure")
    monkeypatch.setitem(world.config.app("shop").tests.__dict__, "required", ("unit",))
    report(world, sha, "unit", "success")
    assert state_of(world, sha).state is CommitState.BARRED
    assert report(world, sha, "lint", "success") == "taken"
    assert state_of(world, sha).state is CommitState.PASSED
    assert report(world, sha, "lint", "failure") == "kept; not a required check"
    world.run(seconds=300)
    assert set(world.runs().values()) == {sha}


@pytest.mark.parametrize("above", [False, True], ids=["itself", "what takes it along"])
def test_a_check_that_fails_late_withdraws_a_wish_of_before(world, above):
    """When it is run again and is a success, weeks later, nothing goes out past the freeze of then by the old word; people were told."""
    first = passed(world)
    world.run(until=lambda: world.newest() is not None, seconds=60)
    sha = passed(world)
    wanted = passed(world) if above else sha
    world.run(until=lambda: state_of(world, wanted).state is CommitState.PASSED, seconds=5)
    with world.store.transaction() as tx:
        tx.commits.wish_now(state_of(world, wanted), "we need it", "ann")
    report(world, sha, "lint", "failure")
    assert state_of(world, wanted).now_reason is None
    freezes.freeze(world.config.app("shop"), world.deps, who="bob", why="the sale", until=None)
    report(world, sha, "lint", "success")
    world.run(seconds=300)
    assert set(world.runs().values()) == {first}
    told = [title for title, _ in world.notifier.sent if "withdrawn" in title]
    assert told == [f"shop: `deploy --now` of {wanted[:12]} is withdrawn"]


def test_a_check_that_fails_after_a_person_has_barred_the_commit_is_a_reason_too(world):
    """Who lifts the bar is told of both."""
    passed(world)
    world.run(until=lambda: world.newest() is not None, seconds=60)
    sha = passed(world)
    world.run(until=lambda: state_of(world, sha).state is CommitState.PASSED, seconds=5)
    bars.bar("shop", sha, world.deps, who="ann", why="not now")
    for _ in range(2):
        report(world, sha, "lint", "failure")
    both = "not now; and: check lint failed after the commit had passed"
    assert state_of(world, sha).reason == both
    allowed, lifted = bars.unbar("shop", sha, world.deps, who="ann", why="now")
    assert (allowed.state, lifted) == (CommitState.PASSED, both)


def test_a_failure_after_the_commit_went_out_stops_nothing_and_is_told(world):
    """What is out is a person's to take back: the report leaves a notice."""
    sha = passed(world)
    world.settle()
    report(world, sha, "unit", "failure")
    world.run(seconds=20)
    assert state_of(world, sha).state is CommitState.PASSED
    assert set(world.runs().values()) == {sha}
    assert any("check unit failed after" in title for title, _ in world.notifier.sent)


@pytest.mark.parametrize("stage", ["canary", "fan_out"])
def test_a_failure_of_what_waits_for_a_yes_bars_it(world, stage):
    """A person was asked for what had passed: whoever says yes now is told what it is by now."""
    its = world.config.app("shop")
    its = its.model_copy(update={"fan_out": its.fan_out.model_copy(update={"confirm": (stage,)})})
    world.config = replace(world.config, apps={"shop": its})
    world.deps = replace(world.deps, config=world.config)
    sha = passed(world)
    assert world.settle().state is RolloutState.HALTED
    asked, before = world.newest(), world.runs()
    report(world, sha, "unit", "failure")
    assert state_of(world, sha).state is CommitState.BARRED
    with pytest.raises(Conflict, match="is barred since it was planned"):
        halts.resume(asked.id, world.deps, who="me")
    world.run(seconds=60)
    assert (world.newest().id, world.runs()) == (asked.id, before)
    assert not any("is out or on its way" in body for _, body in world.notifier.sent)
    report(world, sha, "unit", "success")
    world.run(until=lambda: (world.newest().reason or "").startswith("waits for your yes before"))
    halts.resume(world.newest().id, world.deps, who="me")
    assert world.settle().state is RolloutState.DONE
    assert set(world.runs().values()) == {sha}


def test_a_failure_of_what_a_person_wanted_out_and_waits_for_a_yes_is_told(world):
    """His word is above it, as of what is on its way: it is not said to be kept in."""
    its = world.config.app("shop")
    its = its.model_copy(update={"fan_out": its.fan_out.model_copy(update={"confirm": ("canary",)})})
    world.config = replace(world.config, apps={"shop": its})
    world.deps = replace(world.deps, config=world.config)
    world.push()
    sha = passed(world)
    intake.enqueue(its, sha, world.deps, who="ann", now=intake.Wish("it burns", "ann"))
    assert world.settle().state is RolloutState.HALTED
    assert world.newest().requested_by == "ann"
    report(world, sha, "unit", "failure")
    assert state_of(world, sha).state is CommitState.PASSED
    world.run(seconds=20)
    assert any("is out or on its way" in body for _, body in world.notifier.sent)


def test_reports_on_requests_that_are_tested_no_more_change_nothing(world, monkeypatch):
    """One that nobody spoke of in time would be in test for ever, and hold a place for tests."""
    monkeypatch.setitem(world.config.app("shop").tests.__dict__, "pull_requests", True)
    world.workshop.push()
    head = "8" * 40
    world.workshop.pulls = [Pull(7, "refs/pull/7/head", head, "tea", "Eve", "tea")]
    intake.poll("shop", world.deps, force=True)
    world.run(seconds=3700)
    assert state_of(world, head).is_late
    monkeypatch.setitem(world.config.app("shop").tests.__dict__, "pull_requests", False)
    for state in ("pending", "success"):
        report(world, head, "unit", state)
        report(world, head, "lint", state)
    world.run(seconds=60)
    assert state_of(world, head).state is CommitState.FAILED


@pytest.mark.parametrize("set_aside", [False, True])
def test_a_failure_of_what_was_only_planned_ahead_bars_it(world, set_aside):
    """It waits behind a fan-out, or was set aside: nothing of it is out, so it is kept in and not only told of."""
    freezes.freeze(
        world.config.app("shop"), world.deps, who="ann", why="so that no other is planned", until=None
    )
    sha = passed(world)
    world.run(until=lambda: state_of(world, sha).state is CommitState.PASSED, seconds=60)
    with world.store.transaction() as tx:
        now = state_of(world, sha)
        tx.rollouts.add(planned(sha), why="test")
        if set_aside:
            planning.make_way(tx, world.config.app("shop"), "a person has the way", who="ann")
    report(world, sha, "lint", "failure")
    assert (now.state, state_of(world, sha).state) == (CommitState.PASSED, CommitState.BARRED)


def two_planned(world):
    """A rollout of two commits that have waited for long, planned and not begun."""
    app = world.config.app("shop")
    freezes.freeze(app, world.deps, who="ann", why="both are waited for", until=None)
    batch = [passed(world), passed(world)]
    world.run(until=lambda: {state_of(world, sha).state for sha in batch} == {CommitState.PASSED})
    with world.store.transaction() as tx:
        for sha in batch:
            tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 1500.0)
    freezes.unfreeze(app, world.deps, who="ann", why="both have passed")
    planning.start_next("shop", world.deps)
    with world.store.reading() as tx:
        assert tx.rollouts.pending("shop").commits == tuple(batch)
    return batch


@pytest.mark.parametrize("when", ["as it goes back", "when it is back", "after a rollback below it"])
def test_a_failure_of_what_was_taken_back_bars_it(world, when):
    """It is neither out nor on its way any more, and a suspect would have gone out again: it is kept in."""
    first = passed(world)
    world.settle()
    batch = two_planned(world)
    shipped = (RolloutState.EVALUATING_CANARY, RolloutState.DONE)[when == "after a rollback below it"]
    world.run(until=lambda: world.newest().commit == batch[-1] and world.newest().state is shipped)
    if when == "after a rollback below it":
        last = passed(world)
        world.run(until=lambda: world.newest().commit == last and world.newest().state is RolloutState.DONE)
        stopping.roll_back_done(world.config.app("shop"), world.deps, to=first, who="ann", why="slow")
        bars.unbar("shop", batch[0], world.deps, who="ann", why="it is not this one")
    else:
        stopping.stop(world.newest().id, world.deps, who="ann", why="slow")
    number = world.newest().id
    if when != "as it goes back":
        world.run(until=lambda: rollout(world, number).state is RolloutState.ROLLED_BACK)
    report(world, batch[0], "unit", "failure")
    assert state_of(world, batch[0]).state is CommitState.BARRED
    world.run(seconds=300)
    assert set(world.runs().values()) == {first}


def test_a_failure_of_what_stands_where_a_commit_that_runs_stood_bars_it(world):
    """A force-push puts another commit in the place of what runs: that one is not out, and does not ship after a rollback."""
    first = passed(world)
    world.settle()
    gone = passed(world)
    world.settle()
    other = "b" * 40
    world.workshop.commits[-1:] = [BranchCommit(other, 2, "another one", "Zoe", "another one")]
    intake.read_branch(world.config.app("shop"), world.deps, who="poll", why="forced")
    for name in ("unit", "lint"):
        report(world, other, name, "success")
    world.run(until=lambda: state_of(world, other).state is CommitState.PASSED)
    report(world, other, "unit", "failure")
    assert state_of(world, other).state is CommitState.BARRED
    stopping.roll_back_done(world.config.app("shop"), world.deps, to=None, who="ann", why="slow")
    world.run(seconds=600)
    assert gone not in world.runs().values()
    assert set(world.runs().values()) == {first}


def test_what_is_planned_does_not_begin_when_a_commit_inside_of_it_is_barred(world):
    """Between its planning and its beginning a check of the older of two commits fails: nothing of them goes out."""
    first = passed(world)
    world.settle()
    older, _ = two_planned(world)
    report(world, older, "unit", "failure")
    world.run(seconds=300)
    assert (world.newest().state, set(world.runs().values())) == (RolloutState.ERROR, {first})


def test_a_failure_while_it_is_built_is_in_time(world):
    """The word that counts is the newest one when the result is written."""
    sha = world.push()
    report(world, sha, "unit", "success")
    build = world.workshop.build

    def building(*args):
        report(world, sha, "lint", "failure")
        return build(*args)

    world.workshop.build = building
    report(world, sha, "lint", "success")
    world.run(seconds=20)
    assert state_of(world, sha).state is CommitState.FAILED


def built_again(world):
    """A commit that passed longer ago than reports are waited for, and lost its archive while something else went out."""
    passed(world)
    world.settle()
    freezes.freeze(world.config.app("shop"), world.deps, who="ann", why="weekend", until=None)
    sha = passed(world)
    world.run(seconds=10)
    assert state_of(world, sha).state is CommitState.PASSED
    world.workshop.gone.add(sha)
    world.seconds += 2 * world.config.app("shop").tests.deadline
    freezes.unfreeze(world.config.app("shop"), world.deps, who="ann", why="monday")
    return sha


@pytest.mark.parametrize("said", ["pending", "cancelled"])
@pytest.mark.parametrize("before", [True, False])
def test_what_is_built_again_does_not_fail_for_a_run_that_begins_again(world, said, before):
    """It passed: nobody waits for its checks a second time, and none is late; before its archive is built or meanwhile."""
    sha, build = built_again(world), world.workshop.build
    if before:
        report(world, sha, "lint", said)
    else:
        world.workshop.build = lambda *args: (report(world, sha, "lint", said), build(*args))[1]
    world.run(until=lambda: set(world.runs().values()) == {sha}, seconds=300)
    assert set(world.runs().values()) == {sha}
    assert not any("red" in title or "flaky" in title for title, _ in world.notifier.sent)


@pytest.mark.parametrize("person", [False, True], ids=["", "let go by a person"])
def test_a_failure_while_it_is_built_again_bars_it(world, person):
    """As it would have the moment before or after; what a person let go in spite of that goes out."""
    sha, build = built_again(world), world.workshop.build
    if person:
        report(world, sha, "lint", "failure")
        bars.unbar("shop", sha, world.deps, who="ann", why="a flaky check")
    else:
        world.workshop.build = lambda *args: (report(world, sha, "lint", "failure"), build(*args))[1]
    world.run(
        until=lambda: state_of(world, sha).state is CommitState.BARRED, seconds=60 if not person else 300
    )
    assert state_of(world, sha).state is (CommitState.PASSED if person else CommitState.BARRED)
    assert (set(world.runs().values()) == {sha}) is person
    if not person:
        report(world, sha, "lint", "success")
        assert state_of(world, sha).state is CommitState.PASSED


@pytest.mark.parametrize("said", ["cancelled", "pending"])
def test_a_run_that_begins_again_while_it_is_built_is_waited_for(world, said):
    """The newest word counts, and it is no red."""
    sha = world.push()
    report(world, sha, "unit", "success")
    build = world.workshop.build

    def building(*args):
        report(world, sha, "lint", said)
        return build(*args)

    world.workshop.build = building
    report(world, sha, "lint", "success")
    world.run(seconds=20)
    assert (state_of(world, sha).state, state_of(world, sha).reds) == (CommitState.RECEIVED, 0)
    world.workshop.build = build
    report(world, sha, "lint", "success")
    world.run(seconds=30)
    assert state_of(world, sha).state is CommitState.PASSED


def test_checks_that_become_slow_are_warned_of_once(world, monkeypatch):
    """More than five minutes from the first word of a run to its result: as of a suite that is run here."""
    late_s, began = [0.0], datetime.now(UTC)
    monkeypatch.setattr(Transaction, "today", staticmethod(lambda: began + timedelta(seconds=late_s[0])))
    for took_s in (10.0, 301.0, 302.0):
        sha = world.push()
        report(world, sha, "unit", "pending")
        report(world, sha, "lint", "success")
        late_s[0] += took_s
        report(world, sha, "unit", "success")
        world.settle()
        assert state_of(world, sha).took_s == took_s
    world.run(seconds=20)
    told = [(title, body) for title, body in world.notifier.sent if "the tests took" in title]
    assert [title for title, _ in told] == ["shop: the tests took 5.0 min"]
    assert "tests.parallel" not in told[0][1]  # nothing of ours makes them faster


def test_reports_are_bounded_and_refused_where_nobody_reads_them(world, tmp_path, monkeypatch):
    """A hundred checks a commit; and an app that runs its own tests takes none."""
    for number in range(MOST_NAMES):
        report(world, "b" * 40, f"check {number}", "success")
    with pytest.raises(Conflict):
        report(world, "b" * 40, "one more", "success")
    report(world, "b" * 40, "check 1", "failure")  # a known one has its newest word
    with pytest.raises(Conflict):
        report(World(tmp_path / "own", monkeypatch), "b" * 40, "unit", "success")


def with_others(world, many):
    """`shop`, and as many other apps of its repository, all with a row; what `shop` is not told of knows none of them."""
    shop = world.config.app("shop")
    apps = [shop, *(shop.model_copy(update={"name": f"app{number:02d}"}) for number in range(many))]
    with world.store.transaction() as tx:
        tx.apps.lock_all([app.name for app in apps])
    return apps


@pytest.mark.parametrize("together", [True, False])
def test_each_app_of_a_repository_has_its_own_answer_to_a_report(world, together):
    """One waits for that check, one does not require it, one does not know the commit; all together come to what each comes to."""
    shop, other, stranger = with_others(world, 2)
    shop, other = (
        app.model_copy(update={"tests": app.tests.model_copy(update={"required": (name,)})})
        for app, name in ((shop, "unit"), (other, "lint"))
    )
    sha = world.push()
    with world.store.transaction() as tx:
        tx.commits.add("app00", sha, who="test", why="pushed")
        tx.connection.execute(update(commits).values(due_at=1e12))
    world.bell.queue.clear()
    apps = [stranger, shop, other]
    said = [
        checks.report(some, sha, Check("unit", S.SUCCESS, "https://ci/1"), world.deps)
        for some in ([apps] if together else [[app] for app in apps])
    ]
    assert [one for some in said for one in some] == [
        "kept until the commit is known",
        "taken",
        "kept; not a required check",
    ]
    with world.store.reading() as tx:
        kept = [tx.checks.of(app.name, sha) for app in apps]
    assert [[one.name for one in words] for words in kept] == [["unit"]] * 3
    assert [one.began_at is None for (one,) in kept] == [True, False, False]
    assert [tasks for _, tasks, _ in world.bell.queue] == [(RUN_TESTS,)]
    again = checks.report(apps, sha, Check("unit", S.PENDING, "https://ci/1"), world.deps)
    assert set(again) == {checks.LATE}


def test_a_report_that_one_app_has_no_room_for_is_kept_for_the_others(world):
    """The one is refused, which is said."""
    shop, other = with_others(world, 1)
    for number in range(MOST_NAMES):
        report(world, SHA, f"check {number}", "success")
    with pytest.raises(Conflict, match="has reports of 100 checks already"):
        checks.report([shop, other], SHA, Check("one more", S.SUCCESS), world.deps)
    with world.store.reading() as tx:
        assert [len(tx.checks.of(app.name, SHA)) for app in (shop, other)] == [MOST_NAMES, 1]


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("way", ["webhook", "api"])
def test_a_report_that_decides_nothing_costs_as_many_questions_for_many_apps_as_for_a_few(
    tmp_path, monkeypatch, postgres, way
):
    """A server is asked as often for three apps of a repository as for thirty: of a check that none requires, of a commit that none knows, and of what is said again."""
    world = of_ci_servers(World(tmp_path, monkeypatch, hosts=1, url=postgres.database()))
    apps = with_others(world, 32)
    known = world.workshop.push()
    with world.store.transaction() as tx:
        for app in apps:
            tx.commits.add(app.name, known, who="test", why="pushed")

    def statements(some, sha, name, state):
        check = Check(
            name, S(state), source="github", stamp=f"{state == 'success'}", thing="check_run 1", run=1
        )
        with stores.asked(world.store) as told:
            if way == "api":
                checks.report(some, sha, check, world.deps)
            else:
                push = Push("github", "d-1", "report", ("ann/shop",), head=sha, check=check)
                checks.receive_all([(push, some)], world.deps)
        return len(told)

    for sha, name in ((known, "nightly"), ("e" * 40, "unit")):
        for state in ("pending", "success", "success"):
            few, many = (statements(some, sha, name, state) for some in (apps[:3], apps[3:]))
            assert many == few < 12
    world.store.close()


def test_a_required_check_is_heard_however_much_is_said_of_others(world, monkeypatch):
    """A schedule that reports all day on a branch's head: the oldest word that decides nothing makes room, and none that does."""
    for module in (checks, rows):
        monkeypatch.setattr(module, "MOST_WORDS", 4)
    sha = passed(world)
    for run in range(1, 9):
        github(
            world,
            sha,
            "workflow_job",
            run,
            f"2026-11-30T01:0{run}:00Z",
            "success",
            name="nightly",
            run_id=run,
        )
    assert (
        github(world, sha, "workflow_job", 9, "2026-11-30T01:09:00Z", "failure").outcome == Outcome.REPORTED
    )
    with world.store.reading() as tx:
        kept = [(one.name, one.run) for one in tx.checks.of("shop", sha)]
    assert sorted(kept) == [("lint", 0), ("nightly", 8), ("unit", 0), ("unit", 9)]


def test_a_red_one_that_a_person_has_barred_is_barred_when_its_check_is_a_success_after_all(world):
    """What it was barred for is no matter of its checks: it keeps back what comes after it, before and afterwards."""
    sha = world.push()
    report(world, sha, "unit", "failure")
    report(world, sha, "lint", "success")
    world.run(seconds=30)
    assert state_of(world, sha).state is CommitState.FAILED
    bars.bar("shop", sha, world.deps, who="ann", why="it deletes customers")
    report(world, sha, "unit", "success", stamp="2")
    world.run(seconds=60)
    assert (state_of(world, sha).state, state_of(world, sha).reason) == (
        CommitState.BARRED,
        "it deletes customers",
    )
