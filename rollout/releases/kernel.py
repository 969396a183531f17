"""Three things that Python 3.11 does not ask of the Linux kernel by itself."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_CLONE_NEWNS, _CLONE_NEWIPC = 0x00020000, 0x08000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18

NAME = "rollout-tests"  # of a job's user, as it sees itself

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, whatever session it moved to."""
    _done(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def no_new_rights() -> None:
    """From now on no program that we start gains rights: setuid bits (sudo, su, mount) do nothing."""
    _done(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def private_places(user: int, home: str, temporary: str) -> None:
    """Give us and what we start a /tmp, /var/tmp and /dev/shm of our own, and `user` a name; without the right to mount, nothing.

    They are where every user may write: so nothing is left there, and what is written counts as the command's.
    """
    with suppress(OSError):
        _done(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWIPC), "unshare")
        _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
        _mount("tmpfs", "/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1g,mode=1777")  # noqa: S108
        accounts = Path("/dev/shm/passwd")  # noqa: S108  # nobody else sees it yet
        accounts.write_text(Path("/etc/passwd").read_text() + f"{NAME}:x:{user}:{user}::{home}:/bin/sh\n")
        _mount(str(accounts), "/etc/passwd", "", _MS_BIND)
        accounts.unlink()
        for folder in ("/var/tmp", "/tmp"):  # noqa: S108
            _mount(temporary, folder, "", _MS_BIND)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    if Path(target).exists():
        words = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
        _done(_libc.mount(*words), f"mount {target}")


def _done(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
