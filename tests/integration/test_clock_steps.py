"""A database server's clock is stepped in the middle: nothing is decided early, and nothing waits for as long as the step."""

import pytest

from rollout.domain.states import HostState, RolloutState
from rollout.services import intake, reconcile, stopping
from rollout.store import clock, postgresql
from tests.support.stores import asked
from tests.support.world import World

pytestmark = pytest.mark.needs("postgresql")


def steps(short):
    """This one always, the others in `make faults`."""
    rest = {3600.0, -3600.0, 86_400.0, -86_400.0} - {short}
    return [short, *(pytest.param(step, marks=pytest.mark.faults) for step in sorted(rest))]


@pytest.fixture
def world(tmp_path, monkeypatch, postgres):
    """A World whose store is PostgreSQL; `steps` are of its clock alone, `lived` is added to the machine's own."""
    # A step is thousands of intervals in one transaction: on a busy machine its database gave up who puts them together.
    options = postgresql._CONNECT["options"].replace(
        f"session_timeout={postgresql.IDLE_S}000 ", "session_timeout=0 "
    )
    monkeypatch.setitem(postgresql._CONNECT, "options", options)
    world = World(tmp_path, monkeypatch, hosts=6, fan_out="max_failed = 1", url=postgres.prepared())
    world.seconds, world.steps, world.lived = 1_000_000.0, 0.0, 0.0
    monkeypatch.setattr(clock, "own_seconds", lambda: world.seconds - world.steps + world.lived)
    yield world
    world.store.close()


def of(world, name):
    return next(host for host in world.rollout_hosts() if host.name == name)


def die_with(world, name):
    """The worker that has just got the permit for this host is gone, and so is the way to the host."""
    host = world.fleet.hosts[name]

    def die():
        host.unreachable = True
        raise KeyboardInterrupt

    host.before_act = die
    with pytest.raises(KeyboardInterrupt):
        world.settle()
    host.before_act = lambda: None
    return host


@pytest.mark.parametrize("step", steps(3600.0))
def test_a_stop_waits_its_longest_time_by_its_own_clock(world, step):
    """A leased host does not answer: no step acknowledges the stop early, and none makes it last longer than was printed."""
    world.push()
    die_with(world, "web03")
    rollout = world.newest()
    longest = stopping.stop(rollout.id, world.deps, who="me", why="enough").longest_s
    stopping.drive(rollout.id, world.deps)
    world.seconds += step
    world.steps += step
    world.run(seconds=20)
    assert world.newest().state is RolloutState.STOPPING
    world.lived = longest
    world.run(until=lambda: world.newest().state is not RolloutState.STOPPING, seconds=20)
    assert world.newest().unconfirmed == ("web03",)


@pytest.mark.parametrize("step", steps(86400.0))
def test_an_unknown_host_has_its_whole_time_to_be_read(world, step):
    """It counts as failed when it could not be read for host_timeout, and no step makes that sooner or later."""
    world.push()
    host = die_with(world, "web03")
    world.run(until=lambda: of(world, "web03").state is HostState.UNKNOWN, seconds=30)
    world.run(seconds=5)
    world.seconds += step
    world.steps += step
    world.run(seconds=20)
    assert not of(world, "web03").unreadable
    world.lived = 10_000.0
    world.run(until=lambda: of(world, "web03").unreadable, seconds=20)
    assert host.activations == []


@pytest.mark.parametrize("step", steps(-3600.0))
def test_a_rollout_ends_as_if_the_clock_had_not_been_stepped(world, step):
    """A worker has died, messages are lost, the clock is stepped: the same hosts are switched, once, in about the same time."""
    sha = world.push()
    die_with(world, "web03").unreachable = False
    world.bell.queue.clear()
    world.seconds += step
    world.steps += step
    world.run(until=lambda: world.newest().state is RolloutState.DONE, seconds=120)
    assert world.newest().state is RolloutState.DONE
    assert [host.activations for host in world.fleet.hosts.values()] == [[sha]] * 6


def test_a_sweep_does_not_look_for_what_a_step_has_left(world):
    """That reads all rows of hosts, of which there may be 200,000, and hardly ever finds one: a round of its own does."""
    with asked(world.store) as by_sweep:
        reconcile.sweep(world.deps)
    with asked(world.store) as by_heal:
        reconcile.heal(world.deps)
    assert by_heal
    assert set(by_heal).isdisjoint(by_sweep)


def test_a_branch_is_polled_although_the_clock_was_set_back(world):
    """A poll that is due later than one ever is, is due."""
    world.workshop.push()
    intake.poll("shop", world.deps)
    world.seconds -= 86_400
    sha = world.workshop.push()
    reconcile.poll_all(world.deps)
    with world.store.reading() as tx:
        assert tx.commits.newest("shop").sha == sha


def test_a_stopwatch_remembers_a_bounded_number_of_moments():
    """Whatever is asked of it, its memory is bounded; the newest moments are those that it keeps."""
    watch = clock.Stopwatch()
    for moment in range(watch.MOST + 10):
        watch.elapsed(float(moment))
    assert len(watch._seen) == watch.MOST
    assert float(watch.MOST + 9) in watch._seen
