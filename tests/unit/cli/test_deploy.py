"""deploy: a commit by hand."""

import threading

import pytest

from rollout.domain.model import AppName, RolloutId
from rollout.domain.states import RolloutEvent
from rollout.services import bars, planning, testing
from tests.support.fakes import Meanwhile, a_commit, a_rollout


def finish(deps, *, what=RolloutEvent.FINISH):
    """The app's pending rollout goes through, or halts."""
    with deps.store.transaction() as tx:
        rollout = tx.rollouts.pending(AppName("shop"))
        for event in (RolloutEvent.START, RolloutEvent.CANARY_DEPLOYED, RolloutEvent.CANARY_PASSED):
            rollout = tx.rollouts.change(rollout, event, who="test")
        stage = {"halted_stage": rollout.state} if what is RolloutEvent.HALT else {}
        tx.rollouts.change(rollout, what, who="test", reason="2 of 4 hosts failed", **stage)


def test_a_commit_is_stored_and_its_tests_are_rung(cli, deps):
    """Without a name the branch's head is enqueued; the document has the contract's three keys."""
    sha = deps.workshop.push()
    told = cli("deploy", "--json")
    assert (told.code, told.json) == (0, {"commit": sha, "state": "received", "rollout": None})
    assert [ring.task for ring in deps.bell.rung] == ["rollout.run_tests"] * len(deps.bell.rung)
    assert deps.bell.rung


def test_a_commit_is_named_by_its_beginning(cli, deps):
    """A person types the first digits."""
    sha = a_commit(deps).sha
    assert cli("deploy", sha[:39], "--json").json["commit"] == sha


def test_a_passed_commit_is_planned_at_once(cli, deps):
    """What has passed already needs no second test: its rollout is there when the command returns."""
    sha = a_commit(deps).sha
    told = cli("deploy", sha, "--json").json
    assert (told["state"], told["rollout"]) == ("passed", 1)
    assert "rollout 1 of shop is pending" in cli("deploy", sha).out


def test_a_person_is_told_what_comes_next(cli, deps):
    """In words: where the commit is, and what it waits for."""
    sha = deps.workshop.push()
    assert f"commit {sha[:12]} is received: its tests come next" in cli("deploy").out


def test_the_audit_has_the_person(cli, deps):
    """Who enqueued it is in the events, with `cli:` before the name."""
    sha = deps.workshop.push()
    cli("deploy")
    with deps.store.reading() as tx:
        events = tx.events.of_subject(AppName("shop"), f"commit {sha}")
    assert events[0].who.startswith("cli:")


def test_without_a_broker_it_is_stored_and_a_warning_says_so(cli, deps):
    """The row is the truth: nobody hears it now, and nothing is lost."""
    sha = deps.workshop.push()
    deps.bell.deaf = True
    told = cli("deploy", "--json")
    assert (told.code, told.json["commit"]) == (0, sha)
    assert "the broker does not answer" in told.err


def test_an_unknown_commit_is_3(cli, deps):
    """What is not on the branch cannot be deployed."""
    deps.workshop.push()
    assert cli("deploy", "beef").code == 3


def test_an_unreachable_repository_is_5(cli, deps):
    """The git server is a needed service."""
    deps.workshop.push()
    deps.workshop.down = True
    told = cli("deploy", "--json")
    assert (told.code, told.json["error"]) == (5, "ServiceUnavailable")


def test_a_branch_that_is_not_there_is_3(cli, deps):
    """The configured branch does not exist."""
    deps.workshop.push()
    deps.workshop.branchless = True
    assert cli("deploy").code == 3


def test_a_barred_commit_is_4_and_names_the_way(cli, deps):
    """Deploying what is barred conflicts with the bar."""
    sha = a_commit(deps).sha
    bars.bar("shop", sha, deps, who="test", why="leaks")
    told = cli("deploy", sha, "--json")
    assert told.code == 4
    assert f"rollout unbar {sha[:12]}" in told.json["remedy"]


def test_an_older_commit_is_4_and_names_the_way(cli, deps):
    """Going back is another command."""
    old = a_commit(deps).sha
    a_rollout(deps, state="done")
    told = cli("deploy", old, "--json")
    assert told.code == 4
    assert "rollout rollback --to" in told.json["remedy"]


def test_now_while_another_rollout_is_active_is_4(cli, deps):
    """`--now` skips the queue, not the rollout that is under way and may still fail its canary."""
    active = a_rollout(deps, state="evaluating_canary")
    deps.workshop.push()
    told = cli("deploy", "--now", "--reason", "hot fix", "--json")
    assert told.code == 4
    assert f"rollout stop {active.id}" in told.json["remedy"]


def test_now_is_audited(cli, deps):
    """Who wanted it out before the queue, and why, is in the events and becomes the rollout's."""
    sha = a_commit(deps).sha
    assert cli("deploy", "--now", "--reason", "hot fix").code == 0
    with deps.store.reading() as tx:
        events = tx.events.of_subject(AppName("shop"), f"commit {sha}")
        rollout = tx.rollouts.get(RolloutId(1))
    assert ("deploy now", "hot fix") in [(event.what, event.why) for event in events]
    assert rollout.requested_by.startswith("cli:")


@pytest.mark.parametrize(
    "words", [("--now",), ("--reason", "x"), ("--timeout", "5s"), ("--wait", "--timeout", "soon")]
)
def test_options_that_make_no_sense_alone_are_2(cli, deps, words):
    """Half of a pair of options, or a duration that is none, is a usage error."""
    deps.workshop.push()
    assert cli("deploy", *words).code == 2


def test_waiting_ends_with_the_rollout(cli, deps):
    """--wait returns 0 when the rollout of the commit is done."""
    sha = a_commit(deps).sha
    planning.start_next("shop", deps)
    with Meanwhile(lambda: finish(deps)):
        told = cli("deploy", sha, "--wait", "--timeout", "30s", "--json")
    assert (told.code, told.json) == (0, {"commit": sha, "state": "passed", "rollout": 1})


def test_waiting_for_what_runs_already_is_0(cli, deps):
    """The commit that runs is out: there is nothing to wait for."""
    rollout = a_rollout(deps, state="done")
    told = cli("deploy", "--wait", "--json")
    assert (told.code, told.json["rollout"]) == (0, rollout.id)


def test_waiting_ends_with_a_halt(cli, deps):
    """A halted rollout waits for a person, so the script gets 1 and the next commands."""
    a_commit(deps)
    planning.start_next("shop", deps)
    with Meanwhile(lambda: finish(deps, what=RolloutEvent.HALT)):
        told = cli("deploy", "--wait", "--timeout", "30s")
    assert told.code == 1
    assert "is halted" in told.out


def test_waiting_ends_when_the_tests_fail(cli, deps):
    """A red commit never ships: 1, with the reason."""
    sha = deps.workshop.push(fails=True)
    ended = threading.Event()

    def a_worker():
        while not ended.wait(0.02):
            with deps.store.reading() as tx:
                waiting = tx.commits.unfinished(AppName("shop"))
            for commit in waiting:
                testing.run_tests(commit.id, deps)

    with Meanwhile(a_worker):
        try:
            told = cli("deploy", "--wait", "--timeout", "60s")
        finally:
            ended.set()
    assert told.code == 1
    assert f"commit {sha[:12]} is failed" in told.out


def test_waiting_ends_when_only_a_person_can_go_on(cli, deps):
    """A commit behind a barred one is never chosen by itself: 1, and why."""
    a_rollout(deps, state="done")
    bad = a_commit(deps)
    bars.bar("shop", bad.sha, deps, who="test", why="leaks")
    a_commit(deps)
    told = cli("deploy", "--wait", "--timeout", "30s")
    assert told.code == 1
    assert "is barred" in told.out


def test_waiting_too_long_is_1(cli, deps):
    """--timeout ends the waiting, not the rollout."""
    a_commit(deps)
    told = cli("deploy", "--wait", "--timeout", "0s", "--json")
    assert (told.code, told.json["error"]) == (1, "TimedOut")
    assert "rollout status 1" in told.json["remedy"]


def test_a_rollout_that_went_wrong_before_is_not_waited_for(cli, deps):
    """After an unbar the commit gets a new rollout; the old one says nothing about it."""
    first = a_commit(deps)
    a_rollout(deps, commit=first, state="rolled_back")
    told = cli("deploy", first.sha, "--json").json
    assert told["rollout"] == 2
