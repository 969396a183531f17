"""Commits, their test status, and their releases."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, func, insert, not_, or_, select, update

from rollout.domain.model import (
    NOT_ON_BRANCH,
    AppName,
    BranchCommit,
    Commit,
    CommitId,
    Pull,
    Release,
)
from rollout.domain.selection import UNDOING
from rollout.domain.selection import requests as request_names
from rollout.domain.states import CommitEvent, CommitState, next_commit_state
from rollout.errors import StaleWrite
from rollout.store.rows import load, load_all, load_one, rows_of
from rollout.store.straight import Prepared
from rollout.store.tables import apps, commits, releases

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rollout.store.store import Transaction

_RELEASE = Prepared(
    rows_of(Release, releases).where(
        releases.c.app == bindparam("its_app"), releases.c.commit == bindparam("its_sha")
    )
)
OF_APP = commits.c.app == bindparam("its_app")
_OF_SHA = Prepared(rows_of(Commit, commits).where(OF_APP, commits.c.sha == bindparam("its_sha")))
_BY_ID = Prepared(rows_of(Commit, commits).where(commits.c.id == bindparam("its_id")))
_AFTER = Prepared(
    rows_of(Commit, commits)
    .where(OF_APP, commits.c.on_branch, commits.c.position > bindparam("its_position"))
    .order_by(commits.c.position)
)
_WANTED_NOW = Prepared(
    rows_of(Commit, commits).where(OF_APP, commits.c.now_reason.is_not(None)).order_by(commits.c.id.desc())
)
_ADD = Prepared(insert(commits).inline())
_DEFAULTS: dict[str, Any] = {its.name: getattr(its.default, "arg", None) for its in commits.c if its.default}


def _newest_of(app: Any, what: str) -> Any:
    """This column of the branch's newest placed commit."""
    line = commits.alias("line")
    its = (line.c.app == app, line.c.on_branch, line.c.position.is_not(None))
    return select(line.c[what]).where(*its).order_by(line.c.position.desc()).limit(1).scalar_subquery()


_NEWEST = Prepared(rows_of(Commit, commits).where(commits.c.id == _newest_of(bindparam("its_app"), "id")))
_HEADS = select(apps.c.name, _newest_of(apps.c.name, "sha").label("sha")).where(
    apps.c.name.in_(bindparam("apps", expanding=True))
)

_PLACED = (
    commits.c.id, commits.c.sha, commits.c.state, commits.c.pull, commits.c.reason,
    commits.c.position, commits.c.on_branch, commits.c.subject, commits.c.author, commits.c.message,
    commits.c.merged_into, commits.c.mends, commits.c.tree,
)  # fmt: skip
_ONE = commits.c.id == bindparam("its_id")
_PLACE = update(commits).where(_ONE)
_GONE = update(commits).where(_ONE).values(on_branch=False)
_INSIDE = update(commits).where(_ONE).values(on_branch=False, merged_into=bindparam("into"))
_NOT_TESTED = (
    update(commits).where(_ONE, commits.c.state == CommitState.RECEIVED).values(reason=bindparam("why"))
)
WHOLE = 40  # digits of a hash that is not cut
NEAR = 1000  # commits of the line whose messages are read for the one that is a request
MOST_UNPLACED = 50  # git is asked for each of them at every reading; those that it lacks end by themselves
ITSELF = commits.c.merged_into.is_(None)  # not inside a merge: may be tested and shipped by itself
_IS_BUILT_AGAIN = and_(  # `Commit.is_built_again`
    commits.c.state.in_([CommitState.RECEIVED, CommitState.TESTING]), commits.c.digest.is_not(None)
)
_HAS_PASSED = or_(commits.c.state.in_([CommitState.PASSED, CommitState.BARRED]), _IS_BUILT_AGAIN)
IS_PULL = and_(commits.c.pull.is_not(None), commits.c.position.is_(None))  # `Commit.is_pull`
_GUARDED = Prepared(update(commits).where(_ONE, commits.c.version == bindparam("its_version")))


class Commits:
    """The rows of `commits` and `releases`."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def get(self, app: AppName, sha: str) -> Commit | None:
        """The commit of this hash."""
        row = self._tx.run(_OF_SHA, {"its_app": app, "its_sha": sha}).first()
        return load(Commit, row, state=CommitState)

    def lock(self, app: AppName, sha: str) -> Commit | None:
        """As `get`; nobody else changes it until the transaction ends."""
        return self._locked(commits.c.app == app, commits.c.sha == sha)

    def lock_each(self, some: Collection[AppName], sha: str) -> dict[AppName, Commit]:
        """As `lock`, for each of these apps that know it."""
        query = rows_of(Commit, commits).where(commits.c.app.in_(some), commits.c.sha == sha)
        rows = self._tx.connection.execute(query.with_for_update() if self._tx.is_postgresql else query)
        return {one.app: one for one in load_all(Commit, rows, state=CommitState)}

    def by_id(self, commit: CommitId) -> Commit | None:
        """The commit of this id."""
        return load(Commit, self._tx.run(_BY_ID, {"its_id": commit}).first(), state=CommitState)

    def by_ids(self, ids: Sequence[int]) -> list[Commit]:
        """As `by_id`, of several, in this order."""
        answers = self._tx.run_each(_BY_ID, [{"its_id": one} for one in ids])
        return load_all(Commit, [row for answer in answers for row in answer], state=CommitState)

    def starting_with(self, app: AppName, prefix: str) -> list[Commit]:
        """Commits whose hash starts so; at most two are read."""
        rows = self._tx.connection.execute(
            rows_of(Commit, commits)
            .where(commits.c.app == app, commits.c.sha.startswith(prefix, autoescape=True))
            .limit(2)
        )
        return load_all(Commit, rows, state=CommitState)

    def called(self, app: AppName, names: Collection[str]) -> dict[str, list[Commit]]:
        """For each of these hashes, or first digits of hashes, as `starting_with`; all whole hashes in one statement."""
        found: dict[str, list[Commit]] = {name: [] for name in names}
        whole = [name for name in names if len(name) == WHOLE]
        query = rows_of(Commit, commits).where(commits.c.app == app, commits.c.sha.in_(whole))
        for one in load_all(Commit, self._tx.connection.execute(query) if whole else (), state=CommitState):
            found[one.sha].append(one)
        for name in names:
            if len(name) < WHOLE:
                found[name] = self.starting_with(app, name)
        return found

    def merged_as(self, app: AppName, requests: Collection[str], before: int | None) -> dict[str, str]:
        """Of these requests that are known: the hash of the line's commit that says it is that; of several the newest.

        `before`: its position is below this one, though by no more than `NEAR`.
        """
        if before is None:
            newest = self.newest(app)
            before = 1 + ((newest.position if newest is not None else None) or 0)
        says = [commits.c.message.contains(name, autoescape=True) for name in requests]
        near = (commits.c.position < before, commits.c.position >= before - NEAR)
        rows = self._tx.connection.execute(
            select(commits.c.sha, commits.c.message)
            .where(commits.c.app == app, commits.c.on_branch, *near, or_(*says))
            .order_by(commits.c.position)
        )
        return {name: row.sha for row in rows for name in request_names(row.message) if name in requests}

    def add(self, app: AppName, sha: str, *, who: str, why: str) -> tuple[Commit, bool]:
        """The commit's row, and whether it is new."""
        self._tx.apps.lock(app)
        found, new = self.add_pushed({(app, sha): who}, why=why)
        return found[app, sha], bool(new)

    def add_pushed(
        self, told_by: Mapping[tuple[AppName, str], str], *, why: str
    ) -> tuple[dict[tuple[AppName, str], Commit], list[tuple[AppName, str]]]:
        """The rows of these, of apps that are locked, and which of them are new; however many: in a few statements."""
        found = self._of(told_by)
        new = {one: who for one, who in told_by.items() if one not in found}
        if not new:
            return found, []
        self._receive([{"app": app, "sha": sha} for app, sha in new], list(new.values()), why)
        return found | self._of(new), list(new)

    def _of(self, some: Collection[tuple[AppName, str]]) -> dict[tuple[AppName, str], Commit]:
        answers = self._tx.run_each(_OF_SHA, [{"its_app": app, "its_sha": sha} for app, sha in some])
        rows = load_all(Commit, [row for answer in answers for row in answer], state=CommitState)
        return {(one.app, one.sha): one for one in rows}

    def _receive(self, rows: Sequence[Mapping[str, Any]], told_by: Sequence[str], why: str) -> None:
        """New rows, each told of by somebody."""
        received = CommitState.RECEIVED
        first = {"state": received, "due_at": 0.0, **self._just_received()}
        self._tx.run_each(_ADD, [_DEFAULTS | first | dict(row) for row in rows])
        for row, who in zip(rows, told_by, strict=True):
            self._tx.record(
                row["app"], f"commit {row['sha']}", "receive", who=who, why=why, states=(None, received)
            )

    def place(
        self,
        app: AppName,
        branch: Sequence[BranchCommit],
        inner: Sequence[BranchCommit] = (),
        *,
        since: int | None = None,
        external: bool = False,
    ) -> None:
        """Write what git tells of the branch's line, and of what came in with it, into the rows that are there, where it is news.

        A commit that is no longer on the line, though its position is `since` (that of the first one) or above, has left it
        (a force-push). One that failed for nothing but not being on it, and is now, is received again; one that was put off
        for that waits no longer. `external`: what CI servers say of the branch decides on one that failed as a pull request.
        """
        if not branch:
            return
        self._tx.apps.lock(app)
        told = {one.sha: _placed(one) for one in branch}
        inside = {one.sha: one.into for one in inner}
        first = branch[0].position if since is None else since
        rows = self._tx.connection.execute(
            select(*_PLACED).where(
                commits.c.app == app,
                or_(
                    commits.c.sha.in_([*told, *inside]),
                    and_(commits.c.on_branch, commits.c.position >= first),
                ),
            )
        ).all()
        here = [row for row in rows if row.sha in told]
        news = [{"its_id": row.id, **new} for row in here if (new := _news(row, told[row.sha]))]
        left = [row for row in rows if row.on_branch and row.sha not in told]
        gone = [{"its_id": row.id} for row in left]
        # What came in with the oldest commit that is known was merged before that: nobody takes it back.
        first_known = self.oldest(app) if left else None
        self._let_out(app, [row.sha for row in left if row.sha != first_known])
        for statement, values in ((_PLACE, news), (_GONE, gone)):
            if values:
                self._tx.connection.execute(statement, values)
        self._bring(app, rows, inside)
        for row in here:
            if row.pull is not None and row.position is None:
                self._merge(app, row.sha, external=external)
            if row.state == CommitState.FAILED:
                self._receive_again(app, row.sha)
            elif row.state == CommitState.RECEIVED and (
                row.merged_into is not None or (row.reason or "").startswith(NOT_ON_BRANCH)
            ):
                self._tx.connection.execute(_PLACE, {"its_id": row.id, "reason": None, "due_at": 0.0})

    def bring_pulls(self, app: AppName, inside: Mapping[str, str]) -> None:
        """Heads of pull requests that the branch has had since before it was known: each came in with this commit of the line."""
        rows = self._tx.connection.execute(
            select(*_PLACED).where(commits.c.app == app, IS_PULL, ITSELF, commits.c.sha.in_(list(inside)))
        ).all()
        self._bring(app, rows, inside)

    def _bring(self, app: AppName, rows: Sequence[Any], inside: Mapping[str, str | None]) -> None:
        """Those that are inside merges wait no more; who failed for nothing but not being on the branch did not: it is in it."""
        came_in = [row for row in rows if row.sha in inside and row.merged_into != inside[row.sha]]
        if not came_in:
            return
        into = [{"its_id": row.id, "into": inside[row.sha]} for row in came_in]
        why = [{"its_id": row.id, "why": _not_tested(inside[row.sha])} for row in came_in]
        self._tx.connection.execute(_INSIDE, into)
        self._tx.connection.execute(_NOT_TESTED, why)
        for row in came_in:
            if row.state == CommitState.FAILED and self._receive_again(app, row.sha):
                commit, why_not = self.get(app, row.sha), _not_tested(inside[row.sha])
                assert commit is not None
                self.change(
                    commit, CommitEvent.TESTS_LOST, who="git", why=why_not, reason=why_not, due_at=None
                )

    def _let_out(self, app: AppName, merges: Sequence[str]) -> None:
        """Heads of pull requests that came in with merges that have left the branch: they wait to be merged again, and are tested."""
        if merges:
            its = and_(commits.c.app == app, commits.c.merged_into.in_(merges), commits.c.pull.is_not(None))
            values = {"merged_into": None, "reason": None, "due_at": 0.0}
            self._tx.connection.execute(update(commits).where(its).values(values))

    def line(self, app: AppName, since: int) -> list[tuple[int, str]]:
        """The branch's line as it is known from this position on: positions and hashes, oldest first."""
        rows = self._tx.connection.execute(
            select(commits.c.position, commits.c.sha)
            .where(commits.c.app == app, commits.c.on_branch, commits.c.position >= since)
            .order_by(commits.c.position)
        )
        return [(row.position, row.sha) for row in rows]

    def oldest(self, app: AppName) -> str | None:
        """The first commit of the branch's line that is known."""
        its = (commits.c.app == app, commits.c.on_branch, commits.c.position.is_not(None))
        query = select(commits.c.sha).where(*its).order_by(commits.c.position).limit(1)
        return self._tx.connection.execute(query).scalar_one_or_none()

    def unplaced(self, app: AppName) -> list[str]:
        """The newest of those that wait for their tests, or are in test, and that git was not seen to have anywhere on the branch."""
        waits = commits.c.state.in_([CommitState.RECEIVED, CommitState.TESTING])
        rows = self._tx.connection.execute(
            select(commits.c.sha)
            .where(
                commits.c.app == app, waits, commits.c.position.is_(None), commits.c.pull.is_(None), ITSELF
            )
            .order_by(commits.c.id.desc())
            .limit(MOST_UNPLACED)
        )
        return list(rows.scalars())

    def any_missed(self, app: AppName, *some: CommitId) -> bool:
        """Whether one that waits for its tests, or is in test, is not on the branch, as a reading that began since says; of `some`, or of all."""
        nowhere = or_(not_(commits.c.on_branch), commits.c.position.is_(None))
        its = and_(commits.c.app == app, ITSELF, nowhere, not_(IS_PULL))
        waits = commits.c.state.in_([CommitState.RECEIVED, CommitState.TESTING])
        # Without a moment it is older than the store's clock, and so than each reading.
        before = or_(commits.c.received_s.is_(None), commits.c.received_s < apps.c.read_s)
        query = (
            select(commits.c.id)
            .join(apps, apps.c.name == commits.c.app)
            .where(its, waits, before, apps.c.read_s <= self._tx.now())
            .limit(1)
        )
        query = query.where(commits.c.id.in_(some)) if some else query
        return self._tx.connection.execute(query).first() is not None

    def on_line(self, commit: Commit) -> Commit:
        """The commit of the branch's line that brings this one: itself, or what it came in with."""
        merge = self.get(commit.app, commit.merged_into) if commit.merged_into else None
        return commit if merge is None else self.on_line(merge)

    def _merge(self, app: AppName, sha: str, *, external: bool) -> None:
        """The head of a pull request is on the branch now: an ordinary commit, as old as it is there; what its own tests said stays."""
        commit = self.get(app, sha)
        if commit is not None and commit.state is CommitState.PASSED:
            values = {"lease_owner": None, "lease_until": 0.0, "reason": None, "lost": 0}
            self.change(
                commit,
                CommitEvent.MERGE,
                who="git",
                why="it is on the branch; its release is built",
                **values,
                **self._just_received(),
            )
            return
        if commit is not None and (commit.is_late or (external and commit.state is CommitState.FAILED)):
            self.hear_again(commit, who="git", why="it is on the branch now", pull=None, reds=0)
            return
        # A test that runs keeps its claim: the version stays.
        of = and_(commits.c.app == app, commits.c.sha == sha)
        self._tx.connection.execute(update(commits).where(of).values(pull=None, **self._just_received()))
        waits = and_(of, commits.c.state == CommitState.RECEIVED)
        self._tx.connection.execute(update(commits).where(waits).values(due_at=0.0, reason=None))

    def _just_received(self) -> dict[str, Any]:
        return {"received_at": self._tx.today(), "received_s": self._tx.now()}

    def known(self, app: AppName, hashes: Sequence[str]) -> set[str]:
        """Those of these that have a row."""
        query = select(commits.c.sha).where(commits.c.app == app, commits.c.sha.in_(hashes))
        return set(self._tx.connection.execute(query).scalars())

    def told_of(self, app: AppName, hashes: Sequence[str]) -> set[str]:
        """Those of these that have a row, and of which it is known what is in them; but for those that `add_pull` still takes."""
        rows = self._of({(app, sha) for sha in hashes}).values()
        return {one.sha for one in rows if one.tree is not None and not self._is_astray(one)}

    def add_pull(self, app: AppName, pull: Pull, *, who: str, why: str) -> None:
        """A row for the head of a pull request, unless the commit is known, as whatever; or was taken off the branch untested."""
        commit, new = self.add(app, pull.sha, who=who, why=why)
        if new or self._is_astray(commit):
            if commit.state is CommitState.FAILED:
                commit = self.test_again(commit, who=who, why=why, attempt=0)
            self._write(
                commit,
                position=None,
                merged_into=None,
                due_at=0.0,
                reason=None,
                pull=pull.number,
                on_branch=False,
                subject=pull.subject,
                author=pull.author,
                message=pull.message,
                tree=pull.tree or commit.tree,
            )
        elif commit.tree is None:  # of an older version; a test that runs keeps its claim: the version stays
            its = update(commits).where(commits.c.id == commit.id)
            self._tx.connection.execute(its.values(tree=pull.tree))

    def _is_astray(self, commit: Commit) -> bool:
        """It was on the branch, by itself or with a merge, or was said to be, is not now, and its tests have said nothing."""
        line = self.on_line(commit)
        if commit.pull is not None or (line.on_branch and line.position is not None):
            return False
        if commit.state is CommitState.FAILED:
            return (commit.reason or "").startswith(NOT_ON_BRANCH)
        # One without a place may have been pushed at this very moment.
        was = commit.position is not None or line.id != commit.id
        return was and commit.state is CommitState.RECEIVED and commit.digest is None

    def current_pulls(self, app: AppName, hashes: Sequence[str]) -> None:
        """Of the heads of pull requests that wait for their tests, only these are tested."""
        waits = and_(commits.c.app == app, IS_PULL, ITSELF, commits.c.state == CommitState.RECEIVED)
        old = and_(waits, commits.c.sha.not_in(hashes), commits.c.due_at.is_not(None))
        again = and_(waits, commits.c.sha.in_(hashes), commits.c.due_at.is_(None))
        why = "not tested: its pull request has a newer head, or is not among the newest"
        self._tx.connection.execute(update(commits).where(old).values(due_at=None, reason=why))
        self._tx.connection.execute(update(commits).where(again).values(due_at=0.0, reason=None))

    def has_newer_head(self, commit: Commit) -> bool:
        """Whether the pull request whose head it is has a newer one; not when it has come back to this one, and the newer one waits no more."""
        newer = and_(
            commits.c.app == commit.app, IS_PULL, commits.c.pull == commit.pull, commits.c.id > commit.id
        )
        waits_no_more = and_(commits.c.state == CommitState.RECEIVED, commits.c.due_at.is_(None))
        found = self._tx.connection.execute(select(commits.c.id).where(newer, not_(waits_no_more)).limit(1))
        return found.first() is not None

    def _receive_again(self, app: AppName, sha: str) -> bool:
        commit = self.get(app, sha)
        if commit is None or not (commit.reason or "").startswith(NOT_ON_BRANCH):
            return False
        self.test_again(commit, who="git", why="it is on the branch now", attempt=0)
        return True

    def add_all(self, app: AppName, branch: Sequence[BranchCommit], *, who: str, why: str) -> None:
        """Rows for those that have none; placed, on the line or inside a merge. However many: in a few statements."""
        self._tx.apps.lock(app)
        known = self.known(app, [told.sha for told in branch])
        new = [told for told in branch if told.sha not in known]
        if not new:
            return
        reasons = [None if told.into is None else _not_tested(told.into) for told in new]
        rows = [
            {"app": app, "sha": told.sha, "reason": reason, **_placed(told)}
            for told, reason in zip(new, reasons, strict=True)
        ]
        self._receive(rows, [who] * len(rows), why)

    def after(self, app: AppName, position: int) -> list[Commit]:
        """The branch's commits above this position, oldest first."""
        rows = self._tx.run(_AFTER, {"its_app": app, "its_position": position})
        return load_all(Commit, rows, state=CommitState)

    def undoing_after(self, app: AppName, position: int) -> list[Commit]:
        """As `after`, those only that may undo or mend something, by what their messages say or brought in."""
        says = [commits.c.message.icontains(words) for words in UNDOING]
        rows = self._tx.connection.execute(
            rows_of(Commit, commits)
            .where(commits.c.app == app, commits.c.on_branch, commits.c.position > position)
            .where(or_(commits.c.mends != "", *says))
            .order_by(commits.c.position)
        )
        return load_all(Commit, rows, state=CommitState)

    def after_the_last_good(self, app: AppName) -> list[Commit]:
        """The branch's line, as far as it is known, above the newest commit that passed its tests; oldest first."""
        return self.after(app, self._last_good(app))

    def oldest_red(self, app: AppName) -> str | None:
        """The first one of these that failed by a red test, else the first that failed; without reading the others."""
        its = (
            commits.c.app == app,
            commits.c.on_branch,
            commits.c.position > self._last_good(app),
            commits.c.state == CommitState.FAILED,
        )
        oldest = select(commits.c.sha).where(*its).order_by(commits.c.reds == 0, commits.c.position).limit(1)
        return self._tx.connection.execute(oldest).scalar_one_or_none()

    def _last_good(self, app: AppName) -> int:
        good = and_(
            commits.c.app == app,
            commits.c.on_branch,
            _HAS_PASSED,
        )
        return self._tx.connection.execute(select(func.max(commits.c.position)).where(good)).scalar() or 0

    def newest(self, app: AppName) -> Commit | None:
        """The branch's newest placed commit."""
        row = self._tx.run(_NEWEST, {"its_app": app}).first()
        return load(Commit, row, state=CommitState)

    def heads(self, of: Collection[AppName]) -> dict[AppName, str]:
        """The hash of each branch's newest placed commit, where there is one."""
        if not of:
            return {}
        rows = self._tx.connection.execute(_HEADS, {"apps": list(of)})
        return {row.name: row.sha for row in rows if row.sha is not None}

    def last_took(self, app: AppName, *, but: Commit | None = None, pulls: bool = False) -> float | None:
        """How long the app's tests took when a commit of the branch, or with `pulls` of a pull request, passed last; `but`: another one.

        A red run says nothing of that: it ends with the first failure, or hangs.
        """
        return self._tx.connection.execute(
            select(commits.c.took_s)
            .where(
                commits.c.app == app,
                *([] if but is None else [commits.c.id != but.id]),
                commits.c.took_s.is_not(None),
                _HAS_PASSED,
                *([] if pulls else [not_(IS_PULL)]),
            )
            .order_by(commits.c.tested_at.desc(), commits.c.id.desc())
            .limit(1)
        ).scalar_one_or_none()

    def wanted_now(self, app: AppName) -> list[Commit]:
        """Commits that a person wants out before the queue, newest wish first."""
        return load_all(Commit, self._tx.run(_WANTED_NOW, {"its_app": app}), state=CommitState)

    def unfinished(self, app: AppName) -> list[Commit]:
        """Received or in test, oldest first, without pull requests and what is inside merges."""
        rows = self._tx.connection.execute(
            rows_of(Commit, commits)
            .where(
                commits.c.app == app,
                commits.c.state.in_([CommitState.RECEIVED, CommitState.TESTING]),
                not_(IS_PULL),
                ITSELF,
            )
            .order_by(commits.c.id)
        )
        return load_all(Commit, rows, state=CommitState)

    def _count(self, where: Any) -> int:
        return int(self._tx.connection.execute(select(func.count()).where(where)).scalar_one())

    def claim_tests(
        self, commit: CommitId, owner: str, lease_s: float, *, parallel: int | None = None
    ) -> Commit | None:
        """The right to test this commit; None when there is nothing to do yet, somebody else does it, or there is no room.

        `parallel`: as many commits of the app may be in test; None: any number.
        """
        known = self.by_id(commit)
        if known is None:
            return None
        self._tx.apps.lock(known.app)  # two that claim the last room
        row = self._locked(commits.c.id == commit)
        if row is None:
            return None
        now = self._tx.now()
        if row.state is CommitState.TESTING and (row.lease_until or 0.0) <= now:
            lost = row.lost if row.lease_owner is None else row.lost + 1  # a person's order has no owner
            row = self.change(
                row,
                CommitEvent.TESTS_LOST,
                who=owner,
                why=f"{row.lease_owner} went silent",
                lost=lost,
                due_at=now,
            )
        if row.state is not CommitState.RECEIVED or _is_put_off(row, now):
            return None
        if not self._room(row.app, parallel, now):
            return None
        return self.change(
            row,
            CommitEvent.TEST,
            who=owner,
            attempt=row.attempt + 1,
            lease_owner=owner,
            lease_until=now + lease_s,
            due_at=None,
        )

    def _room(self, app: AppName, parallel: int | None, now: float) -> bool:
        live = and_(commits.c.app == app, commits.c.state == CommitState.TESTING, commits.c.lease_until > now)
        return parallel is None or self._count(live) < parallel

    def test_again(self, commit: Commit, *, who: str, why: str, **values: Any) -> Commit:
        """`failed → testing`: with a lease that nobody has, so that the next worker takes it."""
        values |= {"lease_owner": None, "lease_until": 0.0, "reason": None, "lost": 0}
        return self.change(commit, CommitEvent.TEST, who=who, why=why, **values)

    def hear_again(self, commit: Commit, *, who: str, why: str, **values: Any) -> Commit:
        """As `test_again`, of one that CI servers decide on: their time begins anew."""
        return self.test_again(commit, who=who, why=why, attempt=0, **self._just_received(), **values)

    def build_again(self, commit: Commit, *, who: str, why: str) -> Commit:
        """`passed → testing`, as `test_again`: what its tests said stays."""
        values: dict[str, Any] = {"lease_owner": None, "lease_until": 0.0, "reason": None, "lost": 0}
        return self.change(commit, CommitEvent.BUILD_AGAIN, who=who, why=why, **values)

    def change(
        self, commit: Commit, what: CommitEvent, *, who: str, why: str | None = None, **values: Any
    ) -> Commit:
        """Take an edge of the commit's state machine; StaleWrite when the row has moved."""
        after = next_commit_state(commit.state, what)
        changed = self._write(commit, state=after, **values)
        self._tx.record(
            commit.app, f"commit {commit.sha}", what, who=who, why=why, states=(commit.state, after)
        )
        return changed

    def update(self, commit: Commit, **values: Any) -> Commit:
        """Change what is not the state; StaleWrite when the row has moved."""
        return self._write(commit, **values)

    def wish_now(self, commit: Commit, reason: str | None, by: str | None) -> Commit:
        """A person wants it out before the queue, or has got it. The test that runs keeps its claim: the version stays."""
        self._tx.connection.execute(
            update(commits).where(commits.c.id == commit.id).values(now_reason=reason, now_by=by)
        )
        return replace(commit, now_reason=reason, now_by=by)

    def renew(self, owner: str, ids: Sequence[CommitId], lease_s: float) -> None:
        """Leases that have not run out last `lease_s` from now."""
        now = self._tx.now()
        self._tx.connection.execute(
            update(commits)
            .where(commits.c.id.in_(ids), commits.c.lease_owner == owner, commits.c.lease_until > now)
            .values(lease_until=now + lease_s)
        )

    def still_leased(self, commit: Commit) -> bool:
        """The claim that this row came from is still in force."""
        found = self._tx.connection.execute(
            select(commits.c.id).where(commits.c.id == commit.id, commits.c.version == commit.version)
        )
        return found.first() is not None

    def add_release(self, app: AppName, release: Release) -> None:
        """Keep what was built; a commit built anew replaces it."""
        key = and_(releases.c.app == app, releases.c.commit == release.commit)
        values = {
            "digest": release.digest,
            "archive": release.archive,
            "size": release.size,
            "built_at": self._tx.today(),
        }
        if self._tx.connection.execute(update(releases).where(key).values(**values)).rowcount == 0:
            self._tx.connection.execute(insert(releases).values(app=app, commit=release.commit, **values))

    def release(self, app: AppName, sha: str) -> Release | None:
        """The release of this commit."""
        row = self._tx.run(_RELEASE, {"its_app": app, "its_sha": sha}).first()
        return load(Release, row)

    def _locked(self, *where: Any) -> Commit | None:
        query = rows_of(Commit, commits).where(*where)
        row = self._tx.connection.execute(
            query.with_for_update() if self._tx.is_postgresql else query
        ).first()
        return None if row is None else load_one(Commit, row, state=CommitState)

    def _write(self, commit: Commit, **values: Any) -> Commit:
        its = {"its_id": commit.id, "its_version": commit.version}
        changed = self._tx.run(_GUARDED, {**its, "version": commit.version + 1, **values})
        if changed.rowcount != 1:
            raise StaleWrite(
                f"commit {commit.sha[:12]} has changed meanwhile", remedy="look again and repeat"
            )
        return replace(commit, version=commit.version + 1, **values)


def _is_put_off(commit: Commit, now: float) -> bool:
    """It has a reason to wait, and its time has not come: a message that reaches it now is one of before."""
    return commit.reason is not None and commit.due_at is not None and commit.due_at > now


def _placed(told: BranchCommit) -> dict[str, Any]:
    """What a row says of it; the names in the order of `_PLACED`."""
    on_line = told.into is None
    return {
        "position": told.position if on_line else None,
        "on_branch": on_line,
        "subject": told.subject,
        "author": told.author,
        "message": told.message,
        "merged_into": told.into,
        "mends": " ".join(sorted(told.mends)),
        "tree": told.tree,
    }


def _news(row: Any, told: dict[str, Any]) -> dict[str, Any] | None:
    values = told | {"tree": told["tree"] or row.tree}  # it cannot change, and not everyone tells it
    return None if row[5:] == tuple(values.values()) else values


def _not_tested(into: str | None) -> str:
    return f"came in with {(into or '')[:12]}, and is not tested by itself"
