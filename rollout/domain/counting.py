"""What one host adds to its rollout's counters: the one rule behind every counter, so that they can be recomputed."""

from collections.abc import Iterable
from dataclasses import dataclass

from rollout.domain.model import RolloutHost
from rollout.domain.states import HostState


@dataclass(frozen=True, slots=True)
class Count:
    """A host's share of its rollout's counters, each 0 or 1; or that of several."""

    done: int
    failed: int
    unreadable: int
    unknown: int
    in_flight: int


def count(host: RolloutHost) -> Count:
    """What this host adds."""
    return count_of(host.state, token=host.token, unreadable=host.unreadable, accepted=host.accepted)


def total(counts: Iterable[Count]) -> Count:
    """What these add together."""
    each = [(one.done, one.failed, one.unreadable, one.unknown, one.in_flight) for one in counts]
    return Count(*map(sum, zip(*each, strict=True)))


def count_of(state: HostState, *, token: bool, unreadable: bool, accepted: bool) -> Count:
    """`unknown` includes the unreadable ones; failures that a person accepted count nowhere."""
    unknown = state is HostState.UNKNOWN and not accepted
    return Count(
        done=int(state is HostState.DONE),
        failed=int(state is HostState.FAILED and not accepted),
        unreadable=int(unknown and unreadable),
        unknown=int(unknown),
        in_flight=int(token and state is not HostState.UNKNOWN),
    )
