"""Readings that nobody waits for for long: of the hosts that a canary is compared with, and of all hosts in a fan-out.

A host that does not answer is left behind; what it says later counts in a later tick, in the bins of its own time. It is
not asked again while it is being asked, so a host that is down costs one wait in all the time that asking it may take.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import structlog

from rollout.domain.model import AppName, HostId, Rollout, RolloutHost, RolloutId
from rollout.domain.verdict import Interval

log = structlog.get_logger()
PATIENCE_S = 1.0  # after the canary's own hosts have answered
THREADS = 16


class Reading(NamedTuple):
    """What a metric source said of a host."""

    host: RolloutHost  # as it was when it was asked: its cursor says where the reading began
    intervals: list[Interval]
    cursor: str | None


# A reading that was begun before a rollout was measured anew has another t = 0: so `ready_at` is part of its name.
_Name = tuple[AppName, RolloutId, float | None, HostId]


class Comparison:
    """This process's readings of baseline hosts that are under way."""

    def __init__(self) -> None:
        self._under_way: dict[_Name, Future[Reading]] = {}

    def begin(
        self, rollout: Rollout, hosts: Iterable[RolloutHost], read: Callable[[RolloutHost], Reading]
    ) -> list[Future[Reading]]:
        """Ask those of these hosts that are not still being asked; what else is under way for the app is forgotten."""
        wanted = {_name(rollout, host): host for host in hosts}
        for name in [name for name in self._under_way if name[0] == rollout.app and name not in wanted]:
            self._under_way.pop(name, None)
        new = {name: host for name, host in wanted.items() if name not in self._under_way}
        if not new:
            return []
        pool = ThreadPoolExecutor(min(THREADS, len(new)), thread_name_prefix="baseline")
        begun = {name: pool.submit(read, host) for name, host in new.items()}
        pool.shutdown(wait=False)
        self._under_way |= begun
        return list(begun.values())

    def finished(self, rollout: Rollout, begun: Iterable[Future[Reading]]) -> list[Reading]:
        """All that has come by now, each reading once; those that were begun just now are waited for, a moment."""
        wait(begun, timeout=PATIENCE_S)
        mine = [name for name in self._under_way if name[1] == rollout.id]
        over = [self._under_way.pop(name) for name in mine if self._under_way[name].done()]
        return [told for told in map(_told, over) if told is not None]


def _told(future: Future[Reading]) -> Reading | None:
    """Whatever befalls the reading of a baseline host, the canary is judged."""
    error = future.exception()
    if error is None:
        return future.result()
    log.error("baseline_not_read", error=repr(error))
    return None


def _name(rollout: Rollout, host: RolloutHost) -> _Name:
    return (rollout.app, rollout.id, rollout.ready_at, host.id)
