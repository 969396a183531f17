"""Waiting for the end of a rollout, and what came of it as an exit code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rollout.cli import finding, output, scene, waiting
from rollout.cli.call import Call
from rollout.cli.failures import FAILED, OK, TimedOut
from rollout.cli.tellers import Teller
from rollout.domain.model import Rollout
from rollout.domain.states import FINISHED, RolloutState


def until(
    call: Call, number: int, over: Callable[[Rollout], bool], teller: Teller, timeout_s: float | None
) -> Rollout:
    """Show the rollout until it is `over`; TimedOut."""
    for _ in waiting.ticks(timeout_s):
        found = finding.rollout(call, number)
        if over(found):
            return found
        teller.show(scene.of_rollout(finding.view(call, number)))
    raise late(number, timeout_s)


def to_its_end(call: Call, number: int, teller: Teller, timeout_s: float | None) -> Rollout:
    """Until it is over, or waits for a person: nobody knows how long that takes."""
    with unharmed(number):
        return until(call, number, _settled, teller, timeout_s)


def exit_code(rollout: Rollout) -> int:
    """0 when it is done."""
    return OK if rollout.state is RolloutState.DONE else FAILED


def tell_end(call: Call, rollout: Rollout) -> None:
    """What came of it, and what a person does now."""
    output.say(scene.headline(finding.view(call, rollout.id)))
    if rollout.state is RolloutState.HALTED:
        number = rollout.id
        output.say(f"  look:  rollout show {number}")
        output.say(f"  then:  rollout resume {number} | rollout retry {number} | rollout stop {number}")
    elif rollout.state is not RolloutState.DONE:
        output.say(f"  look:  rollout show {rollout.id}")


def late(number: int, timeout_s: float | None) -> TimedOut:
    """It takes longer than `--timeout`."""
    return TimedOut(
        f"rollout {number} is not at its end after {timeout_s or 0:g} s; it goes on",
        remedy=f"look at it: rollout status {number}",
    )


def _settled(rollout: Rollout) -> bool:
    return rollout.state in FINISHED or rollout.state is RolloutState.HALTED


@contextmanager
def unharmed(number: int) -> Iterator[None]:
    """Ctrl-C ends the waiting, never the rollout; and says so."""
    try:
        yield
    except KeyboardInterrupt:
        output.warn(f"no longer waiting; rollout {number} goes on (rollout status {number})")
        raise


def warn_if_nobody_hears(call: Call) -> None:
    """What was asked for is stored; without a broker it only waits."""
    if not call.deps.bell.alive():
        output.warn(
            "warning: the broker does not answer. What you asked for is stored, and goes on when it is back"
            " (`rollout up`, or the broker and the workers)."
        )
