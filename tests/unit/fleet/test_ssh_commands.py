"""The commands that are typed on hosts."""

import re
import shlex
import subprocess

import pytest

from rollout.errors import ConfigError
from rollout.fleet.commands import Program, host_program

PROGRAM = Program("echo it runs: $1\n")
SHELLS = [
    shell
    for shell in ("sh", "bash", "dash")
    if subprocess.run(["which", shell], capture_output=True).returncode == 0
]


def test_call_is_the_documented_one():
    """The call is what docs/host.md says, and is three words and one argument."""
    digest = PROGRAM.digest
    file = f"/srv/shop/.rollout/bin/{digest}"
    assert shlex.split(PROGRAM.call("/srv/shop", "status")) == [
        "exec", "sh", "-c", f"test -f {file} && exec sh {file} status; exit 96",
    ]  # fmt: skip


@pytest.mark.parametrize("command", [PROGRAM.call("/srv/shop", "hello"), PROGRAM.install("/srv/shop")])
def test_any_login_shell_reads_it_the_same_way(command):
    """Nothing in it means something else to csh, fish or zsh: one pair of single quotes, no newline, no backslash."""
    assert command.count("'") == 2
    assert not re.search(r"[\n\\!`]", command)


@pytest.mark.parametrize(
    "path", ["relative", "/srv/with space", "/srv/$(id)", "/srv/a;b", "/srv/a\nb", "", "/srv/'"]
)
def test_strange_paths_are_refused(path):
    """A path that needs quoting is never typed."""
    with pytest.raises(ConfigError):
        PROGRAM.call(path, "hello")
    with pytest.raises(ConfigError):
        PROGRAM.install(path)


def test_strange_verbs_are_refused():
    """A verb is a word."""
    with pytest.raises(ValueError, match="not a verb"):
        PROGRAM.call("/srv/shop", "hello; id")


@pytest.mark.parametrize("shell", SHELLS)
def test_installed_then_called(shell, tmp_path):
    """Not installed is 96; after the installation it runs; a torn one is not installed."""

    def typed(command, given=""):
        return subprocess.run([shell, "-c", command], input=given, capture_output=True, text=True)

    folder = str(tmp_path)
    assert typed(PROGRAM.call(folder, "now")).returncode == 96
    assert typed(PROGRAM.install(folder), "echo torn").returncode != 0
    assert typed(PROGRAM.call(folder, "now")).returncode == 96
    assert typed(PROGRAM.install(folder), PROGRAM.text).stdout == "installed=yes\n"
    assert typed(PROGRAM.call(folder, "now")).stdout == "it runs: now\n"
    assert [file.name for file in (tmp_path / ".rollout/bin").iterdir()] == [PROGRAM.digest]


def test_exit_status_of_the_program_comes_through(tmp_path):
    """A program that ends with a status of its own is not taken for a missing one."""
    failing = Program("exit 3\n")
    subprocess.run(
        ["sh", "-c", failing.install(str(tmp_path))],
        input=failing.text,
        text=True,
        check=True,
        capture_output=True,
    )
    assert subprocess.run(["sh", "-c", failing.call(str(tmp_path))]).returncode == 3


def test_host_program_comes_with_the_package():
    """host.sh is read from beside the code, and its digest is the digest of its bytes."""
    program = host_program()
    assert program.text.startswith("#!/bin/sh\n")
    assert re.fullmatch(r"[0-9a-f]{64}", program.digest)
