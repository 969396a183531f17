"""A host of an `Sshd` as a machine: it can lose its power, its disk and its boot id, at an exact moment of host.sh's work.

Each login gets a mount namespace of its own in which this machine's boot id lies over the kernel's. At a power cut every
process of the machine is killed, and every connection to it; while it is off, whoever comes is hung up on.
"""

import contextlib
import os
import shutil
import signal
import uuid
from pathlib import Path

from tests.support.processes import alive, until
from tests.support.sshd import Sshd, SshHost

_LOGIN = """\
if [ -e "$ROOT/.off" ]; then
    echo knock >>"$ROOT/.knocks"
    kill -KILL $PPID
    exit
fi
PATH=$ROOT/.tools:$PATH
export PATH
exec unshare --mount sh -c 'mount --bind "$ROOT/.boot" /proc/sys/kernel/random/boot_id && exec sh -c "$SSH_ORIGINAL_COMMAND"'
"""
_TRAP = """\
#!/bin/sh
case "$*" in {when})
    if tr '\\0' ' ' </proc/$PPID/cmdline | grep -q ' {verb} $' && mkdir "$ROOT/.trap" 2>/dev/null; then
        {first}
        : >"$ROOT/.trapped"
        while :; do sleep 0.05; done
    fi
    ;;
esac
exec {real} "$@"
"""

# Moments of a switch: the tool that is held, for which arguments, and whether it has done its work by then.
BEFORE_INTENT = ("tail", "*journal*", False)
BEFORE_SWITCH = ("mv", "*current*", False)
AFTER_SWITCH = ("mv", "*current*", True)
AFTER_OUTCOME = ("sync", ".rollout/journal", True)  # alone: with the intent its folder is synced too


class Machine:
    """One of the server's hosts. What is its own lies beside its disk, which is `release.path`."""

    def __init__(self, sshd: Sshd, name: str) -> None:
        self.sshd = sshd
        self.host: SshHost = next(host for host in sshd.hosts if host.name == name)
        self.root = self.host.root
        (self.root / ".tools").mkdir(exist_ok=True)
        self._new_boot()
        self.host.login(_LOGIN)

    @property
    def knocks(self) -> int:
        """How often somebody came while it was off."""
        file = self.root / ".knocks"
        return len(file.read_text().splitlines()) if file.exists() else 0

    @property
    def trapped(self) -> bool:
        """host.sh has come to the moment of the trap, and stands still."""
        return (self.root / ".trapped").exists()

    def trap(self, moment: tuple[str, str, bool], verb: str = "activate") -> None:
        """The next operation of that verb stands still at that moment; those after it do not."""
        tool, when, after = moment
        for left in (".trap", ".trapped"):
            path = self.root / left
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        real = shutil.which(tool)
        file = self.root / ".tools" / tool
        first = f'{real} "$@"' if after else ":"
        file.write_text(_TRAP.format(when=when, verb=verb, first=first, real=real))
        file.chmod(0o755)

    def power_off(self) -> None:
        """Everything that runs on it ends at once."""
        (self.root / ".off").touch()
        # All stand still before the first one dies: a parent must not go on with what became of its child.
        until(self._all_stopped, what=f"{self.host.name} to stand still")
        until(self._all_killed, what=f"{self.host.name} to be dead")
        self._new_boot()

    def power_on(self) -> None:
        """It answers again, under another boot id."""
        (self.root / ".off").unlink()

    def reboot(self) -> None:
        """Off and on."""
        self.power_off()
        self.power_on()

    def lose_disk(self) -> None:
        """Its folder is empty, also when its service wrote to its log meanwhile."""
        until(self._emptied, what=f"{self.host.name} to have lost its disk")

    def _emptied(self) -> bool:
        for entry in Path(self.host.path).iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
        return not any(Path(self.host.path).iterdir())

    def _new_boot(self) -> None:
        (self.root / ".boot").write_text(f"{uuid.uuid4()}\n")

    def _all_stopped(self) -> bool:
        pids = self._send(signal.SIGSTOP)
        return all(_state(pid) in "TZX" for pid in pids) and self._processes() <= pids

    def _all_killed(self) -> bool:
        return not any(alive(pid) for pid in self._send(signal.SIGKILL))

    def _send(self, number: signal.Signals) -> set[int]:
        pids = self.sshd.sessions(self.host) | self._processes()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def _processes(self) -> set[int]:
        mark, found = f"ROOT={self.root}".encode(), set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.add(int(entry.name))
        return found


def _state(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"
