"""Temporary folders under the state directory, one per job, held by a lock so that what a crash leaves is found."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rollout.releases import filelock


@dataclass(frozen=True, slots=True)
class Workplace:
    """A job's folder: `tree` for the checkout, `home` and `temporary` for the command."""

    folder: Path

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


@contextmanager
def workplace(root: Path) -> Iterator[Workplace]:
    """A fresh one, gone afterwards whatever was done in it; leftovers of dead workers go first."""
    root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with filelock.held(root / "lock", wait_s=60.0, what="workplaces"):
            _sweep(root)
            place = Workplace(Path(tempfile.mkdtemp(prefix="job-", dir=root)))
            stack.callback(_lock(place.folder).unlink, missing_ok=True)
            stack.enter_context(filelock.held(_lock(place.folder), wait_s=5.0, what="workplace"))
            stack.callback(remove, place.folder)
        for folder in (place.tree, place.home, place.temporary):
            folder.mkdir()
        yield place


def remove(folder: Path) -> None:
    """Remove a tree, also one whose folders were made unwritable."""
    shutil.rmtree(folder, onerror=_once_more)


def _once_more(function: Callable[..., object], path: str, _: object) -> None:
    with suppress(OSError):
        for one in (Path(path).parent, Path(path)):
            if not one.is_symlink():
                one.chmod(0o700)
        if function is os.scandir or function is os.open:
            shutil.rmtree(path, ignore_errors=True)
        else:
            function(path)


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _sweep(root: Path) -> None:
    """A folder whose lock nobody holds belongs to nobody: new ones are locked before the common lock is let go."""
    for folder in root.glob("job-*"):
        if folder.is_dir() and filelock.free(_lock(folder)):
            remove(folder)
            _lock(folder).unlink(missing_ok=True)
