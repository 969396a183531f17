"""`/healthz` and `/readyz`, for whoever restarts us and whoever sends us requests."""

import asyncio
from collections.abc import Callable

import structlog
from starlette.requests import Request
from starlette.responses import Response

from rollout.errors import RolloutError
from rollout.web.errors import RETRY_AFTER_S, Json
from rollout.web.fresh import Fresh
from rollout.web.lanes import Lane
from rollout.web.service import Service

log = structlog.get_logger()


class Health:
    """Alive, and ready: what we cannot do without answers."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ready = Fresh(self._look, service.limits.fresh_s)

    async def alive(self, _request: Request) -> Response:
        """This process answers; it asks nobody else."""
        return Json({"status": "alive"})

    async def ready(self, _request: Request) -> Response:
        """Store and broker answer; else 503, and which one does not. Anybody may ask, so it says no more than that."""
        found = await self._ready.get()
        if all(found.values()):
            return Json({"status": "ready", **_said(found)})
        return Json({"status": "not ready", **_said(found)}, 503, headers={"Retry-After": str(RETRY_AFTER_S)})

    async def warm(self) -> None:
        """Look once, so that the first webhook does not wait for connections to be opened and modules to be read."""
        await self._ready.get()

    async def _look(self) -> dict[str, bool]:
        lanes, deps = self._service.lanes, self._service.deps
        store, broker = await asyncio.gather(
            _answers(lanes.store, deps.store.ready, "store"),
            _answers(lanes.broker, deps.bell.alive, "broker"),
        )
        return {"store": store, "broker": broker}


async def _answers(lane: Lane, question: Callable[[], bool], name: str) -> bool:
    try:
        found = await lane.run(question)
    except RolloutError as error:
        log.warning("not_ready", what=name, error=str(error))
        return False
    if not found:
        log.warning("not_ready", what=name)
    return found


def _said(found: dict[str, bool]) -> dict[str, str]:
    return {name: "answers" if answers else "does not answer" for name, answers in found.items()}
