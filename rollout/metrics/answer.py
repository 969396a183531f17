"""What `access_log.sh` says, parsed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_BEGINS = "rollout_log=1"
_COUNTERS = ("lines", "garbage", "probes", "before")


@dataclass(frozen=True, slots=True)
class Answer:
    """One reading of a log."""

    now: int  # seconds since 1970 on the host's clock
    up: int  # seconds since its boot
    ready: int  # t = 0 on its clock as it goes now
    error: str  # "" when it could be read
    file: str = ""
    mark: str = ""
    offset: int = 0
    skip: bool = False
    more: bool = False  # there is more to read than was read
    rotated: bool = False
    lost: bool = False  # lines are gone that were never read
    begins: int | None = None  # the first line's time, seconds since readiness; None: no line has one
    switched: int = 0  # the canary's switch, seconds since readiness: history ends there
    last: int = -1  # the newest request's time, seconds since readiness
    counts: Mapping[int, Mapping[str, int]] | None = None  # bin -> class -> requests
    tallies: Mapping[str, int] | None = None  # lines, garbage, probes, before


def parse(text: str) -> Answer:
    """Of the program's output; whatever a login script prints before is ignored. ValueError when it is torn."""
    lines = text.splitlines()
    lines = lines[lines.index(_BEGINS) + 1 :]
    if "end=0" not in lines:
        raise ValueError("torn")
    pairs = [line.split("=", 1) for line in lines[: lines.index("end=0")] if "=" in line]
    said = dict((key, value) for key, value in pairs)  # noqa: C402  # typed pairs of lists
    return Answer(
        now=int(said["now"]),
        up=int(said["up"]),
        ready=int(said["ready"]),
        error=said.get("error", ""),
        file=said.get("file", ""),
        mark=said.get("mark", ""),
        offset=int(said.get("offset", 0)),
        skip=said.get("skip") == "1",
        more=said.get("more") == "1",
        rotated=said.get("rotated") == "1",
        lost=said.get("lost") == "1",
        begins=int(said["begins"]) if "begins" in said else None,
        switched=min(0, int(said.get("switched", 0))),
        last=max((int(value) for key, value in pairs if key == "last"), default=-1),
        counts=_counts(value for key, value in pairs if key == "bin"),
        tallies={name: sum(int(value) for key, value in pairs if key == name) for name in _COUNTERS},
    )


def _counts(lines: Iterable[str]) -> dict[int, dict[str, int]]:
    """A bin and class may come twice: the rest of a renamed file, and the new one."""
    counts: dict[int, dict[str, int]] = {}
    for line in lines:
        number, name, count = line.split()
        classes = counts.setdefault(int(number), {})
        classes[name] = classes.get(name, 0) + int(count)
    return counts
