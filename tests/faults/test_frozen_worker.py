"""A worker stands still between its claim and its report; the rollout is stopped; then the worker wakes up.

Its order was permitted before the stop and arrives after the acknowledgement: the host's own fence must refuse it.
"""

import contextlib
import os
import re
import signal
import time

import pytest

from rollout.services import stopping
from tests.support.system import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.needs("sshd", "git"), pytest.mark.timeout(300)]

BETWEEN = (
    "after-claim",
    "before-connect",
    "after-connect",
    "after-greeting",
    "after-permit",
    "after-permission",
    "after-answer",
    "before-report",
    "in-report",  # on SQLite it is ended, since it holds the database
)
ALWAYS = "after-permit"
OF_THE_CANARY = ("after-permit", "after-permission")


def told(order):
    """What `rollout stop` printed for people: its promise, and what it took; seconds."""
    said, _ = order.communicate(timeout=120)
    longest = re.search(r"takes at most (\d+) s", said)
    took = re.search(r"acknowledged after ([\d.]+) s", said)
    assert took, said
    return (float(longest[1]) if longest else stopping.ROUNDS_S), float(took[1]), said


def late(rig, sha, acknowledged_ms):
    """Switches to the stopped release after the acknowledgement, by the hosts' own clocks."""
    return [
        (host.name, one)
        for host in rig.sshd.hosts
        for one in rig.journal(host.name)
        if one.get("commit") == sha
        and one["verb"] == "activate"
        and one["what"] == "intent"
        and int(one["clock"]) > acknowledged_ms
    ]


def frozen_at(rig, point, sha, figures, settings):
    """A worker was armed to stand still at this point: the rollout is stopped, and then the worker wakes up."""
    moment, frozen = rig.hit(point)
    try:
        longest, took, said = told(rig.command("stop", "--reason", point, as_json=False))
        acknowledged = time.clock_gettime(time.CLOCK_BOOTTIME) * 1000
        rig.told_stopped(sha)
    finally:
        with contextlib.suppress(ProcessLookupError):  # one of its threads held the database, so it was ended
            os.kill(frozen, signal.SIGCONT)
    ended = rig.ended(sha, moment)
    after = rig.change()  # the worker has woken up when it has done this
    rig.ended(after, 0.0)
    assert took <= longest, said
    assert late(rig, sha, acknowledged) == []
    assert ended.state == "rolled_back"
    assert set(rig.disks().values()) == {after}
    rig.at_rest()
    figures(test="frozen", point=point, settings=settings, acknowledged_s=took, printed_s=longest)


both = pytest.mark.parametrize(
    "rig", ["quick", pytest.param("as configured", marks=pytest.mark.faults)], indirect=True
)


@both
@pytest.mark.parametrize(
    "point", [pytest.param(point, marks=() if point == ALWAYS else pytest.mark.faults) for point in BETWEEN]
)
def test_a_frozen_worker_switches_nothing_after_the_acknowledgement(rig, point, figures, request):
    """The stop is acknowledged within the time that it printed, and what the worker sends afterwards is refused."""
    sha = rig.change()
    wait_for(
        lambda: rig.state(sha) == "evaluating_canary", seconds=60, every=0.02, why="the canary to be watched"
    )
    rig.arm(f"activate.{point}", "stop")
    frozen_at(rig, f"activate.{point}", sha, figures, request.node.callspec.params["rig"])


@pytest.mark.faults
@both
@pytest.mark.parametrize("point", OF_THE_CANARY)
def test_a_worker_frozen_on_the_canary_switches_it_no_more(rig, point, figures, request):
    """The canary is the first host that a release can hurt: a stop in the middle of its own switch holds as for any other."""
    rig.arm(f"canary.{point}", "stop")
    sha = rig.change()
    frozen_at(rig, f"canary.{point}", sha, figures, request.node.callspec.params["rig"])
