"""`rollout freeze` and `unfreeze`: automation stands still, and goes on."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from rollout.cli import output
from rollout.cli.call import Call, who
from rollout.cli.failures import WrongUsage
from rollout.cli.options import NeededReason, Reason
from rollout.config import durations

_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="T", help="17:00, 2h, or 2027-01-02T08:00; else until unfreeze."),
]


def freeze(call: Call, *, until: Until = None, reason: NeededReason) -> int:
    """Let automation start nothing for now.

    What is under way goes on; stop and rollback are never frozen; `rollout deploy COMMIT --now --reason …` still goes out.
    """
    from rollout.services import freezes

    app = call.app()
    now = datetime.now(ZoneInfo(app.queue.time_zone))
    end = None if until is None else moment(until, now)
    frozen = freezes.freeze(app, call.deps, who=who(), why=reason, until=end)
    if call.json:
        ended = None if frozen.until is None else frozen.until.astimezone(UTC).isoformat()
        output.document({"app": app.name, "frozen": True, "until": ended, "reason": frozen.reason})
        return 0
    last = f"until {end:%a %Y-%m-%d %H:%M %Z}" if end else "until somebody says rollout unfreeze"
    output.say(f"{app.name} is frozen {last}; what is under way goes on")
    return 0


def unfreeze(call: Call, *, reason: Reason = None) -> int:
    """Let automation go on."""
    from rollout.services import freezes, planning

    app = call.app()
    freezes.unfreeze(app, call.deps, who=who(), why=reason or f"by {who()}")
    planning.start_next(app.name, call.deps)
    if call.json:
        output.document({"app": app.name, "frozen": False, "until": None, "reason": None})
    else:
        output.say(f"{app.name} is no longer frozen")
    return 0


def moment(given: str, now: datetime) -> datetime:
    """The next time that the clock says so, a duration from now, or a moment; without a zone it is `now`'s."""
    clock = _CLOCK.fullmatch(given)
    if clock is not None:
        today = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
        return today if today > now else today + timedelta(days=1)
    try:
        return now + timedelta(seconds=durations.parse(given))
    except ValueError:
        pass
    try:
        told = datetime.fromisoformat(given)
    except ValueError:
        raise WrongUsage(
            f"--until {given}: not a time", remedy="give 17:00, 2h or 2027-01-02T08:00"
        ) from None
    return told if told.tzinfo else told.replace(tzinfo=now.tzinfo)
