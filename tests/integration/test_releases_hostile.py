"""Commits whose test command means harm, one repository for each: what it costs us, and that nothing of it stays."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.releases import processes
from rollout.releases.limits import Bounds
from rollout.releases.workplace import FIRST_USER, JOBS
from rollout.releases.workshop import GitWorkshop
from tests.support.nobody import PROGRAMS, as_nobody, folder_of_nobody
from tests.support.sources import Source, an_app

pytestmark = pytest.mark.needs("git")
MIB = 1024**2
MOUNTS = pytest.mark.skipif(
    os.system("unshare --mount true 2>/dev/null") != 0, reason="needs the right to mount"
)
SMALL = Bounds(processes=600, memory_bytes=250 * MIB, disk_bytes=50 * MIB, disk_entries=800)


@contextmanager
def attempts(folder):
    """A function that runs a command as the tests of a commit with these files, and says what came of it."""
    source = Source(folder / "source")
    workshop = GitWorkshop(folder / "state", bounds=SMALL)

    def run(command, files=None, timeout="20s"):
        commit = source.commit({"a": "", **(files or {})})
        config = an_app(source.path, tests=command, timeout=timeout)
        workshop.fetch("shop", config)
        return workshop.run_tests("shop", config, commit, go_on=lambda: True)

    yield run
    assert [path for path in (folder / "state/work").glob("job-*") if path.is_dir()] == []


@pytest.fixture
def attempt(tmp_path):
    with attempts(tmp_path) as run:
        yield run


def _arguments(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def word():
    """A word that only this test's processes have in their arguments; none may be left."""
    unique = f"9{os.getpid()}{time.monotonic_ns() % 10**9}"
    yield unique
    assert with_word(unique) == []


def with_word(word):
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if word.encode() in _arguments(pid) and pid != os.getpid()]


DAEMONS = """
(setsid sh -c 'setsid sleep {word} & trap "" TERM HUP; sleep {word}' &) &
(exec >&- 2>&- <&-; cd /; setsid env -i sleep {word} &) &
(kill -9 $PPID; kill -STOP $PPID; setsid sleep {word} &) 2>/dev/null
"""


def test_daemons_of_every_kind_are_gone(attempt, word):
    """Forked twice, in sessions of their own, deaf to TERM, without environment or output, after killing a parent: all end."""
    result = attempt(DAEMONS.format(word=word) + "sleep 0.3; exit 0")
    assert result.passed == (
        os.geteuid() == 0
    )  # a worker that is not root cannot save its helper from the command


HOPPER = """
import os, sys
while True:
    if os.fork():
        os._exit(0)
    os.setsid()
"""


def test_process_that_is_never_where_one_looks_is_gone(attempt, word):
    """A process that forks and exits without end, in a new session each time, is caught."""
    result = attempt(f"python3 hop.py {word} & sleep 0.3; exit 0", {"hop.py": HOPPER})
    assert result.passed


def test_fork_bomb_is_gone(attempt, word):
    """Whatever multiplies, all of it ends at the time limit."""
    result = attempt(f"f() {{ (exec sleep {word}) & f | f & }}; f; sleep {word}", timeout="500ms")
    assert result.reason == "killed after 0.5 s"


MANY = "for i in $(seq 700); do sleep {word} & done; echo all of them"


def test_processes_are_bounded(attempt, word):
    """A command cannot have more processes than its bound, and all of them end."""
    result = attempt(MANY.format(word=word))
    assert "fork" in result.output  # what a shell says when it cannot
    assert not result.passed


def test_memory_is_bounded(attempt):
    """A command that takes memory without end is ended, and the reason says so."""
    result = attempt("head -c 3G /dev/zero | tail -c 3G >/dev/null")
    assert result.reason == "killed: used more than 0.2 GiB of memory"


def test_memory_of_many_processes_counts_together(attempt):
    """Each of them is small; together they are above the bound."""
    eater = "import time; x = b'x' * 30_000_000; time.sleep(60)"
    result = attempt("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do python3 eat.py & done; wait", {"eat.py": eater})
    assert result.reason == "killed: used more than 0.2 GiB of memory"


HIDDEN = """
import os
file = os.memfd_create("hidden")
for _ in range(400):
    os.write(file, bytes(1024 * 1024))
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/sys/fs/cgroup/memory/cgroup.procs", os.W_OK),
    reason="needs control groups, version 1",
)
def test_memory_that_no_process_has_mapped_counts_too(attempt):
    """Where a control group can be made, the kernel counts what no look at processes sees."""
    result = attempt("python3 hide.py", {"hide.py": HIDDEN})
    assert result.reason == "killed: used more than 0.2 GiB of memory"


def test_memory_that_is_shared_counts_once(attempt):
    """Forks of a big process are no reason to end it."""
    forks = "import os, time\nx = b'x' * 80_000_000\n[os.fork() for _ in range(3)]\ntime.sleep(0.8)\n"
    assert attempt("python3 fork.py", {"fork.py": forks}).passed


FULL = "killed: used more than 0.0 GiB or 800 files of disk, or half of what was free"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("cat /dev/zero > big", id="one file"),
        pytest.param("while :; do head -c 1M /dev/zero > f$((i=i+1)); done", id="many files"),
        pytest.param("while :; do : > f$((i=i+1)); done", id="empty files"),
        pytest.param("mkdir $HOME/d; cat /dev/zero > $HOME/d/big", id="in its home"),
        pytest.param("cat /dev/zero > $TMPDIR/big", id="in its TMPDIR"),
        pytest.param("cat /dev/zero > /tmp/hostile-$ROLLOUT_COMMIT", id="in tmp", marks=MOUNTS),
    ],
)
def test_disk_is_bounded(attempt, command):
    """A command that fills the disk, wherever it may write, is ended, and the reason says so."""
    result = attempt(command)
    assert result.reason == FULL


def test_full_disk_is_no_fault_of_the_commit(tmp_path):
    """When somebody else fills the disk, the run ends as one that could not be made, not as a failed one."""
    from rollout.errors import ServiceUnavailable

    source = Source(tmp_path / "source")
    commit = source.commit({"a": ""})
    workshop = GitWorkshop(tmp_path / "state", bounds=replace(SMALL, free_bytes=2**60))
    config = an_app(source.path, tests="sleep 60")
    workshop.fetch("shop", config)
    with pytest.raises(ServiceUnavailable, match="almost full"):
        workshop.run_tests("shop", config, commit, go_on=lambda: True)


ODD = """
mkdir -p sealed/inside deep; touch sealed/inside/file; mkfifo pipe; ln -s / root; ln -s .. up
cp /bin/sh setuid; chmod 6755 setuid; chmod 0 sealed/inside; chmod 0 sealed .. ../home; : > "$(printf 'a\\nb')"
"""


def test_whatever_it_leaves_is_removed(attempt, tmp_path):
    """Sealed folders, pipes, links to the root and odd names go with the job; what links point at stays."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state/kept").touch()
    assert attempt(ODD).passed
    assert (tmp_path / "state/kept").exists()
    assert Path("/bin/sh").exists()


PROBE = """
import ctypes, json, os, signal, socket, sys
given = json.loads(sys.argv[1])
done = []
def attempt(what, do):
    try:
        do()
    except OSError:
        return
    done.append(what)
for path in given["secret"]:
    attempt("read " + path, lambda: open(path).read(1))
    attempt("append to " + path, lambda: open(path, "a"))
for path in given["folders"]:
    attempt("list " + path, lambda: os.listdir(path))
    attempt("write into " + path, lambda: open(path + "/planted", "w"))
for pid in [given["worker"], os.getppid(), os.getsid(0)]:
    if os.stat(f"/proc/{pid}").st_uid != os.getuid():
        attempt(f"signal {pid}", lambda: os.kill(pid, signal.SIGCONT))
        attempt(f"read the environment of {pid}", lambda: open(f"/proc/{pid}/environ").read(1))
        attempt(f"see the files of {pid}", lambda: os.listdir(f"/proc/{pid}/fd"))
        ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        if ptrace(16, pid, None, None) == 0:
            done.append(f"trace {pid}")
attempt("connect to the broker", lambda: socket.socket(socket.AF_UNIX).connect(given["broker"]))
attempt("become root", lambda: os.setuid(0))
attempt("mount", lambda: os.chroot("/"))
print("\\n".join(done))
"""


@pytest.fixture
def seen_by_all():
    """A folder that every user can reach, also one with a /tmp of its own."""
    folder = Path(tempfile.mkdtemp(prefix="rollout-probe-", dir="/var/lib"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.needs("root")
def test_nothing_of_the_worker_can_be_read_or_touched(seen_by_all):
    """Database, secrets, keys, mirror, releases, the broker's socket and the worker's process are out of its reach."""
    state = seen_by_all / "state"
    secret = [state / "rollout.db", state / "api.token", seen_by_all / "id_ed25519", Path("/etc/shadow")]
    given = {
        "secret": [str(path) for path in [*secret, state / "mirrors/shop.git/HEAD"]],
        "folders": [str(path) for path in (state, state / "mirrors/shop.git", state / "work", "/root")],
        "worker": os.getpid(),
        "broker": str(state / "broker.sock"),
    }
    with attempts(seen_by_all) as attempt, socket.socket(socket.AF_UNIX) as broker:
        attempt("true")  # there is a mirror now
        state.chmod(0o755)
        for path in secret[:3]:
            path.write_text("secret")
            path.chmod(0o644 if path.parent == state else 0o600)
        broker.bind(given["broker"])
        broker.listen()
        Path(given["broker"]).chmod(0o777)
        result = attempt(f"python3 probe.py '{json.dumps(given)}'", {"probe.py": PROBE})
    assert result.passed, result.output
    assert result.output.strip() == ""


@pytest.mark.needs("root")
def test_it_has_no_rights_and_gains_none(attempt):
    """It runs as a user of its own, in no group of ours, without capabilities, and setuid programs do not help."""
    result = attempt("id -u; id -G; grep -E '^(CapEff|CapPrm|NoNewPrivs)' /proc/self/status")
    user, groups, *facts = result.output.splitlines()
    assert FIRST_USER <= int(user) < FIRST_USER + JOBS
    assert groups == user
    assert [line.split()[1].strip("0") for line in facts] == ["", "", "1"]


@MOUNTS
def test_its_user_has_a_name_and_places_of_its_own(attempt, word):
    """Its user has a name and a home as programs ask for them, and nothing that it puts where all may write stays."""
    shared = ("/tmp", "/var/tmp", "/dev/shm")
    put = " && ".join(f": > {folder}/{word}" for folder in shared)
    result = attempt(f"{put} && whoami && test ~rollout-tests = $HOME && test ! -w /etc/passwd")
    assert (result.passed, result.output) == (True, "rollout-tests\n")
    assert not any(Path(folder, word).exists() for folder in shared)
    assert "rollout-tests" not in Path("/etc/passwd").read_text()


@MOUNTS
def test_nothing_outside_its_folder_takes_what_it_writes(attempt, word):
    """A place that every user may write to, wherever it is, would keep what a job leaves, and count it for nobody."""
    with tempfile.TemporaryDirectory(dir="/var/lib") as anybodys:
        Path(anybodys).chmod(0o1777)
        places = (anybodys, "/run/lock", "/dev/mqueue")
        put = "; ".join(f"head -c 9 /dev/zero > {place}/{word}" for place in places)
        result = attempt(f"{put}; echo > $HOME/{word} && echo > /tmp/{word} && echo > /dev/null && echo fine")
        assert (result.passed, result.output.splitlines()[-1]) == (True, "fine")
        assert not any(Path(place, word).exists() for place in places)


def test_its_environment_is_what_we_say(attempt, monkeypatch):
    """No secret, no address, no agent and no credential of the worker is in it, whatever the worker has."""
    leaks = (
        "ROLLOUT_BROKER",
        "ROLLOUT_DATABASE",
        "SSH_AUTH_SOCK",
        "AWS_SECRET_ACCESS_KEY",
        "HTTPS_PROXY",
        "XDG_RUNTIME_DIR",
    )
    for name in leaks:
        monkeypatch.setenv(name, "leaked")
    result = attempt("env | sort")
    names = {line.partition("=")[0] for line in result.output.splitlines()}
    assert "leaked" not in result.output
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {
        "CI", "GIT_CEILING_DIRECTORIES", "HOME", "LANG", "PATH", "ROLLOUT_APP", "ROLLOUT_COMMIT", "ROLLOUT_CONTAINED", "TMPDIR",
    }  # fmt: skip


@pytest.mark.needs("root")
def test_build_cannot_make_us_write_or_pack_what_is_not_its_own(tmp_path):
    """A link where we would write is not followed, and a file of somebody else in the tree makes no release."""
    source, workshop = Source(tmp_path / "source"), GitWorkshop(tmp_path / "state", bounds=SMALL)
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    commit = source.commit({"a": ""})
    config = an_app(
        source.path,
        build=f"ln -s {victim} ../release.tar.gz; ln -s {victim} ../../x; umask 0; touch b; chmod 7711 b",
    )
    workshop.fetch("shop", config)
    release, told = workshop.build("shop", config, commit)
    assert release is not None, told
    assert victim.read_text() == "untouched"


WORKER = """
import sys
from pathlib import Path
from rollout.releases import command, workplace
workplace.FIRST_USER = 60_800  # of no other test
workplace.ROOM_FOR_USERS = Path(sys.argv[1]) / "room"
with workplace.for_command(Path(sys.argv[1])) as place:
    place.hand_over()
    command.run(sys.argv[2], place, {"PATH": "/usr/bin:/bin"}, limit_s=60, go_on=lambda: True)
"""


@pytest.mark.needs("root")
def test_what_outlives_worker_and_helper_ends_with_the_next_job(seen_by_all, word):
    """When both are killed at once, the next job of that number begins with nobody there."""
    worker = subprocess.Popen([sys.executable, "-c", WORKER, seen_by_all, f"setsid sleep {word}"])
    wait_for(lambda: any(b"sleep\0" in _arguments(pid) for pid in with_word(word)))
    helper = processes.descendants(worker.pid)[0]
    for sent in (signal.SIGSTOP, signal.SIGKILL):
        for pid in (worker.pid, helper):
            os.kill(pid, sent)
    worker.wait()
    assert with_word(word)
    subprocess.run([sys.executable, "-c", WORKER, seen_by_all, "true"], check=True)


def test_worker_without_rights_leaves_nothing_either(word):
    """The same for a worker that is not root: daemons, hopper and fork bomb end, and its memory and disk are bounded."""
    from rollout.releases import command
    from rollout.releases.workplace import workplace

    def run(line):
        with workplace(folder) as place:
            place.hand_over()
            environment = {"PATH": PROGRAMS}
            return command.run(line, place, environment, limit_s=60, go_on=lambda: True, bounds=SMALL)

    def do():
        assert run(DAEMONS.format(word=word) + "sleep 0.2").cut is None
        assert run(f"python3 -c '{HOPPER}' {word} & sleep 0.2").status == 0
        assert "fork" in run(MANY.format(word=word)).output.text()
        assert run("cat /dev/zero > big").cut == "disk"
        assert run("head -c 3G /dev/zero | tail -c 3G >/dev/null").cut == "memory"

    with folder_of_nobody() as folder:
        assert as_nobody(do)


def wait_for(true, seconds=20.0):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "condition not met"
        time.sleep(0.02)


def test_the_rest_of_the_machine_goes_first(attempt):
    """A command has the lowest priority, and where groups can be made it is in one that weighs as much as one process."""
    outcome = attempt("awk '{print \"nice\", $19}' /proc/self/stat; grep :cpu: /proc/self/cgroup; true")
    assert "nice 19" in outcome.output
    own = Path("/proc/self/cgroup").read_text()
    if os.geteuid() == 0 and ":cpu:/" in own and os.access("/sys/fs/cgroup/cpu/cgroup.procs", os.W_OK):
        assert ":cpu:/rollout-" in outcome.output
