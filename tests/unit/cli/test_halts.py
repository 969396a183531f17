"""resume, retry, exclude, include, bar, unbar: a person's word."""

import pytest

from rollout.domain.states import CommitState, RolloutEvent
from rollout.services import rollouts
from tests.support.fakes import Meanwhile, a_commit, a_rollout


def halted(deps):
    """Two of four hosts have failed."""
    return a_rollout(
        deps,
        state="halted",
        hosts={"shop01": "done", "shop02": "failed", "shop03": "failed", "shop04": "prepared"},
    )


def finish(deps, rollout):
    """Wait until it goes on, then let it end."""
    while True:
        with deps.store.transaction() as tx:
            found = tx.rollouts.get(rollout.id)
            if found.state == "fanning_out":
                tx.rollouts.change(found, RolloutEvent.FINISH, who="test")
                return


def test_resume_is_4_while_too_many_have_failed(cli, deps):
    """It names the failed hosts and every way on."""
    rollout = halted(deps)
    told = cli("resume", rollout.id, "--json")
    assert told.code == 4
    assert "shop02, shop03" in told.json["message"]
    assert "--accept-failed" in told.json["remedy"]


def test_resume_says_which_freeze_it_goes_past(cli, deps):
    """Whoever leads on what halted half way reads that it is frozen, and so does whoever looks at it later."""
    rollout = halted(deps)
    cli("freeze", "--reason", "the sale")
    told = cli("resume", rollout.id, "--accept-failed", "--reason", "being replaced")
    assert told.code == 0
    for out in (told.out, cli("status").out):
        assert "hotfix, although frozen by" in out
        assert ": the sale; " in out
    assert ": being replaced" in told.out


def test_failures_are_accepted_by_name_and_reason(cli, deps):
    """A person takes them on; it is in the audit."""
    rollout = halted(deps)
    told = cli("resume", rollout.id, "--accept-failed", "--reason", "being replaced", "--json")
    assert (told.code, told.json["state"]) == (0, "fanning_out")
    with deps.store.reading() as tx:
        events = [(one.what, one.why) for one in tx.events.of_rollout(rollout.id)]
    assert ("accept failure", "being replaced") in events


@pytest.mark.parametrize("word", ["--accept-failed", "--accept-canary"])
def test_accepting_without_a_reason_is_2(cli, deps, word):
    """What is audited wants a reason."""
    told = cli("resume", halted(deps).id, word, "--json")
    assert (told.code, "reason" in told.json["message"]) == (2, True)


def test_resume_with_wait_has_the_outcome_as_its_exit_code(cli, deps):
    """0 when the rollout is done."""
    rollout = halted(deps)
    with Meanwhile(lambda: finish(deps, rollout)):
        told = cli("resume", rollout.id, "--accept-failed", "--reason", "x", "--wait", "--timeout", "30s")
    assert told.code == 0
    assert f"rollout {rollout.id} of shop is done" in told.out


def test_retry_tries_the_failed_hosts_again(cli, deps):
    """They are prepared again with the next attempt, and the rollout goes on."""
    rollout = halted(deps)
    told = cli("retry", rollout.id, "--json")
    assert (told.code, told.json["state"], told.json["counts"]["failed"]) == (0, "fanning_out", 0)
    assert {host["attempt"] for host in cli("show", rollout.id, "--json").json["hosts"]} == {1, 2}


def test_retry_that_times_out_is_1(cli, deps):
    """--wait with --timeout: not done in time."""
    assert cli("retry", halted(deps).id, "--wait", "--timeout", "0s").code == 1


def test_without_a_broker_going_on_is_stored_and_a_warning_says_so(cli, deps):
    """The state changes; the messages come with the broker."""
    rollout = halted(deps)
    deps.bell.deaf = True
    told = cli("retry", rollout.id)
    assert told.code == 0
    assert "the broker does not answer" in told.err


@pytest.mark.parametrize("command", ["resume", "retry"])
def test_what_is_not_halted_is_4(cli, deps, command):
    """Only a halted rollout can go on."""
    assert cli(command, a_rollout(deps).id).code == 4


@pytest.mark.parametrize("command", ["resume", "retry"])
def test_an_unknown_rollout_is_3(cli, command):
    """There is no such rollout."""
    assert cli(command, "9").code == 3


def test_who_resumes_a_canary_in_doubt_is_told_how_to_go_on_without_it(cli, deps):
    """It is watched anew, for as long as before, and may be as much in doubt then."""
    rollout = a_rollout(deps, state="evaluating_canary", hosts={"shop01": "done"})
    with deps.store.transaction() as tx:
        rollouts.halt(tx, tx.rollouts.lock(rollout.id), "no traffic")
    told = cli("resume", rollout.id)
    assert (told.code, f"resume {rollout.id} --accept-canary --reason" in told.out) == (0, True)


def test_excluded_hosts_leave_the_present_rollout_too(cli, deps):
    """exclude: out of this one and of those to come, with the reason kept."""
    rollout = halted(deps)
    told = cli("exclude", "shop02", "shop03", "--reason", "bad disks", "--json")
    assert (told.code, told.json) == (
        0,
        {"app": "shop", "excluded": ["shop02", "shop03"], "in_flight": []},
    )
    assert cli("show", rollout.id, "--json").json["counts"]["excluded"] == 2
    assert "bad disks" in cli("hosts").out
    assert cli("resume", rollout.id).code == 0


def test_a_host_in_flight_stays_and_is_named(cli, deps):
    """What is being switched right now cannot leave the present rollout."""
    a_rollout(deps, hosts={"shop01": "done", "shop02": "activating"})
    told = cli("exclude", "shop02", "--reason", "x")
    assert told.code == 0
    assert "being switched right now" in told.out


def test_include_takes_hosts_back_in(cli, deps):
    """The reason is gone, and so is what kept them from what the fleet runs."""
    cli("exclude", "shop02", "--reason", "bad disk")
    told = cli("include", "shop02", "--json")
    assert (told.code, told.json) == (0, {"app": "shop", "included": ["shop02"]})
    assert "bad disk" not in cli("hosts").out
    assert "in again: shop02 has its part in the next rollout" in cli("include", "shop02").out


@pytest.mark.parametrize("words", [("exclude", "nope", "--reason", "x"), ("include", "nope")])
def test_an_unknown_host_is_3(cli, words):
    """No host is called so."""
    assert cli(*words).code == 3


def test_exclude_wants_a_reason(cli):
    """Without one it is a usage error."""
    assert cli("exclude", "shop01").code == 2


def test_a_barred_commit_is_kept_out_and_let_in_again(cli, deps):
    """Bar and unbar are each other's inverse; the reason is kept."""
    sha = a_commit(deps).sha
    told = cli("bar", sha, "--reason", "leaks", "--json")
    assert (told.code, told.json) == (0, {"commit": sha, "state": "barred", "reason": "leaks"})
    assert cli("unbar", sha, "--json").json == {"commit": sha, "state": "passed", "reason": None}


@pytest.mark.parametrize(
    ("state", "stage"), [("evaluating_canary", "its canary is watched"), ("halted", "it is halted")]
)
def test_a_bar_of_what_is_on_its_way_says_what_takes_it_back(cli, deps, state, stage):
    """It is barred, and nothing is stopped by that: whoever barred it, and whoever looks later, is told."""
    rollout = a_rollout(deps, state=state)
    told = cli("bar", rollout.commit, "--reason", "slow query")
    assert (told.code, told.out) == (0, f"commit {rollout.commit[:12]} is barred\n")
    way = f"rollout stop {rollout.id}"
    assert (
        told.err
        == f"it is on its way with rollout {rollout.id} ({stage}), which a bar does not stop: {way} takes it back\n"
    )
    barred = f"{rollout.commit[:12]} is barred: slow query (to take it back: {way})"
    assert f"although {barred}" in cli("status").out
    assert f"although    {barred}" in cli("show", rollout.id).out
    assert state == "halted" or cli("why", rollout.commit).out.startswith(
        f"commit {rollout.commit[:12]}: in rollout {rollout.id}, although {barred}: {stage}"
    )


def test_a_bar_of_what_came_in_with_a_merge_says_what_brings_it(cli, deps):
    """It is never tested by itself, so that nobody waits for that: the merge is kept out with it, or is on its way."""
    inner, rollout = a_commit(deps).sha, a_rollout(deps)
    with deps.store.transaction() as tx:
        values = {"merged_into": rollout.commit, "position": None, "state": CommitState.RECEIVED}
        tx.commits.update(tx.commits.get("shop", inner), **values)
    told = cli("bar", inner, "--reason", "slow query")
    merge = rollout.commit[:12]
    assert told.out == f"commit {inner[:12]} is barred, and {merge} with it, which it came in with\n"
    assert told.err.startswith(f"it is on its way with rollout {rollout.id} (")
    assert f"although {inner[:12]}, which came in with {merge}, is barred: slow query" in cli("status").out


def test_a_bar_names_the_twin_that_is_on_its_way(cli, deps):
    """A commit that was amended is barred, and the amended one has its files and is on its way to hosts."""
    first, rollout = a_commit(deps).sha, a_rollout(deps)
    with deps.store.transaction() as tx:
        tx.commits.update(tx.commits.get("shop", first), tree="b" * 40, on_branch=False)
        tx.commits.update(tx.commits.get("shop", rollout.commit), tree="b" * 40, on_branch=True)
    twin = rollout.commit[:12]
    told = cli("bar", first, "--reason", "slow query")
    assert told.err.startswith(f"{twin}, which has the same in it, is on its way with rollout {rollout.id} (")
    assert f"although {twin} is barred: the same files as {first[:12]}" in cli("status").out


def test_a_bar_of_what_runs_says_what_it_does(cli, deps):
    """It stays out, and what comes after it waits."""
    rollout = a_rollout(deps, state="done")
    told = cli("bar", rollout.commit, "--reason", "slow query").err
    assert told.startswith(
        f"it is out, with rollout {rollout.id}, and stays there: rollout rollback takes it back"
    )
    assert "what comes after it waits" in told


@pytest.mark.parametrize("state", ["stopping", "rolled_back"])
def test_a_bar_of_what_is_over_says_nothing_more(cli, deps, state):
    """It is not on its way, or is being taken back already."""
    rollout = a_rollout(deps, state=state)
    assert cli("bar", rollout.commit, "--reason", "slow query").err == ""
    assert "although" not in cli("show", rollout.id).out


def test_who_lifts_a_bar_is_told_what_it_was_for(cli, deps):
    """All reasons of all people, each once."""
    sha = a_commit(deps).sha
    for why in ("leaks", "slow", "leaks"):
        cli("bar", sha, "--reason", why)
    assert "may be shipped again; it was barred: slow; and: leaks" in cli("unbar", sha).out


@pytest.mark.parametrize(("passed", "stays"), [(None, "received"), (False, "failed")])
def test_a_commit_that_has_not_passed_is_barred_as_any_other(cli, deps, passed, stays):
    """In test or red: it keeps its state, the answer says what it is barred for, and `unbar` lifts that."""
    sha = a_commit(deps, passed=passed).sha
    assert f"{sha[:12]} is barred\n" in cli("bar", sha, "--reason", "leaks").out
    told = cli("bar", sha, "--reason", "slow", "--json")
    assert (told.code, told.json) == (0, {"commit": sha, "state": stays, "reason": "leaks; and: slow"})
    assert "barred: leaks; and: slow" in cli("why", sha).out
    assert "it was barred: leaks; and: slow" in cli("unbar", sha).out


def test_an_unknown_commit_is_3(cli):
    """No commit starts so."""
    assert cli("bar", "beef", "--reason", "x").code == 3


def test_unbarring_what_is_not_barred_is_4(cli, deps):
    """It conflicts with the present state."""
    assert cli("unbar", a_commit(deps).sha).code == 4
