"""The Celery application, as `celery -A workers.app` finds it. `rollout worker`, `beat` and `flower` start it."""

import functools
import os
from typing import Any

from celery.signals import setup_logging, worker_init, worker_process_init, worker_ready, worker_shutdown

from rollout import logs, wiring
from rollout.config import deploy_file
from rollout.config.settings import Settings
from rollout.dispatch import celery_app
from rollout.services.ports import Deps
from workers import memory
from workers.background import Background
from workers.events import EventsInBatches
from workers.schedule import SCHEDULE

_config = deploy_file.usable()
_settings = Settings.load(_config)
app = celery_app(_config.server.broker_url)
app.conf.include = ["workers.tasks"]
app.steps["consumer"].add(EventsInBatches)
app.conf.beat_schedule = SCHEDULE
app.conf.beat_scheduler = "workers.ringer:Ringer"

TESTS_NICE = 10  # what tests themselves run is nicer still

_background: list[Background] = []


@functools.cache
def deps() -> Deps:
    """This process's neighbours; opened at the first task, so that a forked child has its own, by the file that its worker has read."""
    neighbours = wiring.wire(_config, role="worker")
    neighbours.store.prepare()
    return neighbours


@setup_logging.connect  # type: ignore[untyped-decorator]
def _log(**_: Any) -> None:
    logs.configure(_settings)
    wiring.tell_left_out(_config)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _forked(**_: Any) -> None:
    deps.cache_clear()


@worker_init.connect  # type: ignore[untyped-decorator]
def _keep_little(**_: Any) -> None:
    wiring.collect_less()
    memory.share_arenas()


@worker_init.connect  # type: ignore[untyped-decorator]
def _tests_come_last(sender: Any, **_: Any) -> None:
    """Git, builds and archives take what nobody else wants: first is who waits for a webhook's answer, a stop, or a host."""
    if _kind(sender) == "tests":
        os.nice(TESTS_NICE)


@worker_ready.connect  # type: ignore[untyped-decorator]
def _ready(sender: Any, **_: Any) -> None:
    kind = _kind(sender)
    if kind in {"control", "hosts"}:  # the tests' worker forks, and threads do not survive that
        _background.append(Background(deps(), holds_connections=kind == "hosts"))


def _kind(worker: Any) -> str:
    return str(worker.hostname).partition("@")[0]


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _shutdown(**_: Any) -> None:
    for background in _background:
        background.stop()
