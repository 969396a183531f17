"""`rollout demo`."""

from typing import Annotated

import typer

from rollout.cli.call import Call
from rollout.cli.failures import WrongUsage


def demo(
    call: Call,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running, until Ctrl-C.")] = False,
) -> int:
    """Play the main job for real, in about a minute: 12 hosts, 4 commits, 3 of them bad.

    Everything lives in one temporary folder; nothing is left behind. Exit code 0 only if each commit ended as it must.
    """
    from rollout.cli import demo as room

    if call.json:
        raise WrongUsage("the demo is for people; it has no --json", remedy="leave --json out")
    return room.run(keep=keep)
