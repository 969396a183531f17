"""`rollout judge`: what the canary's judge says of a file of intervals, or of past rollouts."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollout.cli import completion, output, verdict_telling
from rollout.cli.call import Call
from rollout.cli.failures import WrongUsage

if TYPE_CHECKING:
    from rollout.domain.verdict import Interval, Policy, Verdict

POLICY = "Policy"
MinimumGood = Annotated[
    str | None, typer.Option("--minimum-good", metavar="SHARE", help="Such as 95%.", rich_help_panel=POLICY)
]
Bake = Annotated[
    str | None,
    typer.Option("--bake", metavar="DURATION", help="Watched at least so long.", rich_help_panel=POLICY),
]
Deadline = Annotated[
    str | None,
    typer.Option("--deadline", metavar="DURATION", help="Decided by then.", rich_help_panel=POLICY),
]
Margin = Annotated[
    str | None,
    typer.Option("--margin", metavar="SHARE", help="A smaller regression may pass.", rich_help_panel=POLICY),
]
Good = Annotated[
    list[str] | None,
    typer.Option("--good", metavar="CLASSES", help="Such as 2xx,3xx.", rich_help_panel=POLICY),
]


def judge(
    call: Call,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE", help="Intervals as JSON lines; - is standard input.", show_default=False
        ),
    ] = None,
    *,
    rollout: Annotated[
        list[str] | None,
        typer.Option(
            "--rollout",
            metavar="ID",
            help="Instead of FILE: past rollouts. A number, 3-9, or several.",
            autocompletion=completion.rollouts,
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option("--last", help="Instead of FILE: the newest past rollouts.", min=1, max=10_000),
    ] = None,
    minimum_good: MinimumGood = None,
    bake: Bake = None,
    deadline: Deadline = None,
    margin: Margin = None,
    good: Good = None,
    canary: Annotated[
        list[str] | None,
        typer.Option("--canary", metavar="HOSTS", help="These are the canary, all others the baseline."),
    ] = None,
) -> int:
    """What the canary's judge says of intervals in a file, or of past rollouts, and when it fell.

    A file is judged by the defaults of rollout.toml, a rollout by the policy it had; the options change that. What is
    undecided at the end is inconclusive. The exit code is 0 whatever the verdict is; --json has it.
    """
    changes = _changes(minimum_good, bake, deadline, margin, good)
    if _subject(file, rollout, last) == "file":
        _judge_file(call, str(file), changes, _names(canary))
        return 0
    if canary:
        raise WrongUsage(
            "--canary goes with FILE: which hosts were a rollout's canary is known", remedy="leave it out"
        )
    from rollout.cli import replaying

    return replaying.run(call, replaying.wanted(_names(rollout), last), changes)


def _subject(file: str | None, rollout: Sequence[str] | None, last: int | None) -> str:
    """What is judged: exactly one of the three."""
    given = {"file": file, "rollout": rollout or None, "last": last}
    named = [name for name, value in given.items() if value is not None]
    if len(named) == 1:
        return named[0]
    told = {"file": "FILE", "rollout": "--rollout", "last": "--last"}
    found = " and ".join(told[name] for name in named)
    raise WrongUsage(
        f"{found} do not go together" if named else "there is nothing to judge",
        remedy="give one of them: rollout judge FILE, --rollout ID or --last 50",
    )


def _changes(
    minimum_good: str | None,
    bake: str | None,
    deadline: str | None,
    margin: str | None,
    good: Sequence[str] | None,
) -> dict[str, Any]:
    """The fields of the policy that were given."""
    found = {
        "good": _classes(good) if good else None,
        "minimum_good": None if minimum_good is None else _share("--minimum-good", minimum_good),
        "bake_s": None if bake is None else _seconds("--bake", bake),
        "deadline_s": None if deadline is None else _seconds("--deadline", deadline, least=1.0),
        "margin": None if margin is None else _share("--margin", margin),
    }
    return {name: value for name, value in found.items() if value is not None}


def _judge_file(call: Call, file: str, changes: Mapping[str, Any], canary: Sequence[str]) -> None:
    from rollout.domain.verdict import Policy

    policy = Policy(**changes)
    if policy.deadline_s < policy.bake_s:
        raise WrongUsage("--deadline is shorter than --bake", remedy="rollout judge --help")
    verdict = _judged(_as_asked(_read(file), canary), policy)
    if call.json:
        output.document(verdict_telling.document(verdict))
    else:
        verdict_telling.say(verdict)


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
        with Path(file).open(encoding="utf-8-sig") as lines:
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


def _classes(given: Sequence[str]) -> tuple[str, ...]:
    """2xx,3xx or 2xx,404."""
    from rollout.cli import intervals

    names = _names(given)
    if not names or not all(map(intervals.CLASS.fullmatch, names)):
        raise _wrong("--good", ",".join(given), 'classes such as "2xx", or statuses such as "404"')
    return tuple(names)


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
