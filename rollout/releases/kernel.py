"""Three things that Python 3.11 does not ask of the Linux kernel by itself."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_CLONE_NEWNS, _CLONE_NEWIPC = 0x00020000, 0x08000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = (
    442,
    -100,
    0x8000,
    1,
)  # the number is every machine's

NAME = "rollout-tests"  # of a job's user, as it sees itself

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, whatever session it moved to."""
    _done(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def no_new_rights() -> None:
    """From now on no program that we start gains rights: setuid bits (sudo, su, mount) do nothing."""
    _done(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


class _MountAttributes(ctypes.Structure):
    """`struct mount_attr` of Linux 5.12."""

    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("user_namespace", ctypes.c_uint64),
    )


def private_places(user: int, folder: str, home: str, temporary: str) -> None:
    """Let us and what we start write to `folder` alone, with a /tmp, /var/tmp and /dev/shm of our own, and give `user` a name.

    So nothing is left anywhere, and what is written counts as the command's. Without the right to mount, nothing; before
    Linux 5.12 other places that every user may write to (/run/lock) stay so.
    """
    with suppress(OSError):
        _done(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWIPC), "unshare")
        _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
        _mount("tmpfs", "/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1g,mode=1777")  # noqa: S108
        accounts = Path("/dev/shm/passwd")  # noqa: S108  # nobody else sees it yet
        accounts.write_text(Path("/etc/passwd").read_text() + f"{NAME}:x:{user}:{user}::{home}:/bin/sh\n")
        _mount(str(accounts), "/etc/passwd", "", _MS_BIND)
        accounts.unlink()
        _mount(folder, folder, "", _MS_BIND)
        for place in ("/var/tmp", "/tmp"):  # noqa: S108
            _mount(temporary, place, "", _MS_BIND)
        _set_attributes("/", _MountAttributes(set=_MOUNT_ATTR_RDONLY))
        for place in (folder, "/tmp", "/var/tmp", "/dev/shm", "/proc", "/sys"):  # noqa: S108
            _set_attributes(place, _MountAttributes(clear=_MOUNT_ATTR_RDONLY))


def _set_attributes(place: str, attributes: _MountAttributes) -> None:
    """Of this mount and of all below it."""
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    words = (_AT_FDCWD, place.encode(), _AT_RECURSIVE, ctypes.byref(attributes), size)
    _done(_libc.syscall(ctypes.c_long(_MOUNT_SETATTR), *words), f"mount_setattr {place}")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    if Path(target).exists():
        words = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
        _done(_libc.mount(*words), f"mount {target}")


def _done(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
