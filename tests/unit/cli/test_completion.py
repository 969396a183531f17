"""Shell completion: apps, rollouts, hosts; silence when there is nothing to say."""

from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from rollout.cli import completion
from rollout.cli.main import app
from tests.support.fakes import a_rollout


@pytest.fixture
def context(deps):
    """Where the shell is: behind a command, with a configuration."""
    return SimpleNamespace(params={}, parent=SimpleNamespace(params={"config": deps.config.path}))


def test_apps_are_offered(context):
    """Those that begin so."""
    assert completion.apps(context, "s") == [("shop", "main")]
    assert completion.apps(context, "x") == []


def test_rollouts_are_offered_newest_first(context, deps):
    """Unfinished ones before finished ones, each with what it is."""
    done = a_rollout(deps, state="done")
    running = a_rollout(deps)
    assert completion.rollouts(context, "") == [
        (str(running.id), f"shop {running.commit[:12]} fanning_out"),
        (str(done.id), f"shop {done.commit[:12]} done"),
    ]


def test_hosts_are_offered(context, deps):
    """Those that the store knows."""
    a_rollout(deps)
    assert [name for name, _ in completion.hosts(context, "shop0")] == [
        "shop01",
        "shop02",
        "shop03",
        "shop04",
    ]


@pytest.mark.parametrize("offer", [completion.apps, completion.rollouts, completion.hosts])
def test_without_a_configuration_nothing_is_offered(tmp_path, offer):
    """And nothing is said, as it would land in the person's command line."""
    nowhere = SimpleNamespace(params={"config": tmp_path / "none.toml"}, parent=None)
    assert offer(nowhere, "") == []


def test_the_shell_gets_its_words(deps):
    """Typer's own protocol, through our door: bash asks for the words that may follow."""
    told = CliRunner().invoke(
        app,
        [],
        prog_name="rollout",
        env={"_ROLLOUT_COMPLETE": "complete_bash", "COMP_WORDS": "rollout st", "COMP_CWORD": "1"},
    )
    assert set(told.stdout.split()) == {"status", "stop"}


def test_the_shell_offers_rollouts_to_the_judge(deps):
    """As everywhere where a rollout's number stands."""
    rollout = a_rollout(deps, state="done")
    told = CliRunner().invoke(
        app,
        [],
        prog_name="rollout",
        env={
            "_ROLLOUT_COMPLETE": "complete_bash",
            "COMP_WORDS": f"rollout --config {deps.config.path} judge --rollout ",
            "COMP_CWORD": "5",
        },
    )
    assert told.stdout.split() == [str(rollout.id)]
