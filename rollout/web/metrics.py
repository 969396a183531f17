"""`/metrics`: numbers for Prometheus, counted in the store when they are asked for, so that a restart forgets none."""

import platform
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version

import structlog
from prometheus_client import CollectorRegistry, Counter, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from rollout.domain.deliveries import Outcome
from rollout.domain.states import CommitState, HostState, RolloutState
from rollout.errors import RolloutError
from rollout.services import freezes
from rollout.services.ports import Deps
from rollout.store.census import Census, Counts
from rollout.web.fresh import Fresh
from rollout.web.service import Service

log = structlog.get_logger()


class Metrics:
    """The registry of this service, and its page."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._registry = CollectorRegistry()
        Info("rollout_build", "What runs", registry=self._registry).info(
            {"version": _version(), "python": platform.python_version()}
        )
        self.webhook_answers = Counter(
            "rollout_webhook_answers",
            "Webhooks answered by this process, refused ones too",
            ("provider", "status"),
            registry=self._registry,
        )
        self._registry.register(FromStore(service.deps))
        self._page = Fresh(self._look, service.limits.fresh_s)

    async def page(self, _request: Request) -> Response:
        """All of it, as Prometheus reads it."""
        return Response(await self._page.get(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _look(self) -> bytes:
        return await self._service.lanes.metrics.run(lambda: generate_latest(self._registry))


class FromStore(Collector):
    """What is in the store. When it does not answer, the numbers are missing and `rollout_store_answers` is 0."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: the store is not asked before somebody wants to know."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Everything, in one reading transaction."""
        try:
            families = list(self._families())
        except RolloutError as error:
            log.warning("metrics_without_store", error=str(error))
            families = []
        yield GaugeMetricFamily(
            "rollout_store_answers", "1 when the store answers", value=float(bool(families))
        )
        yield from families

    def _families(self) -> Iterator[GaugeMetricFamily]:
        apps = self._deps.config.names
        with self._deps.store.reading() as tx:
            census, deliveries = Census(tx), tx.deliveries.counts()
            yield _by_state("rollout_rollouts", "Rollouts", census.rollouts(), apps, RolloutState)
            yield _by_state("rollout_hosts", "Hosts of unfinished rollouts", census.hosts(), apps, HostState)
            yield _by_state("rollout_commits", "Commits", census.commits(), apps, CommitState)
            oldest = census.oldest_unfinished_s()
            configured = self._deps.config.apps.items()
            frozen = {name: float(freezes.frozen(tx, app) is not None) for name, app in configured}
        yield _by_name("rollout_frozen", "1 while automation starts nothing for the app", "app", frozen)
        yield _by_name(
            "rollout_deliveries",
            "Stored webhooks (the newest 100000)",
            "outcome",
            dict.fromkeys(map(str, Outcome), 0) | deliveries,
        )
        yield _by_name(
            "rollout_oldest_unfinished_seconds",
            "Age of the oldest untested commit and unfinished rollout",
            "kind",
            oldest,
        )


def _version() -> str:
    try:
        return version("rollout")
    except PackageNotFoundError:
        return "a checkout"


def _by_state(
    name: str, what: str, counts: Counts, apps: list[str], states: type[StrEnum]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, f"{what}, by state", labels=("app", "state"))
    for app, state in sorted({(app, str(state)) for app in apps for state in states} | set(counts)):
        family.add_metric((app, state), counts.get((app, state), 0))
    return family


def _by_name(name: str, what: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
