"""Commands of every kind, contained: real shells, real daemons."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rollout.errors import LeaseLost
from rollout.releases import command, contain
from rollout.releases.workplace import Workplace

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}


def run(line, tree, limit_s=20.0, go_on=lambda: True, **given):
    return command.run(line, Workplace(tree.parent), ENVIRONMENT, limit_s=limit_s, go_on=go_on, **given)


@pytest.fixture
def tree(tmp_path):
    """The folder of a command that runs as the worker's own user."""
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def processes_with(word: str) -> list[int]:
    """The processes that have `word` in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if word.encode() in words and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


@pytest.fixture
def word():
    """A word that only this test's processes have in their arguments; none may be left."""
    unique = f"9{os.getpid()}{time.monotonic_ns() % 10**9}"
    yield unique
    assert processes_with(unique) == []


def test_exit_status_and_output_are_what_the_command_said(tree):
    """Both streams come back in order, and the exit status."""
    ended = run("echo out; echo err >&2; exit 3", tree)
    assert ended.status == 3
    assert ended.output.text() == "out\nerr\n"


def test_command_runs_in_its_folder_with_only_the_given_environment(tree):
    """Nothing of the worker's environment reaches the command."""
    os.environ["ROLLOUT_SECRET_OF_TEST"] = "leak"
    try:
        ended = run("pwd; env", tree)
    finally:
        del os.environ["ROLLOUT_SECRET_OF_TEST"]
    lines = ended.output.text().splitlines()
    assert lines[0] == str(tree)
    assert {line.partition("=")[0] for line in lines[1:]} <= {
        "PATH",
        "HOME",
        "PWD",
        "ROLLOUT_CONTAINED",
        "_",
        "OLDPWD",
        "SHLVL",
    }


def test_standard_input_is_empty(tree):
    """A command that asks gets no answer, at once."""
    assert run("cat; read x || exit 7", tree).status == 7


def test_signals_have_their_usual_meaning(tree):
    """What the worker does with its signals is not inherited."""
    script = textwrap.dedent("""
        import signal, sys
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        from pathlib import Path
        from rollout.releases import command
        from rollout.releases.workplace import Workplace
        ended = command.run("grep -E 'Sig(Blk|Ign)' /proc/self/status", Workplace(Path(sys.argv[1])), {"PATH": "/usr/bin:/bin"},
                            limit_s=20, go_on=lambda: True)
        print(ended.output.text())
    """)
    told = subprocess.run(
        [sys.executable, "-c", script, tree.parent], capture_output=True, text=True, check=True
    ).stdout
    values = {line.split(":")[0]: int(line.split()[1], 16) for line in told.splitlines() if ":" in line}
    standard = (1 << 31) - 1  # the real-time signals above belong to the C library
    assert {name: mask & standard for name, mask in values.items()} == {"SigBlk": 0, "SigIgn": 0}


def test_killed_at_its_limit_with_all_that_it_started(tree, word):
    """A command that ignores TERM and has children is ended whole."""
    ended = run(f"trap '' TERM HUP INT; sleep {word} & sleep {word}", tree, limit_s=0.3)
    assert ended.cut == contain.LATE
    assert ended.status is None


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if sys.argv[2] == "close":
            os.closerange(0, 3)
        if sys.argv[2] == "scrub":
            os.execve("/bin/sleep", ["sleep", sys.argv[1]], {})
        time.sleep(600)
    os._exit(0)
time.sleep(0.2)
"""


@pytest.mark.parametrize("how", ["keep", "close", "scrub"])
def test_daemons_are_found_and_killed(tree, word, how):
    """A daemon that forked twice, in a session of its own, without descriptors or environment, does not stay."""
    (tree / "daemon.py").write_text(DAEMON)
    ended = run(f"{sys.executable} daemon.py {word} {how}; exit 0", tree)
    assert ended.status == 0
    assert processes_with(word) == []


def test_command_that_kills_its_parent_fails_and_leaves_nothing(tree, word):
    """Killing its parent does not set a command free, not even what has scrubbed its environment."""
    ended = run(
        f"env -i sleep {word} & setsid env -i sleep {word} & sleep 0.2; kill -9 $PPID; sleep {word}", tree
    )
    assert ended.status == -9
    assert ended.cut is None


HELPER = "set -- $(cat /proc/$PPID/stat); helper=$4"  # the program above the command's parent


def test_command_that_kills_its_container_leaves_nothing(tree, word):
    """Killing the program that contains it does not set a command free."""
    ended = run(
        f"{HELPER}; sleep {word} & setsid sleep {word} & sleep 0.2; kill -9 $helper; sleep {word}", tree
    )
    assert ended.status is None
    assert ended.cut is None


def test_command_that_stops_its_container_is_ended(tree, word, monkeypatch):
    """A container that was paused by its command is replaced by its worker's own hand."""
    monkeypatch.setattr(command, "_ENDING_S", 0.5)
    ended = run(f"{HELPER}; kill -STOP $helper; sleep {word}", tree, limit_s=0.3)
    assert ended.status is None


def test_gigabytes_of_output_cost_no_memory(tree):
    """Head and tail are kept, and the count of what lay between."""
    ended = run("echo first; head -c 300000000 /dev/zero; echo; echo last", tree)
    text = ended.output.text()
    assert text.startswith("first\n")
    assert text.endswith("last\n")
    assert "bytes left out" in text
    assert len(text) < 200_000


def test_closing_output_and_living_on_changes_nothing(tree):
    """The command is over when it ends, not when its output does."""
    assert run("exec >&- 2>&-; sleep 0.3; exit 5", tree).status == 5


def test_output_of_a_daemon_that_keeps_the_pipe_does_not_hold_the_worker(tree, word):
    """A background process with the output open is no reason to wait."""
    ended = run(f"sleep {word} & echo done", tree)
    assert ended.status == 0
    assert ended.output.text() == "done\n"


def test_cut_off_when_the_lease_is_lost(tree, word):
    """When the worker may not go on, there is no result, and no process."""
    answers = iter([True, True])
    with pytest.raises(LeaseLost):
        run(f"sleep {word}", tree, go_on=lambda: next(answers, False))


def test_an_error_while_asking_ends_the_command(tree, word):
    """Whatever goes wrong in the worker, the command does not go on without it."""

    def broken():
        raise RuntimeError("store is gone")

    with pytest.raises(RuntimeError):
        run(f"sleep {word}", tree, go_on=broken)


def test_death_of_the_worker_ends_the_command(tree, word):
    """After kill -9 of the worker nothing of the command stays."""
    script = f"""
from pathlib import Path
from rollout.releases import command
from rollout.releases.workplace import Workplace
command.run("echo started > started; setsid sleep {word}", Workplace(Path({str(tree.parent)!r})), {{"PATH": "/usr/bin:/bin"}},
            limit_s=60, go_on=lambda: True)
"""
    worker = subprocess.Popen([sys.executable, "-c", script])
    _until(lambda: (tree / "started").exists() and processes_with(word))
    worker.kill()
    worker.wait()
    _until(lambda: not processes_with(word))


def test_fork_bomb_of_bounded_depth_is_ended(tree, word):
    """Processes that multiply are all killed."""
    (tree / "bomb.sh").write_text(
        f'd=$1; [ "$d" = 0 ] && exec sleep {word}\nfor i in 1 2 3; do setsid sh bomb.sh $((d-1)) & done; wait\n'
    )
    assert run("sh bomb.sh 4", tree, limit_s=1.5).cut == contain.LATE


def test_contained_command_works_beside_other_threads(tree):
    """Several at once, from threads: each gets its own result."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda n: run(f"echo {n}; exit {n}", tree), range(4)))
    assert [(e.status, e.output.text()) for e in ended] == [(n, f"{n}\n") for n in range(4)]


def _until(true, seconds=20.0):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "condition not met"
        time.sleep(0.02)
