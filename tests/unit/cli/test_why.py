"""why: what is printed, and the document of the contract."""

from datetime import UTC, datetime, timedelta

import pytest

from rollout.store.rollouts import Rollouts
from tests.support.fakes import a_commit, a_rollout


def test_why_is_one_sentence_with_a_time(cli, deps):
    """Where it is, what it waits for, with how many others it goes out, and when."""
    a_rollout(deps, state="done")
    running = a_rollout(deps, hosts={"shop01": "done"})
    commit = a_commit(deps)
    told = cli("why", commit.sha)
    assert told.code == 0
    assert told.out.startswith(
        f"commit {commit.sha[:12]}: tested, waits for rollout {running.id} (1 of 4 hosts), then goes out by itself, at about "
    )
    assert told.out.endswith(" UTC\n")
    assert told.out.count("\n") == 1


def test_the_document_has_the_keys_of_the_contract(cli, deps, monkeypatch):
    """Four keys; the time is UTC, and null where a person decides."""
    monkeypatch.setattr(Rollouts, "durations", lambda *_: [600.0])
    a_rollout(deps, state="done")
    commit = a_commit(deps)
    told = cli("why", commit.sha, "--json").json
    assert set(told) == {"commit", "state", "because", "expected_at"}
    assert (told["commit"], told["state"]) == (commit.sha, "passed")
    expected = datetime.fromisoformat(told["expected_at"])
    assert timedelta() < expected - datetime.now(UTC) < timedelta(minutes=11)
    a_rollout(deps, state="halted")
    assert cli("why", commit.sha, "--json").json["expected_at"] is None


@pytest.mark.parametrize("asked", [(), ("main",)])
def test_the_branch_stands_for_its_head(cli, deps, asked):
    """By its name, or without one."""
    a_rollout(deps, state="done")
    a_commit(deps)
    head = a_commit(deps)
    assert cli("why", *asked, "--json").json["commit"] == head.sha


def test_an_unknown_commit_is_3(cli, deps):
    """What nobody has pushed is not found, another branch is none that is shipped, and without a commit there is no head."""
    assert "no commit of branch main is known" in cli("why").err
    assert "rollout deploy" in cli("why", "main").err
    assert cli("why", "beef").code == 3
    told = cli("why", "feature/login")
    assert told.code == 3
    assert "'feature/login' is neither a commit's hash nor main" in told.err
    assert "git rev-parse feature/login" in told.err


def test_a_beginning_that_several_commits_have_is_4(cli, deps):
    """Nobody guesses which one is meant; more digits are asked for."""
    a_rollout(deps, state="done")
    a_commit(deps)
    told = cli("why", "000000")
    assert told.code == 4
    assert "several commits of shop start with '000000'" in told.err
    assert "more digits" in told.err
