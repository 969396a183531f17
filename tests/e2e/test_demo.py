"""`rollout demo`, as a person plays it: it exits 0, and nothing of it is left, however it ends."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.processes import marked, until

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.needs("git"), pytest.mark.timeout(400)]


class Demo:
    """A running demo, in a folder of its own for temporary files, by which its processes are found."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder / "temporary"
        self.folder.mkdir()
        self.said = folder / "said"
        with self.said.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rollout", "demo", *words],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self.folder)},
            )

    def wait_for(self, text: str, timeout_s: float = 300) -> None:
        def so() -> bool:
            assert self.process.poll() is None, self.said.read_text()
            return text in self.said.read_text()

        until(so, what=text, timeout_s=timeout_s)

    def gone(self) -> None:
        until(lambda: not marked(str(self.folder)), what="every process has ended", timeout_s=40)


@pytest.fixture
def play():
    """Plays the demo, in a folder with a name that leaves room for a socket; kills whatever is left of it."""
    played = []
    with tempfile.TemporaryDirectory(prefix="test-demo-", ignore_cleanup_errors=True) as folder:

        def run(*words: str) -> Demo:
            played.append(Demo(Path(folder), *words))
            return played[-1]

        yield run
        for each in played:
            for pid in marked(str(each.folder)):
                os.kill(pid, signal.SIGKILL)
            each.process.wait()


@pytest.mark.faults  # all four; the next one plays the first two
def test_each_of_the_four_commits_ends_as_it_must(play) -> None:
    """The demo exits 0, says "as it must" four times and never the opposite, and leaves neither process nor file."""
    demo = play()
    assert demo.process.wait(300) == 0, demo.said.read_text()
    said = demo.said.read_text()
    assert said.count(": as it must") == 4
    assert "NOT" not in said
    assert said.count("127.") >= 12
    assert marked(str(demo.folder)) == []
    assert list(demo.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("sign", "when"),
    [
        pytest.param(signal.SIGINT, "✓ its tests failed; no host has heard of it", id="INT"),
        pytest.param(signal.SIGTERM, "the canary answers real traffic", marks=pytest.mark.faults, id="TERM"),
    ],
)
def test_ctrl_c_ends_it_without_a_trace(play, sign, when) -> None:
    """INT when two of its commits have ended as they must, or TERM in the first rollout: 130, and neither process nor file is left."""
    demo = play()
    demo.wait_for(when)
    demo.process.send_signal(sign)
    assert demo.process.wait(90) == 130, demo.said.read_text()
    assert "✗" not in demo.said.read_text()
    assert marked(str(demo.folder)) == []
    assert list(demo.folder.iterdir()) == []


@pytest.mark.faults  # a tree of small programs that is killed so is test_supervisor_tree's
def test_kill_9_leaves_no_process(play) -> None:
    """After kill -9 of what the person started no process is left."""
    demo = play()
    demo.wait_for("the canary answers real traffic")
    demo.process.kill()
    demo.gone()
