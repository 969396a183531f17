"""What each message means: the one table from a task's name to its service. Used where a message cannot be sent."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import structlog

from rollout.domain import pipeline
from rollout.domain.model import HostId
from rollout.domain.pipeline import Ring
from rollout.errors import RolloutError
from rollout.services import hosts
from rollout.services.ports import Deps

log = structlog.get_logger()

HOST_STEPS: Mapping[str, Callable[[HostId, Deps], None]] = {
    pipeline.PREPARE_HOST: hosts.prepare,
    pipeline.DEPLOY_HOST: hosts.deploy,
    pipeline.ROLL_BACK_HOST: hosts.roll_back,
}


class HereAndNow:
    """Does the work of host messages in this process: for the time when no message can be sent, or nobody hears it."""

    def __init__(self, deps: Deps, threads: int) -> None:
        self._deps = deps
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="here-and-now")

    def do(self, rings: list[Ring]) -> None:
        """Begin with these; the claims see to it that nothing is done twice."""
        for ring in rings:
            if ring.task in HOST_STEPS:
                self._pool.submit(self._one, ring)

    def _one(self, ring: Ring) -> None:
        try:
            HOST_STEPS[ring.task](HostId(int(ring.arguments[1])), self._deps)
        except RolloutError as error:
            log.warning("host_step_failed", task=ring.task, host=ring.arguments[-1], error=str(error))

    def close(self) -> None:
        """Wait for what was begun."""
        self._pool.shutdown(wait=True)
