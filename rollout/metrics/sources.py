"""The table of metric sources: the name in rollout.toml, and its class."""

from collections.abc import Mapping

from rollout.errors import UnknownName
from rollout.metrics.access_log import AccessLog
from rollout.services.ports import Fleet, MetricSource

SOURCES: Mapping[str, type[AccessLog]] = {"access-log": AccessLog}


def source(name: str, fleet: Fleet) -> MetricSource:
    """The source of this name; UnknownName lists the known ones."""
    if name not in SOURCES:
        raise UnknownName("canary.source", name, list(SOURCES))
    return SOURCES[name](fleet)
