"""A fleet whose hosts are this machine: `read` runs the program in a real shell, with chosen tools and a chosen clock."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rollout.domain.model import Target

TOOLS = ("stat", "tail", "head", "find", "tr", "wc", "cat")


def a_target(name: str = "web001") -> Target:
    return Target(
        name=name,
        address="127.0.0.1",
        port=22,
        user="deploy",
        path="/srv/shop",
        identity_file=None,
        known_hosts="",
    )


class LocalFleet:
    """Only what metric sources use of a fleet."""

    def __init__(
        self,
        folder: Path,
        shell: Sequence[str],
        awk: Sequence[str],
        box: str | None = None,
        more: Sequence[str] = (),
    ) -> None:
        self._shell = list(shell)
        self._tools = folder / "tools"
        self._tools.mkdir()
        self._clock = folder / "clock"
        self.now = 1_800_000_000  # the true time
        self.step = 0  # how far the host's own clock is from it
        self.booted = self.now - 10_000
        for name in (*TOOLS, *more):
            (self._tools / name).symlink_to(box or shutil.which(name))
        self._fake("cat", "echo $up.42 1.00")
        self._fake("date", "echo $now")
        self._script("awk", " ".join(awk))

    def _fake(self, name: str, line: str) -> None:
        (self._tools / name).unlink(missing_ok=True)
        (self._tools / name).write_text(f"#!/bin/sh\nread now up < {self._clock}\n{line}\n")
        (self._tools / name).chmod(0o755)

    def _script(self, name: str, line: str) -> None:
        (self._tools / name).write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        (self._tools / name).chmod(0o755)

    def read(self, target: Target, program: str, lines: Sequence[str], *, timeout_s: float) -> str:
        self._clock.write_text(f"{self.now + self.step} {self.now - self.booted}\n")
        done = subprocess.run(
            [*self._shell, "-c", program],
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={"PATH": str(self._tools)},
            check=False,
        )
        assert done.stderr == "", done.stderr
        return f"Last login: yesterday\n{done.stdout}"
