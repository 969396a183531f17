"""Logging: structlog to stderr, one event a line; secrets are cut out at the sink as a second line of defence."""

import logging
import re
import sys
from typing import Any

import structlog

from rollout.config.settings import Settings

_PASSWORD_IN_URL = re.compile(r"(://[^\s:/@]*:)[^\s@/]+@")


def configure(settings: Settings) -> None:
    """Send everything, foreign loggers too, to stderr."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # as text: a renderer's own traceback would show local variables
        _redact,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # whatever it is by then
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("celery").setLevel(max(level, logging.WARNING))
    # paramiko tells at error level what we raise and count ourselves
    logging.getLogger("httpx").setLevel(max(level, logging.WARNING))  # a line for each request
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)


def _redact(_logger: Any, _method: str, event: Any) -> Any:
    for key, value in event.items():
        if isinstance(value, str) and "://" in value:
            event[key] = _PASSWORD_IN_URL.sub(r"\1***@", value)
    return event
