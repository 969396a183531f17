"""`rollout deploy`: by hand what a webhook does."""

from typing import Annotated

import typer

from rollout.cli import waiting
from rollout.cli.call import Call
from rollout.cli.failures import WrongUsage
from rollout.cli.options import Timeout, Wait


def deploy(
    call: Call,
    commit: Annotated[
        str | None,
        typer.Argument(help="A hash or its beginning; default: the branch's head.", show_default=False),
    ] = None,
    *,
    now: Annotated[
        bool, typer.Option("--now", help="Before the queue; wants --reason, and is audited.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why it cannot wait for its turn.")] = None,
    wait: Wait = False,
    timeout: Timeout = None,
) -> int:
    """Enqueue a commit by hand, as a webhook does: it is tested, then shipped when its turn comes.

    Exit codes: 0 stored (with --wait: done), 1 it failed, halted or was rolled back, 3 not on the branch,
    4 barred or older than what runs, or --now while another rollout is active that does not fan out yet.
    """
    from rollout.cli.commits import ship

    if now != (reason is not None):
        raise WrongUsage("--now and --reason go together", remedy="rollout deploy COMMIT --now --reason '…'")
    return ship(call, commit, reason, wait=wait, timeout_s=waiting.limit(timeout, wait=wait))
