"""The demo's world without the product: its SSH servers, its app, its traffic and its four commits, all real."""

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import paramiko
import pytest

from rollout.cli.demo.repository import Repository
from rollout.cli.demo.world import read_world
from tests.support.processes import alive, marked, until

PYTHON = f"{shlex.quote(sys.executable)} -E -S"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A world of twelve hosts with traffic; ends with its standard input."""
    folder = tmp_path_factory.mktemp("world")
    process = subprocess.Popen(
        [sys.executable, "-m", "rollout.cli.demo.world", str(folder)], stdin=subprocess.PIPE
    )
    until(lambda: process.poll() is not None or read_world(folder), what="the world is there")
    found = read_world(folder)
    assert found is not None
    yield found
    for host in found.hosts:
        pid_file = host.root / "srv" / "shop" / "shared" / "serve.pid"
        if pid_file.exists() and alive(int(pid_file.read_text())):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
    process.stdin.close()
    assert process.wait(20) == 0
    assert marked(str(folder)) == []


def _connect(world, host) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.load_host_keys(str(world.known_hosts))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(
        host.address,
        world.ssh_port,
        username="demo",
        key_filename=str(world.identity_file),
        allow_agent=False,
        look_for_keys=False,
        timeout=10,
    )
    return client


@pytest.fixture
def client(world):
    """A paramiko client of the first host, its key checked."""
    with _connect(world, world.hosts[0]) as connected:
        yield connected


def _run(client: paramiko.SSHClient, command: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    channel = client.get_transport().open_session()
    channel.settimeout(20)
    channel.exec_command(command)
    channel.sendall(stdin)
    channel.shutdown_write()
    output, errors = channel.makefile("rb").read(), channel.makefile_stderr("rb").read()
    return channel.recv_exit_status(), output, errors


def test_every_host_has_its_own_address_key_and_folder(world) -> None:
    """Twelve addresses of the loopback network, twelve keys, and a command's HOME and folder are the host's own."""
    assert len({host.address for host in world.hosts}) == 12
    assert all(host.address.startswith("127.") for host in world.hosts)
    assert len({line.split()[2] for line in world.known_hosts.read_text().splitlines()}) == 12
    for host in world.hosts[::5]:
        with _connect(world, host) as client:
            assert _run(client, "pwd; echo $HOME")[1].decode().split() == [str(host.root)] * 2


def test_exit_status_output_and_errors_come_back(client) -> None:
    """Exit status, output and errors of a command arrive each in its place; a killed one is no success."""
    assert _run(client, "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")
    assert _run(client, "kill -9 $$")[0] != 0


def test_binary_input_arrives_whole(client) -> None:
    """A megabyte of arbitrary bytes through stdin is what the command reads, and comes back through stdout."""
    data = bytes(range(256)) * 4096
    status, output, _ = _run(client, "sha256sum", data)
    assert (status, output.split()[0].decode()) == (0, hashlib.sha256(data).hexdigest())
    assert _run(client, "cat", data)[1] == data


def test_a_conversation_over_one_session(client) -> None:
    """A command can print, wait for a line, and print again."""
    channel = client.get_transport().open_session()
    channel.settimeout(20)
    channel.exec_command("echo ready; read word; echo got $word")
    lines = channel.makefile("r")
    assert lines.readline() == "ready\n"
    channel.sendall(b"it\n")
    assert lines.readline() == "got it\n"
    assert channel.recv_exit_status() == 0


def test_many_sessions_share_one_connection(client) -> None:
    """Eight sessions of one connection run side by side: none waits for another's end."""
    channels = [client.get_transport().open_session() for _ in range(8)]
    for number, channel in enumerate(channels):
        channel.settimeout(20)
        channel.exec_command(f"read go; echo {number}")
    for number, channel in reversed(list(enumerate(channels))):
        channel.sendall(b"go\n")
        assert channel.makefile("rb").read() == f"{number}\n".encode()


def test_a_lost_connection_closes_the_command_s_input(world) -> None:
    """When the client goes away in the middle of sending, the command reads the end of its input and goes on."""
    host = world.hosts[1]
    with _connect(world, host) as client:
        channel = client.get_transport().open_session()
        channel.exec_command("cat >got; echo end >>got")
        channel.sendall(b"half\n")
        until((host.root / "got").exists, what="the command runs")
    until(lambda: (host.root / "got").read_text() == "half\nend\n", what="the command saw the end")


def test_an_unknown_key_is_refused(world) -> None:
    """Only the demo's own key opens a host."""
    stranger = paramiko.SSHClient()
    stranger.load_host_keys(str(world.known_hosts))
    with stranger, pytest.raises(paramiko.AuthenticationException):
        stranger.connect(
            world.hosts[0].address,
            world.ssh_port,
            username="demo",
            pkey=paramiko.ECDSAKey.generate(),
            allow_agent=False,
            look_for_keys=False,
        )


@pytest.fixture(scope="module")
def commits(tmp_path_factory):
    """The four commits: their hashes, and a checkout of each by its number from 1."""
    folder = tmp_path_factory.mktemp("git")
    repository = Repository(folder)
    hashes = [
        repository.create(),
        repository.fail_tests(),
        repository.answer_500(),
        repository.break_some_hosts(),
    ]
    checkouts = {}
    for number, commit in enumerate(hashes, 1):
        checkouts[number] = folder / f"checkout{number}"
        subprocess.run(["git", "clone", "-q", repository.bare, checkouts[number]], check=True)
        subprocess.run(["git", "checkout", "-q", commit], cwd=checkouts[number], check=True)
    return hashes, checkouts


def test_only_the_second_commit_fails_its_tests(commits) -> None:
    """The app's tests pass for all commits but the second."""
    _, checkouts = commits
    command = [sys.executable, "-m", "unittest", "-q"]
    results = {
        number: subprocess.run(command, cwd=folder, capture_output=True).returncode
        for number, folder in checkouts.items()
    }
    assert results == {1: 0, 2: 1, 3: 0, 4: 0}


def test_the_fourth_commit_says_what_it_reverts(commits) -> None:
    """The fourth commit's message names the third by its full hash, in git's own words."""
    hashes, checkouts = commits
    message = subprocess.run(
        ["git", "log", "-1", "--format=%B"], cwd=checkouts[4], capture_output=True, text=True
    ).stdout
    assert f"This reverts commit {hashes[2]}." in message


class Shop:
    """The app on one host, restarted over SSH as a rollout does it."""

    def __init__(self, world, host) -> None:
        self.world = world
        self.host = host
        self.shared = host.root / "srv" / "shop" / "shared"

    def call(self, verb: str, checkout: Path, commit: str) -> int:
        place = f"{self.host.address} {self.world.http_port} {self.shared}"
        command = f"cd {checkout} && HOST={self.host.name} COMMIT={commit} {PYTHON} serve.py {verb} {place}"
        with _connect(self.world, self.host) as client:
            return _run(client, command)[0]

    @property
    def pid(self) -> int:
        return int((self.shared / "serve.pid").read_text())

    def statuses(self) -> set[tuple[str, str]]:
        """Page and status of the lines in the access log that traffic made."""
        lines = (self.shared / "access.log").read_text().splitlines()
        return {(line.split()[6], line.split()[8]) for line in lines if "demo-traffic" in line}


def test_the_app_restarts_for_real_and_traffic_finds_it(world, commits) -> None:
    """A restart starts a process that answers with its commit and logs traffic; the next one ends it first."""
    hashes, checkouts = commits
    shop = Shop(world, world.hosts[2])
    assert shop.call("restart", checkouts[1], hashes[0]) == 0
    first = shop.pid
    assert shop.call("health", checkouts[1], hashes[0]) == 0
    assert shop.call("health", checkouts[1], "f" * 40) == 1
    pages = {("/", "200"), ("/cart", "200"), ("/checkout", "200")}
    until(lambda: shop.statuses() == pages, what="traffic in the access log")
    assert shop.call("restart", checkouts[3], hashes[2]) == 0
    assert shop.pid != first
    assert not alive(first)
    assert shop.call("health", checkouts[3], hashes[2]) == 0
    until(lambda: ("/checkout", "500") in shop.statuses(), what="the broken checkout in the access log")
    until(lambda: world.traffic().get("5xx", 0) > 0, what="the traffic's own count of 500s")


@pytest.mark.parametrize(("number", "status"), [(1, 0), (6, 0), (7, 1), (8, 0), (9, 1), (11, 1), (12, 0)])
def test_the_fourth_commit_does_not_start_on_some_hosts(world, commits, number, status) -> None:
    """It starts on the canary and on most hosts, and not on shop07, shop09 and shop11, which say why."""
    hashes, checkouts = commits
    shop = Shop(world, world.hosts[number - 1])
    assert shop.call("restart", checkouts[4], hashes[3]) == status
    assert shop.call("health", checkouts[4], hashes[3]) == status
    if status:
        assert "no cache directory" in (shop.shared / "serve.log").read_text()
        assert not alive(shop.pid)


def test_the_world_ends_when_whoever_started_it_is_killed(tmp_path) -> None:
    """The world's input ends with kill -9 of its parent, and the world with it."""
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import subprocess, sys, time;"
                "subprocess.Popen([sys.executable, '-m', 'rollout.cli.demo.world', sys.argv[1]], stdin=subprocess.PIPE);"
                "time.sleep(600)"
            ),
            str(tmp_path),
        ]
    )
    until((tmp_path / "world.json").exists, what="the world is there")
    assert json.loads((tmp_path / "world.json").read_text())["ssh_port"] > 0
    parent.kill()
    parent.wait()
    until(lambda: marked(str(tmp_path)) == [], what="the world has ended")
