"""The command on a real terminal: bars, colours, and Ctrl-C."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.fakes import a_deps, a_rollout

ROOT = Path(__file__).parents[2]


class Terminal:
    """A `rollout` command with a pseudo-terminal as its input and output."""

    def __init__(self, *words, **environment):
        self.mine, theirs = pty.openpty()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ROLLOUT_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rollout", *map(str, words)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            env=clean | {"TERM": "xterm-256color", "COLUMNS": "150"} | environment,
            start_new_session=True,
        )
        os.close(theirs)
        self.text = ""

    def read_until(self, what, seconds=60):
        """Everything it has shown, once `what` is in it (None: until it has ended)."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (what is None or what not in self.text):
            ready, _, _ = select.select([self.mine], [], [], 0.2)
            if not ready:
                continue
            try:
                self.text += os.read(self.mine, 65536).decode()
            except OSError:  # the other end is closed
                break
        assert what is None or what in self.text, self.text[-2000:]
        return self.text

    def end(self):
        """Its exit code."""
        self.read_until(None)
        return self.process.wait(30)


@pytest.fixture
def terminal():
    """Starts commands on terminals; none is left at the end."""
    started = []

    def terminal(*words, **environment):
        started.append(Terminal(*words, **environment))
        return started[-1]

    yield terminal
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        os.close(one.mine)


@pytest.fixture
def deps(tmp_path):
    """A store with one app."""
    made = a_deps(tmp_path)
    yield made
    made.store.close()


def test_watching_shows_bars_and_ctrl_c_ends_it_quietly(terminal, deps):
    """Live progress; Ctrl-C is the normal end: exit 0, no traceback, the cursor is back."""
    a_rollout(deps, hosts={"shop01": "done", "shop02": "failed"})
    watching = terminal("status", "--watch", "--config", deps.config.path)
    shown = watching.read_until("1/4")
    assert "rollout 1 hosts" in shown
    watching.process.send_signal(signal.SIGINT)
    assert watching.end() == 0
    assert "Traceback" not in watching.text
    assert watching.text.rindex("\x1b[?25h") > watching.text.rindex("\x1b[?25l")


def test_ctrl_c_while_waiting_leaves_the_rollout_alone(terminal, deps):
    """The waiting ends with 130 and says that the rollout goes on."""
    rollout = a_rollout(deps, state="halted", hosts={"shop01": "done", "shop02": "failed"})
    waiting = terminal("retry", rollout.id, "--wait", "--config", deps.config.path)
    waiting.read_until("rollout 1 hosts")
    waiting.process.send_signal(signal.SIGINT)
    assert waiting.end() == 130
    assert "goes on" in waiting.text
    assert "Traceback" not in waiting.text
    with deps.store.reading() as tx:
        assert tx.rollouts.get(rollout.id).state == "fanning_out"


def test_colours_are_for_those_who_want_them(terminal, deps):
    """A terminal gets colours; with NO_COLOR it gets none."""
    a_rollout(deps, state="halted", hosts={"shop02": "failed"})
    coloured = terminal("status", "--config", deps.config.path)
    assert coloured.end() == 0
    assert "\x1b[31mhalted\x1b[0m" in coloured.text
    plain = terminal("status", "--config", deps.config.path, NO_COLOR="1")
    assert plain.end() == 0
    assert "\x1b[" not in plain.text


def test_a_reader_that_leaves_is_no_failure_to_talk_about(deps):
    """`rollout … | head`: no traceback when the pipe is closed."""
    a_rollout(deps, state="done")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "rollout", "history", "--config", str(deps.config.path)],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    os.close(writing)
    assert done.stderr == ""
