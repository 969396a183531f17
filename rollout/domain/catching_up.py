"""Hosts that a done rollout has left behind: whose turn it is to be brought to its release, one at a time.

What happened to such a host says what is next. One that does not answer is not here: it is read until it does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from rollout.domain import budget
from rollout.domain.counting import count
from rollout.domain.model import RolloutHost
from rollout.domain.states import HostState

H = HostState
WAITS_S = (60.0, 300.0, 900.0)  # before each try of a host that has failed
LEFT = len(WAITS_S)  # so many tries that came to nothing: people are told, and it is left
TOLD = LEFT + 1
BUSY = {H.PREPARING, H.ACTIVATING}


class Step(StrEnum):
    """What is next for a host."""

    READ = "read"  # its outcome was lost
    BEGIN = "begin"  # as if it had not been there
    PREPARE = "prepare"
    SWITCH = "switch"


_STEPS = {
    H.PREPARED: Step.SWITCH,
    H.PENDING: Step.PREPARE,
    H.FAILED: Step.BEGIN,
    H.EXCLUDED: Step.BEGIN,
    H.DONE: Step.BEGIN,
}


@dataclass(frozen=True, slots=True)
class Behind:
    """A host in the rollout whose release the fleet runs, which does not run it as it should; a done one has lost it, runs a newer one, or may be another machine."""

    host: RolloutHost
    answers: bool  # what it runs is known: somebody could read it
    wanted: bool  # it is in the fleet, nobody has excluded it, and it owes no rollback
    newer: str | None = None  # it runs this of a later rollout of ours, which the fleet has gone back from


def to_put_off(behind: Behind) -> bool:
    """It has failed, and nobody has said yet when it is tried again."""
    host = behind.host
    return _eligible(behind) and host.state is H.FAILED and host.due_at is None and host.tries < LEFT


def to_leave(behind: Behind) -> bool:
    """It has failed once too often, and people do not know yet."""
    return _eligible(behind) and behind.host.state is H.FAILED and behind.host.tries == LEFT


def under_way(behind: Sequence[Behind], now: float) -> Behind | None:
    """The one that is being brought to it now, or has a message under way; all others wait for it."""
    return next((one for one in behind if _is_under_way(one, now)), None)


def following(
    behind: Sequence[Behind], now: float, counters: budget.Counters, limits: budget.Limits, *, begin: bool
) -> tuple[Step, Behind] | None:
    """The next step of one host; None when there is nothing to do now. `begin`: anything but reading may be done."""
    if under_way(behind, now):
        return None
    steps = [(step, one) for one in behind if (step := _step(one, now)) is not None]
    for wanted in (Step.READ, Step.SWITCH, Step.PREPARE, Step.BEGIN):  # what was begun is ended first
        for step, one in steps:
            if step is wanted and (step is Step.READ or (begin and has_room(one, counters, limits))):
                return step, one
    return None


def has_room(one: Behind, counters: budget.Counters, limits: budget.Limits) -> bool:
    """The rollout's budget goes on: as many may have failed as before, and this one may be among them already."""
    own = count(one.host)
    others = replace(
        counters,
        failed=counters.failed - own.failed,
        unreadable=counters.unreadable - own.unreadable,
        unknown=counters.unknown - own.unknown,
        in_flight=counters.in_flight - own.in_flight,
    )
    return budget.may_start(others, limits)


def _eligible(one: Behind) -> bool:
    return one.answers and one.wanted


def _is_under_way(one: Behind, now: float) -> bool:
    host = one.host
    if host.state in BUSY:
        return True
    if host.state is H.UNKNOWN:
        return not host.unreadable and not _is_due(host, now)
    return host.state in {H.PENDING, H.PREPARED} and _eligible(one) and not _is_due(host, now)


def _step(one: Behind, now: float) -> Step | None:
    host = one.host
    if not _is_due(host, now):
        return None
    if host.state is H.UNKNOWN:  # while nobody can read it, others look whether it answers
        return Step.READ if one.answers or not host.unreadable else None
    failed_and_not_put_off = host.state is H.FAILED and (host.due_at is None or host.tries >= LEFT)
    return None if failed_and_not_put_off or not _eligible(one) else _STEPS.get(host.state)


def _is_due(host: RolloutHost, now: float) -> bool:
    free = (host.lease_until or 0.0) <= now
    return free and (host.due_at is None or host.due_at <= now)
