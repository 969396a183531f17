"""plan: the rollout that would come, before it does; nothing is written."""

import pytest
from sqlalchemy import select

from rollout.domain.model import AppName
from rollout.services import bars, freezes, planning, verifying
from rollout.store import tables
from tests.support.fakes import a_commit, a_rollout

KEYS = {"app", "commit", "commits", "previous", "because", "expected_at", "hosts", "budget", "duration"}


def written(deps):
    """Every row of every table."""
    with deps.store.reading() as tx:
        return {
            table.name: tx.connection.execute(select(table)).all() for table in tables.metadata.sorted_tables
        }


@pytest.fixture
def shipped(deps):
    """Five measured rollouts."""
    for _ in range(5):
        a_rollout(deps, state="done")
    return deps


def test_what_is_shown_is_what_is_planned_then(cli, shipped):
    """The rollout that automation adds has the commits, the hosts in order and the bounds that the plan showed."""
    deps = shipped
    commit = a_commit(deps)
    told = cli("plan", "--json").json
    assert set(told) == KEYS
    rollout = planning.start_next("shop", deps)
    with deps.store.reading() as tx:
        hosts = tx.hosts.of(rollout.id)
    assert told["commit"] == rollout.commit == commit.sha
    assert [one["commit"] for one in told["commits"]] == list(rollout.commits)
    assert [(one["name"], one["role"]) for one in told["hosts"]] == [(host.name, host.role) for host in hosts]
    assert told["previous"] == rollout.previous
    assert told["budget"] == {
        "max_failed": rollout.max_failed,
        "worst_case": rollout.worst_case,
        "worst_case_at_once": 1,
    }


@pytest.mark.parametrize("words", [("plan",), ("plan", "--json")])
def test_nothing_is_written(cli, shipped, words):
    """A plan is a look: not one row of the store is another one after it, and nobody is rung."""
    deps = shipped
    commit = a_commit(deps)
    before, rung = written(deps), list(deps.bell.rung)
    assert cli(*words).code == cli(*words, commit.sha).code == 0
    assert (written(deps), deps.bell.rung) == (before, rung)


def test_people_see_authors_hosts_bounds_and_the_time(cli, shipped):
    """Who wrote it, who is the canary, who comes last, how many can be hurt, how long it takes."""
    commit = a_commit(shipped)
    told = cli("plan").out
    assert told.startswith(f"shop {commit.sha[:12]}: tested, then goes out by itself, at about ")
    assert f"commits     {commit.sha[:12]} passed   {commit.subject}, by {commit.author}" in told
    assert "canary      1 host: shop01\n" in told
    assert "baseline    3 hosts: shop02, shop03, shop04\n" in told
    assert "worst case  1 host hurt when it is broken from the first host on, 4 of 4 whatever happens" in told
    assert "as half of the last 5 rollouts did or less; 9 of 10 took at most" in told


def test_before_anything_was_measured_it_says_so(cli, deps):
    """The time of a first rollout is assumed, and told as such."""
    a_commit(deps)
    assert "takes       about 10 min, until a rollout has been measured" in cli("plan").out
    assert cli("plan", "--json").json["duration"] == {"measured": 0, "expected_s": 600.0, "at_most_s": None}


def test_beside_a_rollout_the_next_one_is_planned(cli, shipped):
    """What comes behind the one that is under way, which is not shown again."""
    running = a_rollout(shipped, hosts={"shop01": "done"})
    commit = a_commit(shipped, passed=None)
    told = cli("plan").out
    assert f"waits for rollout {running.id} (1 of 4 hosts), then goes out by itself" in told
    assert f"commits     {commit.sha[:12]} received" in told
    document = cli("plan", "--json").json
    assert [one["commit"] for one in document["commits"]] == [commit.sha]
    assert document["previous"] == running.commit


def test_a_commit_is_shown_with_those_that_go_with_it(cli, shipped):
    """By its name: the rollout that should bring it, although another one comes first."""
    first, second = a_commit(shipped), a_commit(shipped)
    with shipped.store.transaction() as tx:
        assert [one.id for one in planning.ahead(tx, shipped.config.app("shop"))] == [first.id, second.id]
    assert "1 rollout before it" in cli("plan", second.sha).out
    document = cli("plan", second.sha, "--json").json
    assert [one["commit"] for one in document["commits"]] == [second.sha]
    assert document["previous"] == first.sha


def test_the_branch_stands_for_its_head(cli, shipped):
    """The rollout that should bring the newest commit, not the next one."""
    first, head = a_commit(shipped), a_commit(shipped)
    assert [one["commit"] for one in cli("plan", "--json").json["commits"]] == [first.sha]
    assert [one["commit"] for one in cli("plan", "main", "--json").json["commits"]] == [head.sha]


def test_what_will_not_go_out_is_a_conflict_that_says_why(cli, shipped):
    """Barred, failed, shipped: 4, with the sentence of `why`; an unknown commit is 3."""
    bad, red = a_commit(shipped), a_commit(shipped, passed=False)
    bars.bar("shop", bad.sha, shipped, who="ann", why="slow")
    for sha, words in ((bad.sha, "barred: slow"), (red.sha, "its tests failed: exit status 1")):
        told = cli("plan", sha, "--json")
        assert (told.code, told.json["error"]) == (4, "Conflict")
        assert words in told.json["message"]
    with shipped.store.reading() as tx:
        released = tx.rollouts.released(AppName("shop"))
    assert "went out with rollout 5" in cli("plan", released).err
    assert cli("plan", "beef").code == 3
    assert f"nothing goes out: {bad.sha[:12]} is barred" in cli("plan").out


def test_when_there_is_nothing_it_says_why(cli, shipped):
    """Nothing new is no error, and the document has its keys all the same."""
    assert "nothing goes out: there is nothing new" in cli("plan").out
    told = cli("plan", "--json")
    assert (told.code, set(told.json), told.json["commit"]) == (0, KEYS, None)


def test_programs_and_refusals_say_too_that_newer_commits_are_not_known(cli, shipped):
    """What git did not say is left out neither of the document nor of why nothing is to come."""
    bad = a_commit(shipped)
    with shipped.store.transaction() as tx:
        tx.apps.ensure(AppName("shop"))
        tx.apps.polled(AppName("shop"), tx.now(), next_s=60.0, failures=3)
    assert "newer commits are not known" in cli("plan", "--json").json["because"]
    bars.bar("shop", bad.sha, shipped, who="ann", why="slow")
    assert "newer commits are not known" in cli("plan", bad.sha, "--json").json["message"]


def test_a_freeze_stands_in_the_plan(cli, shipped):
    """What would go out, and what keeps it."""
    a_commit(shipped)
    freezes.freeze(shipped.config.app("shop"), shipped, who="ann", why="the sale", until=None)
    told = cli("plan")
    assert "tested, frozen by ann: the sale\n" in told.out
    assert "canary      1 host: shop01" in told.out


def test_excluded_hosts_are_not_in_it(cli, shipped):
    """The fleet of the plan is that of the rollout: without those that are out."""
    a_commit(shipped)
    assert cli("exclude", "shop03", "--reason", "disk").code == 0
    assert [one["name"] for one in cli("plan", "--json").json["hosts"]] == ["shop01", "shop02", "shop04"]


def test_another_release_path_is_told_before_anything_goes_there(cli, shipped, monkeypatch):
    """On standard error, so that the document stays one."""
    a_commit(shipped)
    assert cli("plan").err == ""
    monkeypatch.setattr(verifying, "elsewhere", lambda *_: "release.path is another one")
    told = cli("plan", "--json")
    assert (set(told.json), "release.path is another one" in told.err) == (KEYS, True)
