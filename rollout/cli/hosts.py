"""`rollout hosts`: what each host runs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollout.cli import failures, output, shapes
from rollout.cli.call import Call
from rollout.cli.failures import FAILED, OK
from rollout.errors import ConfigError

if TYPE_CHECKING:
    from rollout.domain.model import AppName
    from rollout.services.verifying import Verified


def hosts(
    call: Call,
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read it from the hosts, over SSH, and show drift.")
    ] = False,
) -> int:
    """What each host runs, as recorded, and who is behind; with --verify, as read from its disk.

    Drift is a host that has something else on its disk than what was left on it; `unknown` is one whose outcome was lost, or that lets
    nobody in, and that nobody has read since. Exit code 1 when a host could not be read, 2 when an app's inventory could not: its hosts
    are shown as recorded.
    """
    from rollout.services import catching_up, explaining, views

    apps = call.apps()
    verified, failed = _verify(call, apps) if verify else ([], {})
    found = []
    for app in apps:
        with call.store.reading() as tx:
            late = {}
            if (configured := call.config.apps.get(app)) is not None:  # else its table is wrong
                late = {
                    one.name: output.expected(explaining.Why(one.because, one.next_at), configured)
                    for one in catching_up.late(tx, configured)
                }
            found += [view | {"behind": late.get(view["name"], "")} for view in views.fleet(tx, app)]
    if call.json:
        output.document([shapes.host(view) for view in found])
    else:
        _print(found)
    return _warn(verified, failed)


def _verify(call: Call, apps: "list[AppName]") -> "tuple[list[Verified], dict[AppName, ConfigError]]":
    """What was read of each app; what is wrong with one is no other's trouble. ConfigError when only one is meant."""
    from rollout.services import verifying

    verified, failed = [], {}
    for app in apps:
        try:
            verified.append(verifying.verify(app, call.deps))
        except ConfigError as error:
            if len(apps) == 1:
                raise
            failed[app] = error
    return verified, failed


def _warn(verified: "list[Verified]", failed: "dict[AppName, ConfigError]") -> int:
    """Of what needs a person's look; the exit code."""
    unread = {name: error for one in verified for name, error in one.unread.items()}
    for words in (one.elsewhere for one in verified if one.elsewhere):
        output.warn(output.clean(words))
    for name, error in unread.items():
        output.warn(f"{output.clean(name)} could not be read: {output.clean(error)}")
    codes = [FAILED] if unread else []
    for app, wrong in failed.items():
        output.warn(f"hosts of {app} were not read, and are told as recorded")
        codes.append(failures.tell(wrong, as_json=False))
    return min(codes, default=OK)


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
