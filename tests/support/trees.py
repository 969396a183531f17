"""Releases of many files, built as the product builds them, and the next one with a few files changed."""

import os
import random
from pathlib import Path

from rollout.domain.model import Release
from rollout.releases import archive, tree


def grow(root: Path, *, files: int, bytes_each: int, seed: int = 1) -> Path:
    """A tree of so many files, of which gzip makes about half, in folders of 50."""
    chance = random.Random(seed)
    for number in range(files):
        file = root / f"package-{number // 50:04d}" / "src" / f"module_{number:06d}.js"
        file.parent.mkdir(parents=True, exist_ok=True)
        half = bytes_each // 2
        file.write_bytes(chance.randbytes(half) + b"x" * (bytes_each - half))
    return root


def change(root: Path, count: int, *, seed: int) -> None:
    """Other bytes in that many of its files."""
    chance = random.Random(seed)
    for file in chance.sample(sorted(path for path in root.rglob("*") if path.is_file()), count):
        file.write_bytes(chance.randbytes(file.stat().st_size))


def release(root: Path, commit: str, shelf: Path) -> Release:
    """The tree's archive on a shelf."""
    shelf.mkdir(parents=True, exist_ok=True)
    path = shelf / f"{commit}.tar.gz"
    top = os.fsencode(root)
    digest = archive.pack(top, tree.pick(top, ["."]), path)
    return Release(commit, digest, str(path), path.stat().st_size)
