"""`rollout status`: what runs, what is next."""

from typing import Annotated

import typer

from rollout.cli.call import Call
from rollout.cli.failures import WrongUsage
from rollout.cli.options import MaybeNumber


def status(
    call: Call,
    number: MaybeNumber = None,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Live, until Ctrl-C (or the end of rollout ID).")
    ] = False,
) -> int:
    """What runs, what is under way, and what comes next.

    With --json: the list of the unfinished rollouts (with ID: of that one).
    """
    from rollout.cli import overview

    if watch and call.json:
        raise WrongUsage("--watch is for people, --json is one document", remedy="leave one of them out")
    if watch:
        return overview.watch(call, number)
    return overview.show(call, number)
