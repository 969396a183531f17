"""What a worker without rights does, tried by root too."""

import os
import shutil
import sys
import tempfile
import traceback
from contextlib import contextmanager
from pathlib import Path

NOBODY = 60_600 + os.getpid() % 100  # a number without an account, and rarely that of a test beside us
PROGRAMS = "/usr/local/bin:/usr/bin:/bin"  # root's own Python may be out of their reach


@contextmanager
def folder_of_nobody():
    """A folder that whoever `as_nobody` runs as can reach and owns (pytest's are closed to others)."""
    folder = Path(tempfile.mkdtemp(prefix="rollout-nobody-"))
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def as_nobody(do):
    """Call `do` in a forked process without rights, in a session of its own; whether it went well."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setsid()
            if os.geteuid() == 0:
                sys.executable = shutil.which("python3", path=PROGRAMS) or sys.executable
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            do()
            status = 0
        except BaseException:  # noqa: BLE001  # whatever it is, it must not run on in pytest's code
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
