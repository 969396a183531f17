"""A process that stands still in the middle of a transaction on SQLite holds nobody up for long."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rollout.errors import ServiceUnavailable
from rollout.store import frozen, store
from tests.support.processes import alive, until

IN_A_TRANSACTION = """
import sys, time
from rollout.store.store import Store
with Store(sys.argv[1]).transaction() as tx:
    print("inside", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def opened(tmp_path):
    """A store, and a program of ours that is in the middle of a transaction on it."""
    url = f"sqlite:///{tmp_path}/rollout.db"
    mine = store.Store(url)
    mine.prepare()
    writer = subprocess.Popen(
        [sys.executable, "-c", IN_A_TRANSACTION, url], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout.readline() == "inside\n"
        yield mine, writer
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
        mine.close()


def test_a_frozen_writer_of_ours_is_ended(opened):
    """SIGSTOP inside a transaction: the next writer ends that process, and goes on."""
    mine, writer = opened
    os.kill(writer.pid, signal.SIGSTOP)
    with mine.transaction() as tx:
        assert tx.now() > 0
    until(lambda: not alive(writer.pid), what="the frozen writer to be dead")
    assert writer.wait(10) == -signal.SIGKILL


def test_a_writer_that_runs_is_named_and_left_alone(opened, monkeypatch, tmp_path):
    """Somebody who only takes long is nobody's to kill: the error says which process it is and what to do."""
    mine, writer = opened
    monkeypatch.setattr(store, "BUSY_S", 0.1)
    with pytest.raises(ServiceUnavailable, match=f"process {writer.pid} .*rollout") as told:
        with mine.transaction():
            pass
    assert f"kill {writer.pid}" in told.value.remedy
    assert alive(writer.pid)


def test_a_frozen_stranger_is_left_alone(opened):
    """Only our own processes are ended: another program that was stopped is somebody's at a keyboard."""
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        os.kill(stranger.pid, signal.SIGSTOP)
        until(
            lambda: b") T " in Path(f"/proc/{stranger.pid}/stat").read_bytes(),
            what="the stranger to stand still",
        )
        assert not frozen.end_if_frozen(stranger.pid)
        assert alive(stranger.pid)
    finally:
        stranger.kill()
        stranger.wait()
