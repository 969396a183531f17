"""One supervisor per state directory: a lock that the kernel gives back, however its holder ends."""

import fcntl
import os
from pathlib import Path

from rollout.errors import Conflict


def hold(state_dir: Path) -> int:
    """Take the state directory for this process and its forks; Conflict, with the holder's pid, when it is taken.

    Returns the descriptor that holds it; it is not passed on to started programs.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = state_dir / "up.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise Conflict(
            f"another `rollout up` uses {state_dir} (process {holder or 'unknown'})",
            remedy=f"end it (kill {holder or 'its process'}), or set [server] state_dir to another folder",
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
