"""A rollout that another version of rollout has planned, and whose policy this one cannot read: nobody goes on with it, and everybody comes back."""

from dataclasses import replace

import pytest
from pydantic import ValidationError
from sqlalchemy import update

from rollout.config.deploy_file import Config
from rollout.domain.states import HostState, RolloutState
from rollout.errors import ConfigError
from rollout.services import evidence, halts, hosts, planning, reconcile, replays, stopping, verifying, views
from rollout.services.policies import Plans
from rollout.store.tables import rollouts
from tests.support.across import SLOW, owes_a_rollback, recorded, state_of
from tests.support.branch import coming, why
from tests.support.released import first_release
from tests.support.world import World

R = RolloutState
# What this version knows no more; and what it is stricter with.
STRANGE = {
    "key": {"restart": "start then", "window": "5s"},
    "value": {"restart": "start then", "health_timeout": "soon"},
}
# What a way back restarts with: as planned, or as rollout.toml has it now.
SENT = {"key": "start then", "value": "true"}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Its tasks may fail, as Celery's do."""
    made = World(tmp_path, monkeypatch, hosts=6, fan_out="max_failed = 2")
    perform = made._perform

    def task(name, arguments):
        try:
            return perform(name, arguments)
        except (ConfigError, ValidationError):
            return None

    monkeypatch.setattr(made, "_perform", task)
    first_release(made)
    return made


def upgraded(world, number, **its):
    """The newer version has these in `[release]` of a rollout's policy, and its processes remember nothing."""
    with world.store.transaction() as tx:
        policy = dict(tx.rollouts.get(number).policy)
        policy["release"] = {**policy["release"], **(its or STRANGE["key"])}
        tx.connection.execute(update(rollouts).where(rollouts.c.id == number).values(policy=policy))
    world.deps = replace(world.deps, plans=Plans())


def restarts(world, monkeypatch):
    """What each order to switch back says."""
    found, switch = [], world.fleet._switch

    def switched(verb, target, order, *rest):
        if verb == "rollback":
            found.append(order.restart)
        return switch(verb, target, order, *rest)

    monkeypatch.setattr(world.fleet, "_switch", switched)
    return found


def in_state(world, *states):
    """Hosts of the newest rollout."""
    return [host.name for host in world.rollout_hosts() if host.state in states]


def fans_out(world):
    """A second release, which some hosts have."""
    sha = world.push()
    world.run(until=lambda: world.newest().state is R.FANNING_OUT and world.newest().done > 2, seconds=200)
    assert world.newest().state is R.FANNING_OUT
    return sha


@pytest.mark.parametrize("strange", STRANGE)
def test_a_rollback_needs_no_policy_that_can_be_read(world, monkeypatch, strange):
    """Each host goes back, restarted by what was planned as far as that is known, else by rollout.toml as it is now."""
    older = world.newest().commit
    world.push()
    assert world.settle().state is R.DONE
    number = world.newest().id
    upgraded(world, number, **STRANGE[strange])
    sent = restarts(world, monkeypatch)
    stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="ann", why="slow")
    world.run(until=lambda: state_of(world, number) is R.ROLLED_BACK, seconds=200)
    assert (set(world.runs().values()), set(sent)) == ({older}, {SENT[strange]})


@pytest.mark.parametrize("strange", STRANGE)
def test_a_stop_needs_no_policy_that_can_be_read(world, monkeypatch, strange):
    """Said while a host is being switched by a worker of before the upgrade: that one is sealed, and all come back."""
    older = world.newest().commit
    world.fleet.cuts.add("web04")
    world.push()
    world.run(until=lambda: "web04" in in_state(world, HostState.UNKNOWN), seconds=200)
    upgraded(world, 2, **STRANGE[strange])
    sent = restarts(world, monkeypatch)
    accepted = stopping.stop(2, world.deps, who="ann", why="bad")
    assert (accepted.leased, accepted.longest_s > stopping.SOON_S) == (("web04",), True)
    world.run(until=lambda: state_of(world, 2) is R.ROLLED_BACK, seconds=200)
    assert (set(world.runs().values()), set(sent)) == ({older}, {SENT[strange]})


def test_a_rollback_that_is_owed_is_made_whatever_can_be_read(world):
    """The host answers again after the upgrade."""
    good, bad, number = owes_a_rollback(world)
    upgraded(world, number)
    world.run(until=lambda: world.fleet.hosts[SLOW].current == good, seconds=700)
    assert world.runs()[SLOW] == good != bad


def test_a_lost_host_is_read_whatever_can_be_read_of_its_rollout(world):
    """`hosts --verify` seals it, as it always does."""
    lost = world.fleet.hosts[SLOW]

    def vanish():
        lost.loses_answer, lost.unreachable = 1, True

    lost.after_act = vanish
    sha = world.push()
    assert world.settle().state is R.DONE
    upgraded(world, 2)
    lost.unreachable = False
    assert verifying.verify("shop", world.deps).unread == {}
    assert recorded(world).release == sha


def test_a_fan_out_that_cannot_be_read_halts_and_a_person_has_it_go_on(world):
    """No further host is switched; who was lost is read; people are told; and `resume` is by rollout.toml as it is now."""
    world.fleet.cuts.add("web04")
    sha = fans_out(world)
    before = world.runs()
    upgraded(world, 2)
    world.run(seconds=60)
    found = world.newest()
    assert (found.state, found.halted_stage) == (R.HALTED, R.FANNING_OUT)
    for words in (
        "is of another version of rollout",
        "(policy.release.window: unknown key",
        "rollout resume 2 goes on",
    ):
        assert words in found.reason
    assert not in_state(world, HostState.UNKNOWN, HostState.ACTIVATING)
    assert {name for name, runs in world.runs().items() if runs != before[name]} <= {"web04"}
    reconcile.tell(world.deps)
    assert "rollout stop 2 takes it back" in world.notifier.sent[-1][1]
    resumed = halts.resume(2, world.deps, who="ann")
    assert resumed.policy == world.config.app(None).policy()
    assert world.settle().state is R.DONE
    assert set(world.runs().values()) == {sha}
    with world.store.reading() as tx:
        said = [
            event for event in tx.events.of_rollout(2) if event.what == "goes by rollout.toml as it is now"
        ]
    assert [event.who for event in said] == ["ann"]


@pytest.mark.parametrize("ends", [R.DONE, R.ROLLED_BACK])
def test_a_canary_that_cannot_be_judged_any_more_halts(world, ends):
    """It is not left to run unwatched: a person has it watched anew, or takes it back."""
    older = world.newest().commit
    sha = world.push()
    world.run(until=lambda: world.newest().state is R.EVALUATING_CANARY, seconds=200)
    upgraded(world, 2)
    assert world.settle().state is R.HALTED
    assert world.newest().halted_stage is R.EVALUATING_CANARY
    if ends is R.DONE:
        halts.resume(2, world.deps, who="ann")
    else:
        stopping.stop(2, world.deps, who="ann", why="rather not")
    world.run(until=lambda: state_of(world, 2) is ends, seconds=200)
    assert set(world.runs().values()) == {sha if ends is R.DONE else older}


def test_what_has_not_begun_is_planned_anew(world):
    """Nothing was touched, so nobody is asked."""
    sha = world.push()
    world.run(until=lambda: world.newest().id == 2, seconds=60)
    assert world.newest().state is R.PENDING
    upgraded(world, 2)
    with world.store.reading() as tx:
        told = planning.outdated(tx, world.config.app(None), tx.rollouts.get(2))
    assert told.endswith("; it is planned anew")
    assert world.settle().state is R.DONE
    assert (state_of(world, 2), world.newest().id, set(world.runs().values())) == (R.ERROR, 3, {sha})


def test_what_all_hosts_have_is_done(world):
    """An upgrade between the last host and the word keeps nothing from being said."""
    sha = world.push()
    world.run(until=lambda: world.newest().state is R.FANNING_OUT, seconds=200)
    world.run(until=lambda: set(world.runs().values()) == {sha}, seconds=200)
    with world.store.reading() as tx:
        assert tx.hosts.all_settled(2)
    upgraded(world, 2)
    assert world.settle().state is R.DONE


def test_everything_is_told_of_what_cannot_be_read(world):
    """`status`, `why`, `show` and `judge` fail for no rollout; what they cannot say they leave out."""
    sha = fans_out(world)
    for its in (STRANGE["key"], STRANGE["value"]):
        upgraded(world, 2, **its)
        assert coming(world).because
        assert "in rollout 2" in why(world, sha).because
        with world.store.reading() as tx:
            found = tx.rollouts.get(2)
            assert views.rollout(tx, found)["state"] == "fanning_out"
            drawn = evidence.canary(tx, found)
            judged = replays.replay(tx, found, {"minimum_good": 0.9})
        assert (drawn["status"], judged.verdict) == ("pass", None)
        assert "is of another version of rollout" in judged.missing
        assert bool(drawn["bins"]) == (its is STRANGE["key"])


def test_without_the_app_in_rollout_toml_a_stop_is_acknowledged_and_says_what_to_do(world):
    """What cannot be read is nowhere then: hosts come back as soon as the app is there again."""
    older = world.newest().commit
    fans_out(world)
    world.run(until=lambda: not world.newest().in_flight, seconds=20)
    upgraded(world, 2, **STRANGE["value"])
    there = world.deps
    world.deps = replace(
        there, config=Config(there.config.server, {}, there.config.notify, there.config.path)
    )
    stopping.stop(2, world.deps, who="ann", why="bad")
    world.run(until=lambda: state_of(world, 2) is R.ROLLING_BACK, seconds=60)
    host = next(host for host in world.rollout_hosts() if host.touched)
    with pytest.raises(ConfigError, match=r"there is no \[apps.shop\] in rollout.toml to go by") as error:
        hosts.roll_back(2, host.id, world.deps)
    assert "put it back" in error.value.remedy
    world.deps = there
    world.run(until=lambda: state_of(world, 2) is R.ROLLED_BACK, seconds=200)
    assert set(world.runs().values()) == {older}
    assert recorded(world, host.name).release == older
