"""status, show, log, history, hosts: what people and programs are shown."""

import pytest

from rollout.domain.model import Push
from rollout.errors import ConfigError, Unreachable
from rollout.services import bars, intake, planning
from rollout.store.store import Transaction
from tests.support.fakes import a_commit, a_rollout

COUNTS = {
    "total",
    "pending",
    "preparing",
    "prepared",
    "activating",
    "done",
    "failed",
    "unknown",
    "excluded",
    "rolling_back",
    "rolled_back",
    "rollback_failed",
}
ELEMENT = {
    "id",
    "app",
    "commit",
    "commits",
    "previous",
    "state",
    "outcome",
    "reason",
    "started_at",
    "ended_at",
    "counts",
    "budget",
    "canary",
}


def test_show_has_exactly_the_keys_of_the_contract(cli, deps):
    """`show --json` has the keys that the contract names, all the way down, and no others."""
    rollout = a_rollout(deps, hosts={"shop01": "done", "shop02": "failed"})
    shown = cli("show", rollout.id, "--json").json
    assert set(shown) == ELEMENT | {"hosts"}
    assert set(shown["counts"]) == COUNTS
    assert set(shown["budget"]) == {"max_failed", "worst_case"}
    assert set(shown["canary"]) == {"status", "reason", "hosts"}
    assert {frozenset(host) for host in shown["hosts"]} == {
        frozenset({"name", "state", "attempt", "release", "previous", "error", "took_s"})
    }


def test_the_states_sum_to_the_total(cli, deps):
    """Every host is in exactly one of the counted states."""
    rollout = a_rollout(deps, hosts={"shop01": "done", "shop02": "failed", "shop03": "unknown"})
    counts = cli("show", rollout.id, "--json").json["counts"]
    assert counts["total"] == sum(number for state, number in counts.items() if state != "total") == 4


def test_status_lists_the_unfinished_rollouts_without_hosts(cli, deps):
    """`status --json` is the list of what is under way."""
    done = a_rollout(deps, state="done")
    running = a_rollout(deps)
    told = cli("status", "--json")
    assert told.code == 0
    assert [(set(one), one["id"]) for one in told.json] == [(ELEMENT, running.id)]
    assert [one["id"] for one in cli("status", done.id, "--json").json] == [done.id]


def test_history_lists_the_finished_rollouts_newest_first(cli, deps):
    """`history --json` is the list of what is over."""
    first, second = a_rollout(deps, state="done"), a_rollout(deps, state="rolled_back")
    a_rollout(deps)
    told = cli("history", "--json").json
    assert [(one["id"], one["outcome"]) for one in told] == [(second.id, "error"), (first.id, "done")]
    assert [one["id"] for one in cli("history", "--limit", "1", "--json").json] == [second.id]


def test_history_of_deliveries_shows_what_became_of_each(cli, deps):
    """As a table and as JSON, newest first."""
    for head in ("b" * 40, "c" * 40):
        push = Push("github", f"d-{head[0]}", "push", full_name="shop", branch="main", head=head)
        intake.receive_all([(push, deps.config.app("shop"))], deps)
    told = cli("history", "--deliveries", "--json").json
    assert [(one["id"], one["commit"][0], one["outcome"]) for one in told] == [
        (2, "c", "accepted"),
        (1, "b", "accepted"),
    ]
    assert cli("history", "--deliveries", "--limit", "1", "--json").json == told[:1]
    assert "accepted" in cli("history", "--deliveries").out


def test_history_of_deliveries_shows_those_that_are_nobodys(cli, deps):
    """Also with one app: whoever mistyped its repository looks for them here; `--app` narrows the list."""
    foreign = Push("github", "d-x", "push", full_name="shpo", branch="main", head="d" * 40)
    intake.receive_all([(foreign, None)], deps)
    assert [one["outcome"] for one in cli("history", "--deliveries", "--json").json] == ["ignored"]
    assert cli("--app", "shop", "history", "--deliveries", "--json").json == []


def test_lists_are_of_one_app_or_of_all(build, plain):
    """--app narrows status, history and hosts; without it they show every app."""
    deps = build(apps=("shop", "blog"), hosts=2)
    one, two = a_rollout(deps, app="shop", state="done"), a_rollout(deps, app="blog", state="done")
    assert {found["id"] for found in plain("history", "--json").json} == {one.id, two.id}
    assert [found["id"] for found in plain("--app", "blog", "history", "--json").json] == [two.id]
    assert {found["app"] for found in plain("hosts", "--json").json} == {"shop", "blog"}
    assert plain("status", "--app", "blog", "--json").json == []


def test_who_is_behind_is_said_with_the_reason(cli, deps):
    """After the end of a rollout: in `status` and in `hosts`, and in no JSON of the contract."""
    a_rollout(deps, state="done", hosts={"shop01": "done", "shop02": "failed"})
    for command in ("status", "hosts"):
        line = next(line for line in cli(command).out.splitlines() if "shop02" in line)
        assert line.endswith("shop02: unhealthy; it is tried again")
    assert all("behind" not in host for host in cli("hosts", "--json").json)


def test_status_tells_people_what_runs_and_what_is_next(cli, deps):
    """Without --json: the release, the rollouts under way, and why nothing starts."""
    assert "runs nothing of ours yet" in cli("status").out
    done = a_rollout(deps, state="done")
    assert f"runs {done.commit[:12]} (rollout {done.id}" in cli("status").out
    halted = a_rollout(deps, state="halted", hosts={"shop01": "done", "shop02": "failed"})
    told = cli("status").out
    assert f"rollout {halted.id}  halted" in told
    assert "1 of 4 hosts done, 1 failed" in told
    assert f"rollout resume|retry|stop {halted.id}" in told


def test_status_says_that_nobody_looks_at_the_branch(cli, deps, monkeypatch):
    """Where `rollout up` does not run nothing goes on, whatever is next; of a branch that is not polled nobody can tell."""
    app = deps.config.app("shop")
    says = "nothing goes on by itself: nobody has looked at branch main"
    assert f"  {says} yet; is `rollout up` running?\n" in cli("status").out
    with deps.store.transaction() as tx:
        assert tx.apps.claim_poll("shop", app.poll)
    assert says not in cli("status").out
    with deps.store.transaction() as tx:
        tx.apps.polled("shop", tx.now(), next_s=app.poll, failures=0)
    assert says not in cli("status").out
    now = Transaction.now
    monkeypatch.setattr(Transaction, "now", lambda tx: now(tx) + 60.0 * 5)
    assert f"  {says} for 5 min; is `rollout up` running?\n" in cli("status").out
    with deps.store.transaction() as tx:
        tx.apps.look(["shop"])
    assert says not in cli("status").out
    deps.config.apps["shop"] = app.model_copy(update={"poll": 0.0})
    assert says not in cli("status").out


def test_status_tells_what_is_next_while_something_runs(cli, deps):
    """Done, doing and next: the commit behind the rollout under way, with the others that go with it, and when."""
    done = a_rollout(deps, state="done")
    running = a_rollout(deps, hosts={"shop01": "done"})
    assert "  next: no commit waits behind it\n" in cli("status").out
    commit = a_commit(deps)
    told = cli("status").out
    assert f"shop runs {done.commit[:12]} (rollout {done.id}" in told
    assert f"  rollout {running.id}  fanning_out" in told
    assert (
        f"  next: commit {commit.sha[:12]}: tested, waits for rollout {running.id} (1 of 4 hosts), then goes out by itself, at about "
        in told
    )
    assert told.count("next:") == 1
    assert [one["id"] for one in cli("status", "--json").json] == [running.id]


def test_watching_tells_what_is_next_too(cli, deps, monkeypatch):
    """`status --watch` has a line for what comes behind the rollout under way."""
    running = a_rollout(deps, hosts={"shop01": "done"})
    commit = a_commit(deps)

    def one_tick():
        yield 0.0
        raise KeyboardInterrupt

    monkeypatch.setattr("rollout.cli.waiting.ticks", one_tick)
    told = cli("status", "--watch").out
    assert f"rollout {running.id} hosts 1 of 4" in told
    assert f"shop next: commit {commit.sha[:12]}: tested, waits for rollout {running.id}" in told


def test_status_says_who_decides_what_is_next(cli, deps):
    """Behind a halted rollout nothing is promised: a person has to say what becomes of it."""
    a_rollout(deps, state="done")
    halted = a_rollout(deps, state="halted")
    a_commit(deps)
    words = f"  next: a person decides about rollout {halted.id} first: rollout show {halted.id}\n"
    assert words in cli("status").out


def test_status_behind_a_barred_commit_promises_nothing(cli, deps):
    """What waits for its fix is told beside the rollout that runs, without a time."""
    a_rollout(deps)
    bad, _ = a_commit(deps), a_commit(deps)
    bars.bar("shop", bad.sha, deps, who="me", why="it is slow")
    told = cli("status").out
    assert f"  next: {bad.sha[:12]} is barred, and so is all that comes after it" in told
    assert "at about" not in told


def test_status_names_commits_in_test(cli, deps):
    """A commit that waits for its tests is shown."""
    commit = a_commit(deps, passed=None)
    assert f"commit {commit.sha[:12]} waits for its tests" in cli("status").out


def test_status_says_of_no_commit_that_is_out_that_it_waits(cli, deps):
    """A later one that passed took it along, untested; of one that nobody knows on the branch yet nothing is concluded."""
    silent = a_commit(deps, passed=None)
    a_rollout(deps, state="done")
    assert f"commit {silent.sha[:12]}" not in cli("status").out
    with deps.store.transaction() as tx:
        told_of, _ = tx.commits.add("shop", "f" * 40, who="test", why="a webhook")
        assert (told_of.position, told_of.on_branch) == (None, True)
        assert [one.sha for one in planning.untested(tx, "shop")] == [told_of.sha]
    assert f"commit {told_of.sha[:12]} waits for its tests" in cli("status").out


def test_show_names_the_culprit_with_its_author_and_the_suspects(cli, deps):
    """Who can say what is wrong stands there, not only a hash."""
    commit = a_commit(deps)
    rollout = a_rollout(deps, state="rolled_back", commit=commit)
    with deps.store.transaction() as tx:
        tx.rollouts.update(rollout, canary_status="fail")
        tx.commits.update(tx.commits.get("shop", commit.sha), suspect=True)
    assert "culprit" not in cli("show", rollout.id).out
    assert f"suspect     {commit.sha[:12]}" in cli("show", rollout.id).out
    bars.bar("shop", commit.sha, deps, who="me", why="it is slow")
    told = cli("show", rollout.id).out
    assert f'culprit     {commit.sha[:12]} "{commit.subject}" by {commit.author}; barred: it is slow' in told
    assert "innocent" not in told


@pytest.mark.parametrize(
    ("state", "later", "named"),
    [
        ("done", "a change", False),
        ("rolled_back", "This reverts commit {}.", False),
        ("rolled_back", "a change", True),
    ],
)
def test_show_names_only_who_is_to_blame(cli, deps, state, later, named):
    """Not a barred commit whose fix went out with it, nor one of a rollout that went well."""
    commit = a_commit(deps)
    fix = a_commit(deps, message=later.format(commit.sha))
    rollout = a_rollout(deps, state=state, below=[commit], commit=fix)
    bars.bar("shop", commit.sha, deps, who="me", why="it is slow")
    told = cli("show", rollout.id).out
    assert (f"barred      {commit.sha[:12]}" in told) is named
    assert "culprit" not in told


def test_show_groups_failures_by_their_cause(cli, deps):
    """Two hosts with the same failure are one line, with the command that shows more."""
    rollout = a_rollout(
        deps, state="halted", hosts={"shop01": "done", "shop02": "failed", "shop03": "failed"}
    )
    told = cli("show", rollout.id).out
    assert "StepFailed: 2 hosts (shop02, shop03)" in told
    assert f"rollout log {rollout.id} --host shop02" in told
    assert "timeline" in told
    assert "host shop02" not in told.partition("timeline")[2]
    assert "host shop02" in cli("show", rollout.id, "--events").out.partition("timeline")[2]


def test_log_shows_tests_and_hosts(cli, deps):
    """The output of the tests, then that of each step on each host; --host narrows it."""
    rollout = a_rollout(deps, hosts={"shop01": "done", "shop02": "failed"})
    told = cli("log", rollout.id)
    assert "the tests' output" in told.out
    assert "shop02 activate, attempt 1\nconnection refused" in told.out
    assert "the tests' output" not in cli("log", rollout.id, "--host", "shop02").out
    document = cli("log", rollout.id, "--json").json
    assert [(one["host"], one["text"]) for one in document["hosts"]] == [("shop02", "connection refused\n")]


def test_log_follows_until_the_rollout_is_over(cli, deps):
    """--follow ends by itself with the rollout."""
    rollout = a_rollout(deps, state="done")
    assert cli("log", rollout.id, "--follow").code == 0


def test_hostile_output_is_cleaned(cli, deps):
    """What hosts print cannot move the cursor, colour the terminal or hide text."""
    rollout = a_rollout(deps, hosts={"shop01": "failed"})
    with deps.store.transaction() as tx:
        tx.outputs.add(
            rollout.id, "shop01", "health", 1, "\x1b[2J\x1b]0;owned\x07bad\x08\u202egood [red]x[/red]\n"
        )
    told = cli("log", rollout.id).out
    assert "\x1b" not in told
    assert "\u202e" not in told
    assert "badgood [red]x[/red]" in told


@pytest.mark.parametrize("words", [("show", "7"), ("log", "7"), ("status", "7"), ("status", "7", "--json")])
def test_an_unknown_rollout_is_3(cli, words):
    """A number that no rollout has is not found."""
    assert cli(*words).code == 3


def test_an_unknown_host_is_3(cli, deps):
    """A host that is not in the rollout has no log."""
    told = cli("log", a_rollout(deps).id, "--host", "nope", "--json")
    assert (told.code, told.json["error"]) == (3, "NotFound")


@pytest.mark.parametrize("words", [("status", "--watch"), ("log", "1", "--follow")])
def test_what_goes_on_for_ever_is_no_document(cli, words):
    """--json is one document, so it does not go together with watching."""
    told = cli(*words, "--json")
    assert (told.code, told.json["error"]) == (2, "WrongUsage")


def test_watching_a_rollout_ends_with_it(cli, deps):
    """`status ID --watch` returns when the rollout is over."""
    rollout = a_rollout(deps, state="done")
    told = cli("status", rollout.id, "--watch")
    assert (told.code, f"rollout {rollout.id} of shop is done" in told.out) == (0, True)


def test_hosts_has_exactly_the_keys_of_the_contract(cli, deps):
    """`hosts --json`: six keys, and drift only where the disk was read."""
    rollout = a_rollout(deps, state="done", hosts={"shop04": "excluded"})
    found = cli("hosts", "--json").json
    assert {frozenset(one) for one in found} == {
        frozenset({"app", "name", "address", "release", "verified_at", "drift"})
    }
    assert [(one["release"] == rollout.commit, one["drift"]) for one in found] == [(True, False)] * 3 + [
        (False, None)
    ]


def test_verify_reads_the_hosts_and_shows_drift(cli, deps):
    """A host that runs something else than what was left on it has drifted."""
    a_rollout(deps, state="done")
    deps.fleet.hosts["shop02"].current = "f" * 40
    told = cli("hosts", "--verify", "--json")
    assert told.code == 0
    assert [(one["name"], one["found"]) for one in told.json if one["drift"]] == [("shop02", "f" * 40)]
    (line,) = [line for line in cli("hosts").out.splitlines() if "shop02" in line]
    assert ("f" * 12 in line, "drift" in line) == (True, True)
    deps.fleet.hosts["shop02"].current = None
    assert "  nothing  " in cli("hosts", "--verify").out


def test_a_host_that_left_the_inventory_is_told_as_such(cli, deps):
    """What is recorded of it stays to be seen, and that nobody brings it to anything."""
    a_rollout(deps, state="done")
    members = deps.fleet.members
    deps.fleet.members = lambda its: [one for one in members(its) if one.name != "shop02"]
    told = cli("hosts", "--verify").out.splitlines()
    assert [line.split()[1] for line in told if "not in the fleet" in line] == ["shop02"]


def test_verify_names_hosts_that_cannot_be_read(cli, deps):
    """A host that does not answer is named on stderr, and the exit code is 1."""
    deps.fleet.script["status", "shop03"] = Unreachable("shop03: no answer")
    told = cli("hosts", "--verify", "--json")
    assert (told.code, len(told.json)) == (1, 4)
    assert "shop03 could not be read: shop03: no answer" in told.err


def test_an_inventory_that_fails_is_no_other_apps_trouble(build, plain):
    """The others' hosts are read and all are shown, what is wrong is said of the one app, and the exit code is 2."""
    deps = build(apps=("shop", "blog"), hosts=2)
    members = deps.fleet.members

    def asked(its):
        if its.name == "shop":
            raise ConfigError("the inventory ended with status 3", remedy="try it")
        return members(its)

    for app in ("shop", "blog"):
        a_rollout(deps, app=app, state="done")
    deps.fleet.members = asked
    for name in ("shop01", "blog01"):
        deps.fleet.hosts[name].current = "f" * 40
    told = plain("hosts", "--verify", "--json")
    assert (told.code, {one["name"]: one["drift"] for one in told.json}) == (
        2,
        {"shop01": False, "shop02": False, "blog01": True, "blog02": False},
    )
    assert "hosts of shop were not read" in told.err
    assert "the inventory ended with status 3" in told.err
    told = plain("hosts", "--verify", "--app", "shop", "--json")
    assert (told.code, told.json["message"]) == (2, "the inventory ended with status 3")
