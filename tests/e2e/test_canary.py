"""A bad commit hurts the canary and nobody else."""

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from tests.support.checker.check import check
from tests.support.system import System, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.needs("sshd", "git"), pytest.mark.timeout(300)]


def test_a_canary_that_answers_errors_goes_back_and_the_fix_ships():
    """Only the canary's journal has the bad commit; it is barred; a revert brings the next release out."""
    with System(hosts=6) as system:
        good = system.push("good")
        system.reaches(good, "done")
        bad = system.push("answers 500", answer="500 98\n")  # to 98 of 100 requests
        ended = system.reaches(bad, "rolled_back")
        assert ended["canary"]["status"] == "fail"
        assert set(system.disks().values()) == {good}
        switched = [
            host.name
            for host in system.sshd.hosts
            if any(
                one.get("commit") == bad and one["verb"] == "activate" for one in system.journal(host.name)
            )
        ]
        assert switched == ended["canary"]["hosts"]
        assert seconds_on("web001", system, bad) <= 15, ended["canary"]["reason"]
        fix = system.push(f"Revert\n\nThis reverts commit {bad}.", answer="200\n")
        assert system.reaches(fix, "done")["commits"] == [bad, fix]
        assert set(system.disks().values()) == {fix}
        assert check(system.history()) == []


def seconds_on(name, system, sha):
    """From the switch to this commit to the way back, by the host's own journal."""
    there, back = (
        int(
            next(
                one
                for one in system.journal(name)
                if one["verb"] == verb and sha in one.values() and one["what"] == "intent"
            )["clock"]
        )
        for verb in ("activate", "rollback")
    )
    return (back - there) / 1000


@pytest.mark.faults  # what a person answers to no verdict is the services' and the command's
def test_no_traffic_is_never_a_pass():
    """A canary without requests is inconclusive, halts, and goes on only by a person's word."""
    with System(hosts=4, bake="2s", deadline="8s") as system:
        system.traffic.stop()
        sha = system.push("quiet")
        halted = system.reaches(sha, "halted")
        assert halted["canary"]["status"] == "inconclusive"
        assert list(system.disks().values()).count(sha) == 1
        assert system.rollout("resume", halted["id"], "--accept-canary")[0] in {2, 4}
        code, _ = system.rollout("resume", halted["id"], "--accept-canary", "--reason", "night", "--wait")
        assert code == 0
        assert set(system.disks().values()) == {sha}
        assert check(system.history()) == []


@pytest.mark.faults  # over SSH it is test_access_log_ssh's, beside the canary the services'
def test_baseline_is_measured_beside_the_canary_from_before_the_switch():
    """The hosts that are switched last are read too, all in the same bins, and what all of them answered before is known."""
    with System(hosts=6, canary="baseline = 2") as system:
        first = system.push("good")
        system.reaches(first, "done")
        served = Path(system.sshd.hosts[-1].path, "shared", "access.log")
        wait_for(
            lambda: served.exists() and served.read_text().count("\n") > 2000,
            why="some seconds of history on every host",
        )
        second = system.push("good too")
        done = system.reaches(second, "done")
        assert done["canary"]["status"] == "pass"
        with contextlib.closing(
            sqlite3.connect(f"file:{system.folder}/state/rollout.db?mode=ro", uri=True)
        ) as db:
            rows = db.execute(
                """SELECT host, role, t, counts FROM samples JOIN rollouts ON rollouts.id = rollout
                   WHERE "commit" = ? AND observed AND role != 'other'""",
                (second,),
            ).fetchall()
    assert {(host, role) for host, role, _, _ in rows} == {
        ("web001", "canary"), ("web005", "baseline"), ("web006", "baseline"),
    }  # fmt: skip
    for host in ("web001", "web005", "web006"):
        its = {t: json.loads(counts)["2xx"] for name, _, t, counts in rows if name == host}
        assert len(its) == len([1 for name, *_ in rows if name == host])  # no bin twice
        assert any(n for t, n in its.items() if t <= 0)
        assert any(n for t, n in its.items() if t > 0)
        assert all(t % 2 == 0 for t in its)
