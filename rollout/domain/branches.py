"""The line of a branch is how its head moved, through merges too: what shipped one after the other lies on it, in order.

Git's first parents are not that line: after a `git pull` they are somebody's own work, which lacks what runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rollout.domain import selection
from rollout.domain.model import BranchCommit


@dataclass(frozen=True, slots=True)
class Branch:
    """What git tells of a branch above a place of it that is known."""

    line: tuple[BranchCommit, ...] = ()  # oldest first
    inner: tuple[BranchCommit, ...] = ()  # came in with merges of the line, see `into`; in no order
    since: int = 0  # what was known on the line from this position on, and is not here, has left the branch


def above(known: Sequence[str], position: int, history: Sequence[BranchCommit]) -> Branch:
    """The branch above `known[0]`, which has this position on the line.

    `known`: commits that the line goes through, oldest first, each inside the next and the last one inside the head.
    `history`: all that the head has and `known[0]` has not, the head first, parents after their children.
    """
    if not history:
        return Branch()
    told = {one.sha: one for one in history}
    line = _line(known, history)
    groups = list(_came_in(line, history))
    return Branch(
        tuple(
            replace(told[sha], position=number, mends=_mends(told[sha], group))
            for number, (sha, group) in enumerate(zip(line, groups, strict=True), start=position + 1)
        ),
        tuple(replace(one, into=sha) for sha, group in zip(line, groups, strict=True) for one in group),
    )


def _line(known: Sequence[str], history: Sequence[BranchCommit]) -> list[str]:
    """Oldest first. At each merge along the parent that has most of what is known; of two that have as much, the first one."""
    order = {sha: number for number, sha in enumerate(known)}
    has: dict[str, int] = {known[0]: 0}
    for one in reversed(history):
        has[one.sha] = max(order.get(one.sha, -1), *(has.get(parent, -1) for parent in one.parents), -1)
    parents = {one.sha: one.parents for one in history}
    line, at = [], history[0].sha
    while at != known[0]:
        line.append(at)
        at = max(parents[at], key=lambda parent: has.get(parent, -1))
    return line[::-1]


def _came_in(line: Sequence[str], history: Sequence[BranchCommit]) -> Iterator[list[BranchCommit]]:
    """For each of the line what no older one of it has, newest first."""
    told: Mapping[str, BranchCommit] = {one.sha: one for one in history}
    place = {one.sha: number for number, one in enumerate(history)}
    seen = set(line)
    for sha in line:
        group, ahead = [], [sha]
        while ahead:
            for parent in told[ahead.pop()].parents:
                if parent in told and parent not in seen:
                    seen.add(parent)
                    ahead.append(parent)
                    group.append(told[parent])
        yield sorted(group, key=lambda one: place[one.sha])


def _mends(merge: BranchCommit, inner: Sequence[BranchCommit]) -> frozenset[str]:
    """What the commits that came in revert or mend, without those that a newer one of them takes back.

    Of a squashed one that lists several undoings only its trailers are sure: one of them may undo another, by a hash that is lost.
    """
    taken_back = set(_undone(merge.message))
    found: set[str] = set()
    for one in inner:
        is_request = not taken_back.isdisjoint(selection.requests(one.message))
        if not is_request and not any(one.sha.startswith(named) for named in taken_back):
            undone = _undone(one.message)
            taken_back |= undone
            sure = len(undone) == 1
            found |= selection.mended(one.message) | {
                sha if sure else f"{selection.PERHAPS}{sha}" for sha in undone
            }
    return frozenset(found)


def _undone(message: str) -> frozenset[str]:
    """Hashes, and requests by their names: which commits those are is known where the line is."""
    return selection.reverts(message) | selection.requests_undone(message)
