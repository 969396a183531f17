"""How big, how many, how long: every bound of this room in one place."""

import os
from dataclasses import dataclass, field

GIB = 1024**3

MAX_FILES = 200_000  # in a checkout or a release, links included
MAX_BYTES = 4 * GIB  # of their contents
OUTPUT_HALF = 64 * 1024  # bytes kept of a command's output, at its head and at its tail alike
MESSAGE_BYTES = 4 * 1024  # of a commit message, and as many of its middle: see `selection.shorten`
KEPT_ARCHIVES = 20  # newest, per app
KEPT_DELTAS = 20  # newest, per app; each at most half of its archive

REMOTE_LIMIT_S = 20.0  # one question to the git server
FETCH_LIMIT_S = 900.0  # the first fetch brings the whole history
PULL_LIMIT_S = 120.0  # the head of a pull request: what strangers push holds up the others no longer
# Then one that took longer is tried again, as it may have been the server; twice as long each time, up to the second.
LATE_PULL_S, LATEST_PULL_S = 300.0, 3600.0
LOCAL_LIMIT_S = 120.0  # git on the mirror
EXPORT_LIMIT_S = 600.0
DELTA_WAIT_S = 60.0  # for the one who makes it; then hosts get the whole archive


def _half_of_the_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a test or build command may use, with all that it starts (docs/containment.md)."""

    file_bytes: int = 8 * GIB  # in one file
    processes: int = 4096  # and threads, of the user it runs as
    memory_bytes: int = field(default_factory=_half_of_the_memory)
    disk_bytes: int = 16 * GIB  # in its folders, and never more than half of what is free when it starts
    disk_entries: int = 1_000_000  # the same of files, folders and links
    free_bytes: int = GIB // 4  # what must stay free on that disk, whoever fills it
