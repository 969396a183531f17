"""The table of one app is wrong: whoever means another app, a rollout or a host of it is told, and not held up."""

from dataclasses import replace

import pytest

from rollout import wiring
from rollout.config import deploy_file
from rollout.domain.states import RolloutState
from tests.support.fakes import a_rollout

OLD = "0" * 40
TOLD = "app blog is left out"
WRONG = "apps.blog.tests.retires: unknown key; did you mean 'retries'?"


@pytest.fixture
def deps(build, monkeypatch):
    """`shop` has shipped, `blog` is on its way; then the table of `blog` is edited, and what is done goes by what is usable of it."""
    deps = build(apps=("shop", "blog"), hosts=2)
    a_rollout(deps, state="done")
    a_rollout(deps, app="blog", hosts={"blog01": "done"}, previous=OLD)
    file = deps.config.path
    file.write_text(file.read_text().replace("[apps.blog]", "[apps.blog.tests]\nretires = 3\n[apps.blog]"))
    monkeypatch.setattr(
        wiring, "configured", lambda path, *, role: replace(deps, config=deploy_file.usable(path, {}))
    )
    return deps


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("status", "1"),
        ("why", "--app", "shop"),
        ("plan", "--app", "shop"),
        ("hosts",),
        ("hosts", "--verify", "--app", "shop"),
        ("history",),
        ("show", "1"),
        ("freeze", "--app", "shop", "--reason", "a sale"),
        ("exclude", "shop01", "--app", "shop", "--reason", "a bad disk"),
        ("rollback", "--app", "shop"),
    ],
)
def test_a_command_that_means_another_app_works(cli, words):
    """What is wrong is on standard error, with its path; the exit code is the command's own."""
    told = cli(*words)
    assert told.code == 0, told
    assert TOLD in told.err
    assert WRONG in told.err


def test_its_own_rollout_is_stopped_by_what_that_was_planned_with(cli, deps):
    """Without a number too: what is under way of it is found, sealed and brought back."""
    told = cli("stop", "--wait", "--timeout", "60s", "--json")
    assert told.code == 0, told
    assert (told.code, told.json["id"], told.json["state"]) == (0, 2, RolloutState.ROLLED_BACK)
    assert deps.fleet.hosts["blog01"].current == OLD


def test_so_is_one_of_an_app_that_was_taken_out(cli, deps):
    """By its number, to its end: what would come next is nobody's question any more."""
    file = deps.config.path
    file.write_text(file.read_text().partition("[apps.blog.tests]")[0])
    told = cli("stop", "2", "--wait", "--timeout", "60s", "--json")
    assert told.code == 0, told
    assert deps.fleet.hosts["blog01"].current == OLD


def test_what_is_under_way_of_an_app_that_was_taken_out_is_shown_and_can_be_stopped(cli, deps):
    """It goes on all the same: without its number too it is found, also beside the apps that are there."""
    file = deps.config.path
    file.write_text(file.read_text().partition("[apps.blog.tests]")[0])
    assert [(one["app"], one["id"]) for one in cli("status", "--json").json] == [("blog", 2)]
    told = cli("status").out
    assert (
        told.index("shop")
        < told.index("blog")
        < told.index("rollout 2")
        < told.index("rollout.toml has it no more")
    )
    assert cli("status", "--app", "shop", "--json").json == []
    told = cli("stop", "--wait", "--timeout", "60s", "--json")
    assert (told.code, told.json["id"], told.json["state"]) == (0, 2, RolloutState.ROLLED_BACK)


def test_what_the_store_tells_of_it_is_told(cli):
    """Its rollouts and its hosts are there as before; what comes next is not foretold."""
    assert [one["app"] for one in cli("status", "--json").json] == ["blog"]
    assert "its table in rollout.toml is wrong" in cli("status").out
    assert {one["name"] for one in cli("hosts", "--json").json} == {"shop01", "shop02", "blog01", "blog02"}
    told = cli("status", "--app", "blog")
    assert (told.code, TOLD in told.err) == (0, False)


@pytest.mark.parametrize(
    "words", [("why",), ("freeze", "--reason", "a sale"), ("exclude", "shop01", "--reason", "x")]
)
def test_which_app_is_meant_is_asked_as_before(cli, words):
    """One of two that is left out makes the other one not the only one."""
    told = cli(*words, "--json")
    assert (told.code, told.json["message"]) == (2, "several apps are configured: blog, shop")


def test_what_needs_its_table_says_what_is_wrong_with_it(cli, deps):
    """Exit code 2, as ever; `hosts --verify` reads the others' all the same."""
    told = cli("why", "--app", "blog", "--json")
    assert (told.code, WRONG in told.json["message"], TOLD in told.err) == (2, True, False)
    for name in ("shop01", "blog01"):
        deps.fleet.hosts[name].current = "f" * 40
    told = cli("hosts", "--verify", "--json")
    drift = {one["name"]: one["drift"] for one in told.json}
    assert (told.code, drift["shop01"], drift["blog01"]) == (2, True, False)
    assert WRONG in told.err


def test_check_looks_at_the_file_as_a_whole(cli):
    """Before anything is started again: whichever app is meant."""
    for words in ("check",), ("check", "--app", "shop"):
        told = cli(*words, "--json")
        assert (told.code, WRONG in told.json["message"]) == (2, True)


@pytest.mark.parametrize("more", ["[servr]", "[notify]\nurls = 3", "[apps"])
def test_what_is_wrong_outside_of_the_apps_refuses_every_command(cli, deps, more):
    """It is everybody's."""
    file = deps.config.path
    file.write_text(f"{file.read_text()}\n{more}\n")
    assert cli("status", "--app", "shop").code == 2
