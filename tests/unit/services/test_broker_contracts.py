"""The row is the truth, a message is a hint: whatever a broker does to messages, hosts do the same.

Each contract is a full rollout of 50 hosts, two of which fail, and must end with the journals of an undisturbed one.
Each says what it did to messages of each kind, so that none holds because nothing happened.
"""

import random
from collections import Counter

import pytest

from rollout.domain import pipeline
from rollout.domain.states import RolloutState
from rollout.services import hosts, reconcile
from tests.support.world import World

FAILING = ("web17", "web33")
EMPTIED_EVERY_S = 10.0
TAKES_S = {pipeline.RUN_TESTS: 4.0, pipeline.PREPARE_HOST: 0.5, pipeline.DEPLOY_HOST: 1.5}
OF_A_STAGE = {pipeline.DEPLOY_CANARY, pipeline.EVALUATE_CANARY, pipeline.FAN_OUT, pipeline.WATCH_FAN_OUT}
OF_A_HOST = {pipeline.PREPARE_HOST, pipeline.DEPLOY_HOST}
ALL = {pipeline.RUN_TESTS, *OF_A_STAGE, *OF_A_HOST, pipeline.COUNT_OUTCOME}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A fleet that runs a first release. Each host has a message of its own."""
    monkeypatch.setattr(hosts, "IN_A_ROW", 1)
    world = World(tmp_path, monkeypatch, hosts=50, fan_out='max_failed = "10%"')
    world.push()
    assert world.settle().state is RolloutState.DONE
    yield world
    world.store.close()


def journals(world):
    """What each host did and for which commit; without epochs, and in no order."""
    return {
        name: sorted((entry.what, entry.verb, entry.commit) for entry in host.journal)
        for name, host in world.fleet.hosts.items()
    }


def ship(world, *, pushed=lambda: None, **disturbance):
    """A second release, with everything that becomes of it."""
    for name in FAILING:
        world.fleet.hosts[name].unhealthy.add(f"{len(world.workshop.commits) + 1:040x}")
    sha = world.push("the second")
    pushed()
    world.run(seconds=300, until=lambda: world.newest().commit == sha, **disturbance)
    ended = world.settle(seconds=3000, **disturbance)
    assert (ended.commit, ended.state) == (sha, RolloutState.DONE)
    world.run(seconds=5)  # what is still under way comes too
    return journals(world)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The journals when every message comes once and in order: each host switched once, the two put back."""
    with pytest.MonkeyPatch.context() as patch:
        world = World(tmp_path_factory.mktemp("calm"), patch, hosts=50, fan_out='max_failed = "10%"')
        first = world.push()
        assert world.settle().state is RolloutState.DONE
        found = ship(world)
        assert {name for name, current in world.runs().items() if current == first} == set(FAILING)
        world.store.close()
    return found


def kind(entry):
    """The task that a message is for."""
    return entry[1][0]


def test_with_every_message_lost_but_the_reconcilers(world, undisturbed, monkeypatch):
    """(a) No task that a task or a webhook sends ever arrives, and the reconciler alone brings the rollout to its end."""
    send, sweep, lost, sweeping = world.bell.send, reconcile.sweep, Counter(), []

    def sends(entry):
        if sweeping:
            send(entry)
        else:
            lost[kind(entry)] += 1

    def sweeps(deps):
        sweeping.append(True)
        sweep(deps)
        sweeping.clear()

    monkeypatch.setattr(world.bell, "send", sends)
    monkeypatch.setattr(reconcile, "sweep", sweeps)
    assert ship(world) == undisturbed
    assert set(lost) == ALL, lost


def test_with_every_message_delivered_three_times(world, undisturbed, monkeypatch):
    """(b) Whatever comes again, at once or when others have come, finds a row that has moved on, and does nothing."""
    step, came, again = world.step, Counter(), []

    def deliver(entry):
        came[kind(entry)] += 1
        step(entry)

    def thrice(entry):
        if entry in again:
            again.remove(entry)
            deliver(entry)
            return
        deliver(entry)
        deliver(entry)
        later = (world.seconds + 3.0, *entry[1:])
        again.append(later)
        world.bell.queue.append(later)

    monkeypatch.setattr(world, "step", thrice)
    assert ship(world) == undisturbed
    assert set(came) == ALL
    assert all(came[one] >= 3 * 50 for one in OF_A_HOST), came


@pytest.mark.parametrize("seed", range(2))
def test_with_messages_in_any_order_and_late(world, undisturbed, monkeypatch, seed):
    """(c) Messages that overtake each other, and come up to 20 s late, change when things happen and nothing else."""
    chooser, sent, overtook, late = random.Random(seed), {}, Counter(), Counter()
    send, step = world.bell.send, world.step

    def sends(entry):
        at = max(entry[0], world.seconds) + chooser.uniform(0, 20)
        sent[at] = entry[0]
        send((at, *entry[1:]))

    def steps(entry):
        if entry[0] in sent:
            numbers = list(sent)
            overtook[kind(entry)] += numbers.index(entry[0]) > 0  # an older one is still under way
            late[kind(entry)] += entry[0] - max(sent.pop(entry[0]), 0) > 5
        step(entry)

    monkeypatch.setattr(world.bell, "send", sends)
    monkeypatch.setattr(world, "step", steps)
    assert ship(world, chooser=chooser) == undisturbed
    assert all(overtook[one] >= 20 for one in OF_A_HOST), overtook
    assert set(late) == ALL


def replaced_every_10_s(world, monkeypatch):
    """Hosts and tests take their time, and every 10 s there is another, empty broker, whatever was due; what was lost."""
    watch, step, lost, replaced = reconcile.watch, world.step, Counter(), [world.seconds]

    def replace():
        replaced.append(world.seconds)
        lost.update(map(kind, world.bell.queue))
        world.bell.queue.clear()

    def replace_when_due():
        # And once with a message in it that is seldom there for long.
        rare = not lost[pipeline.FAN_OUT] and pipeline.FAN_OUT in map(kind, world.bell.queue)
        if rare or world.seconds - replaced[-1] >= EMPTIED_EVERY_S:
            replace()

    def watches(deps):
        replace_when_due()
        watch(deps)

    def steps(entry):
        world.seconds += TAKES_S.get(kind(entry), 0.1)
        replace_when_due()  # while this message was in a worker's hands
        step(entry)

    monkeypatch.setattr(reconcile, "watch", watches)
    monkeypatch.setattr(world, "step", steps)
    return lost, replaced, replace


def test_with_a_broker_that_is_replaced_by_an_empty_one(world, undisturbed, monkeypatch):
    """(d) Every 10 s all that was queued is gone, messages for hosts too, and nobody has to do anything about it."""
    lost, replaced, replace = replaced_every_10_s(world, monkeypatch)
    assert ship(world, pushed=replace) == undisturbed  # the first time with the push's own message in it
    assert len(replaced) > 10
    assert all(lost[one] >= 10 for one in OF_A_HOST), lost
    assert set(lost) == ALL, lost


def test_without_the_reconciler_a_replaced_broker_is_the_end(world, undisturbed, monkeypatch):
    """What (d) proves is the reconciler's work: without its sweep the rollout stands still."""
    lost, _, _ = replaced_every_10_s(world, monkeypatch)
    monkeypatch.setattr(reconcile, "sweep", lambda _deps: None)
    with pytest.raises(AssertionError):
        ship(world)
    assert lost
