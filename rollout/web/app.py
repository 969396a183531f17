"""The application: what answers where."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from rollout import wiring
from rollout.errors import ConfigError, RolloutError
from rollout.services.ports import Deps
from rollout.web import errors, hooks
from rollout.web.api import Reads
from rollout.web.armour import Armour
from rollout.web.checks import Checks
from rollout.web.gate import Gate
from rollout.web.health import Health
from rollout.web.metrics import Metrics
from rollout.web.orders import Orders
from rollout.web.page import Page
from rollout.web.service import Limits, Service
from rollout.webhooks import PROVIDERS


def create(path: Path | None = None) -> Starlette:
    """The application for the configuration at `path` (None: where it is looked for); ConfigError when it must not start."""
    return build(wiring.configured(path, role="web"))


def build(deps: Deps, limits: Limits | None = None) -> Starlette:
    """The application over these dependencies; ConfigError when it must not start."""
    refuse_without_secret(deps)
    service = Service(deps, limits or Limits())
    health = Health(service)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        warming = asyncio.create_task(health.warm())  # not waited for: a broker that is gone delays no start
        try:
            yield
        finally:
            warming.cancel()
            service.close()

    app = Starlette(
        routes=routes(service, health),
        middleware=[Middleware(Armour), Middleware(Gate, token=deps.settings.api_token)],
        exception_handlers={
            RolloutError: errors.on_rollout_error,
            HTTPException: errors.on_http_error,
            Exception: errors.on_surprise,
        },
        lifespan=lifespan,
    )
    app.state.service = service
    app.router.redirect_slashes = False  # an address has one spelling
    return app


def refuse_without_secret(deps: Deps) -> None:
    """ConfigError when nobody could sign a webhook, or anybody could."""
    if not any(secret.strip() for secret in deps.settings.secret_texts()):
        file = deps.config.server.webhook_secret_file
        where = f"{file} is missing" if file else "server.webhook_secret_file is empty"
        raise ConfigError(
            f"there is no webhook secret: {where} and ROLLOUT_WEBHOOK_SECRET is not set",
            remedy=f"openssl rand -hex 32 > {file or 'webhook.secret'}, and give the git server's webhook the same",
        )


def routes(service: Service, health: Health) -> list[Route]:
    """Every address; which of them want no token is said in `gate.PUBLIC` and nowhere else."""
    metrics = Metrics(service)
    reads, orders, page = Reads(service), Orders(service), Page(service)
    return [
        *(
            Route(
                f"/webhooks/{name}",
                hooks.endpoint(name, service, metrics.webhook_answers),
                methods=["POST"],
                name=f"webhook {name}",
            )
            for name in PROVIDERS
        ),
        Route("/healthz", health.alive),
        Route("/readyz", health.ready),
        Route("/metrics", metrics.page),
        Route("/", page.show),
        Route("/api/rollouts", reads.rollouts),
        Route("/api/rollouts/{id:int}", reads.rollout),
        Route("/api/rollouts/{id:int}/events", reads.events),
        Route("/api/rollouts/{id:int}/canary", reads.canary),
        Route("/api/rollouts/{id:int}/stop", orders.stop, methods=["POST"]),
        Route("/api/rollouts/{id:int}/resume", orders.resume, methods=["POST"]),
        Route("/api/rollouts/{id:int}/retry", orders.retry, methods=["POST"]),
        Route("/api/deliveries", reads.deliveries),
        Route("/api/hosts", reads.hosts),
        Route("/api/commits/{sha}", reads.commit),
        Route("/api/commits/{sha}/checks", Checks(service).report, methods=["POST"]),
    ]
