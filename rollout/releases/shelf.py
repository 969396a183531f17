"""The archives of one app: `<commit>.tar.gz` and what is known of it, `<commit>.json`."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout.domain.model import Release
from rollout.releases import filelock


@dataclass(frozen=True, slots=True)
class Shelf:
    """Keeps the newest `keep` archives, by when they were last asked for, and those of the `needed` commits."""

    folder: Path
    keep: int
    needed: frozenset[str] = frozenset()

    def touch(self, commit: str) -> bool:
        """Ask for the archive of this commit; whether it is there."""
        try:
            os.utime(self._archive(commit))
        except OSError:  # a shelf that may only be read has it all the same
            return os.path.exists(self._archive(commit))  # noqa: PTH110  # that of a Path may raise
        return True

    def find(self, commit: str, recipe: Sequence[str]) -> Release | None:
        """The archive of this commit if it was made by this recipe and its bytes are as they were."""
        archive = self._archive(commit)
        known = self._known(commit)
        if known.get("recipe") != list(recipe) or not archive.exists():
            return None
        if _sha256(archive) != known.get("archive"):
            return None
        with suppress(OSError):
            os.utime(archive)
        return Release(commit, known["digest"], str(archive), archive.stat().st_size)

    def put(self, commit: str, digest: str, packed: Path, recipe: Sequence[str]) -> Release:
        """Take a packed file over, unless another process was first with the same recipe: then the first stays."""
        with filelock.held(self.folder / "lock", wait_s=60.0, what=f"releases {self.folder.name}"):
            if there := self.find(commit, recipe):
                return there
            known = {"digest": digest, "archive": _sha256(packed), "recipe": list(recipe)}
            self._note(commit).unlink(missing_ok=True)
            self._forget_the_future()
            packed.replace(self._archive(commit))
            os.utime(self._archive(commit))
            _write(self._note(commit), json.dumps(known))
            self._prune(commit)
            return Release(commit, digest, str(self._archive(commit)), self._archive(commit).stat().st_size)

    def _forget_the_future(self) -> None:
        """What was last asked for before the clock was set back is not newer than what comes now."""
        now = time.time()
        for path in self.folder.glob("*.tar.gz"):
            if path.stat().st_mtime > now:
                os.utime(
                    path, (now - 1, now - 1)
                )  # not the very moment of what comes: files' times tick slowly

    def _prune(self, commit: str) -> None:
        by_age = sorted(self.folder.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in by_age[self.keep :]:
            if old != self._archive(commit) and old.name.partition(".")[0] not in self.needed:
                old.with_name(old.name.replace(".tar.gz", ".json")).unlink(missing_ok=True)
                old.unlink(missing_ok=True)

    def _known(self, commit: str) -> dict[str, Any]:
        try:
            known = json.loads(self._note(commit).read_text())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _archive(self, commit: str) -> Path:
        return self.folder / f"{commit}.tar.gz"

    def _note(self, commit: str) -> Path:
        return self.folder / f"{commit}.json"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, text: str) -> None:
    """Whole or not at all, also over a power cut."""
    new = path.with_suffix(".new")
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
