"""`POST /webhooks/…`: signed by somebody we know, stored, and then answered. What follows is not waited for."""

from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import Response

from rollout.errors import Conflict, RolloutError, ServiceUnavailable
from rollout.services.intake import PING
from rollout.web.arrivals import Arrival
from rollout.web.errors import Json, status_of
from rollout.web.service import Service
from rollout.webhooks.payload import MOST_BYTES

log = structlog.get_logger()
Endpoint = Callable[[Request], Awaitable[Response]]


def endpoint(provider: str, service: Service, answers: Counter) -> Endpoint:
    """The handler of this provider's webhooks."""

    async def receive(request: Request) -> Response:
        try:
            answer = await _receive(provider, request, service)
        except RolloutError as error:
            status = status_of(error)
            answers.labels(provider, status).inc()
            log.warning("webhook_refused", provider=provider, status=status, error=str(error))
            raise
        answers.labels(provider, answer.status_code).inc()
        return answer

    return receive


async def _receive(provider: str, request: Request, service: Service) -> Response:
    async with service.bodies.of(request, MOST_BYTES) as body:
        try:
            stored = await service.lanes.webhooks.run(Arrival(provider, request.headers.items(), body))
        except Conflict as error:
            # Two of ours at the same row: who is told that he is at fault does not send it again.
            raise ServiceUnavailable(str(error), remedy="nothing is lost; try again") from error
    told = {"delivery": stored.delivery, "outcome": stored.outcome, "reason": stored.reason}
    return Json(told, 200 if stored.reason == PING else 202)
