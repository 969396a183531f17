"""What is said to host.sh and what it says, as docs/host.md has it. Pure: text in, text out."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rollout.domain.model import (
    FOREIGN,
    Answer,
    Delta,
    Greeting,
    HostStatus,
    Outcome,
    PrepareOrder,
    SwitchOrder,
    Target,
)

_FIELD = re.compile(r"([a-z][a-z_]*)=(.*)")
_ENDS = {"0": Answer.DONE, "10": Answer.FAILED, "20": Answer.REFUSED, "30": Answer.BROKEN}
_REPEATED = frozenset({"output", "missing"})
_FIRST = frozenset(
    {
        "rollout",
        "clock",
        "boot",
        "now",
        "current",
        "missing",
        "free_kb",
        "writable",
        "user",
        "send",
        "switched",
    }
    | {
        "put_back",
        "output",
        "already",
        "reason",
        "epoch",
        "running",
        "op",
        "verb",
        "commit",
        "result",
        "asked",
    }
    | {"sealed", "removed", "intent", "end"}
)
_NOTHING = "none"


@dataclass(slots=True)
class Reply:
    """The lines of one answer. Whatever a login script prints before the first known key is noise."""

    fields: dict[str, str] = field(default_factory=dict)
    answer: Answer | None = None

    def take(self, line: str) -> str:
        """Take a line in; its key, or "" when it is noise."""
        found = _FIELD.fullmatch(line)
        if found is None or self.answer is not None:
            return ""
        key, value = found[1], found[2].replace("\0", "")  # of what a command printed; no database takes it
        if not self.fields and key not in _FIRST:
            return ""
        if key == "end":
            self.answer = _ENDS.get(value)
        elif key in _REPEATED and key in self.fields:
            self.fields[key] += "\n" + value
        else:
            self.fields[key] = value
        return key

    @property
    def current(self) -> str | None:
        """The release in use: a commit, FOREIGN or None."""
        return release(self.fields.get("current", _NOTHING))

    @property
    def why(self) -> str:
        """The reason that the host gave, with its detail."""
        return (
            ": ".join(self.fields[key] for key in ("reason", "detail") if key in self.fields)
            or "no reason given"
        )

    def yes(self, key: str) -> bool:
        """Whether it says yes to that."""
        return self.fields.get(key) == "yes"

    def wants(self, what: str) -> bool:
        """Whether the host waits for that: `yes`, the archive, or `delta`. After its answer it waits for nothing."""
        return self.answer is None and self.fields.get("send") == what

    def number(self, key: str) -> int:
        """A number, 0 when it is absent or none."""
        value = self.fields.get(key, "")
        return int(value) if value.isdecimal() and len(value) <= 18 else 0

    def greeting(self) -> Greeting:
        """What the host says before it acts."""
        return Greeting(clock=self.number("clock"), boot=self.fields.get("boot", ""), current=self.current)

    def outcome(self, answer: Answer) -> Outcome:
        """What came of the step."""
        acted = answer in {Answer.DONE, Answer.FAILED} and not self.yes("already")
        return Outcome(
            answer=answer,
            reason=self.fields.get("reason", ""),
            intent=self.yes("intent") if "intent" in self.fields else acted or self.yes("switched"),
            put_back=self.yes("put_back"),
            current=self.current,
            output=self.fields.get("output", self.fields.get("detail", "")),
        )

    def status(self) -> HostStatus:
        """What reading the host says."""
        return HostStatus(
            current=self.current,
            epoch=self.number("epoch"),
            running=self.yes("running"),
            operation=self.number("op"),
            verb=self.fields.get("verb", ""),
            result=self.fields.get("result", _NOTHING),
            asked=self.fields.get("asked", _NOTHING),
            sealed=self.yes("sealed"),
            boot=self.fields.get("boot", ""),
            fields=dict(self.fields),
        )


def release(value: str) -> str | None:
    """A release as the host spells it: a commit, FOREIGN, or None for nothing."""
    if value == FOREIGN:
        return FOREIGN
    return value if re.fullmatch(r"[0-9a-f]{40}", value) else None


def hello(*, deep: bool) -> bytes:
    """Ask who is there; deep also asks for tools, room and rights."""
    return _header([("deep", "1")] if deep else [])


def prepare(order: PrepareOrder) -> bytes:
    """Announce a release; its archive follows when the host says `send=yes`, its delta when it says `send=delta`."""
    return _header(
        [
            ("epoch", order.epoch),
            ("op", order.operation),
            ("commit", order.release.commit),
            ("digest", order.release.digest),
            ("size", order.release.size),
            ("keep", order.keep),
            *(("spare", commit) for commit in order.spare),
            *_delta(order.delta),
        ]
    )


def switch(order: SwitchOrder, target: Target) -> bytes:
    """Ask for an activation or a rollback; the host greets and waits for `within`."""
    return _header(
        [
            ("epoch", order.epoch),
            ("op", order.operation),
            ("host", target.name),
            ("commit", order.commit or _NOTHING),
            ("digest", order.digest or ""),
            *_command("restart", order.restart),
            ("restart_limit", order.restart_limit_s),
            *_command("health", order.health),
            ("health_timeout", order.health_timeout_s),
            *([("back", order.owed or _NOTHING)] if order.owes else []),
        ]
    )


def within(milliseconds: int) -> bytes:
    """The permission to switch, for that long from the greeting on."""
    return f"within={max(0, milliseconds)}\n".encode()


def status(*, asked: int, seal: tuple[int, int] | None, wait_ms: int) -> bytes:
    """Read; with `seal` (epoch, operation number) also end all that was sent earlier."""
    pairs: list[tuple[str, object]] = [("op_asked", asked)] if asked else []
    if seal is not None:
        pairs += [("epoch", seal[0]), ("op", seal[1]), ("wait", wait_ms)]
    return _header(pairs)


def lines(given: Sequence[str]) -> bytes:
    """Lines for a program's standard input."""
    return "".join(f"{line}\n" for line in given).encode()


def _delta(delta: Delta | None) -> Sequence[tuple[str, object]]:
    if delta is None:
        return []
    return [("base", delta.base), ("base_digest", delta.base_digest), ("delta", delta.size)]


def _command(key: str, text: str) -> Iterable[tuple[str, str]]:
    """A repeated key is a further line of the same command."""
    return [(key, line) for line in text.split("\n")]


def _header(pairs: Iterable[tuple[str, object]]) -> bytes:
    return ("".join(f"{key}={_one_line(value)}\n" for key, value in pairs) + "\n").encode()


def _one_line(value: object) -> str:
    text = str(value)
    if "\n" in text or "\0" in text:
        raise ValueError(f"not one line: {text!r}")
    return text
