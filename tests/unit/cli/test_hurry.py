"""A stop asks the web process over its Unix socket before anything else: quick when that is there, and no matter when it is not."""

import threading
from contextlib import contextmanager

import pytest
import uvicorn

from rollout.cli import hurry
from rollout.config import places
from rollout.domain.states import RolloutState
from rollout.web import server
from tests.support.fakes import a_rollout
from tests.support.processes import until
from tests.support.web import TOKEN, an_application
from tests.unit.cli.test_main import loaded
from tests.unit.cli.test_ways_back import OLD


@pytest.fixture(autouse=True)
def nobody_heard(monkeypatch):
    """Each test is a process of its own."""
    monkeypatch.setattr(hurry, "_heard", {})


@pytest.fixture
def configured(deps):
    """The token is there; where the state is."""
    deps.config.server.api_token_file.write_text(f"{TOKEN}\n")
    deps.config.server.state_dir.mkdir(exist_ok=True)
    return deps.config.server


@contextmanager
def web(deps, configured):
    """The real application on its socket for commands."""
    sockets = server.inside(configured)
    serving = uvicorn.Server(server.configured(an_application(deps)))
    thread = threading.Thread(target=serving.run, kwargs={"sockets": sockets})
    thread.start()
    try:
        until(lambda: serving.started, what="uvicorn listens")
        yield
    finally:
        serving.should_exit = True
        thread.join(30)


@pytest.fixture
def rollout(deps):
    """Two hosts are switched, one is being switched."""
    hosts = {"shop01": "done", "shop02": "done", "shop03": "activating", "shop04": "prepared"}
    return a_rollout(deps, hosts=hosts, previous=OLD)


def now(deps, rollout):
    """The rollout's row, and who stopped it and why."""
    with deps.store.reading() as tx:
        events = tx.events.of_subject(rollout.app, f"rollout {rollout.id}")
        return tx.rollouts.get(rollout.id), [(one.who, one.why) for one in events if one.what == "stop"]


def test_the_web_process_writes_the_stop_and_the_command_does_the_rest(
    deps, rollout, configured, cli, capsys
):
    """It is in the store and told before the command's modules are loaded; then the command acknowledges it, and says accepted only once."""
    with web(deps, configured):
        hurry.stop([str(rollout.id), "--reason", "slow since 14:00"])
    told = capsys.readouterr().out
    found, stops = now(deps, rollout)
    assert found.state is RolloutState.STOPPING
    assert [why for _, why in stops] == ["slow since 14:00"]
    assert stops[0][0].startswith("api for cli:")
    assert "accepted: rollout 1 starts nothing any more" in told
    assert "being switched now: shop03" in told
    whole = cli("stop", rollout.id, "--reason", "slow since 14:00")
    assert whole.code == 0
    assert "accepted" not in whole.out
    assert "acknowledged after" in whole.out
    assert now(deps, rollout)[1] == stops


def test_keep_is_kept(deps, rollout, configured, cli):
    """--keep goes with it; a rollout that was stopped so quickly is not said to have been over before."""
    with web(deps, configured):
        hurry.stop(["--keep", str(rollout.id), "--json"])
    assert now(deps, rollout)[0].keep
    whole = cli("stop", rollout.id, "--keep", "--json")
    assert (whole.code, whole.json["state"]) == (0, "stopped")


def test_json_prints_no_lines(deps, rollout, configured, capsys):
    """With --json the one document is the command's own; should that fail, standard error has said that the stop is there."""
    with web(deps, configured):
        hurry.stop([str(rollout.id), "--json"])
    told = capsys.readouterr()
    assert told.out == ""
    assert "accepted: rollout 1" in told.err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--help"],
        ["1", "2"],
        ["1", "--app", "shop"],
        ["1", "--timeout", "soon"],
        ["1", "--reason"],
        ["1", "--reason", "a", "--reason", "b"],
        ["-1"],
        ["²"],
        ["1" * 5000],
        ["1", "--config", ""],
        ["1", "--config", "~nobody-of-this-name/rollout.toml"],
    ],
)
def test_words_that_are_not_a_stop_without_doubt_are_left_to_the_command(
    deps, rollout, configured, words, capsys
):
    """What is a mistake, or not known here, stops nothing and prints nothing."""
    with web(deps, configured):
        hurry.stop(words)
    assert now(deps, rollout)[0].state is RolloutState.FANNING_OUT
    assert capsys.readouterr().out == ""


def test_no_web_process_is_no_matter(deps, rollout, configured, cli):
    """Nobody listens, or not any more: the command writes the stop itself, and says so."""
    hurry.stop([str(rollout.id)])
    with web(deps, configured):
        pass
    hurry.stop([str(rollout.id)])
    assert now(deps, rollout)[0].state is RolloutState.FANNING_OUT
    told = cli("stop", rollout.id)
    assert told.code == 0
    assert "accepted: rollout 1 starts nothing any more" in told.out


def test_a_refusal_is_the_commands_to_tell(deps, configured, cli, capsys):
    """A rollout that is done, or is none, a wrong token and no configuration: nothing is said here."""
    done = a_rollout(deps, state="done")
    with web(deps, configured):
        hurry.stop([str(done.id)])
        hurry.stop(["99"])
        assert "there is nothing to stop" in cli("stop", done.id).err
        under_way = a_rollout(deps)
        deps.config.server.api_token_file.write_text("another\n")
        hurry.stop([str(under_way.id)])
        deps.config.path.write_text("[server\n")
        hurry.stop([str(under_way.id)])
        deps.config.path.unlink()
        hurry.stop([str(under_way.id)])
    assert now(deps, under_way)[0].state is RolloutState.FANNING_OUT
    assert capsys.readouterr().out == ""


def test_a_configuration_with_a_mistake_stops_all_the_same(deps, rollout, configured):
    """At 3 a.m. somebody is editing it: what the web process runs with is right."""
    with web(deps, configured):
        with deps.config.path.open("a") as file:
            file.write("\n[apps.shop.releese]\n")
        hurry.stop([str(rollout.id), f"--config={deps.config.path}"])
    assert now(deps, rollout)[0].state is RolloutState.STOPPING


def test_one_that_is_stopped_already_is_said_to_be_by_the_command(deps, configured, cli):
    """It is not told as if this stop had done it."""
    over = a_rollout(deps, state="rolled_back")
    with web(deps, configured):
        hurry.stop([str(over.id)])
    assert hurry.heard(over.id) is None
    assert "is rolled back already" in cli("stop", over.id).out


def test_a_rollout_that_is_planned_ahead_is_stopped_like_any_other(deps, configured, cli, capsys):
    """It ends at once, and the person hears that his stop did it."""
    a_rollout(deps)
    behind = a_rollout(deps, state="pending")
    with deps.store.transaction() as tx:
        ahead = tx.rollouts.update(behind, began_s=None)
    with web(deps, configured):
        hurry.stop([str(ahead.id)])
    assert "accepted: rollout 2" in capsys.readouterr().out
    assert "already" not in cli("stop", ahead.id).out


def test_another_database_is_another_installation(deps, rollout, configured, monkeypatch):
    """Rollout 1 of a copy is not rollout 1 of production, though both have the same rollout.toml."""
    with web(deps, configured):
        hurry.stop([str(rollout.id)], {"ROLLOUT_DATABASE": "postgresql://127.0.0.1/copy"})
    assert now(deps, rollout)[0].state is RolloutState.FANNING_OUT


def test_only_the_owner_may_open_the_socket(configured):
    """Neither its group nor others, whatever the umask is; and where none can be had the web process does without."""
    for one in server.inside(configured):
        one.close()
    door = places.door(configured.state_dir, configured.database)
    assert door.stat().st_mode & 0o777 == 0o600
    assert server.inside(configured.model_copy(update={"state_dir": door / "none"})) == []


def test_asking_loads_next_to_nothing():
    """What is loaded before the question is asked is of the standard library, and small."""
    heavy = {
        "typer",
        "pydantic",
        "sqlalchemy",
        "structlog",
        "rich",
        "rollout.cli.main",
        "rollout.domain.model",
    }
    assert loaded("rollout.cli.entry", heavy) == set()
