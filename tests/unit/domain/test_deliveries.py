"""The words for what became of a webhook."""

from dataclasses import replace

import pytest

from rollout.domain.deliveries import End, Out, Outcome, Told, end_of, known_before, lost
from rollout.domain.states import CommitState as C

A, B, HEAD = "a" * 40, "b" * 40, "e" * 40
OUT = Out(B, 5, "rollout 7")


def told(state=C.PASSED, position=5, *, on_branch=True, reason=None, sha=A):
    return Told(sha, state, position, on_branch, reason)


ENDS = {
    "shipped": (told(sha=B), Outcome.STARTED, "rollout 7"),
    "below what was shipped": (told(position=4), Outcome.SUPERSEDED, "rollout 7"),
    "untested, and below": (told(C.RECEIVED, 3), Outcome.SUPERSEDED, "rollout 7"),
    "red": (told(C.FAILED, 6, reason="exit status 1"), Outcome.REJECTED, f"commit {A}"),
    "red, and below": (told(C.FAILED, 4, reason="exit status 1"), Outcome.REJECTED, f"commit {A}"),
    "barred": (told(C.BARRED, 6, reason="a canary"), Outcome.REJECTED, f"commit {A}"),
    "left the branch": (told(C.TESTING, 6, on_branch=False), Outcome.SUPERSEDED, f"commit {HEAD}"),
}
WAITS = {
    "above": told(position=6),
    "in test": told(C.TESTING, 6),
    "not confirmed by git": told(C.RECEIVED, None),
    "failed as a request": replace(told(C.FAILED, None, reason="check pipeline failed"), pull=7),
    "not on the branch yet": told(C.FAILED, None, reason="not on branch main of /srv/shop.git"),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_is_decided_ends_it(name):
    """Each decision over the commit has its outcome, and names what decided."""
    commit, outcome, ref = ENDS[name]
    end = end_of(commit, OUT, HEAD)
    assert (end.outcome, end.ref) == (outcome, ref)


@pytest.mark.parametrize("name", WAITS)
def test_what_is_on_its_way_has_no_end(name):
    """Neither with something out nor before the first rollout."""
    assert end_of(WAITS[name], OUT, HEAD) is None
    assert end_of(WAITS[name], None, HEAD) is None


def test_an_end_says_why():
    """The reasons of the commit are told."""
    assert "exit status 1" in end_of(ENDS["red"][0], OUT, HEAD).reason
    assert "a canary" in end_of(ENDS["barred"][0], OUT, HEAD).reason


def test_a_commit_that_left_a_branch_of_which_nothing_is_known_is_rejected():
    """There is no head to name."""
    assert end_of(ENDS["left the branch"][0], OUT, None).outcome is Outcome.REJECTED


def test_what_was_decided_before_is_a_duplicate():
    """It names the same as the end that it comes too late for."""
    assert known_before(End(Outcome.STARTED, "out", "rollout 7")) == End(
        Outcome.DUPLICATE, "known already: out", "rollout 7"
    )


def test_nobody_could_tell_within_a_day():
    """Whether the branch has it; a commit that only waits is never lost, however long it does."""
    assert lost(None, "shop", configured=True).outcome is Outcome.ERROR
    assert lost(WAITS["not confirmed by git"], "shop", configured=True).outcome is Outcome.ERROR
    late = lost(WAITS["not on the branch yet"], "shop", configured=True)
    assert "not on branch main" in late.reason
    assert lost(WAITS["above"], "shop", configured=True) is None
    assert "rollout.toml" in lost(WAITS["above"], "shop", configured=False).reason
