"""Temporary folders, one per job, held by a lock so that what a crash leaves is found; and the job's own user.

A worker that is root runs no command as root: each job gets a user of its own, a number that nobody else has, and a
folder where such a user can get at: not below the state directory, which is closed to others.
"""

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rollout.errors import ServiceUnavailable
from rollout.releases import filelock

# Neither Debian, systemd nor the subordinate ids of containers give these to anybody; below 65536, as a container has no more.
FIRST_USER = 60_900
JOBS = 100  # at a time on one machine
ROOM_FOR_USERS = Path("/var/lib/rollout-tests")

_RIGHTS = 1 << 0 | 1 << 5 | 1 << 6 | 1 << 7  # CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID


@dataclass(frozen=True, slots=True)
class Workplace:
    """A job's folder: `tree` for the checkout, `home` and `temporary` for the command, which runs as `user` (None: as we)."""

    folder: Path
    user: int | None = None

    @property
    def tree(self) -> Path:
        """Where the commit is checked out."""
        return self.folder / "tree"

    @property
    def home(self) -> Path:
        """The command's HOME."""
        return self.folder / "home"

    @property
    def temporary(self) -> Path:
        """The command's TMPDIR."""
        return self.folder / "tmp"

    def hand_over(self) -> None:
        """Give all that is in it to its user, and close it to others."""
        if self.user is not None:
            subprocess.run(["chown", "-hR", f"{self.user}:{self.user}", self.folder], check=True)
        self.folder.chmod(0o700)


def for_command(state_dir: Path) -> AbstractContextManager[Workplace]:
    """A workplace for other people's commands: with a user of its own when we are root."""
    if not _may_give_users():
        return workplace(state_dir / "work")
    mode = state_dir.stat().st_mode & 0o7777
    if mode & 0o007:  # database, broker's socket and mirrors are in it
        state_dir.chmod(mode & ~0o007)
    ROOM_FOR_USERS.mkdir(parents=True, exist_ok=True)
    ROOM_FOR_USERS.chmod(0o711)
    return workplace(ROOM_FOR_USERS, first_user=FIRST_USER)


def _may_give_users() -> bool:
    """Root may; the root of a container may lack the rights (chown, kill, setgid, setuid), or the users."""
    if os.geteuid():
        return False
    status = Path("/proc/self/status").read_text()
    rights = int(status.partition("CapEff:")[2].split()[0], 16)
    mapped = [list(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    last = FIRST_USER + JOBS - 1
    return rights & _RIGHTS == _RIGHTS and any(
        first <= FIRST_USER and last < first + count for first, _, count in mapped
    )


@contextmanager
def workplace(root: Path, *, first_user: int | None = None) -> Iterator[Workplace]:
    """A fresh one, gone afterwards whatever was done in it; leftovers of dead workers go first."""
    root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with filelock.held(root / "lock", wait_s=60.0, what="workplaces"):
            _sweep(root)
            number = _free_number(root)
            place = Workplace(root / f"job-{number}", None if first_user is None else first_user + number)
            place.folder.mkdir(mode=0o700)
            stack.enter_context(filelock.held(_lock(place.folder), wait_s=5.0, what="workplace"))
            stack.callback(remove, place.folder)
        for folder in (place.tree, place.home, place.temporary):
            folder.mkdir()
        yield place


def remove(folder: Path) -> None:
    """Remove a tree, whatever its depth and its rights; the programs know how, Python's recursion has an end."""
    for words in (["rm", "-rf"], ["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        subprocess.run([*words, "--", folder], stderr=subprocess.DEVNULL, check=False)
        if not os.path.lexists(folder):
            return


def _free_number(root: Path) -> int:
    for number in range(JOBS):
        folder = root / f"job-{number}"
        if not folder.exists() and filelock.free(_lock(folder)) and not _is_somebody(FIRST_USER + number):
            return number
    raise ServiceUnavailable(f"{root}: {JOBS} jobs run at a time, or left what cannot be removed")


def _is_somebody(user: int) -> bool:
    try:
        return bool(pwd.getpwuid(user))
    except KeyError:
        return False


def _lock(folder: Path) -> Path:
    """It stays when the folder goes: a lock that is unlinked and made again is two locks."""
    return folder.with_name(f"{folder.name}.lock")


def _sweep(root: Path) -> None:
    """A folder whose lock nobody holds belongs to nobody: new ones are locked before the common lock is let go."""
    for folder in root.glob("job-*"):
        if folder.is_dir() and filelock.free(_lock(folder)):
            remove(folder)
