"""Polls of several apps, with real git, while one git server takes connections and never says a word."""

import socket
import threading
from dataclasses import replace

import pytest

from rollout.domain.model import Push
from rollout.releases.git import Git
from rollout.releases.workshop import GitWorkshop
from rollout.services import intake, reconcile, testing
from tests.support.processes import until
from tests.support.sources import Source
from tests.support.world import World
from workers import drivers

pytestmark = pytest.mark.needs("git")


@pytest.fixture
def silent():
    """A server that accepts and is silent, until it is closed."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield server


def test_a_remote_that_hangs_holds_up_no_other_apps_poll(tmp_path, monkeypatch, silent):
    """The other app's head is found while the first one's question is still open."""
    world, source = World(tmp_path / "world", monkeypatch), Source(tmp_path / "source")
    head = source.commit({"a": "1"})
    shop = world.config.app("shop")
    apps = {
        "hangs": shop.model_copy(
            update={"name": "hangs", "repository": f"http://127.0.0.1:{silent.getsockname()[1]}/a.git"}
        ),
        "shop": shop.model_copy(update={"repository": str(source.path)}),
    }
    ended = []

    class Workshop(GitWorkshop):
        def remote_head(self, app, config):
            try:
                return super().remote_head(app, config)
            finally:
                ended.append(app)

    monkeypatch.setattr("rollout.releases.mirror.REMOTE_LIMIT_S", 60.0)
    workshop = Workshop(tmp_path / "state")
    deps = replace(world.deps, config=replace(world.config, apps=apps), workshop=workshop)
    drivers.polls.cache_clear()
    reconcile.poll_all(deps, drivers.polls())

    def found():
        with world.store.reading() as tx:
            return tx.commits.newest("shop")

    until(lambda: found() is not None, what="the other app's head")
    assert found().sha == head
    assert ended == ["shop"]
    silent.close()

    def failed():
        with world.store.reading() as tx:
            return tx.apps.poll_failures("hangs")

    until(failed, what="the other one to have failed")
    drivers.polls.cache_clear()


def test_a_pull_request_that_is_slow_to_fetch_holds_up_no_poll_of_its_own_branch(tmp_path, monkeypatch):
    """A push whose webhook is lost is found while the pull request is being fetched."""
    world, source = World(tmp_path / "world", monkeypatch), Source(tmp_path / "source")
    head = source.commit({"a": "1"})
    source.commit({"b": "1"})
    source.git("update-ref", "refs/pull/7/head", "HEAD")
    source.git("reset", "-q", "--hard", head)
    shop = world.config.app("shop")
    tests = shop.tests.model_copy(update={"pull_requests": True})
    apps = {"shop": shop.model_copy(update={"repository": str(source.path), "tests": tests})}
    begun, slow = threading.Event(), threading.Event()

    class Workshop(GitWorkshop):
        def fetch_pulls(self, app, config, pulls):
            begun.set()
            slow.wait(20)
            return []

    config = replace(world.config, apps=apps)
    deps = replace(world.deps, config=config, workshop=Workshop(tmp_path / "state"))
    for places in (drivers.polls, drivers.looks):
        places.cache_clear()
    drivers.poll_all(deps)
    assert begun.wait(20)
    head = source.commit({"a": "2"})

    def found():
        world.seconds += 60
        drivers.poll_all(deps)
        with world.store.reading() as tx:
            return (newest := tx.commits.newest("shop")) and newest.sha == head

    until(found, what="the branch's newer head")
    slow.set()
    for places in (drivers.polls, drivers.looks):
        places.cache_clear()


@pytest.mark.parametrize("pulls", [False, True])
def test_a_look_at_a_branch_without_news_is_one_ls_remote(tmp_path, monkeypatch, pulls):
    """With the heads of pull requests too; and what was pushed without any webhook is found by the next one."""
    world, source = World(tmp_path / "world", monkeypatch), Source(tmp_path / "source")
    shop = world.config.app("shop")
    tests = shop.tests.model_copy(update={"pull_requests": pulls})
    apps = {"shop": shop.model_copy(update={"repository": str(source.path), "tests": tests})}
    workshop = GitWorkshop(tmp_path / "state")
    deps = replace(world.deps, config=replace(world.config, apps=apps), workshop=workshop)
    said, run = [], Git.run

    def counted(git, *words, **more):
        said.append(words[0])
        return run(git, *words, **more)

    monkeypatch.setattr(Git, "run", counted)
    for content in "ab":
        head = source.commit({"file": content})
        intake.poll("shop", deps, force=True)
        with world.store.reading() as tx:
            assert tx.commits.newest("shop").sha == head
        said.clear()
        intake.poll("shop", deps, force=True)
        assert said == ["ls-remote"]


def test_a_remote_that_hangs_keeps_a_place_for_tests_for_its_limit_only(tmp_path, monkeypatch, silent):
    """A push to it is told of by a webhook before any poll: the next app's test does not wait for as long as a first fetch may take."""
    monkeypatch.setattr(testing, "FETCH_S", 0.5)
    world = World(tmp_path / "world", monkeypatch)
    address = f"http://127.0.0.1:{silent.getsockname()[1]}/a.git"
    shop = world.config.app("shop").model_copy(update={"repository": address})
    deps = replace(
        world.deps,
        config=replace(world.config, apps={"shop": shop}),
        workshop=GitWorkshop(tmp_path / "state"),
    )
    push = Push("github", "delivery", "push", full_name="ann/shop", branch="main", head="a" * 40)
    intake.receive_all([(push, shop)], deps)
    with world.store.reading() as tx:
        commit = tx.commits.newest("shop") or tx.commits.get("shop", push.head)
    testing.run_tests(commit.id, deps)
    with world.store.reading() as tx:
        put_off = tx.commits.by_id(commit.id)
    assert (put_off.state, put_off.lease_owner) == ("received", None)
    assert "git fetch did not end within" in put_off.reason
