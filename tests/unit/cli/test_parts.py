"""up, web, worker, beat, flower, demo: what each one becomes."""

import os
import sys
from types import SimpleNamespace

import pytest

from rollout.cli import demo as room
from rollout.supervisor import flower, up
from tests.support.fakes import a_config


class Became(Exception):
    """The process would have been replaced."""

    def __init__(self, program, words, environment):
        self.program, self.words, self.environment = program, words, environment


@pytest.fixture
def config(tmp_path):
    """A configuration in the current folder."""
    return a_config(tmp_path)


@pytest.fixture
def become(plain, monkeypatch, config):
    """Runs a command that replaces its process; what it would have become."""

    def instead(*given):
        raise Became(*given)

    monkeypatch.setattr(os, "execve", instead)

    def become(*words):
        monkeypatch.setenv("ROLLOUT_LOG_LEVEL", "debug")
        caught = []
        monkeypatch.setattr(
            "rollout.cli.failures.tell_unexpected", lambda error, *, as_json: caught.append(error) or 1
        )
        plain(*words)
        return caught[0]

    return become


def option(words, name):
    """The word behind an option."""
    return words[words.index(name) + 1]


@pytest.mark.parametrize(
    ("kind", "pool", "concurrency"),
    [("control", "threads", "8"), ("tests", "prefork", "1"), ("hosts", "threads", "40")],
)
def test_a_worker_becomes_celerys(become, config, kind, pool, concurrency):
    """One queue, its pool, prefetch-friendly concurrency; the configuration comes by the environment."""
    became = become("worker", kind)
    assert became.program == sys.executable
    assert became.words[1:7] == ["-m", "celery", "--quiet", "-A", "workers.app", "worker"]
    assert option(became.words, "-Q") == kind
    assert option(became.words, "-n") == f"{kind}@%h"
    assert (option(became.words, "--pool"), option(became.words, "--concurrency")) == (pool, concurrency)
    assert {"--without-gossip", "--without-mingle", "-E"} <= set(became.words)
    assert became.environment["ROLLOUT_CONFIG"] == str(config.path)
    assert (config.server.state_dir / "rollout.db").exists()


def test_the_hosts_worker_has_the_slots_of_the_settings(become, monkeypatch):
    """ROLLOUT_SLOTS is how many hosts it works on at once."""
    monkeypatch.setenv("ROLLOUT_SLOTS", "7")
    assert option(become("worker", "hosts").words, "--concurrency") == "7"


def test_beat_leaves_no_pid_file(become):
    """Celery would write one into the current folder."""
    assert "--pidfile=" in become("beat").words


def test_an_unknown_kind_of_worker_is_2(plain, config):
    """The kinds are listed."""
    told = plain("worker", "nope", "--json")
    assert (told.code, "control" in told.json["message"]) == (2, True)


@pytest.mark.parametrize("words", [("worker", "hosts"), ("beat",), ("web",), ("flower",)])
def test_a_part_without_its_database_is_5(plain, config, monkeypatch, words):
    """The schema comes first; without a database no part starts."""
    monkeypatch.setenv("ROLLOUT_DATABASE", "postgresql+psycopg://me@127.0.0.1:1/none")
    assert plain(*words).code == 5


def test_web_serves_the_named_configuration(plain, config, monkeypatch):
    """The HTTP service gets the path; Ctrl-C is its normal end."""
    served = []

    def serve(path):
        served.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", lambda _name: SimpleNamespace(serve=serve))
    assert plain("web").code == 0
    assert served == [config.path]


def test_flower_has_its_password_from_the_state_directory(plain, config, monkeypatch):
    """Not from a command line or the environment."""
    served = []
    monkeypatch.setattr(flower, "serve", lambda *given: served.append(given))
    assert plain("flower").code == 0
    assert served == [("127.0.0.1", 5555, flower.password(config.server.state_dir))]


def test_flower_that_is_off_is_2(plain, tmp_path):
    """`flower = ""` means none."""
    a_config(tmp_path, more='flower = ""\n')
    assert plain("flower").code == 2


def test_up_runs_the_supervisor(plain, config, monkeypatch):
    """Its exit status is the command's."""
    ran = []

    def run(config, say):
        say("everything runs")
        ran.append(config.path)
        return 0

    monkeypatch.setattr(up, "up", run)
    told = plain("up")
    assert (told.code, ran) == (0, [config.path])
    assert "everything runs" in told.out


def test_up_refuses_an_unreadable_secret_at_once(plain, config, tmp_path):
    """Before anything starts: an empty secret file is a configuration error."""
    (tmp_path / "webhook.secret").write_text("")
    assert plain("up").code == 2


def test_the_demo_is_played(plain, monkeypatch):
    """Its exit code says whether each commit ended as it must."""
    monkeypatch.setattr(room, "run", lambda *, keep: 1 if keep else 0)
    assert plain("demo").code == 0
    assert plain("demo", "--keep").code == 1
    assert plain("demo", "--json").code == 2
