"""`GitWorkshop`: the Workshop of `services/ports.py` over git, temporary folders and contained commands."""

import errno
import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rollout.config.deploy_file import AppConfig
from rollout.domain.model import BranchCommit, Delta, Pull, Release, TestResult
from rollout.errors import ReleaseError, ServiceUnavailable
from rollout.releases import archive, command, tree
from rollout.releases.checkout import export
from rollout.releases.contain import LATE
from rollout.releases.deltas import Deltas
from rollout.releases.limits import GIB, KEPT_ARCHIVES, KEPT_DELTAS, Bounds
from rollout.releases.mirror import Mirror
from rollout.releases.repository import Repository
from rollout.releases.shelf import Shelf
from rollout.releases.usage import DISK, FULL, MEMORY
from rollout.releases.workplace import Workplace, for_command, workplace

_NOT_STARTED = {126: "cannot be run", 127: "is not there"}  # what a shell's exit status means
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@dataclass(frozen=True, slots=True)
class GitWorkshop:
    """From a commit to the bytes that hosts get.

    Everything is below `state_dir`: `mirrors/<app>.git`, `releases/<app>/<commit>.tar.gz`, `work/` (emptied by itself);
    but the commands of a worker that is root run elsewhere (`workplace.py`). The build has the tests' bounds.
    """

    state_dir: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    keep: int = KEPT_ARCHIVES
    bounds: Bounds = field(default_factory=Bounds)

    def fetch(self, app: str, config: AppConfig, *, limit_s: float | None = None) -> str:
        """Update the bare mirror; the head of the configured branch."""
        with _room(self.state_dir):
            return self._mirror(app).fetch(Repository.parse(config.repository), config.branch, limit_s)

    def has_branch(self, app: str, config: AppConfig) -> bool:
        """Whether this machine's mirror does."""
        return self._mirror(app).has_branch(config.branch)

    def remote_head(self, app: str, config: AppConfig) -> str:
        """The head of the branch by one `ls-remote`."""
        with _room(self.state_dir):
            return self._mirror(app).remote_head(Repository.parse(config.repository), config.branch)

    def remote_heads(self, app: str, config: AppConfig) -> tuple[str, list[Pull]]:
        """The branch's head and those of all pull requests, by one `ls-remote`."""
        with _room(self.state_dir):
            return self._mirror(app).remote_heads(Repository.parse(config.repository), config.branch)

    def fetch_pulls(self, app: str, config: AppConfig, pulls: Sequence[Pull]) -> list[Pull]:
        """Bring these heads into the mirror, and let go of all others."""
        with _room(self.state_dir):
            return self._mirror(app).fetch_pulls(Repository.parse(config.repository), pulls)

    def resolve(self, app: str, name: str) -> str:
        """The full hash of a commit in the mirror, by hash or ref; NotFound."""
        return self._mirror(app).resolve(name)

    def branch(self, app: str, config: AppConfig, limit: int) -> list[BranchCommit]:
        """The branch's newest first-parent commits in the mirror, oldest first; the root has position 1."""
        return self._mirror(app).branch(config.branch, limit)

    def contains(self, app: str, head: str, sha: str) -> bool:
        """Whether `head` is this commit, or has it."""
        return self._mirror(app).contains(head, sha)

    def history(self, app: str, head: str, since: str, limit: int) -> list[BranchCommit] | None:
        """What `head` has and its ancestor `since` has not, the head first; None when more than `limit` follow it."""
        return self._mirror(app).history(head, since, limit)

    def run_tests(self, app: str, config: AppConfig, commit: str, *, go_on: Callable[[], bool]) -> TestResult:
        """The test command in a clean checkout; LeaseLost when `go_on` is False. No command: passed, and it says so."""
        commit = self.resolve(app, commit)
        if not config.tests.command:
            return TestResult(passed=True, reason="no tests: tests.command is empty", output="")
        try:
            with _room(self.state_dir), self._checkout(app, commit) as place:
                return self._command("tests", config.tests.command, config, commit, place, go_on)
        except ReleaseError as error:
            return _refused(error)

    def has_archive(self, app: str, commit: str) -> bool:
        """Whether it is there still; then it counts as just asked for."""
        return self._shelf(app).touch(commit)

    def build(
        self, app: str, config: AppConfig, commit: str, needed: Collection[str] = ()
    ) -> tuple[Release | None, TestResult]:
        """The release of this commit: the one that is there, if it is intact; None when it cannot be built. `needed` ones stay."""
        commit = self.resolve(app, commit)
        recipe = (config.release.build, *config.release.include)
        shelf = self._shelf(app, needed)
        try:
            with _room(self.state_dir):
                if there := shelf.find(commit, recipe):
                    return there, TestResult(passed=True, reason="built before", output="")
                with self._checkout(app, commit) as place:
                    return self._build(config, commit, place, shelf, recipe)
        except ReleaseError as error:
            return None, _refused(error)

    def delta(self, app: str, base: Release, target: Release) -> Delta | None:
        """What a host with the release `base` lacks of `target`; None when it should get the archive."""
        return Deltas(self.state_dir / "releases" / app / "deltas", KEPT_DELTAS).find(base, target)

    def _build(
        self, config: AppConfig, commit: str, place: Workplace, shelf: Shelf, recipe: tuple[str, ...]
    ) -> tuple[Release | None, TestResult]:
        told = TestResult(passed=True, reason="packed; there is no build command", output="")
        if config.release.build:
            told = self._command("build", config.release.build, config, commit, place, lambda: True)
            if not told.passed:
                return None, told
        root = os.fsencode(place.tree)
        picked = tree.pick(root, config.release.include)
        shelf.folder.mkdir(parents=True, exist_ok=True)
        with workplace(self.state_dir / "work") as desk:  # of our own: what is in `place` may be a trap
            packed = desk.folder / "release.tar.gz"
            digest = archive.pack(root, picked, packed)
            return shelf.put(commit, digest, packed, recipe), told

    def _command(
        self,
        what: str,
        line: str,
        config: AppConfig,
        commit: str,
        place: Workplace,
        go_on: Callable[[], bool],
    ) -> TestResult:
        ended = command.run(
            line,
            place,
            self._scrubbed(config.name, commit, place),
            limit_s=config.tests.timeout,
            go_on=go_on,
            bounds=self.bounds,
        )
        if ended.cut == FULL:
            raise ServiceUnavailable(
                f"the {what} ended early: the disk of {place.folder.parent} is almost full",
                remedy="make room there; then it is tried again",
            )
        return TestResult(
            passed=ended.status == 0 and ended.cut is None,
            reason=_reason(what, ended, config.tests.timeout, self.bounds, place.user),
            output=ended.output.text(),
        )

    def _scrubbed(self, app: str, commit: str, place: Workplace) -> dict[str, str]:
        """All that the command's environment has: no secret, no address of ours."""
        return {
            "PATH": self.environment.get("PATH", os.defpath),
            "HOME": str(place.home),
            "TMPDIR": str(place.temporary),
            "LANG": "C.UTF-8",
            "CI": "true",
            "ROLLOUT_APP": app,
            "ROLLOUT_COMMIT": commit,
            # The state directory may lie in somebody's repository, which is not this commit's.
            "GIT_CEILING_DIRECTORIES": str(place.folder),
        }

    @contextmanager
    def _checkout(self, app: str, commit: str) -> Iterator[Workplace]:
        with for_command(self.state_dir) as place:
            export(self._mirror(app).git, commit, place.tree)
            place.hand_over()
            yield place

    def _shelf(self, app: str, needed: Collection[str] = ()) -> Shelf:
        return Shelf(self.state_dir / "releases" / app, self.keep, frozenset(needed))

    def _mirror(self, app: str) -> Mirror:
        return Mirror((self.state_dir / "mirrors" / f"{app}.git").absolute(), self.environment)


def _reason(what: str, ended: command.Ended, limit_s: float, bounds: Bounds, user: int | None) -> str:
    """How it ended, in one line."""
    if ended.cut is not None:
        return {
            LATE: f"killed after {limit_s:g} s",
            MEMORY: f"killed: used more than {bounds.memory_bytes / GIB:.1f} GiB of memory",
            DISK: f"killed: used more than {bounds.disk_bytes / GIB:.1f} GiB or {bounds.disk_entries:,} files of disk,"
            " or half of what was free",
        }[ended.cut]
    if ended.status == 0:
        return f"{what} passed in {ended.took_s:.0f} s"
    if ended.status is None:
        return "the process that contains the command was killed"
    if ended.status < 0:
        return f"killed by signal {-ended.status} ({signal.strsignal(-ended.status)})"
    if why := _NOT_STARTED.get(ended.status):
        as_user = "" if user is None else "; it runs as a user without rights"
        return f"the {what.removesuffix('s')} command {why} (exit status {ended.status}): {ended.output.last_line()}{as_user}"
    return f"exit status {ended.status}"


def _refused(error: ReleaseError) -> TestResult:
    reason = f"{error}; {error.remedy}" if error.remedy else str(error)
    return TestResult(passed=False, reason=reason, output="")


@contextmanager
def _room(state_dir: Path) -> Iterator[None]:
    """Our own disk's trouble is nobody's commit's fault."""
    try:
        yield
    except OSError as error:
        raise ServiceUnavailable(
            f"{error.strerror or error}: {error.filename or state_dir}",
            remedy=f"make room in {state_dir}" if error.errno in _NO_ROOM else f"look at {state_dir}",
        ) from error
