"""Crashpoints: off without their variable, and then free; armed, exactly one process dies, once."""

import os
import signal
import subprocess
import sys

from rollout import crashpoints

TWICE = """
from rollout import crashpoints
with crashpoints.stage("tests"):
    crashpoints.reach("after-tests")
print("alive")
"""


def start(folder):
    environment = {"PATH": os.environ["PATH"], "ROLLOUT_CRASHPOINTS": str(folder)}
    return subprocess.run([sys.executable, "-c", TWICE], env=environment, capture_output=True, text=True)


def test_exactly_one_process_dies_and_leaves_its_name(tmp_path):
    """The first that reaches an armed point is killed there; the second one lives."""
    (tmp_path / "tests.after-tests").write_text("kill")
    first, second = start(tmp_path), start(tmp_path)
    assert first.returncode == -signal.SIGKILL
    assert first.stdout == ""
    assert second.stdout == "alive\n"
    assert [file.name.rpartition(".")[0] for file in tmp_path.iterdir()] == ["tests.after-tests"]


def test_another_stage_is_not_meant(tmp_path):
    """A point that is armed for one stage does nothing in another."""
    (tmp_path / "plan.after-tests").write_text("kill")
    assert start(tmp_path).stdout == "alive\n"


def test_off_it_is_nothing(tmp_path, monkeypatch):
    """Without the variable a decorated function is itself, and a point looks at no file."""
    (tmp_path / "tests.after-tests").write_text("kill")
    monkeypatch.chdir(tmp_path)

    def work():
        crashpoints.reach("after-tests")

    assert crashpoints.stage("tests")(work) is work
    work()
