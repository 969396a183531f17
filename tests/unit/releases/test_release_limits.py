"""The bounds of a command, and what the documentation says of them."""

import os
from pathlib import Path

import pytest

from rollout.releases.limits import GIB, OUTPUT_HALF, Bounds
from rollout.releases.workplace import FIRST_USER, JOBS, ROOM_FOR_USERS

PAGE = (Path(__file__).parents[3] / "docs/containment.md").read_text()


@pytest.mark.parametrize(
    "stated",
    [
        f"| {Bounds().processes:,} (of the whole user",
        f"| {Bounds().disk_bytes // GIB} GiB or {Bounds().disk_entries:,} entries",
        f"| {Bounds().file_bytes // GIB} GiB | `RLIMIT_FSIZE`",
        f"| {Bounds().free_bytes // 1024**2} MiB stay free",
        f"last {OUTPUT_HALF // 1024} KiB",
        f"from {FIRST_USER} to {FIRST_USER + JOBS - 1} ",
        f"`{ROOM_FOR_USERS}/job-N`",
    ],
)
def test_page_states_the_bounds_that_are_kept(stated):
    """docs/containment.md has every default as it is in the code."""
    assert stated in PAGE


def test_memory_is_half_of_the_machines():
    """A command may have half of the memory, whatever the machine has."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert Bounds().memory_bytes == machine // 2
