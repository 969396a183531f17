"""What each message means: the one table from a task's name to its service. Used where a message cannot be sent."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import structlog

from rollout.domain import pipeline
from rollout.domain.model import HostId, RolloutId
from rollout.domain.pipeline import Ring
from rollout.errors import RolloutError
from rollout.services import hosts, watching
from rollout.services.ports import Deps

log = structlog.get_logger()

STEPS: Mapping[str, Callable[[Ring, Deps], object]] = {
    pipeline.PREPARE_HOST: lambda ring, deps: hosts.prepare(*_ids(ring), deps),
    pipeline.DEPLOY_HOST: lambda ring, deps: hosts.deploy(*_ids(ring), deps),
    pipeline.ROLL_BACK_HOST: lambda ring, deps: hosts.roll_back(*_ids(ring), deps),
    # Hosts go on being switched without messages, so they are watched without messages too.
    pipeline.WATCH_FAN_OUT: lambda ring, deps: watching.watch(RolloutId(int(ring.arguments[0])), deps),
}


def _ids(ring: Ring) -> tuple[RolloutId, HostId]:
    rollout, host = ring.arguments[:2]
    return RolloutId(int(rollout)), HostId(int(host))


class HereAndNow:
    """Does the work of messages for hosts in this process: for the time when no message can be sent, or nobody hears it."""

    def __init__(self, deps: Deps, threads: int) -> None:
        self._deps = deps
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="here-and-now")

    def do(self, rings: list[Ring]) -> None:
        """Begin with these; the claims see to it that nothing is done twice."""
        for ring in rings:
            if ring.task in STEPS:
                self._pool.submit(self._one, ring)

    def _one(self, ring: Ring) -> None:
        try:
            STEPS[ring.task](ring, self._deps)
        except RolloutError as error:
            log.warning("host_step_failed", task=ring.task, about=ring.arguments[-1], error=str(error))

    def close(self) -> None:
        """Wait for what was begun."""
        self._pool.shutdown(wait=True)
