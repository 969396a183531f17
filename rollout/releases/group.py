"""A control group for one command, where we may make one: then the kernel itself keeps its memory and its processes bounded.

However many they are, they get processor time as one process does (where there is a controller for it, too).

Version 1: a group below our own, one for each controller. Version 2: one group, beside our own, since a group
that hands controllers on may not have processes (systemd hands memory and pids on to every unit).
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rollout.releases.limits import Bounds

ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = {"memory", "pids"}
_WELCOME = {"cpu"}
_PREFIX = "rollout-"


@dataclass(frozen=True, slots=True)
class Group:
    """Folders of control groups, each with the one that we come from. There may be none: then nothing has any effect."""

    places: tuple[tuple[Path, Path], ...] = ()

    @classmethod
    def made(cls, bounds: Bounds) -> "Group":
        """A new one within these bounds; one without places when the machine or our rights have none."""
        group = cls(
            tuple((home, parent / f"{_PREFIX}{os.getpid()}") for home, parent in parents(ROOT, _own()))
        )
        try:
            for _, folder in group.places:
                _sweep(folder.parent)
                folder.mkdir()
                _limit(folder, bounds)
            group.enter()
            group.leave()
        except OSError:
            with suppress(OSError):
                group.leave()
            group.remove()
            return cls()
        return group

    def enter(self) -> None:
        """Whatever we start from now on is in it."""
        for _, folder in self.places:
            (folder / "cgroup.procs").write_text("0")

    def leave(self) -> None:
        """Go back to where we come from; what we started stays."""
        for home, _ in self.places:
            (home / "cgroup.procs").write_text("0")

    def out_of_memory(self) -> bool:
        """Whether the kernel had to kill one of its processes."""
        return any(
            line.startswith("oom_kill ") and line != "oom_kill 0"
            for _, folder in self.places
            for file in ("memory.events", "memory.oom_control")
            if (folder / file).exists()
            for line in (folder / file).read_text().splitlines()
        )

    def remove(self) -> None:
        """Remove it; nobody may be in it any more."""
        for _, folder in self.places:
            with suppress(OSError):
                folder.rmdir()


def _own() -> str:
    try:
        return Path("/proc/self/cgroup").read_text()
    except OSError:
        return ""


def parents(root: Path, own: str) -> Iterator[tuple[Path, Path]]:
    """(our own group, where a new one can be made) for memory, processes and time, of /proc/self/cgroup; none if one of the first two is missing."""
    lines = [line.split(":", 2) for line in own.splitlines()]
    first = {name: root / name / path[1:] for _, names, path in lines for name in names.split(",")}
    if first.keys() >= _CONTROLLERS:
        here = _CONTROLLERS | {name for name in _WELCOME & first.keys() if first[name].is_dir()}
        yield from ((first[name], first[name]) for name in sorted(here))
        return
    home = next((root / path[1:] for number, _, path in lines if number == "0"), root)
    for parent in (home, home.parent):
        if root in (parent, *parent.parents) and set(_handed_on(parent)) >= _CONTROLLERS:
            yield home, parent
            return


def _handed_on(group: Path) -> list[str]:
    try:
        return (group / "cgroup.subtree_control").read_text().split()
    except OSError:
        return []


def _limit(folder: Path, bounds: Bounds) -> None:
    """Both versions' files have names of their own."""
    memory = str(bounds.memory_bytes)
    for name, value in (
        ("memory.limit_in_bytes", memory),
        ("memory.memsw.limit_in_bytes", memory),  # with swap; not every kernel has it
        ("memory.max", memory),
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),
        ("pids.max", str(bounds.processes)),
        ("cpu.shares", "1024"),  # what one process with the usual priority has
        ("cpu.weight", "100"),
    ):
        if (folder / name).exists():
            (folder / name).write_text(value)


def _sweep(parent: Path) -> None:
    """Remove the groups of helpers that were killed."""
    for folder in parent.glob(f"{_PREFIX}*"):
        if not Path("/proc", folder.name.removeprefix(_PREFIX)).exists():
            with suppress(OSError):
                folder.rmdir()
