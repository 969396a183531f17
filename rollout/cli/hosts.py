"""`rollout hosts`: what each host runs."""

from typing import Annotated, Any

import typer

from rollout.cli import output, shapes
from rollout.cli.call import Call
from rollout.cli.failures import FAILED, OK


def hosts(
    call: Call,
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read it from the hosts, over SSH, and show drift.")
    ] = False,
) -> int:
    """What each host runs, as recorded, and who is behind; with --verify, as read from its disk.

    Drift is a host that has something else on its disk than what was left on it; `unknown` is one whose outcome was lost, or that lets
    nobody in, and that nobody has read since. Exit code 1 when a host could not be read.
    """
    from rollout.services import catching_up, explaining, verifying, views

    unread: dict[str, str] = {}
    elsewhere: list[str] = []
    found = []
    for app in call.apps():
        if verify:
            verified = verifying.verify(app, call.deps)
            unread |= verified.unread
            elsewhere += [verified.elsewhere] if verified.elsewhere else []
        with call.store.reading() as tx:
            configured = call.config.app(app)
            late = {
                one.name: output.expected(explaining.Why(one.because, one.next_at), configured)
                for one in catching_up.late(tx, configured)
            }
            found += [view | {"behind": late.get(view["name"], "")} for view in views.fleet(tx, app)]
    if call.json:
        output.document([shapes.host(view) for view in found])
    else:
        _print(found)
    for words in elsewhere:
        output.warn(output.clean(words))
    for name, error in unread.items():
        output.warn(f"{output.clean(name)} could not be read: {output.clean(error)}")
    return FAILED if unread else OK


def _print(found: list[dict[str, Any]]) -> None:
    if not found:
        output.say(
            "no host is known yet: `rollout hosts --verify` reads them, the first rollout records them"
        )
        return
    rows = [
        (
            view["app"],
            view["name"],
            view["address"],
            output.short(view["release"]),
            output.short(view["found"] or "nothing") if view["drift"] else "",
            view["verified_at"],
            _state(view),
            view["excluded"] or "",
            view["behind"],
        )
        for view in found
    ]
    head = ("app", "host", "address", "release", "on its disk", "read at", "state", "excluded", "behind")
    output.table(head, rows)


def _state(view: dict[str, Any]) -> str:
    if view["left_at"] is not None:  # nobody reads it any more, nor brings it to anything
        return "not in the fleet"
    return {True: "drift", False: "as recorded", None: "not read"}[view["drift"]]
