"""What a canary judge gets and gives: the only input and output types of every judge (no judge does I/O)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """A judge's word."""

    RUNNING = "running"  # not decided yet
    PASS = "pass"  # noqa: S105  # a verdict, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"  # the deadline came without enough evidence: a person decides


@dataclass(frozen=True, slots=True)
class Interval:
    """What one host answered in one bin of time."""

    t: float  # end of the bin, seconds since the canary was ready; <= 0 is history
    dt: float  # length of the bin, seconds
    host: str
    role: str  # "canary" or "baseline"; "other": switched in the fan-out, or about to be, which no canary judge counts
    observed: bool  # False: could not be read, which is not the same as no requests
    counts: Mapping[str, int]  # requests per class: "2xx", "3xx", "4xx", "499", "5xx"
    source: str = "log"  # "log", "prometheus" or "probe"
    flags: tuple[str, ...] = ()  # "reset", "rotated", "late"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a user sets of the judge (`[apps.X.canary]`)."""

    good: tuple[str, ...] = ("2xx", "3xx")
    minimum_good: float = 0.95
    bake_s: float = 60.0
    deadline_s: float = 600.0
    margin: float = 0.01  # a regression of less than 1.25 x the baseline's rate + this may pass
    allow_probe_pass: bool = False  # whether requests that we sent ourselves may make it pass


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's word, why, and the evidence it rests on."""

    status: Status
    reason: str  # no traffic, stale, shared incident, not enough evidence, starved, error rate, outage, no harm found
    t: float  # seconds since readiness at which it fell
    evidence: Mapping[str, float] = field(default_factory=dict)
    explanation: str = ""  # for people: what was seen, how sure it is, what would have changed its mind
