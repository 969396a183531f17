"""The failure budget: may another host start, and how many can be hurt at most.

A host at risk holds a token. `failed + unknown + in flight` never exceeds K plus the largest window so far, because
nothing starts that would lift it higher, and a token comes back only with a known outcome.
"""

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How many hosts beyond K may be at risk."""

    STRICT = "strict"  # always one
    RAMP = "ramp"  # one at first, more with every host that is done, half with every one that failed


@dataclass(frozen=True, slots=True)
class Counters:
    """What has become of a rollout's hosts so far; recomputable from the host rows."""

    done: int
    failed: int  # last attempt failed, not excluded, not accepted by a person
    unreadable: int  # of the unknown ones: could not be read for `host_timeout`
    unknown: int  # all of them, the unreadable ones too: they stay in state unknown and keep their token
    in_flight: int  # hold a token and are not unknown; one that waits for an automatic retry does
    window: int  # how many beyond K may be at risk now, from 1


@dataclass(frozen=True, slots=True)
class Limits:
    """The policy, fixed at planning."""

    max_failed: int  # K
    concurrency: int  # from 1
    mode: Mode


def allowed(counters: Counters, limits: Limits) -> int:
    """How many hosts may be failed, unknown or in flight at once."""
    return limits.max_failed + counters.window


def room(counters: Counters, limits: Limits) -> int:
    """How many more hosts may take a token now. A host that holds one already (a retry) does not ask."""
    if must_halt(counters, limits):
        return 0
    at_risk = counters.failed + counters.unknown + counters.in_flight
    being_read = counters.unknown - counters.unreadable  # may be in flight again in a moment
    slots = limits.concurrency - counters.in_flight - being_read
    return max(0, min(allowed(counters, limits) - at_risk, slots))


def may_start(counters: Counters, limits: Limits) -> bool:
    """Whether one more host may take a token: failed + unknown + in flight < allowed, and a slot is free.

    An unknown host keeps its slot until it has been read, or counts as unreadable: what is read may be worth a retry,
    which puts the host in flight without asking.

    Never once the rollout must halt: the window may be wider than the failures, and the halt is written a moment
    after the outcome that causes it.
    """
    return room(counters, limits) > 0


def must_halt(counters: Counters, limits: Limits) -> bool:
    """Whether more than K hosts have failed or cannot be read. A host that is only unknown is read first."""
    return counters.failed + counters.unreadable > limits.max_failed


def window_after_done(window: int, limits: Limits) -> int:
    """The window after a host beyond the canary is done."""
    if limits.mode is Mode.STRICT:
        return 1
    return min(window + 1, limits.concurrency)


def window_after_failure(window: int, limits: Limits) -> int:
    """The window after a host's last attempt failed, or after it could not be read in time."""
    if limits.mode is Mode.STRICT:
        return 1
    return max(1, window // 2)


def worst_case(limits: Limits, total: int) -> int:
    """The largest number of hosts that this rollout can hurt, whatever happens: what the plan prints."""
    window = 1 if limits.mode is Mode.STRICT else limits.concurrency
    return min(total, limits.max_failed + window)


def worst_case_after(limits: Limits, successes: int, total: int) -> int:
    """The largest number of hurt hosts when `successes` hosts beyond the canary are done and all others fail."""
    window = 1 if limits.mode is Mode.STRICT else min(1 + successes, limits.concurrency)
    return max(0, min(total - successes, limits.max_failed + window))
