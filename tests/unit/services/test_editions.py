"""A command goes by rollout.toml as it is, automation as it was when it began: that is said, and never falsely."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from rollout.config import deploy_file
from rollout.domain.states import RolloutState
from rollout.services import editions, planning, reconcile, rollouts, testing
from rollout.store.editions import Edition, Editions
from rollout.store.store import Transaction
from tests.support.branch import commit_of
from tests.support.fakes import a_deps

ALL_DAY = '[apps.shop.queue]\nfreeze = ["00:00 - 23:59"]\n'
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
        Editions(tx).put(began.digest, "elsewhere 1")
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
    assert deploy_file.load(deps.config.path, {}).digest == deps.config.digest


@pytest.mark.parametrize(
    ("process", "ago_s"),
    [("elsewhere 1", editions.SILENT_S), ("elsewhere 1", -1.0), ("here 4194305", 1.0)],
    ids=["silent", "another boot", "ended"],
)
def test_where_nothing_runs_nothing_is_said(deps, monkeypatch, process, ago_s):
    """Automation that has not been heard of for long, or whose process is no more on this machine, goes by nothing."""
    monkeypatch.setattr(editions.socket, "gethostname", lambda: "here")
    text = deps.config.path.read_text() + FREEZE
    last = Edition(deps.config.digest, "elsewhere 1", 1.0)
    monkeypatch.setattr(Editions, "last", lambda _: last)
    assert said(deps, text) == editions.OTHER
    last = last._replace(process=process, ago_s=ago_s)
    assert said(deps) is None
    last = None
    assert said(deps) is None


@pytest.fixture
def noon(monkeypatch):
    """On any day, in UTC."""
    monkeypatch.setattr(Transaction, "today", staticmethod(lambda: datetime(2026, 11, 27, 12, tzinfo=UTC)))


def with_file(deps, text):
    """A part that has begun with this file."""
    file = deps.config.path.parent / "edited" / "rollout.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return replace(deps, config=deploy_file.load(file, {}))


def side_by_side(world, control, hosts, *, seconds):
    """Both at work for so long: all tasks are the control worker's, and both sweep."""
    world.deps, until = control, world.seconds + seconds
    while world.seconds < until:
        editions.tell(control)
        world.run(seconds=4)
        reconcile.sweep(hosts)


def test_what_one_file_freezes_is_not_planned_by_another_one_without_end(world, noon):
    """The control worker was started again after an edit, the hosts worker was not: one plans, the other one has set aside."""
    hosts = world.deps
    control = with_file(hosts, world.config.path.read_text() + ALL_DAY)
    editions.tell(control, begins=True)
    first, sha = world.newest(), world.push()
    side_by_side(world, control, hosts, seconds=60)
    testing.run_tests(commit_of(world, sha).id, hosts)
    planning.start_next("shop", hosts, may_wait=True)
    assert (world.newest().id, commit_of(world, sha).state) == (first.id, "passed")
    with world.store.reading() as tx:
        assert planning.waits_for(control.config.app("shop"), tx).startswith("frozen until")
        assert editions.other(tx, control.config).partition(" (")[0].endswith("read by the tests worker")


def test_who_goes_by_another_file_sets_nothing_aside(world, noon):
    """Only the hosts worker was started again: what is planned waits for the control worker, whatever that finds."""
    control = world.deps
    hosts = with_file(control, world.config.path.read_text() + ALL_DAY)
    editions.tell(control, begins=True)
    sha = world.push()
    testing.run_tests(commit_of(world, sha).id, control)
    rollout = world.newest()
    assert rollout.state is RolloutState.PENDING
    rollouts.deploy_canary(rollout.id, hosts)
    assert world.newest() == rollout
    side_by_side(world, control, hosts, seconds=100)
    assert (world.newest().id, world.newest().state) == (rollout.id, RolloutState.DONE)


def test_automation_goes_by_the_control_worker_that_began_last(deps):
    """One with another file that had begun before says so of itself, and takes over when nobody else is left."""
    text = deps.config.path.read_text()
    newer = with_file(deps, text + FREEZE)
    editions.tell(newer, begins=True)
    editions.tell(deps)
    with deps.store.reading() as tx:
        assert Editions(tx).last().digest == newer.config.digest
        assert (editions.is_astray(tx, deps.config), editions.is_astray(tx, newer.config)) == (True, False)
    with deps.store.transaction() as tx:
        Editions(tx).put(newer.config.digest, f"{editions.socket.gethostname()} 4194305")
    editions.tell(deps)
    with deps.store.reading() as tx:
        assert Editions(tx).last().digest == deps.config.digest


def test_a_part_that_goes_by_another_file_is_named_until_it_is_started_again(deps):
    """It was left over when the rest was started again with an edit."""
    hosts, text = deps, deps.config.path.read_text() + FREEZE
    newer = with_file(deps, text)
    editions.tell_astray("hosts worker", hosts)
    editions.tell(newer, begins=True)
    assert said(deps, text) is None
    editions.tell_astray("hosts worker", hosts)
    its = f"another rollout.toml than this one was read by the hosts worker ({editions.socket.gethostname()}, process "
    assert said(deps).startswith(its)
    editions.tell(newer, begins=True)
    editions.tell_astray("hosts worker", newer)
    assert said(deps) is None
