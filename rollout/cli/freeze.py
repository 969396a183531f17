"""`rollout freeze` and `unfreeze`: automation stands still, and goes on."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

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
    It may be made longer; to make it shorter, unfreeze first.
    """
    from rollout.services import freezes

    app = call.app()
    now = datetime.now(app.queue.zone)
    end = None if until is None else moment(until, now)
    frozen, before = freezes.freeze(app, call.deps, who=who(), why=reason, until=end)
    if call.json:
        ended = None if frozen.until is None else frozen.until.astimezone(UTC).isoformat()
        output.document({"app": app.name, "frozen": True, "until": ended, "reason": frozen.reason})
        return 0
    last = f"until {end:%a %Y-%m-%d %H:%M %Z}" if end else "until somebody says rollout unfreeze"
    prolongs = f"; it was {before}" if before else ""
    output.say(f"{app.name} is frozen {last}{prolongs}; what is under way goes on")
    return 0


def unfreeze(call: Call, *, reason: Reason = None) -> int:
    """Let automation go on."""
    from rollout.services import freezes, planning

    app = call.app()
    window = freezes.unfreeze(app, call.deps, who=who(), why=reason or f"by {who()}")
    planning.start_next(app.name, call.deps, may_wait=True)
    if call.json:
        until = None if window is None else window.astimezone(UTC).isoformat()
        its = None if window is None else "a window of rollout.toml"
        output.document({"app": app.name, "frozen": window is not None, "until": until, "reason": its})
    elif window is None:
        output.say(f"{app.name} is no longer frozen")
    else:
        output.say(
            f"nobody freezes {app.name} any more, but a window of rollout.toml does until {freezes.text(app, window)};"
            " a hotfix goes out with rollout deploy COMMIT --now --reason …"
        )
    return 0


def moment(given: str, now: datetime) -> datetime:
    """The next time that the clock says so, a duration from now, or a moment; without a zone it is `now`'s."""
    try:
        told = _moment(given, now)
        told.astimezone(UTC)  # also the end of the calendar is there in every zone
    except (ValueError, OverflowError):
        raise WrongUsage(
            f"--until {given}: not a time", remedy="give 17:00, 2h or 2027-01-02T08:00"
        ) from None
    return told


def _moment(given: str, now: datetime) -> datetime:
    clock = _CLOCK.fullmatch(given)
    if clock is not None:
        today = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0, fold=0)
        times = (today, today.replace(fold=1), today + timedelta(days=1))  # fold: the clock shows it twice
        return next(one for one in times if one.timestamp() > now.timestamp())
    if durations.DURATION.fullmatch(given):  # so long in truth, also when the clock is moved meanwhile
        return (now.astimezone(UTC) + timedelta(seconds=durations.parse(given))).astimezone(now.tzinfo)
    told = datetime.fromisoformat(given)
    return told if told.tzinfo else told.replace(tzinfo=now.tzinfo)
