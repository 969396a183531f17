"""The command line over a real store, with fakes behind it."""

import json
import logging
from functools import cache

import pytest
import structlog
from typer import testing
from typer.main import get_command
from typer.testing import CliRunner

from rollout import wiring
from rollout.cli import stand_in, ways_back
from rollout.cli.main import app
from tests.support.fakes import a_deps

PARSER = cache(get_command)  # a process has one; to make it takes as long as most commands


class Told:
    """What a command did: `code`, `out`, `err`, and `json`."""

    def __init__(self, result):
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr
        self.exception = result.exception

    @property
    def json(self):
        """The one document on standard output."""
        return json.loads(self.out)

    def __repr__(self):
        return f"exit {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


@pytest.fixture(autouse=True)
def logging_as_before():
    """Commands configure logging for their process, which here is the tests'."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch, tmp_path):
    """Nothing of the developer's own set-up; and the current folder is the test's."""
    for name in ("ROLLOUT_CONFIG", "ROLLOUT_DATABASE", "ROLLOUT_BROKER", "ROLLOUT_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def plain(monkeypatch):
    """Runs a command as a person would, without fakes: `plain("status", "--json")`."""
    monkeypatch.setattr(testing, "_get_command", PARSER)

    def plain(*words):
        return Told(CliRunner().invoke(app, [str(word) for word in words], prog_name="rollout"))

    return plain


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Makes the neighbours of every command: `build(apps=("shop", "blog"))`."""
    monkeypatch.setattr(stand_in, "PATIENCE_S", 0.3)
    monkeypatch.setattr(ways_back, "AT_ONCE_S", 0.1)
    made = []

    def build(**of_config):
        deps = a_deps(tmp_path, **of_config)
        monkeypatch.setattr(wiring, "configured", lambda _path=None, *, role: deps)
        monkeypatch.setattr(wiring, "wire", lambda _config, *, role: deps)
        monkeypatch.setattr(type(deps.fleet), "close", lambda _self: None)
        made.append(deps)
        return deps

    yield build
    for deps in made:
        deps.store.close()


@pytest.fixture
def deps(build):
    """One app, shop, with four hosts."""
    return build()


@pytest.fixture
def cli(deps, plain):
    """Runs a command over the fakes."""
    return plain
