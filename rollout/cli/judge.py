"""`rollout judge`: what the canary's judge says of a file of intervals."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rollout.cli import output
from rollout.cli.call import Call
from rollout.cli.failures import WrongUsage

if TYPE_CHECKING:
    from rollout.domain.verdict import Interval, Policy, Verdict

POLICY = "Policy"
COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}


def judge(
    call: Call,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Intervals as JSON lines; - is standard input.")
    ],
    *,
    minimum_good: Annotated[
        str, typer.Option("--minimum-good", metavar="SHARE", help="Such as 95%.", rich_help_panel=POLICY)
    ] = "95%",
    bake: Annotated[
        str,
        typer.Option("--bake", metavar="DURATION", help="Watched at least so long.", rich_help_panel=POLICY),
    ] = "60s",
    deadline: Annotated[
        str, typer.Option("--deadline", metavar="DURATION", help="Decided by then.", rich_help_panel=POLICY)
    ] = "10m",
    margin: Annotated[
        str,
        typer.Option(
            "--margin", metavar="SHARE", help="A smaller regression may pass.", rich_help_panel=POLICY
        ),
    ] = "1%",
    good: Annotated[
        list[str] | None,
        typer.Option("--good", metavar="CLASSES", help="Such as 2xx,3xx.", rich_help_panel=POLICY),
    ] = None,
    canary: Annotated[
        list[str] | None,
        typer.Option("--canary", metavar="HOSTS", help="These are the canary, all others the baseline."),
    ] = None,
) -> int:
    """What the canary's judge says of these intervals, and when it fell.

    What is undecided at the end of the file is inconclusive. The exit code is 0 whatever the verdict is; --json has it.
    """
    from rollout.domain.verdict import Policy

    policy = Policy(
        good=tuple(_names(good)) or Policy().good,
        minimum_good=_share("--minimum-good", minimum_good),
        bake_s=_seconds("--bake", bake),
        deadline_s=_seconds("--deadline", deadline, least=1.0),
        margin=_share("--margin", margin),
    )
    if policy.deadline_s < policy.bake_s:
        raise WrongUsage("--deadline is shorter than --bake", remedy="rollout judge --help")
    _tell(_judged(_as_asked(_read(file), _names(canary)), policy), as_json=call.json)
    return 0


def _judged(intervals: "Sequence[Interval]", policy: "Policy") -> "Verdict":
    from rollout.domain.judge import Judge

    judging = Judge(policy)
    judging.add(sorted(intervals, key=lambda one: one.t))
    return judging.closing


def _read(file: str) -> "list[Interval]":
    from rollout.cli import intervals

    if file == "-":
        return list(intervals.read(sys.stdin, "standard input"))
    try:
        with Path(file).open(encoding="utf-8") as lines:
            return list(intervals.read(lines, file))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "this is no text"
        raise WrongUsage(f"{file}: {why}", remedy="rollout judge --help") from error


def _as_asked(intervals: "list[Interval]", canary: Sequence[str]) -> "list[Interval]":
    """With the roles that `--canary` gives."""
    if not canary:
        return intervals
    known = {one.host for one in intervals}
    missing = [name for name in canary if name not in known]
    if missing:
        raise WrongUsage(
            f"--canary: {output.names(missing)} is not in the file; known are {output.names(sorted(known)) or 'none'}",
            remedy="name hosts as the file does",
        )
    return [replace(one, role="canary" if one.host in canary else "baseline") for one in intervals]


def _names(given: Sequence[str] | None) -> list[str]:
    """Repeated options, or one with commas."""
    return [name.strip() for one in given or () for name in one.split(",") if name.strip()]


def _share(option: str, given: str) -> float:
    """95% or 0.95."""
    number = given.strip().removesuffix("%")
    try:
        share = float(number) / (100 if given.strip().endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise _wrong(option, given, "a share such as 95%")
    return share


def _seconds(option: str, given: str, *, least: float = 0.0) -> float:
    """90s, 5m, or a bare number of seconds."""
    from rollout.config import durations

    try:
        seconds = durations.parse(f"{given}s" if given.replace(".", "", 1).isdigit() else given)
    except ValueError as error:
        raise _wrong(option, given, str(error)) from error
    if seconds < least:
        raise _wrong(option, given, f"{durations.text(least)} or more")
    return seconds


def _wrong(option: str, found: str, expected: str) -> WrongUsage:
    return WrongUsage(f"{option}: found {found!r}, expected {expected}", remedy="rollout judge --help")


def _tell(verdict: "Verdict", *, as_json: bool) -> None:
    if as_json:
        output.document(
            {
                "status": str(verdict.status),
                "reason": verdict.reason,
                "explanation": verdict.explanation,
                "t": verdict.t,
                "evidence": dict(verdict.evidence),
            }
        )
        return
    word = output.paint(str(verdict.status), COLOURS[verdict.status])
    output.say(f"{word}: {verdict.reason}, after {verdict.t:g} s")
    output.say(output.clean(verdict.explanation))
    told = ", ".join(f"{name} {value:.4g}" for name, value in verdict.evidence.items())
    output.say(output.paint(f"evidence: {told}", "dim"))
