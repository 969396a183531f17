"""What must not ship: commits that are barred, those that are the same, and who is suspected of what went wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, case, not_, or_, select, update

from rollout.domain.model import AppName, Commit, CommitId, RolloutId
from rollout.domain.states import CommitState, RolloutState
from rollout.store.commits import ITSELF, MOST_UNPLACED, OF_APP
from rollout.store.rows import load, load_all, rows_of
from rollout.store.straight import Prepared
from rollout.store.tables import commits, rollouts

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rollout.store.store import Transaction


class Bars:
    """Bars and suspicions, in the rows of `commits`."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    # -- barred ----------------------------------------------------------------------------------------------------

    def wish(
        self, commit: Commit, why: str | None, *, same_as: str | None = None, unbarred: bool = False
    ) -> Commit:
        """It is barred though it has not passed; None: no longer. The test that runs keeps its claim: the version stays."""
        values: dict[str, Any] = {"bar_wanted": why, "same_as": same_as, "unbarred": unbarred}
        self._tx.connection.execute(update(commits).where(commits.c.id == commit.id).values(**values))
        return replace(commit, **values)

    def barred_with(self, commit: Commit) -> list[Commit]:
        """Those that must not ship and have the same release, or the same in them; the newest first."""
        its = {"its_app": commit.app, "its_digest": commit.digest, "its_tree": commit.tree}
        return load_all(Commit, self._tx.run(_BARRED_WITH, {**its, "its_id": commit.id}), state=CommitState)

    def barred_as(self, commit: Commit) -> list[Commit]:
        """Those that are barred for nothing but being the same as this one."""
        rows = self._tx.connection.execute(
            rows_of(Commit, commits).where(
                commits.c.app == commit.app,
                _BARRED,
                commits.c.same_as == commit.sha,
            )
        )
        return load_all(Commit, rows, state=CommitState)

    def free_with(self, commit: Commit) -> list[Commit]:
        """Commits of the branch that are not barred and have the same release as this one, or the same in them."""
        rows = self._tx.connection.execute(
            rows_of(Commit, commits).where(
                commits.c.app == commit.app,
                commits.c.id != commit.id,
                commits.c.on_branch,
                not_(_BARRED),
                _has_the_same_as(commit),
            )
        )
        return load_all(Commit, rows, state=CommitState)

    def in_the_way(
        self, app: AppName, line: Sequence[str], undone: Collection[str]
    ) -> dict[str, list[tuple[str, bool]]]:
        """Of what came in with these: each that is barred, or whose hash begins as one of `undone`; and whether it is barred."""
        came_in = _CAME_IN if undone else _CAME_IN_BARRED
        rows = self._tx.connection.execute(came_in, {"its_app": app, "line": list(line)})
        digits = {len(name) for name in undone}
        found: dict[str, list[tuple[str, bool]]] = {}
        for row in rows:
            if row.barred or any(row.sha[:most] in undone for most in digits):
                found.setdefault(row.merged_into, []).append((row.sha, bool(row.barred)))
        return found

    def barred_elsewhere(self, app: AppName) -> list[str]:
        """The newest of those that must not ship, and are not known to be on the branch or inside a merge of it."""
        rows = self._tx.connection.execute(
            select(commits.c.sha)
            .where(commits.c.app == app, _BARRED, not_(commits.c.on_branch), ITSELF)
            .order_by(commits.c.id.desc())
            .limit(MOST_UNPLACED)
        )
        return list(rows.scalars())

    def contents_of_trouble(self, app: AppName) -> tuple[set[str], set[str]]:
        """What is in those that must not ship, and in suspects that have left the branch: digests of releases, and trees."""
        rows = self._tx.run(_TROUBLE, {"its_app": app})
        barred, suspect = (
            {
                content
                for row in rows
                if bool(row.barred) is kind
                for content in row[:2]
                if content is not None
            }
            for kind in (True, False)
        )
        return barred, suspect

    def ran_well(self, commit: Commit) -> bool:
        """A rollout of the same files, or of the same release, came to its end, and nobody has barred what it shipped."""
        its = {"its_app": commit.app, "its_digest": commit.digest, "its_tree": commit.tree}
        return self._tx.run(_RAN_WELL, its).first() is not None

    def taken_back_with(self, commit: Commit) -> RolloutId | None:
        """The newest rollout of the same files, or of the same release, that was stopped or rolled back; unless a person let go what it shipped.

        Who lets a suspect of that rollout go says nothing of the others, whose changes are in those files too.
        """
        return self._tx.connection.execute(
            select(rollouts.c.id)
            .join(commits, and_(rollouts.c.app == commits.c.app, rollouts.c.commit == commits.c.sha))
            .where(
                commits.c.app == commit.app,
                or_(not_(commits.c.unbarred), commits.c.suspect_of == rollouts.c.id),
                rollouts.c.stop_epoch.is_not(None),
                _has_the_same_as(commit),
            )
            .order_by(rollouts.c.id.desc())
            .limit(1)
        ).scalar_one_or_none()

    def refute(self, commit: Commit) -> None:
        """Who let the same go under another hash did so before it went wrong. A test that runs keeps its claim: the version stays."""
        self._tx.connection.execute(
            update(commits)
            .where(
                commits.c.app == commit.app,
                commits.c.id != commit.id,
                commits.c.unbarred,
                _has_the_same_as(commit),
            )
            .values(unbarred=False)
        )

    # -- suspected -------------------------------------------------------------------------------------------------

    def suspect(self, commit: Commit, of: RolloutId | None, *, unbarred: bool = False) -> None:
        """It may be what went wrong with this rollout. The test that runs keeps its claim: the version stays."""
        values = {"suspect": True, "suspect_of": of, "unbarred": unbarred}
        self._tx.connection.execute(update(commits).where(commits.c.id == commit.id).values(**values))

    def acquit(self, commit: Commit) -> None:
        """Another one with the same in it is the suspect now. The test that runs keeps its claim: the version stays."""
        self._tx.connection.execute(update(commits).where(commits.c.id == commit.id).values(suspect=False))

    def suspects(self, app: AppName, batch: RolloutId) -> list[Commit]:
        """Who is suspected still of what went wrong with this rollout, also those that have left the branch."""
        rows = self._tx.connection.execute(
            rows_of(Commit, commits)
            .where(
                _IS_SUSPECT,
                commits.c.app == app,
                commits.c.suspect_of == batch,
            )
            .order_by(commits.c.position)
        )
        return load_all(Commit, rows, state=CommitState)

    def suspected_of(self, app: AppName) -> list[RolloutId]:
        """The rollouts that went wrong, and of which somebody is suspect still."""
        its = (commits.c.app == app, _IS_SUSPECT, commits.c.suspect_of.is_not(None))
        rows = self._tx.connection.execute(select(commits.c.suspect_of).where(*its).distinct())
        return sorted(rows.scalars())

    def suspect_with(self, commit: Commit) -> Commit | None:
        """One who is suspected still, has left the branch, and has the same release as this one, or the same in it."""
        its = (
            commits.c.app == commit.app,
            commits.c.id != commit.id,
            _SUSPECT_ELSEWHERE,
            _has_the_same_as(commit),
        )
        row = self._tx.connection.execute(rows_of(Commit, commits).where(*its)).first()
        return load(Commit, row, state=CommitState)

    def of_batch(self, app: AppName, batch: RolloutId) -> list[Commit]:
        """What went out with this rollout, and who has been suspected of what went wrong with it, were it in another's place."""
        rollout = self._tx.rollouts.get(batch)
        its = or_(commits.c.sha.in_(rollout.commits), commits.c.suspect_of == batch)
        rows = self._tx.connection.execute(rows_of(Commit, commits).where(commits.c.app == app, its))
        return load_all(Commit, rows, state=CommitState)

    def clear_suspects(self, app: AppName, batch: RolloutId, *, guilty: Sequence[CommitId]) -> None:
        """Nobody is suspected any more of what went wrong with this rollout, and the guilty ones were no mere suspects.

        A test that runs keeps its claim: the version stays.
        """
        its = (commits.c.app == app, commits.c.suspect, commits.c.suspect_of == batch)
        was_suspect = case((commits.c.id.not_in(guilty), commits.c.suspect_of))
        self._tx.connection.execute(update(commits).where(*its).values(suspect=False, suspect_of=was_suspect))


_BARRED = or_(commits.c.state == CommitState.BARRED, commits.c.bar_wanted.is_not(None))  # `Commit.is_barred`
_IS_SUSPECT = and_(commits.c.suspect, not_(_BARRED))
_SUSPECT_ELSEWHERE = and_(_IS_SUSPECT, not_(commits.c.on_branch))
_CAME_IN = (
    select(commits.c.sha, commits.c.merged_into, _BARRED.label("barred"))
    .where(OF_APP, commits.c.merged_into.in_(bindparam("line", expanding=True)))
    .order_by(commits.c.id)
)
_CAME_IN_BARRED = _CAME_IN.where(_BARRED)


def _has_the_same(digest: Any, tree: Any) -> Any:
    """The same release, or the same files in git; what is not known is the same as nothing."""
    return or_(
        and_(commits.c.digest.is_not(None), commits.c.digest == digest),
        and_(commits.c.tree.is_not(None), commits.c.tree == tree),
    )


def _has_the_same_as(commit: Commit) -> Any:
    return _has_the_same(commit.digest, commit.tree)


_HAS_THE_SAME = _has_the_same(bindparam("its_digest"), bindparam("its_tree"))
_BARRED_WITH = Prepared(
    rows_of(Commit, commits)
    .where(OF_APP, commits.c.id != bindparam("its_id"), _BARRED, _HAS_THE_SAME)
    .order_by(commits.c.id.desc())
)
_RAN_WELL = Prepared(
    select(commits.c.id)
    .join(rollouts, and_(rollouts.c.app == commits.c.app, rollouts.c.commit == commits.c.sha))
    .where(
        OF_APP,
        commits.c.state == CommitState.PASSED,
        rollouts.c.state == RolloutState.DONE,
        _HAS_THE_SAME,
    )
    .limit(1)
)
_TROUBLE = Prepared(
    select(commits.c.digest, commits.c.tree, _BARRED.label("barred")).where(
        OF_APP, or_(_BARRED, _SUSPECT_ELSEWHERE)
    )
)
