"""`rollout stop` and `rollout rollback`: the two ways back."""

from typing import Annotated

import typer

from rollout.cli import waiting
from rollout.cli.call import Call
from rollout.cli.options import MaybeNumber, Reason, Timeout, Wait


def stop(
    call: Call,
    number: MaybeNumber = None,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the hosts as they are.")] = False,
    reason: Reason = None,
    wait: Wait = False,
    timeout: Timeout = None,
) -> int:
    """Stop a rollout and roll back the hosts that it touched.

    All commits that it carried are barred. Says accepted, then acknowledged (from then on no host is switched any more), then how the hosts come back. It
    returns at the acknowledgement, with --wait at the end of the rollback. Works without broker and workers, too.
    """
    from rollout.cli import ways_back

    return ways_back.stop(
        call, number, keep=keep, reason=reason, wait=wait, timeout_s=waiting.limit(timeout, wait=wait)
    )


def rollback(
    call: Call,
    *,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="COMMIT", help="Every host to this commit.", show_default=False),
    ] = None,
    reason: Reason = None,
    wait: Wait = False,
    timeout: Timeout = None,
) -> int:
    """The newest done rollout goes back: each host to what it ran before, or all of them to one commit.

    All commits that it carried, or that came after the one commit, are barred. Works without broker and workers, too.
    """
    from rollout.cli import ways_back

    return ways_back.rollback(
        call, to=to, reason=reason, wait=wait, timeout_s=waiting.limit(timeout, wait=wait)
    )
