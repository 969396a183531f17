"""Options and arguments that several commands have."""

from typing import Annotated

import typer

from rollout.cli import completion

Wait = Annotated[bool, typer.Option("--wait", help="Return at the end; the exit code is the outcome.")]
Timeout = Annotated[
    str | None, typer.Option("--timeout", metavar="DURATION", help="Wait no longer than this, e.g. 30m.")
]
Number = Annotated[
    int, typer.Argument(metavar="ID", help="A rollout's number.", autocompletion=completion.rollouts, min=1)
]
MaybeNumber = Annotated[
    int | None,
    typer.Argument(
        metavar="ID",
        help="A rollout's number; default: the one under way.",
        autocompletion=completion.rollouts,
        show_default=False,
        min=1,
    ),
]
Hosts = Annotated[list[str], typer.Argument(metavar="HOST...", autocompletion=completion.hosts)]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; it is kept in the audit.")]
NeededReason = Annotated[str, typer.Option("--reason", help="Why; it is kept in the audit.")]
