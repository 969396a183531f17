"""The command with nothing in the place of anything: a real repository, no broker, no workers, hosts that are away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fakes import a_config

ROOT = Path(__file__).parents[2]
IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Ann"), ("EMAIL", "ann@example.com"))
}


@pytest.fixture
def rollout():
    """Runs `python -m rollout`; what came of it."""

    def rollout(config, *words):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ROLLOUT_")}
        return subprocess.run(
            [sys.executable, "-m", "rollout", *words, "--config", str(config.path)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=ROOT,
            env=clean,
        )

    return rollout


@pytest.fixture
def config(tmp_path):
    """A configuration whose repository is there, with one commit."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", **IDENTITY}
    for words in (
        ("init", "-q", "-b", "main", "shop.git"),
        ("-C", "shop.git", "commit", "-q", "--allow-empty", "-m", "one"),
    ):
        subprocess.run(["git", *words], cwd=tmp_path, env=environment, check=True)
    return a_config(tmp_path, hosts=1)


@pytest.mark.needs("git")
def test_a_commit_is_stored_although_nobody_hears_of_it(rollout, config):
    """No broker: deploy stores the commit, warns on stderr, and exits 0; status then shows it."""
    told = rollout(config, "deploy", "--json")
    assert told.returncode == 0, told.stderr
    assert "the broker does not answer" in told.stderr
    assert '"state": "received"' in told.stdout
    assert "waits for its tests  one" in rollout(config, "status").stdout


@pytest.mark.needs("git")
def test_check_finds_what_is_there_and_what_is_not(rollout, config):
    """The repository answers; the host's key is not known, which is named with what to do."""
    told = rollout(config, "check")
    assert told.returncode == 1
    assert "shop: repository: branch main is at" in told.stdout
    assert "problem  shop: host shop01" in told.stdout
    assert "now: " in told.stdout
    assert "Traceback" not in told.stderr


def test_a_missing_configuration_is_2_without_a_traceback(rollout, tmp_path):
    """The commonest mistake of all."""
    config = a_config(tmp_path)
    config.path.unlink()
    told = rollout(config, "status")
    assert (told.returncode, told.stdout) == (2, "")
    assert "rollout init" in told.stderr
    assert "Traceback" not in told.stderr
