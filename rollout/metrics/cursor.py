"""Where reading an access log goes on, and what is not finished yet. Kept by the store as a text that only we read.

The full judge's history can be added as a further key: unknown keys are kept out, missing ones have defaults.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from rollout.errors import MetricUnavailable


@dataclass(frozen=True, slots=True)
class Cursor:
    """The state between two readings. Bins are numbered from 0, which begins when the canary is ready."""

    ready: int  # seconds since 1970 on the host's clock: t = 0; moves along when that clock is stepped
    file: str  # device:inode
    offset: int  # bytes read of that file
    mark: str = ""  # a checksum of its first bytes: inodes are used again; empty: not known
    now: int = 0  # the host's clock at the last reading
    up: int = 0  # its uptime then; 0: not known
    skip: bool = False  # the line at `offset` began before it: not a whole one
    closed: int = 0  # bins below this number are given out
    lost: int = -1  # bins up to this number lack lines that nobody can read any more
    open: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # bin -> class -> requests
    flags: tuple[str, ...] = ()  # for the next bin that is given out

    def text(self) -> str:
        """As the store keeps it."""
        return json.dumps({"v": 1, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Of a stored text; MetricUnavailable when it is none of ours."""
        try:
            given = json.loads(text)
            known = {one.name: given[one.name] for one in fields(cls) if one.name in given}
            return cls(**{**known, "flags": tuple(known.get("flags", ()))})
        except (ValueError, TypeError, AttributeError) as error:
            raise MetricUnavailable(
                f"the stored cursor of an access log cannot be read: {text[:80]!r}"
            ) from error
