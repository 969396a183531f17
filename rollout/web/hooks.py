"""`POST /webhooks/…`: signed by somebody we know, stored, and then answered. What follows is not waited for."""

from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import Response

from rollout import webhooks
from rollout.domain.model import Push
from rollout.errors import RolloutError
from rollout.services import checks, intake
from rollout.services.intake import Received
from rollout.services.ports import Deps
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
        headers = request.headers.items()
        stored = await service.lanes.webhooks.run(
            partial(_store, provider, headers, body, service.for_webhooks)
        )
    if stored is None:
        return Json({"ping": "pong"})
    return Json({"delivery": stored.delivery, "outcome": stored.outcome, "reason": stored.reason}, 202)


def _store(provider: str, headers: list[tuple[str, str]], body: bytes, deps: Deps) -> Received | None:
    """What became of it, None for a ping. The signature comes before anything that is in the body."""
    known = webhooks.provider(provider)
    known.verify(headers, body, deps.settings.secret_texts())
    push = known.parse(headers, body)
    if push.kind == "ping":
        return None
    if push.kind == "report":
        return checks.receive(push, webhooks.of_repository(push, deps.config.apps), deps)
    if push.kind == "pull":
        return intake.receive_pull(push, webhooks.of_repository(push, deps.config.apps), deps)
    return _for_every_app(push, deps)


def _for_every_app(push: Push, deps: Deps) -> Received:
    """Several apps may ship the same repository; each has its own row, and the first one's is answered."""
    apps = webhooks.matches(push, deps.config.apps)
    if not apps:
        return intake.receive(push, webhooks.match(push, deps.config.apps), deps)
    first, *_ = [intake.receive(webhooks.narrow(push, app), app, deps) for app in apps]
    return first
