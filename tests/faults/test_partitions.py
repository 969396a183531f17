"""The network is cut while hosts are being switched, and a stop is given on the side that is whole."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.apart import OPEN_DOORS, Apart
from tests.support.checker.check import check
from tests.support.system import wait_for

pytestmark = [
    pytest.mark.faults,
    pytest.mark.needs("root", "ip", "nft", "sshd", "git", "postgresql", "redis-server"),
    pytest.mark.timeout(600),
]

LINKS, WAYS = ("database", "broker", "hosts"), ("to", "from", "both")
AT_REST_S = 90
CUT_S = 30


@pytest.fixture(scope="module")
def system():
    """One for all: each test brings a commit of its own."""
    with Apart() as running:
        good = running.push("good")
        running.is_in(good, "done")
        running.good = good
        yield running


@pytest.fixture
def healed(system):
    """The network is whole again, whatever happens."""
    yield
    system.let_in()
    system.speak()
    system.cable.heal()


def enqueue(system, restart="sleep 1\n"):
    """A commit that goes out now, whatever was barred before it."""
    sha = system.commit("next", restart_sh=restart)
    code, told = system.rollout("deploy", sha, "--now", "--reason", "the next test")
    assert code == 0, told
    return sha


def fan_out(system, restart="sleep 4\n"):
    """A rollout with activations that wait at the doors of hosts: its commit and its number."""
    system.hold()
    sha = enqueue(system, restart)
    wait_for(lambda: len(system.knocking()) >= 3, seconds=90, why="activations at the doors")
    return sha, system.state_of(sha)[0]


def in_time(system, number):
    """`rollout stop` on the side that is whole; acknowledged within the time that it printed."""
    stopped = system.stop_from_here(number)
    assert stopped.took is not None, stopped.text
    assert stopped.took <= stopped.longest, stopped.text
    print(f"acknowledged after {stopped.took:.1f} s of at most {stopped.longest:.0f} s")
    return stopped


def goes_back(system, sha, stopped):
    """The rollout ends unattended, every host runs what it ran before, and nothing has been switched since the stop."""
    system.is_in(sha, "rolled_back", seconds=AT_REST_S)
    wait_for(
        lambda: set(system.disks().values()) == {system.good} and not system.late_ones(),
        seconds=AT_REST_S,
        why="every host to be back, and nothing on its way",
    )
    assert [one for one in system.intents(sha) if one[1] > stopped.told] == []
    assert check(system.history()) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("workers", ["alone", "second worker"])
def test_a_stop_while_a_workers_link_is_cut(system, healed, workers, link, way):
    """The acknowledgement comes within the printed time, what arrives late is refused, and it heals unattended."""
    sha, number = fan_out(system)
    if workers == "second worker":
        system.second_worker()
    try:
        system.cable.cut(system.port_of(link), way)
        system.let_in()
        stopped = in_time(system, number)
        assert stopped.unconfirmed == ()
        system.cable.heal()
        goes_back(system, sha, stopped)
    finally:
        if workers == "second worker":
            system.end_second_worker()


@pytest.mark.parametrize("link", LINKS)
def test_a_worker_that_was_cut_off_comes_back_by_itself(system, healed, link):
    """After half a minute without one of its links the only worker goes on to the end, and then takes messages again."""
    sha, _ = fan_out(system, "sleep 1\n")
    system.cable.cut(system.port_of(link), "both")
    system.let_in()
    time.sleep(CUT_S)  # the length of the cut, longer than every limit on a silent connection
    system.cable.heal()
    system.is_in(sha, "done", seconds=AT_REST_S)
    system.good = next_one = enqueue(system)  # without a message nobody runs its tests
    system.is_in(next_one, "done", seconds=AT_REST_S)
    assert set(system.disks().values()) == {next_one}
    assert check(system.history()) == []


def test_hosts_that_answer_nobody_are_named_and_waited_for(system, healed):
    """A host that is silent until the end of its time is unconfirmed, never counted as stopped, and brought back later."""
    sha, number = fan_out(system, 'while test -e "$SSHD_FOLDER/silent"; do sleep 0.1; done\n')
    at_doors = set(system.knocking())
    system.fall_silent_once_switched(sha, at_doors)
    stopped = in_time(system, number)
    assert at_doors <= set(stopped.unconfirmed) <= {host.name for host in system.sshd.hosts[OPEN_DOORS:]}
    system.speak()
    goes_back(system, sha, stopped)
    with system.store.reading() as tx:
        assert tx.rollouts.get(number).unconfirmed == stopped.unconfirmed


def test_a_stop_needs_neither_worker_nor_broker(system, healed):
    """With both gone the command does it all, a second one changes nothing, and both may come back to an end."""
    sha, number = fan_out(system)
    system.kill_workers()
    system.kill_broker()
    try:
        system.let_in()
        stopped = in_time(system, number)
        assert stopped.unconfirmed == ()
        again = system.stop_from_here(number)
        assert again.code == 0, again.text
        assert "already" in again.text
    finally:
        system.revive_broker()
        system.revive_workers()
    goes_back(system, sha, stopped)


def test_two_stops_at_once(system, healed):
    """Both are accepted, both are told of the one acknowledgement, within their time."""
    sha, number = fan_out(system)
    system.cable.cut(system.port_of("database"), "both")
    system.let_in()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: in_time(system, number), range(2))
    system.cable.heal()
    goes_back(system, sha, min(first, second, key=lambda one: one.told))
