"""What a host told about itself, judged: docs/host.md has the fields of a deep hello."""

from collections.abc import Iterator, Mapping

from rollout.cli.findings import Finding, problem, warning
from rollout.domain.model import Member

LEAST_FREE_KB = 100 * 1024  # less is no place for two releases of anything
LITTLE_FREE_KB = 1024 * 1024
SLOW_SH_MS = 1000  # every step starts a shell


def report(where: str, told: Mapping[str, str], member: Member) -> list[Finding]:
    """What is wrong with the host; nothing when it is ready."""
    return [
        *_tools(where, told),
        *_path(where, told, member),
        *_disk(where, told, member),
        *_shell(where, told),
    ]


def _tools(where: str, told: Mapping[str, str]) -> Iterator[Finding]:
    missing = told.get("missing", "").split()
    if missing:
        yield problem(
            where,
            f"tools are missing: {', '.join(missing)}",
            "install coreutils, util-linux (flock, setsid), tar and gzip, or a BusyBox with flock",
        )


def _path(where: str, told: Mapping[str, str], member: Member) -> Iterator[Finding]:
    if told.get("writable", "yes") != "yes":
        user = told.get("user") or member.user
        yield problem(
            where,
            f"{member.path} cannot be written by {user}",
            f"on the host: mkdir -p {member.path} && chown {user} {member.path}",
        )


def _disk(where: str, told: Mapping[str, str], member: Member) -> Iterator[Finding]:
    free = _number(told.get("free_kb"))
    if free is None or free >= LITTLE_FREE_KB:
        return
    message = f"{free // 1024} MiB are free at {member.path}"
    if free < LEAST_FREE_KB:
        yield problem(where, message, "make room there", error="NoSpace")
    else:
        yield warning(where, message, "make room there, or keep fewer releases (release.keep)")


def _shell(where: str, told: Mapping[str, str]) -> Iterator[Finding]:
    took_ms = _number(told.get("sh_ms"))
    if took_ms is not None and took_ms > SLOW_SH_MS:
        yield warning(
            where,
            f"its login shell takes {took_ms / 1000:.1f} s to do nothing",
            "every step pays for it: look at the shell's start-up files, PAM and DNS of that host",
        )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None
