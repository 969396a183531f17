"""A bare mirror of one branch: fetched under a lock between processes, read by anybody.

A force-push replaces the branch's head; the head that it replaced stays reachable under `refs/rollout/gone/`, so that
what was planned or shipped can still be built.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from rollout.domain import retry, selection
from rollout.domain.model import BranchCommit, Pull
from rollout.errors import NotFound, ServiceUnavailable
from rollout.releases import filelock
from rollout.releases.git import Done, Git
from rollout.releases.limits import (
    FETCH_LIMIT_S,
    LATE_PULL_S,
    LATEST_PULL_S,
    LOCAL_LIMIT_S,
    MESSAGE_BYTES,
    PULL_LIMIT_S,
    REMOTE_LIMIT_S,
)
from rollout.releases.repository import Repository, masked

log = structlog.get_logger()
_NAME = re.compile(r"(?!.*\.\.)\w[\w.+@/-]{0,250}")
_SHA = re.compile(r"[0-9a-f]{40}")
_PULL = re.compile(r"refs/(?:pull|merge-requests)/([1-9][0-9]{0,8})/head")  # GitHub and Gitea; GitLab
_PULLS = "refs/rollout/pulls"
LONGEST_RECORD = 64 * 1024  # of a commit, as git tells of it; what is longer loses its end
_FORMAT = ("--encoding=UTF-8", "--format=%H%n%P%n%T%n%an%n%B")


@dataclass(frozen=True, slots=True)
class Mirror:
    """The mirror of one app in `directory` (`<app>.git`)."""

    directory: Path
    environment: Mapping[str, str]

    @property
    def git(self) -> Git:
        """Git on this mirror."""
        return Git(self.directory, self.environment)

    def fetch(self, repository: Repository, branch: str, limit_s: float | None = None) -> str:
        """Bring the branch up to date; its head. ServiceUnavailable or NotFound, and the mirror is as it was.

        Another process is waited for as long as git may take.
        """
        limit_s = min(limit_s or FETCH_LIMIT_S, FETCH_LIMIT_S)
        with self._alone(limit_s):
            self._prepare(repository)
            self._sweep_locks()
            self._sweep_halves()
            self._forget_other_branches(branch)
            before = self._head(branch)
            done = self.git.run(
                "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--force",
                "--end-of-options", repository.address, f"+refs/heads/{branch}:refs/heads/{branch}",
                repository=repository, limit_s=limit_s,
            )  # fmt: skip
            if done.status:
                self._ask_head(repository, branch)  # says it better: no answer, or no such branch
                raise _unavailable(repository, done)
            self._keep_reachable(before, branch)
            self._local("symbolic-ref", "HEAD", f"refs/heads/{branch}")
            self._local("-c", "gc.auto=6700", "-c", "gc.autoDetach=false", "gc", "--auto", "--quiet")
            return self._local("rev-parse", "--verify", "--end-of-options", f"refs/heads/{branch}^{{commit}}")

    def has_branch(self, branch: str) -> bool:
        """Whether it was fetched, here and since the mirror was made."""
        return self._made and self._head(branch) is not None

    def remote_head(self, repository: Repository, branch: str) -> str:
        """The branch's head on the server, by one question."""
        if not self._made:
            with self._alone():
                self._prepare(repository)
        return self._ask_head(repository, branch)

    def remote_heads(self, repository: Repository, branch: str) -> tuple[str, list[Pull]]:
        """The branch's head and those of all pull requests on the server, by one question."""
        if not self._made:
            with self._alone():
                self._prepare(repository)
        told = self._ask(repository, f"refs/heads/{branch}", "refs/pull/*/head", "refs/merge-requests/*/head")
        pulls = [
            Pull(int(named[1]), ref, sha) for ref, sha in told.items() if (named := _PULL.fullmatch(ref))
        ]
        return _head_in(told, repository, branch), pulls

    def fetch_pulls(self, repository: Repository, pulls: Sequence[Pull]) -> list[Pull]:
        """The heads of these pull requests, as fetched; those of others are let go. One that cannot be fetched is left out.

        Beside the branch's own fetch, which does not wait for what strangers push. None is begun when `PULL_LIMIT_S` have
        gone by: the next poll goes on; and one that takes longer than that is left out for `LATE_PULL_S`, longer each time.
        ServiceUnavailable at once while another process fetches them: who waited for it would keep others waiting.
        """
        if not self._made:
            with self._alone():
                self._prepare(repository)
        with filelock.held(self._pulls_lock, wait_s=0.0, what=f"git mirror {self.directory.name}"):
            wanted = {f"{_PULLS}/{pull.number}" for pull in pulls}
            for ref in self._local("for-each-ref", "--format=%(refname)", _PULLS).splitlines():
                if ref not in wanted:
                    self._local("update-ref", "-d", ref)
            return list(self._fetch_each(repository, pulls))

    def _fetch_each(self, repository: Repository, pulls: Sequence[Pull]) -> Iterator[Pull]:
        began, late = time.monotonic(), self._late_pulls()
        for pull in pulls:
            if time.monotonic() - began > PULL_LIMIT_S:
                return
            if pull.sha not in late and (found := self._fetch_pull(repository, pull)) is not None:
                yield found

    def _late_pulls(self) -> set[str]:
        """The heads that took too long a short while ago."""
        late = set()
        for mark in self._late.glob("*"):
            its = mark.stat()
            age_s = abs(time.time() - its.st_mtime)
            if age_s < retry.backoff_s(its.st_size, first=LATE_PULL_S, most=LATEST_PULL_S):
                late.add(mark.name)
            elif age_s > 2 * LATEST_PULL_S:  # nobody asks for it any more
                mark.unlink()
        return late

    def _was_late(self, sha: str) -> None:
        """Each time a byte more: a server that was slow for once costs minutes, a pull request that is too big an hour."""
        self._late.mkdir(exist_ok=True)
        with (self._late / sha).open("ab") as mark:
            mark.write(b".")

    def _fetch_pull(self, repository: Repository, pull: Pull) -> Pull | None:
        ours = f"{_PULLS}/{pull.number}"
        if self._ref(ours) != pull.sha and not self._brings(repository, pull, ours):
            return None
        (record,) = self.git.records(
            "log", "-z", "--max-count=1", *_FORMAT, "--end-of-options", ours, "--", longest=LONGEST_RECORD,
        )  # fmt: skip
        told = _commit(record)
        return replace(
            pull,
            sha=told.sha,
            subject=told.subject,
            author=told.author,
            message=told.message,
            tree=told.tree,
        )

    def _brings(self, repository: Repository, pull: Pull, ours: str) -> bool:
        try:
            done = self.git.run(
                "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--force",
                "--end-of-options", repository.address, f"+{pull.ref}:{ours}",
                repository=repository, limit_s=PULL_LIMIT_S,
            )  # fmt: skip
        except ServiceUnavailable as error:
            self._was_late(pull.sha)
            log.warning("pull_takes_too_long", ref=pull.ref, error=str(error))
            return False
        if done.status:
            log.warning("pull_not_fetched", ref=pull.ref, error=done.complaint)
        return not done.status

    def resolve(self, name: str) -> str:
        """The full hash of a commit that is named by its hash (at least 4 digits), or by a ref; NotFound."""
        if not self.directory.exists():
            raise NotFound(f"commit {name!r}: nothing was fetched yet", remedy="is the repository reachable?")
        if not _NAME.fullmatch(name):
            raise NotFound(f"{name[:80]!r} is no name of a commit", remedy="give a hash or the branch's name")
        done = self.git.run("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
        if done.status:
            raise NotFound(
                f"no commit {name!r} in the mirror ({done.complaint})",
                remedy="is it pushed, on the configured branch, and not ambiguous?",
            )
        return done.output

    def branch(self, branch: str, limit: int) -> list[BranchCommit]:
        """The newest `limit` first-parent commits, oldest first. The root has position 1."""
        if not self.has_branch(branch):
            raise NotFound(f"branch {branch!r} was not fetched yet")
        ref = f"refs/heads/{branch}"
        total = int(self._local("rev-list", "--count", "--first-parent", "--end-of-options", ref))
        found = self._log(ref, "--first-parent", f"--max-count={limit}")
        return [replace(told, position=total - number) for number, told in enumerate(found)][::-1]

    def contains(self, head: str, sha: str) -> bool:
        """Whether `head` is this commit, or has it; not if the mirror has never seen it."""
        done = self.git.run("merge-base", "--is-ancestor", "--end-of-options", sha, head)
        if done.status in {0, 1}:
            return not done.status
        if self.git.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{sha}^{{commit}}").status:
            return False
        raise self._failed("merge-base", done)

    def history(self, head: str, since: str, limit: int) -> list[BranchCommit] | None:
        """What `head` has and its ancestor `since` has not, the head first, parents after their children.

        None when more than `limit` of them follow `since`. Of those that do not (they came in by merges) the newest ones,
        at most as many.
        """
        follow = self._log(f"{since}..{head}", "--topo-order", "--ancestry-path", f"--max-count={limit + 1}")
        if len(follow) > limit:
            return None
        if all(len(told.parents) == 1 for told in follow):
            return follow
        found = self._log(f"{since}..{head}", "--topo-order", f"--max-count={limit}")
        seen = {told.sha for told in found}
        return [*found, *(told for told in follow if told.sha not in seen)]

    def _log(self, what: str, *words: str) -> list[BranchCommit]:
        records = self.git.records(
            "log", "-z", *words, *_FORMAT, "--end-of-options", what, "--", longest=LONGEST_RECORD
        )
        return [_commit(record) for record in records]

    @property
    def _pulls_lock(self) -> Path:
        return self.directory / "rollout-pulls"

    @property
    def _late(self) -> Path:
        return self.directory / "rollout-late"

    @property
    def _made(self) -> bool:
        return (self.directory / "HEAD").exists()

    def _alone(self, wait_s: float = FETCH_LIMIT_S) -> AbstractContextManager[None]:
        """The lock between all processes that fetch into this mirror."""
        lock = self.directory.with_suffix(".lock")
        return filelock.held(lock, wait_s=wait_s, what=f"git mirror {self.directory.name}")

    def _prepare(self, repository: Repository) -> None:
        self._trust(repository)
        if not self._made:
            self._local("init", "--bare", "--quiet", "--template=", str(self.directory))

    def _trust(self, repository: Repository) -> None:
        """Git's own check of who owns a local repository: this one is named in our configuration."""
        settings = self.git.settings
        wanted = "[safe]\n\tdirectory = *\n" if repository.scheme == "file" else ""
        if not settings.exists() or (wanted and settings.read_text() != wanted):
            new = settings.with_name(f"{self.directory.name}.config")
            new.write_text(wanted)
            new.replace(settings)

    def _sweep_locks(self) -> None:
        """Lock files that a killed git left; no git of ours lives longer than its limit."""
        for path in self.directory.rglob("*.lock"):
            with suppress(FileNotFoundError):
                # Either way: a clock that was set back must not leave a lock for as long as that was.
                if abs(time.time() - path.stat().st_mtime) > FETCH_LIMIT_S + LOCAL_LIMIT_S:
                    path.unlink()

    def _sweep_halves(self) -> None:
        """What fetches had brought that were cut or killed: git itself removes it after weeks, if ever.

        Nobody else brings anything while the locks are ours. Pull requests are fetched beside the branch.
        """
        if filelock.free(self._pulls_lock):
            objects = self.directory / "objects"
            for path in (*objects.glob("*/tmp_*"), *objects.glob("pack/.tmp-*")):
                path.unlink(missing_ok=True)

    def _forget_other_branches(self, branch: str) -> None:
        listed = self._local("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads")
        for sha, _, ref in (line.partition(" ") for line in listed.splitlines()):
            if ref != f"refs/heads/{branch}":
                self._local("update-ref", f"refs/rollout/gone/{sha}", sha)
                self._local("update-ref", "-d", ref)

    def _head(self, branch: str) -> str | None:
        return self._ref(f"refs/heads/{branch}")

    def _ref(self, ref: str) -> str | None:
        done = self.git.run("rev-parse", "--verify", "--quiet", "--end-of-options", ref)
        return done.output or None

    def _keep_reachable(self, before: str | None, branch: str) -> None:
        """A force-push must not lose the commits that it dropped."""
        if before is None:
            return
        done = self.git.run("merge-base", "--is-ancestor", before, f"refs/heads/{branch}")
        if done.status:
            self._local("update-ref", f"refs/rollout/gone/{before}", before)

    def _ask_head(self, repository: Repository, branch: str) -> str:
        return _head_in(self._ask(repository, f"refs/heads/{branch}"), repository, branch)

    def _ask(self, repository: Repository, *patterns: str) -> dict[str, str]:
        """The server's refs of these patterns, each with its hash."""
        done = self.git.run(
            "ls-remote", "--quiet", "--end-of-options", repository.address, *patterns,
            repository=repository, limit_s=REMOTE_LIMIT_S,
        )  # fmt: skip
        if done.status:
            raise _unavailable(repository, done)
        lines = (line.partition("\t") for line in done.output.splitlines())
        return {ref: sha for sha, _, ref in lines if _SHA.fullmatch(sha)}

    def _local(self, *words: str) -> str:
        done = self.git.run(*words)
        if done.status:
            raise self._failed(words[0], done)
        return done.output

    def _failed(self, verb: str, done: Done) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"git mirror {self.directory}: git {verb}: {done.complaint}",
            remedy="is the disk full or not writable? The mirror may be deleted: it is fetched again",
        )


def _head_in(told: Mapping[str, str], repository: Repository, branch: str) -> str:
    if head := told.get(f"refs/heads/{branch}"):
        return head
    raise NotFound(
        f"branch {branch!r} does not exist in {masked(repository.address)}",
        remedy="correct `branch` in rollout.toml, or push it",
    )


def _unavailable(repository: Repository, done: Done) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"repository {masked(repository.address)} cannot be read: {done.complaint}",
        remedy=f"try `git ls-remote {masked(repository.address)}` as the user that runs the workers",
    )


def _commit(record: bytes) -> BranchCommit:
    sha, parents, tree, author, message = [*record.decode(errors="replace").split("\n", 4), "", "", "", ""][
        :5
    ]
    message = message.strip("\n")
    subject = message.partition("\n")[0]
    return BranchCommit(
        sha=sha,
        position=0,
        subject=_printable(subject)[:200],
        author=_printable(author)[:200],
        message=selection.shorten(message, MESSAGE_BYTES),
        parents=tuple(parents.split()),
        tree=tree or None,
    )


def _printable(text: str) -> str:
    """Without control characters: subjects and authors stand in logs and terminals."""
    return "".join(c if c.isprintable() else " " for c in text).strip()
