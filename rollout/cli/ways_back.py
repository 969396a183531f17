"""What `stop` and `rollback` do: ask, wait for it, and do it here when nobody else does."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rollout import crashpoints
from rollout.cli import finding, hurry, output, scene, shapes, waiting
from rollout.cli.call import Call, who
from rollout.cli.failures import FAILED, OK
from rollout.cli.following import unharmed
from rollout.cli.tellers import Teller, teller
from rollout.domain.model import Rollout, RolloutId
from rollout.domain.states import FINISHED, HostState, RolloutState
from rollout.services import bars, stopping

if TYPE_CHECKING:
    from rollout.cli.stand_in import StandIn
    from rollout.store.store import Transaction

AT_ONCE_S = 1.0  # workers that are there need a quarter of it


def stop(
    call: Call, number: int | None, *, keep: bool, reason: str | None, wait: bool, timeout_s: float | None
) -> int:
    """End a rollout; the exit code."""
    rollout = finding.to_stop(call, number)
    asked_at = hurry.heard(rollout.id)
    over = asked_at is None and rollout.state in FINISHED
    began = time.monotonic() if asked_at is None else asked_at
    why = reason or f"stopped by {who()}"
    lease_s = call.settings.lease_s
    accepted = stopping.accept(
        rollout.id, call.store, call.config.apps, lease_s, who=who(), why=why, keep=keep
    )
    new = not over and (asked_at is not None or rollout.state is not RolloutState.ROLLING_BACK)
    with teller(as_json=call.json) as told:
        if over:
            told.say(f"rollout {rollout.id} is {rollout.state.replace('_', ' ')} already")
        if new and asked_at is None:
            for line in hurry.accepted(rollout.id, accepted.leased, accepted.longest_s):
                told.say(line)
        found = _at_once(call, rollout.id)
        if new and found is not None:
            _say_acknowledged(told, found, began)
        # Only now the rest, which takes longer to import than workers need for the acknowledgement.
        with crashpoints.stage("stop"):
            stopping.announce(accepted.rollout, call.deps)
        way = _stand_in(call, rollout.id, told, timeout_s)
        if found is None:
            found = way.acknowledged()
            _say_acknowledged(told, found, began)
        if wait or way.alone:
            found = way.back(wait=wait)
    if over:
        _finish(call, found, told_end=False)
        return OK
    return _finish(call, found, told_end=wait or way.alone)


def rollback(call: Call, *, to: str | None, reason: str | None, wait: bool, timeout_s: float | None) -> int:
    """The newest done rollout goes back; the exit code."""
    why = reason or f"rolled back by {who()}"
    rollout = stopping.roll_back_done(call.app(), call.deps, to=to, who=who(), why=why)
    goal = output.short(rollout.rollback_to) if rollout.rollback_to else "what each host ran before"
    with teller(as_json=call.json) as told:
        told.say(
            f"accepted: rollout {rollout.id} (commit {output.short(rollout.commit)}) goes back to {goal}"
        )
        way = _stand_in(call, rollout.id, told, timeout_s)
        found = way.back(wait=wait)
    return _finish(call, found, told_end=found.state in FINISHED)


def _at_once(call: Call, number: int) -> Rollout | None:
    """Acknowledged by workers that are there; None when a second was not enough."""
    with unharmed(number):
        for _ in waiting.ticks(AT_ONCE_S):
            found = finding.rollout(call, number)
            if found.state is not RolloutState.STOPPING:
                return found
    return None


def _stand_in(call: Call, number: int, told: Teller, timeout_s: float | None) -> "StandIn":
    from rollout.cli.stand_in import StandIn

    return StandIn(call, number, told, timeout_s)


def _say_acknowledged(told: Teller, found: Rollout, began: float) -> None:
    """`began`: on the monotonic clock, when the command did."""
    took_s, at = time.monotonic() - began, found.acknowledged_at
    if at is not None:  # by a worker: this process has imported much since, and waited its turn
        took_s -= min(max(0.0, (datetime.now(UTC) - at).total_seconds()), took_s)
    told.say(
        f"acknowledged after {took_s:.1f} s: no host is switched to {output.short(found.commit)} any more"
    )
    if found.unconfirmed:
        told.say(f"  unconfirmed, as they could not be read: {output.names(found.unconfirmed, most=1000)}")


def _finish(call: Call, found: Rollout, *, told_end: bool) -> int:
    view = finding.view(call, found.id)
    with call.store.reading() as tx:
        left = [host.name for host in tx.going_back.not_back(found.id)]
        gone = [host.name for host in tx.going_back.left_as_they_are(found.id)]
        in_vain = gone and not left and not found.keep and _nobody_is_back(tx, found.id)
        barred, _ = bars.blamed(tx, found)
    if call.json:
        output.document(shapes.outcome(view))
    elif told_end:
        output.say(scene.headline(view))
    elif found.state is RolloutState.ROLLING_BACK:
        output.say(f"the touched hosts are being brought back: rollout status {found.id} --watch")
    if not call.json and (innocent := bars.how_the_innocent_ship(barred)):
        output.say(f"barred: {', '.join(output.short(commit.sha) for commit in barred)}; {innocent}")
    if left and not call.json:
        output.warn(f"not back yet, and tried again until they are: {output.names(left)}")
    if in_vain and not call.json:
        output.warn(f"no host is brought back: all that rollout {found.id} has switched have left the fleet")
    if gone and not call.json and found.state is RolloutState.ROLLING_BACK:
        then = "is one named in the inventory again, `rollout hosts --verify` has it brought along at once"
        output.warn(f"left the fleet, and left as they are: {output.names(gone)} ({then})")
    away = found.unconfirmed and found.state is not RolloutState.ROLLED_BACK
    return FAILED if left or away or in_vain else OK


def _nobody_is_back(tx: "Transaction", number: RolloutId) -> bool:
    """Nor on the way."""
    return tx.going_back.all_back(number) and not tx.hosts.of(number, HostState.ROLLED_BACK)
