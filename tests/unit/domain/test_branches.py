"""The line of a branch, and what came in with each commit of it."""

from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.branches import above
from rollout.domain.model import BranchCommit


def commit(sha, *parents, message="a change"):
    return BranchCommit(sha, 0, "a change", "Ann", message, parents)


def told(branch):
    """The line with its positions, and what came in with each."""
    inner = {
        one.sha: sorted(each.sha for each in branch.inner if each.into == one.sha) for one in branch.line
    }
    return [(one.position, one.sha, *inner[one.sha]) for one in branch.line]


def test_a_merge_is_one_commit_of_the_line_and_its_commits_came_in_with_it():
    """The first parent is where the head was."""
    history = [commit("d", "m"), commit("m", "b", "g"), commit("g", "f"), commit("f", "a"), commit("b", "a")]
    assert told(above(["a"], 4, history)) == [(5, "b"), (6, "m", "f", "g"), (7, "d")]


def test_after_a_pull_the_line_goes_through_what_was_known():
    """First parent: own work. Second parent: where the head was when it was seen last."""
    history = [commit("m", "own", "c"), commit("own", "a"), commit("c", "b"), commit("b", "a")]
    assert told(above(["a", "b", "c"], 1, history)) == [(2, "b"), (3, "c"), (4, "m", "own")]
    history = [commit("m", "own", "b"), commit("own", "a")]
    assert told(above(["b"], 2, history)) == [(3, "m", "own")]


def test_what_came_in_counts_for_the_oldest_commit_that_has_it():
    """Merged twice, it came in once."""
    history = [commit("n", "m", "f"), commit("m", "a", "f"), commit("f", "a")]
    assert told(above(["a"], 1, history)) == [(2, "m", "f"), (3, "n")]


def mends(*messages, message="merge"):
    """Of a merge that brings commits with these messages, the oldest first; their hashes are 0, 1 and so on."""
    inner = [
        commit(f"{at:040x}", f"{at - 1:040x}" if at else "a", message=text)
        for at, text in enumerate(messages)
    ]
    history = [commit("m", "a", inner[-1].sha, message=message), *inner[::-1]]
    return above(["a"], 1, history).line[-1].mends


BAD, ALSO = "b" * 40, "d" * 40


def test_what_merged_commits_revert_or_mend_counts_for_the_merge():
    """By their own messages; those of the merge itself stand in its own."""
    assert mends(f"This reverts commit {BAD}.", "more") == {BAD}
    assert mends(f"x\n\nRollout-Fixes: {BAD[:9]}", f"This reverts commit {ALSO}.") == {BAD[:9], ALSO}
    assert mends("more", message=f"This reverts commit {BAD}.") == set()


def test_what_is_taken_back_again_inside_the_merge_mends_nothing():
    """Newest first: what takes back may itself have been taken back; mending a revert does not take it back."""
    revert, again, back = (
        f"This reverts commit {BAD}.",
        f"This reverts commit {0:040x}.",
        f"This reverts commit {1:040x}.",
    )
    assert BAD not in mends(revert, again)
    assert BAD in mends(revert, again, back)
    assert BAD not in mends(revert, message=again)
    assert BAD in mends(revert, f"Rollout-Fixes: {0:040x}")


def test_requests_that_merged_commits_undo_count_for_the_merge_too():
    """By their names; one that the same merge brings, and takes back, is none."""
    revert, again = "This reverts merge request !47", "This reverts merge request !48"
    assert mends(revert) == {"!47"}
    assert mends(f"{revert}\n\nSee merge request acme/shop!48", again) == {"!48"}
    assert mends(f"{revert}\n\nSee merge request acme/shop!48", message=again) == set()
    assert mends(f"{revert}\n\nThis reverts commit {BAD}.") == {"?!47", f"?{BAD}"}


def test_of_a_squashed_commit_inside_the_merge_only_trailers_are_sure():
    """It lists several undoings: which of them is undone by another one, under a hash that squashing lost, nobody can tell."""
    squashed = f"Work\n\n* Undo\n\nThis reverts commit {BAD}.\n\n* Do\n\nThis reverts commit {'7' * 40}."
    perhaps = {f"?{BAD}", f"?{'7' * 40}"}
    assert mends(squashed) == perhaps
    assert mends(f"{squashed}\n\nRollout-Fixes: {BAD}") == {BAD, *perhaps}
    again = f'Revert "Sell"\n\nThis reverts commit {ALSO}.\n\n* Reapply "Sell"\n\nThis reverts commit {BAD}.'
    assert mends(again) == {BAD}


@st.composite
def histories(draw):
    """Any history of merges, with a chain of known commits inside its head, the oldest one first: parents by their hashes."""
    parents: list[set[int]] = [
        draw(st.sets(st.integers(0, number - 1), min_size=1, max_size=3)) if number else set()
        for number in range(draw(st.integers(2, 14)))
    ]
    order = [draw(st.permutations(sorted(one))) for one in parents]
    has: list[set[int]] = []
    for number, before in enumerate(parents):
        has.append({number}.union(*(has[one] for one in before)))
    known, at = [], len(parents) - 1
    while has[at] - {at}:
        at = draw(st.sampled_from(sorted(has[at] - {at})))
        known.append(at)
        if draw(st.booleans()):
            break
    return order, has, known[::-1]


@given(histories())
def test_the_line_goes_through_what_is_known_and_nothing_is_lost(drawn):
    """Each commit of it has the one before it; every commit above is there once, with the oldest of the line that has it."""
    parents, has, known = drawn
    head, first = len(parents) - 1, known[0]
    new = sorted(has[head] - has[first], reverse=True)  # a parent's number is the lower one
    history = [commit(str(one), *map(str, parents[one])) for one in new]
    found = above([str(one) for one in known], 7, history)
    line = [int(one.sha) for one in found.line]
    assert [one.position for one in found.line] == list(range(8, 8 + len(line)))
    assert line[-1] == head
    assert set(known[1:]) <= set(line)
    for older, newer in zip([first, *line], line, strict=False):
        assert older in parents[newer]
    assert sorted([*line, *(int(one.sha) for one in found.inner)], reverse=True) == new
    for one in found.inner:
        assert int(one.sha) in has[int(one.into)]
        assert not any(int(one.sha) in has[older] for older in line[: line.index(int(one.into))])
