"""The one module that picks the concrete classes."""

import gc
import os
import socket
import threading
from pathlib import Path

import structlog

from rollout.config import deploy_file
from rollout.config.deploy_file import Config
from rollout.config.settings import Settings
from rollout.dispatch import CeleryBell, celery_app
from rollout.fleet.ssh import SshFleet
from rollout.metrics.sources import SOURCES, source
from rollout.notify import AppriseNotifier
from rollout.releases.workshop import GitWorkshop
from rollout.services.leases import LeaseKeeper
from rollout.services.ports import Deps
from rollout.store.store import Store

log = structlog.get_logger()


def wire(config: Config, *, role: str) -> Deps:
    """Everything a service needs in this process; `role` (cli, web, hosts …) becomes part of the owner of its leases."""
    settings = Settings.load(config)
    store = Store(config.server.database_url)
    worker = f"{role}@{socket.gethostname()}:{os.getpid()}:{threading.get_native_id()}"
    fleet = SshFleet()
    return Deps(
        config=config,
        settings=settings,
        store=store,
        fleet=fleet,
        workshop=GitWorkshop(config.server.state_dir),
        metrics={name: source(name, fleet, settings) for name in SOURCES},
        bell=CeleryBell(celery_app(config.server.broker_url)),
        notifier=AppriseNotifier(),
        leases=LeaseKeeper(store, worker, settings.lease_s),
        worker=worker,
    )


def configured(path: Path | None = None, *, role: str) -> Deps:
    """As `wire`, for the configuration file at `path` (None: where it is looked for), with the schema up to date."""
    deps = wire(deploy_file.usable(path), role=role)
    deps.store.prepare()
    return deps


def tell_left_out(config: Config) -> None:
    """Loudly, in the log of a process that stays: nothing is tested nor begun of an app whose table is wrong until it is mended."""
    for app, wrong in config.left_out.items():
        log.error("app_left_out", app=app, wrong=wrong, remedy=f"edit {config.path}, and start rollout again")


def collect_less() -> None:
    """Of a process that stays: modules do too, and 1,000 connections stay long, so collections hardly walk through them.

    That cost 8 % of what preparing a fleet does, and each time held up everybody for a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 2)  # a cycle that is seen alive once waits longer: some megabytes
