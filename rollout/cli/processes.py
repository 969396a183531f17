"""Becoming one of the parts that `rollout up` starts: the schema first, then the part in this very process."""

import importlib
import os
import sys
from contextlib import closing
from typing import NoReturn

from rollout import logs
from rollout.cli import output
from rollout.cli.call import Call
from rollout.config.deploy_file import Config
from rollout.config.settings import Settings
from rollout.errors import ConfigError
from rollout.store.store import Store

THREADS = 8  # of the control worker: its tasks are short
WEB = "rollout.web.server"  # by name, as an ASGI server would: web and command line do not know each other


def up(call: Call) -> int:
    """Everything, until Ctrl-C."""
    config = call.config
    Settings.load(config)  # a secret that cannot be read is told now, not by a part that dies again and again
    from rollout.supervisor.up import up as run

    return run(config, output.say)


def web(call: Call) -> int:
    """The HTTP service, until Ctrl-C."""
    config, _ = _prepared(call)
    room = importlib.import_module(WEB)
    try:
        room.serve(config.path)
    except KeyboardInterrupt:
        return 0
    return 0


def worker(call: Call, kind: str) -> NoReturn:
    """Celery's worker on one queue."""
    config, settings = _prepared(call)
    pools = {
        "control": ("--pool", "threads", "--concurrency", str(THREADS)),
        "tests": ("--pool", "prefork", "--concurrency", str(_tests_at_once(config))),
        "hosts": ("--pool", "threads", "--concurrency", str(settings.slots)),
    }
    _become_celery(
        config,
        "worker",
        *("-n", f"{kind}@%h", "-Q", kind, *pools[kind]),
        *("--without-gossip", "--without-mingle", "--loglevel", "WARNING", "-E"),
    )


def _tests_at_once(config: Config) -> int:
    """What all apps may run together, but two for each processor; yet what one app asks for it gets, and leaves one to others."""
    asked = [app.tests.parallel for app in config.apps.values()]
    return max(1, min(sum(asked), max(2 * (os.cpu_count() or 1), max(asked, default=0) + 1)))


def beat(call: Call) -> NoReturn:
    """Celery's beat."""
    config, _ = _prepared(call)
    _become_celery(config, "beat", "--pidfile=", "--loglevel", "WARNING")


def flower(call: Call) -> int:
    """Flower, until Ctrl-C."""
    config, settings = _prepared(call)
    server = config.server
    if not server.flower:
        raise ConfigError(
            "Flower is off", remedy='set [server] flower to an address, such as "127.0.0.1:5555"'
        )
    logs.configure(settings)
    os.environ["ROLLOUT_CONFIG"] = str(config.path)
    from rollout.supervisor import flower as room

    room.serve(server.flower_host, server.flower_port, room.password(server.state_dir))
    return 0


def _prepared(call: Call) -> tuple[Config, Settings]:
    """The configuration, once the schema of the store is up to date."""
    config = call.config
    settings = Settings.load(config)
    with closing(Store(config.server.database_url)) as store:
        store.prepare()
    return config, settings


def _become_celery(config: Config, *words: str) -> NoReturn:
    """Replace this process, so that signals and exit status are Celery's own. No secret is in the words."""
    environment = {**os.environ, "ROLLOUT_CONFIG": str(config.path)}
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "workers.app", *words]
    os.execve(sys.executable, command, environment)  # noqa: S606  # a list of words, and no shell
