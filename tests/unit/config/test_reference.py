"""The commented reference is complete and true, and the documentation shows it."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from rollout.config import reference
from rollout.config.app import CanaryConfig, FanOutConfig, QueueConfig, ReleaseConfig, TestsConfig
from rollout.config.deploy_file import AppConfig, load
from rollout.config.fleet import FleetConfig
from rollout.config.notify import NotifyConfig
from rollout.config.server import ServerConfig
from rollout.config.settings import Settings

TABLES = {
    "server": ServerConfig,
    "apps.shop": AppConfig,
    "apps.shop.tests": TestsConfig,
    "apps.shop.queue": QueueConfig,
    "apps.shop.release": ReleaseConfig,
    "apps.shop.canary": CanaryConfig,
    "apps.shop.fan_out": FanOutConfig,
    "apps.shop.fleet": FleetConfig,
    "notify": NotifyConfig,
}
GUIDE = Path(__file__).parents[3] / "docs" / "configuration.md"


def table(path):
    """A table of the reference, with the defaults in force."""
    found = tomllib.loads(reference.with_defaults())
    for part in path.split("."):
        found = found[part]
    return found


def test_the_reference_loads_as_it_is_written(tmp_path):
    """What `rollout init` writes is a valid rollout.toml."""
    path = tmp_path / "rollout.toml"
    path.write_text(reference.text())
    assert [host.rstrip() for host in load(path, {}).app("shop").fleet.hosts] == ["web[001:003].example.com"]


@pytest.mark.parametrize(("path", "model"), TABLES.items())
def test_the_reference_has_every_key_and_no_other(path, model):
    """Each table of the reference has the keys of its model."""
    tables = {name for name, field in model.model_fields.items() if is_table(field.annotation)}
    assert set(table(path)) - tables == set(model.model_fields) - tables - {"name"}


def is_table(annotation):
    """The key is a table of its own."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def test_the_reference_tells_the_true_defaults(tmp_path):
    """With every commented default in force the configuration is the same as without."""
    with_comments, in_force = tmp_path / "a.toml", tmp_path / "b.toml"
    with_comments.write_text(reference.text())
    in_force.write_text(reference.with_defaults())
    first, second = load(with_comments, {}), load(in_force, {})
    assert (first.server, first.apps, first.notify) == (second.server, second.apps, second.notify)


def test_the_guide_shows_the_reference():
    """docs/configuration.md holds the reference word for word, and every other piece of TOML in it is valid."""
    blocks = re.findall(r"^```toml\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks[0] == reference.text()
    assert all(tomllib.loads(block) for block in blocks)


def test_the_guide_names_every_variable():
    """docs/configuration.md names every variable of the environment, with its default."""
    guide = GUIDE.read_text()
    for name, field in Settings.model_fields.items():
        variable = "ROLLOUT_WEBHOOK_SECRET" if name == "webhook_secrets" else f"ROLLOUT_{name.upper()}"
        assert f"`{variable}`" in guide
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert f"| `{variable}` | {field.default:g} |" in guide
