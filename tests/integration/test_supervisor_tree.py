"""The process tree with small real programs: restarts, endings, and nothing left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from rollout.supervisor.descendants import children
from tests.support.processes import alive, marked, until

TREE = """
import sys
from pathlib import Path
from rollout.supervisor import lock
from rollout.supervisor.guardian import guarded
from rollout.supervisor.part import Part
from rollout.supervisor.tree import Supervisor

folder = Path(sys.argv[1])
say = lambda line: print(line, flush=True)
lock.hold(folder)
parts = [Part(p.stem, (sys.executable, "-u", str(p)), first=p.stem == "broker") for p in sorted(folder.glob("*.py"))]

def supervise():
    Supervisor(parts, folder / "log", say, when_ready=lambda: say("ready"), end_s=float(sys.argv[2])).run()
    return 0

sys.exit(guarded(supervise))
"""

STEADY = "import time\nprint('here')\nwhile True: time.sleep(0.1)\n"
STUBBORN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('here')\nwhile True: time.sleep(0.1)\n"
PREFORK = """
import os, time
for _ in range(2):
    if os.fork() == 0:
        break
else:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            print('daemon', os.getpid())
        else:
            os._exit(0)
print('here')
while True: time.sleep(0.1)
"""
FAILING = "import sys\nprint('no luck today')\nsys.exit(3)\n"


class Tree:
    """A supervised tree of the given programs, and how to find its processes again."""

    def __init__(self, folder: Path, programs: dict[str, str], end_s: float = 5) -> None:
        for name, text in programs.items():
            (folder / f"{name}.py").write_text(text)
        self.folder = folder
        self.mark = f"ROLLOUT_TEST_{uuid.uuid4().hex}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", TREE, str(folder), str(end_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "ROLLOUT_TEST_MARK": self.mark},
        )

    def log(self, name: str) -> str:
        path = self.folder / "log" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def wait_for(self, name: str, text: str, times: int = 1) -> None:
        until(lambda: self.log(name).count(text) >= times, what=f"{text!r} in the log of {name}")

    def all_pids(self) -> list[int]:
        return marked(self.mark)

    @property
    def supervisor(self) -> int:
        until(lambda: children(self.process.pid), what="a supervisor below the guardian")
        return children(self.process.pid)[0]

    def gone(self) -> None:
        until(lambda: not self.all_pids(), what="every process has ended", timeout_s=20)


@pytest.fixture
def tree(tmp_path):
    """Starts trees of programs given as name=text; kills whatever is left of them."""
    trees = []

    def start(end_s: float = 5, **programs: str) -> Tree:
        trees.append(Tree(tmp_path, programs, end_s))
        return trees[-1]

    yield start
    for each in trees:
        for pid in each.all_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        each.process.communicate()


def test_term_ends_everything_and_says_so(tree) -> None:
    """TERM to what the user started ends every part, forked and detached processes too; exit status 0."""
    running = tree(broker=STEADY, worker=PREFORK)
    running.wait_for("worker", "here", 4)
    running.process.terminate()
    said, _ = running.process.communicate(timeout=20)
    assert running.process.returncode == 0
    assert said.splitlines()[-1] == "ended"
    assert running.all_pids() == []


def test_ctrl_c_in_a_terminal_ends_everything(tree) -> None:
    """INT ends the tree as TERM does."""
    running = tree(worker=PREFORK)
    running.wait_for("worker", "here", 4)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(20) == 0
    assert running.all_pids() == []


def test_who_ignores_term_is_killed_and_named(tree) -> None:
    """A part that does not end by the deadline is killed, and the last line names it."""
    running = tree(end_s=0.3, stubborn=STUBBORN)
    running.wait_for("stubborn", "here")
    running.process.terminate()
    said, _ = running.process.communicate(timeout=20)
    assert "had to be killed: stubborn" in said
    assert running.all_pids() == []


@pytest.mark.parametrize("victim", ["guardian", "supervisor"])
def test_kill_9_leaves_nothing(tree, victim) -> None:
    """After kill -9 of the guardian or of the supervisor no process is left, not even a detached grandchild."""
    running = tree(broker=STEADY, worker=PREFORK)
    running.wait_for("worker", "here", 4)
    assert len(running.all_pids()) >= 7
    os.kill(running.process.pid if victim == "guardian" else running.supervisor, signal.SIGKILL)
    running.gone()


def test_what_dies_is_restarted_and_its_children_with_it(tree) -> None:
    """A killed part comes back after a second as a new process, and what it had started is gone."""
    running = tree(worker=PREFORK)
    running.wait_for("worker", "here", 4)
    before = set(running.all_pids()) - {running.process.pid, running.supervisor}
    main = children(running.supervisor)[0]
    os.kill(main, signal.SIGKILL)
    running.wait_for("worker", "here", 8)
    assert not any(alive(pid) for pid in before)


def test_a_failing_part_is_told_with_its_last_words(tree) -> None:
    """A part that ends at once is reported with its exit status, its last words and its log, and tried again later."""
    running = tree(web=FAILING)
    running.wait_for("web", "no luck today", 3)  # so it has told of the second end, too
    running.process.terminate()
    said, _ = running.process.communicate(timeout=20)
    assert "web ended (exit status 3); it starts again in 1 s" in said
    assert "it starts again in 2 s" in said
    assert "    no luck today" in said


def test_a_second_tree_on_the_same_folder_is_refused(tree, tmp_path) -> None:
    """While one tree runs, a second one on its folder ends with a Conflict that names the first one's process."""
    running = tree(worker=STEADY)
    running.wait_for("worker", "here")
    second = subprocess.run(
        [sys.executable, "-c", TREE, str(tmp_path), "1"], capture_output=True, text=True, timeout=20
    )
    assert second.returncode == 1
    assert f"another `rollout up` uses {tmp_path} (process {running.process.pid})" in second.stderr


def test_the_lock_of_a_killed_tree_does_not_block(tree) -> None:
    """After kill -9 the next tree starts on the same folder, whatever the lock file still says."""
    first = tree(worker=STEADY)
    first.wait_for("worker", "here")
    os.kill(first.supervisor, signal.SIGKILL)
    first.gone()
    second = tree(worker=STEADY)
    second.wait_for("worker", "here", 2)
    assert second.process.poll() is None
