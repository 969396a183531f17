"""A command goes by rollout.toml as it is, automation as it was when it began: that is said, and never falsely."""

import pytest

from rollout.config import deploy_file
from rollout.services import editions
from rollout.store.editions import Edition, Editions
from tests.support.fakes import a_deps

FREEZE = '[apps.shop.queue]\nfreeze = ["Fri 16:00 - Mon 08:00"]\n'


@pytest.fixture
def deps(tmp_path):
    """One app, shop, whose automation has just begun."""
    deps = a_deps(tmp_path)
    editions.tell(deps)
    yield deps
    deps.store.close()


def said(deps, text=None, *, name="rollout.toml"):
    """Of a file of this name, that has this text by now."""
    file = deps.config.path.parent / name
    file.parent.mkdir(exist_ok=True)
    if text is not None:
        file.write_text(text)
    with deps.store.reading() as tx:
        return editions.other(tx, deploy_file.load(file, {}))


def test_an_edit_is_told_until_automation_begins_anew(deps):
    """Whatever of an app was edited, and an app that is new or gone; and no more when it goes by that."""
    before = deps.config.path.read_text()
    other_app = before.replace("shop", "blog")
    for edited in (
        before + FREEZE,
        before + '[apps.shop.tests]\ncommand = "make quick"\n',
        before.replace("shop[01:04]", "shop[01:05]"),
        before + other_app[other_app.index("[apps") :],
        other_app,
    ):
        assert said(deps, edited) == editions.OTHER, edited
    assert said(deps, before) is None
    assert said(deps, before + FREEZE) == editions.OTHER
    began = deploy_file.load(deps.config.path, {})
    with deps.store.transaction() as tx:
        Editions(tx).put(began.digest(), "elsewhere 1")
    assert said(deps) is None


def test_what_says_the_same_is_no_edit(deps, tmp_path):
    """Written again, commented, in another order, with defaults written down, another machine's copy: nothing is said."""
    text = deps.config.path.read_text()
    assert said(deps, text) is None
    assert said(deps, f"# A comment\n{text}") is None
    assert (
        said(deps, text.replace('restart = "true"\nhealth = "true"', 'health="true"\nrestart="true"')) is None
    )
    assert said(deps, text + '[apps.shop.queue]\nmost = 3\ngoal = "1800s"\nfreeze = []\n') is None
    assert said(deps, text.replace(f"{tmp_path}/known_hosts", "~/known"), name="copy/rollout.toml") is None
    link = tmp_path / "link.toml"
    link.symlink_to(deps.config.path)
    assert said(deps, name="link.toml") is None


def test_passwords_are_in_no_digest(deps):
    """Databases, brokers and notifications may have some, and who reads the store could guess short ones."""
    text = deps.config.path.read_text()
    its = text.replace(
        "[server]",
        '[notify]\nurls = ["mailto://ann:secret@example.com"]\n[server]\nbroker = "redis://:secret@redis"',
    )
    deps.config.path.write_text(its)
    assert deploy_file.load(deps.config.path, {}).digest() == deps.config.digest()


@pytest.mark.parametrize(
    ("process", "ago_s"),
    [("elsewhere 1", editions.SILENT_S), ("elsewhere 1", -1.0), ("here 4194305", 1.0)],
    ids=["silent", "another boot", "ended"],
)
def test_where_nothing_runs_nothing_is_said(deps, monkeypatch, process, ago_s):
    """Automation that has not been heard of for long, or whose process is no more on this machine, goes by nothing."""
    monkeypatch.setattr(editions.socket, "gethostname", lambda: "here")
    text = deps.config.path.read_text() + FREEZE
    last = Edition(deps.config.digest(), "elsewhere 1", 1.0)
    monkeypatch.setattr(Editions, "last", lambda _: last)
    assert said(deps, text) == editions.OTHER
    last = last._replace(process=process, ago_s=ago_s)
    assert said(deps) is None
    last = None
    assert said(deps) is None
