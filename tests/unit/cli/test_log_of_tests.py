"""`rollout log COMMIT`: what the tests of a commit printed, whether it was shipped or not."""

from rollout.domain.model import Check, CheckState
from rollout.domain.states import CommitEvent


def test_the_output_of_failed_tests_can_be_read(cli, deps):
    """A commit that failed has no rollout, and its output is there all the same."""
    sha = deps.workshop.push()
    with deps.store.transaction() as tx:
        commit, _ = tx.commits.add("shop", sha, who="test", why="pushed")
        claimed = tx.commits.claim_tests(commit.id, "w", 15)
        tx.commits.change(
            claimed, CommitEvent.FAIL, who="w", reason="exit status 1", output="WHY-IT-FAILED\n"
        )
    told = cli("log", sha)
    assert told.code == 0
    assert "WHY-IT-FAILED" in told.out
    assert "exit status 1" in told.out
    assert cli("log", sha, "--json").json["tests"] == "WHY-IT-FAILED\n"


def test_neither_a_number_nor_a_commit_is_a_usage_error(cli):
    """Exit 2 for words, 3 for a commit that nobody knows."""
    assert cli("log", "yesterday").code == 2
    assert cli("log", "f" * 40).code == 3


def test_reports_of_ci_servers_are_shown(cli, deps):
    """Each check with its newest word, its address, and what a JUnit report found."""
    sha = deps.workshop.push()
    with deps.store.transaction() as tx:
        tx.commits.add("shop", sha, who="test", why="pushed")
        red = Check("unit", CheckState.FAILURE, "https://ci/7", details="1 of 2 failed\na.b: no")
        tx.checks.put(sha, {"shop": red})
    told = cli("log", sha).out
    assert "check unit: failure (by api) https://ci/7" in told
    assert "a.b: no" in told
