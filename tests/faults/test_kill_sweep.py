"""kill -9 at every crashpoint in every stage: whatever died, everything ends by itself, and no invariant was broken."""

import os
import signal
import time
from pathlib import Path

import pytest

from rollout.crashpoints import POINTS, STAGES
from tests.support.cells import CELLS, LEFT_OUT, Cell
from tests.support.processes import alive
from tests.support.rig import HEALED_S
from tests.support.system import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.needs("sshd", "git"), pytest.mark.timeout(400)]

ALWAYS = {
    "activate.after-permit",
    "count.in-decision",
}


# Hosts that are past their switch are asked by a stop only when the worker that has heard them say so is gone.
OF_A_SEAL = {"before-connect", "after-connect", "after-seal"}


# With what users have: leases of 15 s, a reconciler every 5 s.
AS_CONFIGURED = (
    "tests.tests-running",
    "prepare.mid-upload",
    "canary.after-answer",
    "evaluation.after-reading",
    "activate.after-claim",
    "activate.after-permission",
    "activate.before-ring",
    "count.in-decision",
    "read.after-claim",
    "stop.after-seal",
    "stop.in-acknowledgement",
    "rollback.after-permission",
)
BY_ORDER = {Cell("rollback", "in-decision")}
# Of the ways in which `rollout rollback` of a done rollout goes on like a stop's.
ROLLED_BACK_AT = ("after-permission", "before-report", "before-ring")


def shipped(rig, cell):
    """A good commit goes out, and somebody dies on the way."""
    if cell.point == "mid-install":
        for host in rig.sshd.hosts:
            for program in Path(host.path, ".rollout", "bin").glob("*"):
                program.unlink()
    if cell.stage == "read":
        rig.arm("activate.after-permission")  # makes a host unknown
    if cell.stage != "activate":
        rig.arm(cell)
    sha = rig.change(slow=3 if cell.stage == "leases" else 0)
    if cell.stage == "activate":
        wait_for(
            lambda: rig.state(sha) == "evaluating_canary",
            seconds=60,
            every=0.02,
            why="the canary to be watched",
        )
        rig.arm(cell)
    return sha, rig.hit(cell)


def stopped(rig, cell):
    """A commit whose restart takes its time is stopped in the middle of its fan-out, and somebody dies on the way."""
    long = (
        cell.point == "in-decision" or cell.point in OF_A_SEAL
    )  # time for two commands, or for a worker to begin
    sha = rig.change(slow=12 if long else 5)
    wait_for(lambda: len(rig.switched(sha)) >= 2, seconds=60, why="the fan-out to begin")
    if cell.point in OF_A_SEAL:
        os.kill(rig.process("hosts@"), signal.SIGKILL)
    rig.arm(cell)
    order = rig.command("stop", "--reason", str(cell))

    def accepted():
        assert order.poll() in {None, 0, -signal.SIGKILL}, order.communicate()[0]

    hit = rig.hit(cell, meanwhile=accepted)
    order.communicate(timeout=120)
    if cell.point == "in-decision":
        # The command died before it was accepted: nothing has happened, and a person says it again.
        rig.rollout("stop", "--reason", str(cell))
    return sha, hit


def brought_back(rig, cell):
    """A commit is out everywhere, a person rolls it back, and somebody dies on the way."""
    bars = rig.bars
    sha = rig.change()
    assert rig.ended(sha, 0.0).state == "done"
    rig.bars = bars  # it will be no longer done, and the barred commits before it are in the way of the next ones again
    rig.arm(cell)
    order = rig.command("rollback", "--reason", f"rolled back: {cell}")

    def accepted():
        assert order.poll() in {None, 0, -signal.SIGKILL}, order.communicate()[0]

    hit = rig.hit(cell, meanwhile=accepted)
    order.communicate(timeout=120)
    if cell.point == "in-decision":
        # The command died before it was accepted: nothing has happened, and a person says it again.
        assert rig.state(sha) == "done"
        rig.rollout("rollback", "--reason", f"rolled back: {cell}")
    return sha, hit


def dies_and_heals(rig, cell, figures, story=None, **noted):
    """The whole story of one cell."""
    rig.made_way()
    goes_back = cell.stage in {"stop", "rollback"}
    if story is None:  # only `rollout rollback` decides to go back; else a stop has decided it
        story = brought_back if cell in BY_ORDER else stopped if goes_back else shipped
    sha, (moment, victim) = story(rig, cell)
    wait_for(lambda: not alive(victim), seconds=10, why="the victim to be dead")
    ended = rig.ended(sha, moment)
    if goes_back:
        assert ended.state == "rolled_back"
        if story is stopped:
            rig.told_stopped(sha)
        # A host whose restart was under way is named as not back yet, and tried again until it is.
        wait_for(lambda: sha not in rig.disks().values(), seconds=HEALED_S, why="every host to be back")
        ended.recovery_s = time.monotonic() - moment
    else:
        assert ended.state == "done"
        assert set(rig.disks().values()) == {sha}
    assert rig.disarm() == []
    rig.at_rest()
    figures(test="killed", cell=str(cell), state=ended.state, recovery_s=round(ended.recovery_s, 1), **noted)


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, marks=() if str(cell) in ALWAYS else pytest.mark.faults, id=str(cell))
        for cell in CELLS
    ],
)
def test_kill_9_there(rig, cell, figures):
    """Whoever dies at this point in this stage, the rollout ends within 90 s by itself, and the checker finds nothing."""
    dies_and_heals(rig, cell, figures)


@pytest.mark.faults
@pytest.mark.parametrize("rig", ["as configured"], indirect=True)
@pytest.mark.parametrize("cell", AS_CONFIGURED)
def test_kill_9_there_as_configured(rig, cell, figures):
    """The same with the leases and the reconciler that users have."""
    dies_and_heals(rig, Cell(*cell.split(".")), figures, settings="as configured")


@pytest.mark.faults
@pytest.mark.parametrize("point", ROLLED_BACK_AT)
def test_kill_9_in_the_rollback_of_a_done_rollout(rig, point, figures):
    """Whoever dies while a done rollout goes back, every host is back within 90 s by itself, and the checker finds nothing."""
    dies_and_heals(rig, Cell("rollback", point), figures, brought_back, order="rollback")


@pytest.mark.faults
@pytest.mark.parametrize("point", ["after-claim", "tests-running"])
def test_the_tests_worker_dies_with_its_child(rig, point, figures):
    """Parent and pool child of the tests' worker are killed together: the commit is tested again, and nothing of the command is left."""
    rig.arm(f"tests.{point}", "kill-parent")
    sha = rig.change()
    moment, _ = rig.hit(f"tests.{point}")
    ended = rig.ended(sha, moment)
    assert ended.state == "done"
    rig.at_rest()
    figures(
        test="killed",
        cell=f"tests.{point} with its parent",
        state=ended.state,
        recovery_s=round(ended.recovery_s, 1),
    )


def test_every_pair_is_a_cell_or_has_its_reason():
    """No crashpoint is forgotten in any stage."""
    assert {*CELLS, *LEFT_OUT} == {Cell(stage, point) for stage in STAGES for point in POINTS}
    assert not set(CELLS) & set(LEFT_OUT)
    assert all(LEFT_OUT.values())


def test_the_points_are_in_the_code():
    """Every name in the list stands where a process passes, and nothing else does."""
    found = set()
    for file in (Path(__file__).parents[2] / "rollout").rglob("*.py"):
        found |= {part.split('"')[0] for part in file.read_text().split('crashpoints.reach("')[1:]}
    assert found == set(POINTS)
    assert {str(cell) for cell in CELLS} >= {*ALWAYS, *AS_CONFIGURED}
