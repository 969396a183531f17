"""Wall clocks that jump by an hour and a day, there and back, under the real processes: nobody decides otherwise for it.

The checker is not asked: it compares events with journals by the time of day, which is what lies here.
"""

import contextlib
import re
import sqlite3
import tempfile
import time
from pathlib import Path

import pytest

from tests.support.faketime import Faketime
from tests.support.machine import AFTER_SWITCH, Machine
from tests.support.system import System, wait_for

pytestmark = [
    pytest.mark.faults,
    pytest.mark.needs("root", "sshd", "git", "libfaketime", "unshare", "mount"),
    pytest.mark.timeout(600),
]
JUMPS = (3600, -3600, 86_400, -86_400)
LEASE_S, HEALTH_S, RESTART_S = 3, 1, 60  # no restart has less than a minute
LONGEST_S = LEASE_S + 2 * (RESTART_S + HEALTH_S)
SLOW_RESTART = 'mkdir -p ../../shared; echo "$COMMIT" >> ../../shared/restarts; sleep 2\n'


@pytest.fixture
def clock():
    with tempfile.TemporaryDirectory(prefix="rollout-clock-") as folder:
        yield Faketime(Path(folder))


def activations(system, name, sha):
    return [
        one
        for one in system.journal(name)
        if (one["verb"], one["what"], one["commit"]) == ("activate", "intent", sha)
    ]


def shipped_as_ever(system, sha):
    """Done; every host switched to it once; the canary passed after it had been watched for its bake, and not for an hour."""
    done = system.reaches(sha, "done", seconds=120)
    assert set(system.disks().values()) == {sha}
    assert {len(activations(system, host.name, sha)) for host in system.sshd.hosts} == {1}
    assert done["counts"]["done"] == len(system.sshd.hosts)
    watched = int(re.search(r"passed after (\d+) s", done["canary"]["reason"])[1])
    assert 12 <= watched < 1800
    assert intervals(system, sha) < 900  # of two seconds each: none was invented


def ask(system, query, sha):
    """Asked of the store itself: a command would take as long as the bake."""
    with contextlib.closing(
        sqlite3.connect(f"file:{system.folder}/state/rollout.db?mode=ro", uri=True)
    ) as store:
        row = store.execute(query, (sha,)).fetchone()
    return row[0] if row else None


def of_rollout(system, sha, column):
    return ask(system, f'SELECT {column} FROM rollouts WHERE "commit" = ?', sha)


def intervals(system, sha):
    """How many intervals of the canary have been counted since it was ready."""
    query = """SELECT count(*) FROM samples JOIN rollouts ON rollouts.id = rollout
               WHERE role = 'canary' AND t > 0 AND "commit" = ?"""
    return ask(system, query, sha)


def baking(system, sha):
    """Its first interval is in, so the watch has begun before the jump."""
    wait_for(
        lambda: intervals(system, sha),
        seconds=90,
        every=0.05,
        why=lambda: f"it to be watched: {system.newest()}",
    )


def in_fan_out(system, sha):
    wait_for(
        lambda: sum(bool(activations(system, host.name, sha)) for host in system.sshd.hosts) >= 2,
        seconds=90,
        why=lambda: f"the fan-out to begin: {system.newest()}",
    )


@pytest.mark.parametrize("moment", [baking, in_fan_out])
def test_jumps_of_the_deploying_machines_clock_change_no_decision(clock, moment):
    """In the bake and while hosts are switched under a lease: four jumps, four rollouts, each as if there had been none."""
    with System(hosts=6, bake="12s", deadline="60s", environment=clock.environment) as system:
        for jump in JUMPS:
            sha = system.push(f"jump {jump}", restart_sh=SLOW_RESTART)
            moment(system, sha)
            clock.step_to(clock.offset + jump)
            shipped_as_ever(system, sha)


def test_jumps_in_a_stop_neither_hasten_nor_delay_its_acknowledgement(clock):
    """A host that was being switched does not answer: the stop waits for its lease and limits, names it, and rolls back the rest."""
    limits = f"{HEALTH_S}s"
    environment = clock.environment | {"ROLLOUT_LEASE_S": str(LEASE_S)}
    with System(hosts=6, bake="2s", health_timeout=limits, environment=environment) as system:
        good = system.push("good")
        system.reaches(good, "done")
        machine = Machine(system.sshd, "web004")
        machine.trap(AFTER_SWITCH)
        bad = system.push("bad")
        wait_for(lambda: machine.trapped, seconds=90)
        machine.power_off()
        number, began = system.rollout_of(bad)["id"], time.monotonic()
        system.start_stop(number)
        wait_for(lambda: of_rollout(system, bad, "state") == "stopping", every=0.05)
        for jump in JUMPS:
            seen = machine.knocks
            clock.step_to(clock.offset + jump)
            wait_for(lambda seen=seen: machine.knocks > seen + 1, why="the host to be asked again")
        wait_for(lambda: of_rollout(system, bad, "state") != "stopping", seconds=LONGEST_S + 60, every=0.05)
        assert time.monotonic() - began >= LONGEST_S  # a lower bound: whoever was silent can act no more
        assert of_rollout(system, bad, "unconfirmed") == '["web004"]'
        machine.power_on()
        system.reaches(bad, "rolled_back")
        wait_for(lambda: set(system.disks().values()) == {good}, seconds=60)


def with_clock(system, clock, *names):
    """All programs of these hosts go by this clock."""
    exports = "\n".join(f"export {name}='{value}'" for name, value in clock.environment.items())
    for host in system.sshd.hosts:
        if host.name in names:
            host.login(exports + "\n")


def test_jumps_of_a_hosts_clock_change_no_verdict(clock):
    """The canary's own clock, and with it its log's, jumps while it bakes: good is passed after its bake, bad is failed."""
    with System(hosts=4, bake="12s", deadline="60s") as system:
        with_clock(system, clock, "web001")
        for jump in JUMPS:
            sha = system.push(f"jump {jump}")
            baking(system, sha)
            clock.step_to(clock.offset + jump)
            system.traffic.offset = clock.offset
            shipped_as_ever(system, sha)
        bad = system.push("bad", answer="500\n")
        baking(system, bad)
        clock.step_to(3600)
        system.traffic.offset = clock.offset
        ended = system.reaches(bad, "rolled_back")
        assert ended["canary"]["status"] == "fail"
        assert set(system.disks().values()) == {sha}
