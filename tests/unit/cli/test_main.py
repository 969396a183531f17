"""The door: options before or behind the command, help, and what a failure is to the shell."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from rollout import errors, wiring
from rollout.cli import entry, failures
from rollout.cli.main import app
from rollout.errors import RolloutError, ServiceUnavailable
from tests.support.fakes import a_commit, a_config, a_rollout

ROOT = Path(__file__).parents[3]
COMMANDS = sorted(get_command(app).commands)
OF_THE_CONTRACT = {
    "init",
    "check",
    "up",
    "web",
    "worker",
    "beat",
    "flower",
    "deploy",
    "status",
    "show",
    "log",
    "history",
    "judge",
    "stop",
    "resume",
    "retry",
    "exclude",
    "include",
    "rollback",
    "bar",
    "unbar",
    "freeze",
    "unfreeze",
    "plan",
    "why",
    "hosts",
    "demo",
}
ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, RolloutError)]


def test_every_command_of_the_contract_is_there():
    """All that this version promises, and nothing that is not written down."""
    assert set(COMMANDS) == OF_THE_CONTRACT


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(plain, command):
    """Every command's --help has an example of itself, and the options that all have."""
    told = plain(command, "--help")
    assert told.code == 0
    assert "Example" in told.out
    assert f"rollout {command}" in told.out.partition("Example")[2]
    assert all(option in told.out for option in ("--config", "--app", "--json"))


def test_help_groups_the_commands(plain):
    """The list of commands is in groups, by what a person wants."""
    told = plain("--help")
    assert told.code == 0
    assert [
        word for word in ("Begin", "Ship", "Look", "When something is wrong") if word not in told.out
    ] == []
    assert plain().out == told.out


def test_the_version_is_printed(plain):
    """--version says which one."""
    told = plain("--version")
    assert (told.code, told.out.startswith("rollout")) == (0, True)


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_an_exit_code(kind):
    """The one table knows each class of ours, by itself or by its nearest ancestor."""
    error = kind("x", "y", ["z"]) if kind is errors.UnknownName else kind("x")
    expected = {
        errors.ConfigError: 2,
        errors.UnknownName: 2,
        errors.NotFound: 3,
        errors.Conflict: 4,
        errors.IllegalTransition: 4,
        errors.StaleWrite: 4,
        errors.LeaseLost: 4,
        errors.ServiceUnavailable: 5,
    }.get(kind, 1)
    assert failures.exit_code(error) == expected


def test_a_failure_says_what_and_what_now(plain):
    """For people: one line with what and where, one with what to do, nothing on stdout."""
    told = plain("status")
    assert (told.code, told.out) == (2, "")
    assert "there is no file" in told.err
    assert "now: run `rollout init` here" in told.err
    assert "Traceback" not in told.err


def test_a_failure_with_json_is_one_document(plain):
    """{error, message, remedy} on stdout, whatever failed."""
    told = plain("status", "--json")
    assert (told.code, set(told.json)) == (2, {"error", "message", "remedy"})
    assert told.json["error"] == "ConfigError"


@pytest.mark.parametrize("words", [("nope",), ("show",), ("show", "x"), ("show", "0"), ("status", "--nope")])
def test_wrong_words_are_2(plain, words):
    """Usage errors have the same shapes as all others."""
    assert plain(*words).code == 2
    told = plain(*words, "--json")
    assert (told.code, told.json["error"], "--help" in told.json["remedy"]) == (2, "UsageError", True)


def test_a_misspelt_command_is_guessed(plain):
    """The nearest command is named."""
    assert "'status'" in plain("statsu").err


@pytest.mark.parametrize(
    ("words", "subject", "what"),
    [
        (["stop", "1"], "rollout 1", "stop"),
        (["freeze"], "automation", "freeze"),
        (["bar", "{sha}"], "commit {sha}", "bar"),
    ],
)
def test_an_order_is_carried_out_whatever_its_reason_is_encoded_in(
    cli, deps, monkeypatch, words, subject, what
):
    """An umlaut from a Latin-1 terminal, in the reason or in the person's name, is a replacement character in the audit."""
    a_rollout(deps)
    sha = a_commit(deps).sha
    words = [word.format(sha=sha) for word in words]
    monkeypatch.setenv("LOGNAME", "j\udce4ger")
    monkeypatch.setattr("sys.argv", ["rollout", *words, "--reason", "zu gef\udce4hrlich"])
    with pytest.raises(SystemExit) as ended:
        entry.run()
    assert ended.value.code == 0
    with deps.store.reading() as tx:
        told = [
            (one.who, one.why)
            for one in tx.events.of_subject("shop", subject.format(sha=sha))
            if one.what == what
        ]
    assert told == [("cli:j\ufffdger", "zu gef\ufffdhrlich")]


def test_shared_options_stand_before_or_behind(cli, deps):
    """--config, --app and --json mean the same on both sides of the command."""
    rollout = a_rollout(deps, state="done")
    documents = {
        cli(*words).out
        for words in (
            ("--json", "--app", "shop", "history"),
            ("history", "--json", "--app", "shop"),
            ("--app", "shop", "history", "--json"),
        )
    }
    assert len(documents) == 1
    assert json.loads(documents.pop())[0]["id"] == rollout.id


def test_the_option_behind_overrules_the_one_before(build, plain):
    """The last word wins."""
    build(apps=("shop", "blog"))
    assert plain("--app", "nope", "status", "--app", "shop", "--json").code == 0


def test_the_configuration_is_found_by_option_and_variable(plain, tmp_path, monkeypatch):
    """--config, then $ROLLOUT_CONFIG, then ./rollout.toml."""
    config = a_config(tmp_path / "elsewhere")
    assert plain("status", "--config", config.path, "--json").json == []
    monkeypatch.setenv("ROLLOUT_CONFIG", str(config.path))
    assert plain("status", "--json").json == []


def test_an_unknown_app_is_2_and_lists_the_known(cli):
    """A misspelt --app never means another one."""
    told = cli("status", "--app", "shpo", "--json")
    assert (told.code, told.json["error"]) == (2, "UnknownName")
    assert "shop" in told.json["message"]


def test_several_apps_want_a_name(build, plain):
    """Commands that act on one app refuse to guess."""
    build(apps=("shop", "blog"))
    told = plain("deploy", "--json")
    assert told.code == 2
    assert "--app" in told.json["remedy"]


def test_a_database_that_is_gone_is_5(plain, tmp_path, monkeypatch):
    """A needed service is unreachable: the code says so, and the password is not shown."""
    a_config(tmp_path)
    monkeypatch.setenv("ROLLOUT_DATABASE", "postgresql+psycopg://me:hunter2@127.0.0.1:1/none")
    told = plain("status", "--json")
    assert (told.code, told.json["error"]) == (5, "ServiceUnavailable")
    assert "hunter2" not in told.out + told.err


def test_a_database_that_goes_away_is_5(cli, deps, monkeypatch):
    """Also in the middle of a command."""

    def gone(*_):
        raise ServiceUnavailable("the database went away", remedy="try again")

    monkeypatch.setattr(type(deps.store), "transaction", gone)
    assert cli("bar", "beef", "--reason", "x").code == 5


def test_a_mistake_of_ours_is_short_and_says_how_to_see_more(plain, tmp_path, monkeypatch):
    """No traceback for people; with ROLLOUT_LOG_LEVEL=debug there is one, on stderr."""
    a_config(tmp_path)

    def broken(*_, **__):
        raise ValueError("postgresql://me:hunter2@db is odd\nand more")

    monkeypatch.setattr(wiring, "configured", broken)
    told = plain("deploy")
    assert told.code == 1
    assert "unexpected: ValueError" in told.err
    assert "ROLLOUT_LOG_LEVEL=debug" in told.err
    assert "Traceback" not in told.err
    assert "hunter2" not in told.err
    document = plain("deploy", "--json")
    assert (document.code, document.json["error"]) == (1, "ValueError")
    monkeypatch.setenv("ROLLOUT_LOG_LEVEL", "debug")
    assert "Traceback" in plain("deploy").err


def test_ctrl_c_is_quiet(cli, deps, monkeypatch):
    """Interrupted: 130, as shells know it, and no traceback."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(deps.store), "reading", interrupted)
    told = cli("status")
    assert (told.code, told.err) == (130, "")


def test_ctrl_c_while_waiting_says_that_it_goes_on(cli, deps, monkeypatch):
    """The waiting ends, the rollout does not."""
    rollout = a_rollout(deps, state="halted", hosts={"shop02": "failed"})

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("rollout.cli.waiting.ticks", interrupted)
    told = cli("retry", rollout.id, "--wait")
    assert told.code == 130
    assert f"rollout {rollout.id} goes on" in told.err


def test_starting_imports_nothing_heavy():
    """`rollout --help` is quick: no database, broker, SSH, HTTP or validation library is loaded for it."""
    assert (
        loaded(
            "rollout.cli.main",
            {
                "sqlalchemy",
                "alembic",
                "celery",
                "kombu",
                "fabric",
                "paramiko",
                "fastapi",
                "pydantic",
                "rich",
                "structlog",
            },
        )
        == set()
    )


def test_a_stop_is_said_before_anything_is_imported_that_it_does_not_need():
    """`rollout stop` writes the stop with what the store needs: no migrations, broker, SSH, notices or other database's driver."""
    unneeded = {"alembic", "celery", "kombu", "fabric", "paramiko", "psycopg", "apprise", "fastapi"}
    assert loaded("rollout.cli.ways_back, rollout.config.settings, rollout.store.store", unneeded) == set()


def loaded(modules: str, names: set[str]) -> set[str]:
    """Those of `names` that importing `modules` loads."""
    program = f"import sys, {modules}; print(*set({sorted(names)}) & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())
