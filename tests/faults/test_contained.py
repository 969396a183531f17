"""The largest harm that a test command can do, and what it costs everybody else."""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path

import pytest

from rollout.releases import command, usage
from rollout.releases.limits import GIB, Bounds
from rollout.releases.workplace import FIRST_USER, JOBS, Workplace
from tests.e2e.test_stop import SLOW_RESTART
from tests.support.system import System, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

FLOOD = """
import sys
from pathlib import Path
from rollout.releases import command
from rollout.releases.workplace import Workplace
ended = command.run("head -c 10G /dev/zero; echo last", Workplace(Path(sys.argv[1])), {"PATH": "/usr/bin:/bin"},
                    limit_s=600, go_on=lambda: True)
assert ended.status == 0, ended
assert ended.output.text().endswith("last\\n")
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]), int(status["Threads"]))
"""


def test_ten_gigabytes_of_output_cost_a_worker_nothing(tmp_path, figures):
    """A worker that reads 10 GB from a test command stays below 64 MB of memory, with one thread."""
    (tmp_path / "tree").mkdir()
    told = subprocess.run([sys.executable, "-c", FLOOD, tmp_path], capture_output=True, text=True, check=True)
    kilobytes, threads = map(int, told.stdout.split())
    figures(test="10 GB of output", memory_kB=kilobytes)
    assert kilobytes < 64 * 1024
    assert threads == 1


def test_disk_is_bounded_by_default(tmp_path):
    """With the bounds that everybody has, files of 24 GiB in all end the command."""
    (tmp_path / "tree").mkdir()
    place = Workplace(tmp_path)
    ended = command.run(
        "for i in 1 2 3; do fallocate -l 8G $i || exit 9; done; sleep 60",
        place,
        {"PATH": os.environ["PATH"]},
        limit_s=90,
        go_on=lambda: True,
    )
    assert ended.cut == usage.DISK, asdict(Bounds())
    assert Bounds().disk_bytes < 24 * GIB


MANY = 100  # busy processes, on few processors

HOSTILE = """\
trap '' TERM HUP INT
(while :; do head -c 1G /dev/zero; done) &
(while :; do cat /dev/zero > big; done) &
while :; do (while :; do :; done) & done 2>/dev/null
"""


def burning():
    """How many processes the users of jobs have."""
    found = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                found += FIRST_USER <= entry.stat().st_uid < FIRST_USER + JOBS
    return found


@pytest.mark.needs("root", "sshd", "git")
def test_a_stop_is_acknowledged_while_a_hostile_commit_is_tested(figures):
    """With hundreds of busy processes, output and files without end, every leased host is sealed and none is unconfirmed."""
    with System(hosts=20, fan_out="max_failed = 1\nconcurrency = 4", deadline="5m") as system:
        good = system.push("good")
        system.reaches(good, "done")
        slow = system.push("slow to restart", restart_sh=SLOW_RESTART.replace("sleep 3", "sleep 8"))
        system.reaches(slow, "fanning_out")
        hostile = system.push("means harm", tests_sh=HOSTILE)
        wait_for(lambda: burning() >= MANY, seconds=60, why="the hostile tests to multiply")
        asked = time.monotonic()
        code, stopped = system.rollout("stop", "--reason", "enough", timeout=300)
        figures(test="stop while a hostile commit is tested", answered_s=round(time.monotonic() - asked, 1))
        assert code == 0
        assert stopped["unconfirmed"] == []
        assert burning() >= MANY, "the hostile tests must have run all the time"
        system.reaches(slow, "rolled_back", seconds=300)
        assert set(system.disks().values()) == {good}
        wait_for(
            lambda: commit_state(system, hostile) == "failed", seconds=300, every=1, why="the tests' end"
        )
        assert burning() == 0
        assert not list(Path("/var/lib/rollout-tests").glob("job-*/tree"))


def commit_state(system, sha):
    """The state of a commit."""
    with closing(sqlite3.connect(f"file:{system.folder}/state/rollout.db?mode=ro", uri=True)) as database:
        return database.execute("select state from commits where sha = ?", [sha]).fetchone()[0]
