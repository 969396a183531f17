"""What one host adds to its rollout's counters: the one rule behind every counter, so that they can be recomputed."""

from dataclasses import dataclass

from rollout.domain.model import RolloutHost
from rollout.domain.states import HostState


@dataclass(frozen=True, slots=True)
class Count:
    """A host's share of its rollout's counters, each 0 or 1."""

    done: int
    failed: int
    unreadable: int
    unknown: int
    in_flight: int


def count(host: RolloutHost) -> Count:
    """`unknown` includes the unreadable ones; failures that a person accepted count nowhere."""
    unknown = host.state is HostState.UNKNOWN and not host.accepted
    return Count(
        done=int(host.state is HostState.DONE),
        failed=int(host.state is HostState.FAILED and not host.accepted),
        unreadable=int(unknown and host.unreadable),
        unknown=int(unknown),
        in_flight=int(host.token and host.state is not HostState.UNKNOWN),
    )
