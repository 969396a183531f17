"""Two apps in one installation do not delay each other."""

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rollout.config import deploy_file
from rollout.domain import pipeline
from rollout.domain.model import Role
from rollout.domain.states import HostState, RolloutState
from rollout.services import hosts, intake, reconcile, rollouts, stopping, testing
from tests.support.model_host import ModelHost
from tests.support.processes import until
from tests.support.world import World
from workers.drivers import nexts

H, R = HostState, RolloutState
SLOTS = 10
BUSY = {H.PREPARING, H.ACTIVATING, H.ROLLING_BACK}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """`shop` on 60 hosts, all of them at once; `blog` on 30; a hosts worker of ten slots."""
    made = World(tmp_path, monkeypatch, hosts=60, fan_out='max_failed = 0\nconcurrency = 60\nmode = "ramp"')
    file = tmp_path / "rollout.toml"
    before, shop = file.read_text().split("[apps.shop]")
    shop, after = shop.split("[notify]")
    blog = shop.replace("apps.shop.", "apps.blog.").replace("/srv/shop", "/srv/blog")
    blog = blog.replace("web[01:60]", "blog[01:30]").replace("concurrency = 60", "concurrency = 30")
    file.write_text(f"{before}[apps.shop]{shop}[apps.blog]{blog}[notify]{after}")
    made.config = deploy_file.load(file, {})
    for number in range(1, 31):
        host = made.fleet.hosts[f"blog{number:02d}"] = ModelHost(f"blog{number:02d}")
        host.clock = lambda: made.seconds
    settings = made.deps.settings.model_copy(update={"slots": SLOTS})
    made.deps = replace(made.deps, config=made.config, settings=settings)
    return made


def push(world, *apps):
    sha = world.workshop.push()
    for app in apps:
        intake.read_branch(world.config.app(app), world.deps, who="test", why="pushed")
    return sha


def newest(world, app):
    with world.store.reading() as tx:
        return tx.rollouts.newest(app)


def under_way(world, app):
    """Hosts of the app's newest rollout that somebody works on, or has a message for."""
    with world.store.reading() as tx:
        found = tx.hosts.of(newest(world, app).id)
        return [one for one in found if one.state in BUSY or (one.due_at or 0.0) > tx.now()]


def fanning_out(world, app):
    """Its window is wide, and nobody works on its messages any more: all its hosts are slow."""
    world.run(until=lambda: newest(world, app) is not None and newest(world, app).state is R.FANNING_OUT)
    number = newest(world, app).id
    world.run(until=lambda: newest(world, app).done > 15)
    with world.store.transaction() as tx:
        tx.rollouts.update(tx.rollouts.lock(number), window=60)
    return number


def forget_messages(world):
    """Nothing is under way any more: what was rung is due again."""
    world.bell.queue.clear()
    world.seconds += 60


def handed(world, number):
    """For how many hosts the rollout has messages under way, however often it is asked."""
    for _ in range(3):
        with world.store.transaction() as tx:
            rollout = tx.rollouts.lock(number)
            rollouts.hand_out(tx, rollout, world.deps)
    return len(under_way(world, rollout.app))


def test_alone_an_app_has_as_many_hosts_under_way_as_it_may(world):
    """Nobody else wants anything: what it is configured to do at once counts, not the slots."""
    push(world, "shop")
    number = fanning_out(world, "shop")
    assert handed(world, number) > SLOTS


def test_beside_another_app_it_leaves_a_fifth_of_the_slots(world):
    """The other one's rollout is planned, and has nothing under way yet: its hosts find a place at once."""
    push(world, "shop")
    number = fanning_out(world, "shop")
    push(world, "blog")
    world.run(until=lambda: newest(world, "blog") is not None, seconds=30)
    forget_messages(world)
    assert handed(world, number) == SLOTS * 0.8


def test_beside_one_whose_table_is_wrong_it_leaves_as_much(world):
    """That is left out of what begins; what it has under way needs its places as before."""
    push(world, "shop", "blog")
    number = fanning_out(world, "shop")
    world.run(until=lambda: newest(world, "blog") is not None, seconds=30)
    world.config.left_out["blog"] = "1 to mend"
    del world.config.apps["blog"]
    forget_messages(world)
    assert handed(world, number) == SLOTS * 0.8


def test_two_apps_leave_a_fifth_of_the_slots_for_a_third(world):
    """Both have as many slow hosts under way as they may, and the third has no rollout yet: its first hosts wait for none of them."""
    push(world, "shop", "blog")

    def both():
        found = [newest(world, app) for app in ("shop", "blog")]
        return found if all(one and one.state is R.FANNING_OUT and one.done > 5 for one in found) else None

    world.run(until=both)
    with world.store.transaction() as tx:
        for one in both():
            tx.rollouts.update(tx.rollouts.lock(one.id), window=one.total)
    forget_messages(world)
    world.config.apps["news"] = world.config.app("blog").model_copy(update={"name": "news"})
    shop, blog = (one.id for one in both())
    assert handed(world, shop) == SLOTS * 0.8
    world.seconds += world.deps.settings.ring_again_s / 2
    assert handed(world, blog) == SLOTS * 0.4
    world.seconds += world.deps.settings.ring_again_s / 2 + 1  # what the first one had too much of is through
    assert handed(world, shop) == SLOTS * 0.4


def test_its_canary_waits_behind_no_other_apps_hosts():
    """The canary's messages are before every prepare and every other switch, behind roll-backs alone."""

    def host(role):
        return SimpleNamespace(rollout=1, id=1, name="web01", role=role)

    canary, other = host(Role.CANARY), host(Role.OTHER)
    first = {pipeline.prepare_host(canary).priority, pipeline.deploy_host(canary).priority}
    first |= {pipeline.pipeline(1).priority, pipeline.watch_fan_out(1).priority}
    others = {pipeline.prepare_host(other).priority, pipeline.deploy_host(other).priority}
    assert pipeline.roll_back_host(other).priority < min(first) <= max(first) < min(others)


HOSTS = {pipeline.PREPARE_HOST, pipeline.DEPLOY_HOST}


def test_an_app_that_comes_waits_for_one_host_of_the_one_that_has_all_places(world, monkeypatch):
    """Slow hosts, one after the other on one message while nobody waits: the row ends with the host that is under way when the other app's canary has its message."""
    monkeypatch.setattr(hosts, "ROW_S", -1.0)  # each host takes longer than a row may
    push(world, "shop")
    fanning_out(world, "shop")
    entry = next(entry for entry in world.bell.queue if entry[1][0] == pipeline.DEPLOY_HOST)
    forget_messages(world)
    monkeypatch.setattr(world.bell, "crowded", lambda: any(one[1][0] in HOSTS for one in world.bell.queue))
    activate, switched = world.fleet.activate, []

    def somebody_comes(target, *rest, **more):
        switched.append(target.name)
        if len(switched) == 3:
            push(world, "blog")
            while not world.bell.crowded():
                world.step(world.bell.queue.pop(0))
        return activate(target, *rest, **more)

    monkeypatch.setattr(world.fleet, "activate", somebody_comes)
    world.step(entry)
    assert len(switched) == 3
    waiting = [one[2][2] for one in world.bell.queue if one[1][0] in HOSTS]
    assert {name.strip("0123456789") for name in waiting} == {"blog"}  # this app's next host has no message


def test_both_are_done(world):
    """Each has its part, and both end."""
    sha = push(world, "shop", "blog")
    world.run(
        until=lambda: all(
            newest(world, app) and newest(world, app).state is R.DONE for app in ("shop", "blog")
        ),
        seconds=900,
    )
    assert {host.current for host in world.fleet.hosts.values()} == {sha}


def test_a_rollback_leaves_the_other_app_its_part(world):
    """Its slow hosts take no more than their share while the other app ships."""
    push(world, "shop")
    world.run(until=lambda: newest(world, "shop") and newest(world, "shop").state is R.DONE, seconds=600)
    push(world, "blog")
    world.run(until=lambda: newest(world, "blog") is not None, seconds=60)
    forget_messages(world)
    back = stopping.roll_back_done(world.config.app("shop"), world.deps, to=None, who="ann", why="slow")
    assert back.state is R.ROLLING_BACK
    assert len(under_way(world, "shop")) <= SLOTS


def test_an_inventory_that_hangs_holds_up_its_app_alone(world, monkeypatch):
    """The other app's next rollout is planned while the sweep of this one waits for it."""
    asked, ended, true = threading.Event(), threading.Event(), world.fleet.members

    def members(config):
        if config.name == "shop":
            asked.set()
            ended.wait(30)
        return true(config)

    monkeypatch.setattr(world.fleet, "members", members)
    monkeypatch.setattr(world.bell, "ring", lambda rings: True)
    push(world, "shop", "blog")
    with world.store.reading() as tx:
        waiting = [tx.commits.newest(app) for app in ("shop", "blog")]
    for commit in waiting:
        threading.Thread(target=testing.run_tests, args=(commit.id, world.deps), daemon=True).start()
    following = nexts()

    def planned():
        reconcile.sweep(world.deps, following=following)
        return newest(world, "blog") is not None

    until(planned, what="the other app's rollout is planned")
    assert asked.wait(10)
    assert newest(world, "shop") is None
    ended.set()
    until(lambda: newest(world, "shop") is not None, what="this one's is planned when its inventory answers")


def test_no_task_waits_for_an_inventory_program(world, monkeypatch):
    """From the push to the end a program is waited for by the sweep alone, in the app's own turn: a slot is never held from others."""
    shop, true, turn, waited = world.config.app("shop"), world.fleet.members, [], []
    program = shop.fleet.model_copy(update={"inventory": Path("/srv/list"), "hosts": ()})
    world.config.apps["shop"] = shop.model_copy(update={"fleet": program})
    next_of = reconcile.next_of

    def its_turn(app, deps, here=None):
        turn.append(app)
        try:
            next_of(app, deps, here)
        finally:
            turn.pop()

    def members(config):
        if config.name == "shop":
            waited.append(list(turn))
        return true(shop if config.name == "shop" else config)

    monkeypatch.setattr(reconcile, "next_of", its_turn)
    monkeypatch.setattr(world.fleet, "members", members)
    for _ in range(2):
        push(world, "shop")
        world.run(
            until=lambda: newest(world, "shop") is not None and newest(world, "shop").state is R.FANNING_OUT
        )
    push(world, "shop")  # planned ahead
    world.run(seconds=300)
    assert newest(world, "shop").state is R.DONE
    assert len(waited) >= 3
    assert {tuple(one) for one in waited} == {("shop",)}
