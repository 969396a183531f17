"""`rollout show`, `log`, `history`: one rollout closely, what it printed, and those that are past."""

import re
from typing import Annotated

import typer

from rollout.cli import completion
from rollout.cli.call import Call
from rollout.cli.failures import WrongUsage
from rollout.cli.options import Number

SHORTEST_HASH = 7  # digits


def show(
    call: Call,
    number: Number,
    *,
    events: Annotated[bool, typer.Option("--events", help="Every event of every host, too.")] = False,
) -> int:
    """One rollout closely: its hosts, its timeline, and its failures grouped by their cause."""
    from rollout.cli import closely

    return closely.show(call, number, events=events)


def log(
    call: Call,
    what: Annotated[
        str,
        typer.Argument(
            metavar="ID|COMMIT",
            help="A rollout's number; or a commit (7 digits or more), for the output of its tests.",
            autocompletion=completion.rollouts,
        ),
    ],
    *,
    host: Annotated[
        str | None,
        typer.Option("--host", help="Only what this host printed.", autocompletion=completion.hosts),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the rollout is over.")] = False,
) -> int:
    """What tests, restarts and health checks printed."""
    from rollout.cli import closely

    if follow and call.json:
        raise WrongUsage("--follow is for people, --json is one document", remedy="leave one of them out")
    if not re.fullmatch(r"[0-9a-f]{1,40}", what):
        raise WrongUsage(
            f"{what!r} is neither a rollout's number nor a commit", remedy="rollout history lists them"
        )
    if what.isdigit() and len(what) < SHORTEST_HASH:
        return closely.log(call, int(what), host, follow=follow)
    if host or follow:
        raise WrongUsage("a commit's tests run on no host and are over", remedy=f"rollout log {what}")
    return closely.log_of_tests(call, what)


def history(
    call: Call,
    *,
    limit: Annotated[int, typer.Option("--limit", help="How many at most.", min=1, max=10_000)] = 20,
    deliveries: Annotated[
        bool, typer.Option("--deliveries", help="The last webhooks instead, and what became of each.")
    ] = False,
) -> int:
    """Past rollouts, newest first."""
    from rollout.cli import closely

    return closely.deliveries(call, limit) if deliveries else closely.history(call, limit)
