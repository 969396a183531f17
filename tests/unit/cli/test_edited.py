"""rollout.toml was edited while automation goes by the older one: each command that looks ahead says so."""

from dataclasses import replace

import pytest

from rollout.services import editions
from tests.support.fakes import a_commit, a_rollout


@pytest.fixture
def edited(deps):
    """A rollout under way, a commit behind it, and a freeze that automation does not know."""
    a_rollout(deps, state="done")
    a_rollout(deps, hosts={"shop01": "done"})
    a_commit(deps)
    editions.tell(deps)
    file = deps.config.path
    file.write_text(file.read_text() + '[apps.shop.queue]\nfreeze = ["00:00 - 23:59"]\n')


@pytest.mark.parametrize("command", ["status", "why", "plan"])
def test_what_is_foretold_comes_with_a_warning(cli, deps, edited, command):
    """In a line of its own for people, in a key more for programs; neither when automation goes by the same."""
    assert cli(command).out.splitlines()[-1] == editions.OTHER
    told = cli(command, "--json").json
    assert (told[0] if command == "status" else told)["config_edited"] == editions.OTHER
    deps.config.path.write_text(deps.config.path.read_text().partition("[apps.shop.queue]")[0])
    assert editions.OTHER not in cli(command).out
    assert "config_edited" not in cli(command, "--json").out


def test_check_warns_that_it_looked_at_another_one(cli, deps, edited, monkeypatch):
    """Ready all the same: what to do is the remedy."""
    monkeypatch.setattr("rollout.wiring.wire", lambda config, *, role: replace(deps, config=config))
    deps.workshop.push()
    told = cli("check", "--json")
    assert told.code == 0
    assert [one for one in told.json["findings"] if one["message"].startswith("automation")] == [
        {
            "what": "configuration",
            "level": "warning",
            "message": editions.OTHER.partition(": ")[0],
            "remedy": editions.OTHER.partition(": ")[2],
            "error": None,
        }
    ]
    told = cli("check").out
    assert "warning  configuration: automation goes by another rollout.toml" in told
    assert "now: an edit takes effect" in told
