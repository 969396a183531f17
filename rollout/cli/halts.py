"""`rollout resume`, `retry`, `exclude`, `include`: what a person says to a rollout that waits."""

from typing import Annotated

import typer

from rollout.cli import output, waiting
from rollout.cli.call import Call, who
from rollout.cli.failures import WrongUsage
from rollout.cli.options import Hosts, NeededReason, Number, Reason, Timeout, Wait


def resume(
    call: Call,
    number: Number,
    *,
    accept_failed: Annotated[
        bool, typer.Option("--accept-failed", help="The failed hosts no longer count; wants --reason.")
    ] = False,
    accept_canary: Annotated[
        bool,
        typer.Option(
            "--accept-canary", help="A canary in doubt, or harm that was seen, is yours; wants --reason."
        ),
    ] = False,
    reason: Reason = None,
    wait: Wait = False,
    timeout: Timeout = None,
) -> int:
    """After a halt: go on with the stage that it halted in.

    Exit code 4 while too many hosts have failed, naming them. Also a person's yes, where one is wanted (confirm): in a freeze
    before the fan-out with --reason only.
    """
    from rollout.cli import onward

    if (accept_failed or accept_canary) and not reason:
        raise WrongUsage(
            "accepting failures or a canary is audited, and wants a reason", remedy="add --reason '…'"
        )
    timeout_s = waiting.limit(timeout, wait=wait)
    return onward.resume(
        call,
        number,
        reason,
        accept_failed=accept_failed,
        accept_canary=accept_canary,
        wait=wait,
        timeout_s=timeout_s,
    )


def retry(call: Call, number: Number, *, wait: Wait = False, timeout: Timeout = None) -> int:
    """After a halt: try the failed hosts again, and go on. The budget continues."""
    from rollout.cli import onward

    return onward.retry(call, number, wait=wait, timeout_s=waiting.limit(timeout, wait=wait))


def exclude(call: Call, hosts: Hosts, *, reason: NeededReason) -> int:
    """Take hosts out of all rollouts, the present one included.

    One that the present rollout has switched, or may have, still goes back with it when it is stopped.
    """
    from rollout.services import halts

    app = call.app().name
    busy = halts.exclude(app, hosts, call.deps, who=who(), why=reason)
    if call.json:
        output.document({"app": app, "excluded": hosts, "in_flight": busy})
        return 0
    output.say(f"excluded from now on: {output.names(hosts)}")
    if busy:
        output.say(f"being switched right now, so still in the present rollout: {output.names(busy)}")
    output.say(f"back in with: rollout include {output.clean(' '.join(hosts))}")
    return 0


def include(call: Call, hosts: Hosts) -> int:
    """Take hosts back in.

    They are brought to what the fleet runs, one at a time; also those that were left behind after three tries.
    """
    from rollout.services import catching_up, halts

    app = call.app()
    halts.include(app.name, hosts, call.deps, who=who())
    if call.json:
        output.document({"app": app.name, "included": hosts})
        return 0
    with call.store.reading() as tx:
        told = catching_up.prospects(tx, app, hosts)
    for name, words in told.items():
        output.say(f"in again: {output.clean(name)} {output.clean(words)}")
    return 0
