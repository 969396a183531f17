"""`rollout hosts`: what each host runs."""

from typing import Annotated

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

    Drift is a host that runs something else than what was left on it; `unknown` is one whose outcome was lost, or that lets
    nobody in, and that nobody has read since. Exit code 1 when a host could not be read.
    """
    from rollout.services import catching_up, explaining, verifying, views

    unread: dict[str, str] = {}
    found = []
    for app in call.apps():
        if verify:
            unread |= verifying.verify(app, call.deps)
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
    for name, error in unread.items():
        output.warn(f"{output.clean(name)} could not be read: {output.clean(error)}")
    return FAILED if unread else OK


def _print(found: "list[dict[str, object]]") -> None:
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
            output.short(view["release"]),  # type: ignore[arg-type]  # a hash or None, by views.fleet
            view["verified_at"],
            {True: "drift", False: "as recorded", None: "not read"}[view["drift"]],  # type: ignore[index]  # as above
            view["excluded"] or "",
            view["behind"],
        )
        for view in found
    ]
    output.table(("app", "host", "address", "release", "read at", "state", "excluded", "behind"), rows)
