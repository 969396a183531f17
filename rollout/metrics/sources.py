"""The table of metric sources: the name in rollout.toml, and how it is made."""

from collections.abc import Callable, Mapping

from rollout.config.settings import Settings
from rollout.errors import UnknownName
from rollout.metrics.access_log import AccessLog
from rollout.metrics.probe import Probe
from rollout.metrics.prometheus import Prometheus
from rollout.services.ports import Fleet, MetricSource

SOURCES: Mapping[str, Callable[[Fleet, Settings], MetricSource]] = {
    "access-log": lambda fleet, _settings: AccessLog(fleet),
    "prometheus": lambda _fleet, settings: Prometheus(settings.prometheus_token),
    "probe": lambda fleet, _settings: Probe(fleet),
}


def source(name: str, fleet: Fleet, settings: Settings) -> MetricSource:
    """The source of this name; UnknownName lists the known ones."""
    if name not in SOURCES:
        raise UnknownName("canary.source", name, list(SOURCES))
    return SOURCES[name](fleet, settings)
