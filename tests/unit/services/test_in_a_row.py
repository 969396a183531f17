"""A host's report claims the next one in the same transaction: one message prepares, switches or brings back many."""

import threading

import pytest

from rollout.domain import pipeline
from rollout.domain.states import HostState, RolloutEvent, RolloutState
from rollout.services import bell, hosts, shares, stopping
from rollout.services.hosts import IN_A_ROW
from tests.support.released import released

HOSTS = 60


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A good release everywhere, and the next one's canary under watch."""
    world = released(tmp_path, monkeypatch, hosts=HOSTS)
    world.prepares = []
    true = world.fleet.prepare
    world.fleet.prepare = lambda target, *a, **k: world.prepares.append(target.name) or true(target, *a, **k)
    world.push()
    return world


def counted(world, *states):
    """How many hosts of the newest rollout are in these states."""
    return sum(host.state in states for host in world.rollout_hosts())


def prepare_messages(world):
    return [entry for entry in world.bell.queue if entry[1][0] == pipeline.PREPARE_HOST]


def bake(world):
    """Until the canary is watched, without preparing anybody beyond it."""

    def baking():
        newest = world.newest()
        return newest is not None and newest.id == 2 and newest.state is RolloutState.EVALUATING_CANARY

    seconds = world.seconds
    while not baking():
        canary = [
            entry
            for entry in world.bell.queue
            if entry[1][0] != pipeline.PREPARE_HOST or entry[2][1] == HOSTS + 1
        ]
        due = [entry for entry in canary if entry[0] <= world.seconds]
        if not due:
            world.seconds += 0.5
            assert world.seconds < seconds + 60, "no canary"
            continue
        world.bell.queue.remove(due[0])
        world.step(due[0])


def test_one_message_prepares_many_and_then_others_have_their_turn(world):
    """A message prepares its host and the next ones that no message is under way for, sixteen at most, each of them once."""
    bake(world)
    entry = prepare_messages(world)[0]
    world.bell.queue.remove(entry)
    before = len(world.prepares)
    world.step(entry)
    assert len(world.prepares) - before == IN_A_ROW
    assert len(set(world.prepares)) == len(world.prepares)
    assert counted(world, HostState.PREPARING) == 0
    world.settle()
    assert world.newest().state is RolloutState.DONE
    assert len(set(world.prepares)) == len(world.prepares) == HOSTS


@pytest.mark.parametrize("what", ["hosts", "seconds"])
def test_nobody_has_a_turn_that_nobody_wants(world, monkeypatch, what):
    """While no message waits for its place, one goes on with every host that no other one is under way for, however long it takes."""
    bake(world)
    messages = prepare_messages(world)
    world.bell.queue.remove(messages[0])
    world.bell.lonely = True
    if what == "seconds":
        monkeypatch.setattr(hosts, "PREPARES_S", -1.0)
    before = len(world.prepares)
    world.step(messages[0])
    assert len(world.prepares) == HOSTS - len(messages) + 1 > before + IN_A_ROW
    assert len(set(world.prepares)) == len(world.prepares)
    assert len(prepare_messages(world)) == len(messages) - 1  # it has rung for nobody


@pytest.mark.parametrize("number", [3, IN_A_ROW + 3])
def test_whoever_comes_has_his_turn_when_the_row_is_over(wide, number):
    """A row that went on because nobody waited ends when somebody does: after sixteen hosts more, not at once and not never."""
    entry = a_wide_window(wide)
    wide.bell.lonely = True
    activate = wide.fleet.activate

    def somebody_comes(target, *rest, **more):
        if len(wide.fleet.switches) == number - 1:
            wide.bell.lonely = False
        return activate(target, *rest, **more)

    wide.fleet.activate = somebody_comes
    wide.step(entry)
    assert len(wide.fleet.switches) == -(-number // IN_A_ROW) * IN_A_ROW


def test_nobody_is_prepared_in_a_row_after_a_stop(world):
    """The claim of the next host is no way around a stop: it ends with the host that was being prepared."""
    bake(world)
    entry = prepare_messages(world)[0]
    world.bell.queue.remove(entry)
    prepare, third = world.fleet.prepare, len(world.prepares) + 3

    def stops_at_the_third(target, order, **rest):
        outcome = prepare(target, order, **rest)
        if len(world.prepares) == third:
            stopping.stop(world.newest().id, world.deps, who="test", why="enough", keep=False)
        return outcome

    world.fleet.prepare = stops_at_the_third
    world.step(entry)
    assert len(world.prepares) == third
    assert counted(world, HostState.PREPARING) == 0


def test_one_that_fails_ends_the_row(world):
    """A failed prepare is counted before another begins on its message."""
    bake(world)
    entry = prepare_messages(world)[0]
    world.bell.queue.remove(entry)
    name = entry[2][2]
    world.fleet.hosts[name].unreachable = True
    before = len(world.prepares)
    world.step(entry)
    assert world.prepares[before:] == [name]


def a_wide_window(world):
    """A fan-out whose window has grown to its concurrency, with no message under way; one of them that has just come."""

    def wide():
        newest = world.newest()
        return (
            newest.id == 2
            and newest.state is RolloutState.FANNING_OUT
            and newest.window == newest.concurrency
        )

    world.fleet.switches = []
    true = world.fleet.activate
    world.fleet.activate = lambda target, *a, **k: (
        world.fleet.switches.append(target.name) or true(target, *a, **k)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosts, "IN_A_ROW", 1)  # so that the fleet is not done before
        world.run(seconds=300, until=wide)
    assert wide()
    for waiting in [entry for entry in world.bell.queue if entry[1][0] == pipeline.COUNT_OUTCOME]:
        world.bell.queue.remove(waiting)
        world.step(waiting)
    del world.fleet.switches[:]
    entry = next(entry for entry in world.bell.queue if entry[1][0] == pipeline.DEPLOY_HOST)
    world.bell.queue.remove(entry)
    return entry


@pytest.fixture
def wide(tmp_path, monkeypatch):
    """As `world`, for a fan-out of two at once."""
    world = released(tmp_path, monkeypatch, hosts=HOSTS, fan_out='concurrency = 2\nmax_failed = "5%"')
    world.push()
    return world


def counts(world):
    return sum(entry[1][0] == pipeline.COUNT_OUTCOME for entry in world.bell.queue)


def test_a_token_goes_from_host_to_host(wide):
    """A message switches its host and the next ones, each once and one at a time, and nobody counts in between."""
    entry = a_wide_window(wide)
    before, done = counts(wide), wide.newest().done
    wide.step(entry)
    assert len(wide.fleet.switches) == len(set(wide.fleet.switches)) == IN_A_ROW
    assert wide.newest().done == done + IN_A_ROW
    assert counted(wide, HostState.ACTIVATING) == 0
    assert counts(wide) - before == 0
    wide.settle()
    assert wide.newest().state is RolloutState.DONE
    assert counted(wide, HostState.DONE) == HOSTS


def messages_of(world, task):
    return [entry for entry in world.bell.queue if entry[1][0] == task]


def test_the_end_of_a_row_of_switches_is_the_message_of_the_next(wide):
    """The last one's token is free for the host that the next message is for, which is rung once, and nobody has to count."""
    entry = a_wide_window(wide)
    under_way, rung, before = (
        wide.newest().in_flight,
        len(messages_of(wide, pipeline.DEPLOY_HOST)),
        counts(wide),
    )
    wide.step(entry)
    assert wide.newest().in_flight == under_way
    waiting = messages_of(wide, pipeline.DEPLOY_HOST)
    assert len(waiting) == rung + 1
    assert counts(wide) == before
    host = next(host for host in wide.rollout_hosts() if host.id == waiting[-1][2][1])
    assert (host.state, host.token, host.name in wide.fleet.switches) == (HostState.PREPARED, False, False)
    assert host.due_at > wide.seconds  # whoever counts now does not ring it a second time
    wide.bell.queue.remove(waiting[-1])
    wide.step(waiting[-1])
    assert len(wide.fleet.switches) == len(set(wide.fleet.switches)) == 2 * IN_A_ROW


def test_the_end_of_a_row_of_prepares_is_the_message_of_the_next(world):
    """While the canary bakes one message follows another, and when all are prepared nobody has to count."""
    bake(world)
    before = counts(world)
    while entries := prepare_messages(world):
        rung = len(entries)
        world.bell.queue.remove(entries[0])
        world.step(entries[0])
        assert len(prepare_messages(world)) in {rung - 1, rung}
    assert len(set(world.prepares)) == len(world.prepares) == HOSTS
    assert counts(world) == before


@pytest.mark.parametrize("task", [pipeline.PREPARE_HOST, pipeline.DEPLOY_HOST])
def test_with_other_apps_whoever_counts_shares_the_slots_out(request, monkeypatch, task):
    """A row that ends while other apps want slots rings for nobody: it may be another one's turn."""
    if task == pipeline.PREPARE_HOST:
        world = request.getfixturevalue("world")
        bake(world)
        entry = prepare_messages(world)[0]
        world.bell.queue.remove(entry)
    else:
        world = request.getfixturevalue("wide")
        entry = a_wide_window(world)
    rung, before = len(messages_of(world, task)), counts(world)
    monkeypatch.setattr(shares, "most", lambda *_: 1)
    world.step(entry)
    assert len(messages_of(world, task)) == rung
    assert counts(world) - before == 1


@pytest.mark.parametrize("what", ["stop", "failures"])
def test_the_end_of_a_row_rings_for_nobody_without_room(wide, monkeypatch, what):
    """After a stop, or when others have failed, no message follows the last host: the next one would be refused, and waited for."""
    entry = a_wide_window(wide)
    monkeypatch.setattr(hosts, "IN_A_ROW", 1)
    rung, activate = len(messages_of(wide, pipeline.DEPLOY_HOST)), wide.fleet.activate

    def meanwhile(target, *rest, **more):
        outcome = activate(target, *rest, **more)
        if what == "stop":
            stopping.stop(wide.newest().id, wide.deps, who="test", why="enough", keep=False)
        else:
            with wide.store.transaction() as tx:
                rollout = tx.rollouts.lock(wide.newest().id)
                tx.rollouts.update(rollout, failed=rollout.max_failed + 1)
        return outcome

    wide.fleet.activate = meanwhile
    wide.step(entry)
    assert len(messages_of(wide, pipeline.DEPLOY_HOST)) == rung


def test_a_lost_message_at_the_end_of_a_row_is_rung_again(wide):
    """The message between two rows is a hint like any other: without it the reconciler goes on with the host (I8)."""
    entry = a_wide_window(wide)
    wide.step(entry)
    wide.bell.queue[:] = []
    wide.settle()
    assert wide.newest().state is RolloutState.DONE
    assert counted(wide, HostState.DONE) == HOSTS


def test_a_row_ends_when_others_have_waited_for_long(wide, monkeypatch):
    """Hosts that take their time have a message each: whoever has an urgent one waits for no row of them."""
    entry = a_wide_window(wide)
    monkeypatch.setattr(hosts, "ROW_S", -1.0)
    wide.step(entry)
    assert len(wide.fleet.switches) == 1


def test_a_row_of_switches_ends_with_a_failure(wide):
    """A host that fails is counted before another one starts: its token goes to nobody by itself."""
    entry = a_wide_window(wide)
    name = entry[2][2]
    wide.fleet.hosts[name].unhealthy.add(wide.newest().commit)
    wide.step(entry)
    assert wide.fleet.switches == [name]
    assert wide.newest().window == 1


@pytest.mark.parametrize("what", ["stop", "halt"])
def test_a_row_of_switches_is_no_way_around_a_person(wide, what):
    """The claim of the next host looks at the rollout: after a stop, or when others have failed, it gets none."""
    entry = a_wide_window(wide)
    activate = wide.fleet.activate

    def meanwhile(target, *rest, **more):
        outcome = activate(target, *rest, **more)
        if len(wide.fleet.switches) == 3:
            if what == "stop":
                stopping.stop(wide.newest().id, wide.deps, who="test", why="enough", keep=False)
            else:
                with wide.store.transaction() as tx:
                    rollout = tx.rollouts.lock(wide.newest().id)
                    tx.rollouts.update(rollout, failed=rollout.max_failed + 1)
        return outcome

    wide.fleet.activate = meanwhile
    wide.step(entry)
    assert len(wide.fleet.switches) == 3
    assert counted(wide, HostState.ACTIVATING) == 0


def test_a_wider_window_is_somebody_elses_to_fill(wide, monkeypatch):
    """A row keeps its own token alone; whoever counts hands out what a wider window has room for."""
    entry = a_wide_window(wide)
    with wide.store.transaction() as tx:
        tx.rollouts.update(tx.rollouts.lock(wide.newest().id), window=1)
    monkeypatch.setattr(hosts, "IN_A_ROW", 2)
    before = counts(wide)
    wide.step(entry)
    assert wide.newest().window == 2
    assert counts(wide) - before == 1


def test_many_are_brought_back_on_one_message(wide):
    """A rollback goes on from host to host, each of them once, and every one comes back."""
    wide.settle()
    back = []
    true = wide.fleet.roll_back
    wide.fleet.roll_back = lambda target, *a, **k: back.append(target.name) or true(target, *a, **k)
    app = wide.config.app(None)
    stopping.roll_back_done(app, wide.deps, to=None, who="test", why="the login")
    entry = next(entry for entry in wide.bell.queue if entry[1][0] == pipeline.ROLL_BACK_HOST)
    wide.bell.queue.remove(entry)
    wide.bell.queue[:] = []  # those that have a message under way are not taken
    with wide.store.transaction() as tx:
        for host in tx.hosts.of(2):
            if host.id != entry[2][1]:
                tx.hosts.update(host, due_at=None)
    before = counts(wide)
    wide.step(entry)
    assert len(back) == len(set(back)) == IN_A_ROW
    (following,) = wide.bell.queue  # the end of a row is the message of the next, and nobody counts
    assert counts(wide) == before
    wide.bell.queue.clear()
    wide.step(following)
    assert len(back) == len(set(back)) == 2 * IN_A_ROW
    wide.settle()
    assert wide.newest().state is RolloutState.ROLLED_BACK
    assert len(back) == len(set(back)) == HOSTS


def test_the_end_of_a_row_leaves_its_slot_to_a_host_of_the_same_way_back(wide):
    """A row that ends while a host of its own rollout waits for a slot sends no message, or rows would end for ever; every host comes back."""
    wide.settle()
    first, *waiting = hand_out(wide)
    wide.bell.queue[:] = waiting
    wide.step(first)
    assert counted(wide, HostState.ROLLED_BACK) == IN_A_ROW
    assert wide.bell.queue == waiting
    wide.settle()
    assert wide.newest().state is RolloutState.ROLLED_BACK
    assert counted(wide, HostState.ROLLED_BACK) == HOSTS


def test_hosts_are_handed_out_for_their_way_back_until_one_waits(wide, monkeypatch):
    """Many at first, none while one waits for a slot, and a few when none does: for a worker that came, or a row that ended."""
    monkeypatch.setattr(stopping, "MORE_BACK", 3)
    wide.settle()
    messages = hand_out(wide)
    assert not stopping.ring_roll_backs(2, wide.deps)
    with wide.store.transaction() as tx:
        assert all(tx.claims.roll_back(entry[2][1], "somebody", 60.0) for entry in messages)
    assert len(stopping.ring_roll_backs(2, wide.deps)) == 3
    assert not stopping.ring_roll_backs(2, wide.deps)


def test_a_host_that_found_no_room_is_not_waited_for_when_there_is_some(wide):
    """Its message came when a failure had narrowed the window: it goes on with the next ones, and not when a new message for it is due."""
    entry = a_wide_window(wide)
    true = wide.newest()
    with wide.store.transaction() as tx:
        full = {"failed": true.max_failed, "in_flight": true.in_flight + 1, "window": 1}
        tx.rollouts.update(tx.rollouts.lock(true.id), **full)
    wide.step(entry)
    assert not wide.fleet.switches
    with wide.store.transaction() as tx:
        its = {name: getattr(true, name) for name in ("failed", "in_flight", "window")}
        tx.rollouts.update(tx.rollouts.lock(true.id), **its)
        assert entry[2][1] in [host.id for host, _ in tx.claims.next_to_activate(true.id, HOSTS)]
        tx.rollouts.change(tx.rollouts.lock(true.id), RolloutEvent.STOP, who="ann")
        tx.hosts.rung([entry[2][1]], 10.0)
    wide.step(entry)
    with wide.store.reading() as tx:
        assert tx.hosts.get(entry[2][1]).due_at  # nobody hands out what was stopped


def test_a_way_back_leaves_the_first_slot_that_comes_free_to_another_apps(wide, monkeypatch):
    """As many of its messages as a worker has slots go first; the others, which only wait there, stand behind whoever begins a way back."""
    wide.settle()
    rung = []
    monkeypatch.setattr(wide.bell, "ring", rung.extend)
    stopping.roll_back_done(wide.config.app(None), wide.deps, to=None, who="test", why="the login")
    slots = wide.deps.settings.slots
    assert [ring.priority for ring in rung] == [0] * slots + [1] * (HOSTS - slots)
    assert pipeline.CANARY_FIRST > 1


def test_as_many_messages_as_hosts_may_be_under_way_but_never_one_for_each_host(tmp_path, monkeypatch):
    """Where a whole fleet may be under way, the broker gets no message for each of its hosts at once; all of them go back."""
    monkeypatch.setattr(stopping, "BACK_SHARE", 0)
    world = released(tmp_path, monkeypatch, hosts=HOSTS, fan_out='concurrency = "100%"')
    world.push()
    world.settle()
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "MOST_BACK", 7)
        stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="test", why="the login")
        assert len(messages_of(world, pipeline.ROLL_BACK_HOST)) == 7
        world.run(until=lambda: world.newest().state is RolloutState.ROLLED_BACK)
    assert counted(world, HostState.ROLLED_BACK) == HOSTS


def hand_out(world):
    """A way back begins, with messages for as many hosts as there are slots."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopping, "BACK_SHARE", 1)
        stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="test", why="the login")
    messages = messages_of(world, pipeline.ROLL_BACK_HOST)
    assert len(messages) == world.deps.settings.slots < HOSTS
    return messages


def test_a_broker_that_stands_still_keeps_no_outcome_from_being_reported(monkeypatch):
    """Whoever asks whether others wait has a host to report: without an answer soon they may, and a row ends; with one it is what counts."""
    monkeypatch.setattr(bell, "SOON_S", 0.05)
    goes_on, asked = threading.Event(), []

    class Standing:
        def crowded(self):
            asked.append(goes_on.wait(60))
            return False

    standing = bell.BackgroundBell(Standing(), "test")
    assert standing.crowded()
    assert standing.crowded()
    goes_on.set()
    monkeypatch.setattr(bell, "SOON_S", 60.0)
    assert not standing.crowded()
    assert asked == [True, True]  # nobody waits for the second one's answer any more
    standing.close()
