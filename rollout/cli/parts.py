"""`rollout up`, and its parts one by one: `web`, `worker`, `beat`, `flower`."""

from enum import StrEnum
from typing import Annotated

import typer

from rollout.cli.call import Call


class Kind(StrEnum):
    """What a worker works on; the name of its queue."""

    CONTROL = "control"
    TESTS = "tests"
    HOSTS = "hosts"


def up(call: Call) -> int:
    """Run everything on this machine: broker, web, workers, beat, Flower. Ctrl-C ends it all.

    What dies is started again. A second one on the same state directory is refused.
    """
    from rollout.cli import processes

    return processes.up(call)


def web(call: Call) -> int:
    """Run the HTTP service alone: webhooks, API, pages."""
    from rollout.cli import processes

    return processes.web(call)


def worker(
    call: Call,
    kind: Annotated[
        Kind, typer.Argument(help="control: decisions. tests: one commit at a time. hosts: SSH.")
    ],
) -> int:
    """Run one worker alone. Several of each kind may run, on several machines (with PostgreSQL and Redis)."""
    from rollout.cli import processes

    return processes.worker(call, kind.value)


def beat(call: Call) -> int:
    """Run the clock alone, which rings the workers now and then. One is enough, and none is no harm."""
    from rollout.cli import processes

    return processes.beat(call)


def flower(call: Call) -> int:
    """Run Flower alone, read-only: the tasks in a browser, behind a password."""
    from rollout.cli import processes

    return processes.flower(call)
