"""Counts per status class from the raw counters that a Prometheus server has scraped, over its HTTP API.

* The series of one host are those of `canary.selector`, read as they were scraped (`selector[…s]`), with their own times.
  Only the server's clock is used. What was added between two scrapes is in `counters.py`.
* Bins are as long as the scrape interval and begin at readiness, so that hosts scraped at different moments have the same
  ones. A bin comes with its scrape; one without a scrape is not observed, when the newest is older than two intervals
  and 5 s, or when a later one has come: that one then has the counts of both.
* Flags: `reset`, `late` (scraped in time, found when its bin was given out), `garbage` (a code that is no status).
* History: 600 s. A canary's ends with its first restart (a counter that went down or vanished); without one nothing shows
  what was the old release's, and there is no history, and no first bin.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace

from pydantic import SecretStr

from rollout.config.deploy_file import AppConfig
from rollout.domain.model import Target
from rollout.domain.verdict import Interval
from rollout.errors import MetricUnavailable
from rollout.metrics import prometheus_api
from rollout.metrics.counters import Increment, Series, increments, scrape_interval
from rollout.metrics.statuses import classified, counted_apart

CANARY = "canary"
HISTORY_S = 600
MOST_S = 3600  # asked for at once, after whatever silence
STALE_S = 5.0  # beyond two scrape intervals


@dataclass(frozen=True, slots=True)
class Position:
    """How far a host's counters have been read; kept by the store as a text."""

    ready: float  # seconds since 1970 on the server's clock: t = 0
    step: float = 0.0  # the scrape interval; 0: nothing has been given out yet
    bin: int = 0  # those up to this number are given out; number n ends at t = n * step
    seen: Mapping[str, float] = field(default_factory=dict)  # instance -> its newest scrape that was counted

    def text(self) -> str:
        """As the store keeps it."""
        return json.dumps({"v": 1, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Of a stored text; MetricUnavailable when it is none of ours."""
        try:
            given = json.loads(text)
            return cls(**{one.name: given[one.name] for one in fields(cls) if one.name in given})
        except (ValueError, TypeError) as error:
            raise MetricUnavailable(
                f"the stored cursor of Prometheus cannot be read: {text[:80]!r}"
            ) from error


@dataclass(frozen=True, slots=True)
class Prometheus:
    """The metric source `prometheus`."""

    token: SecretStr | None = None

    def read(
        self, target: Target, role: str, config: AppConfig, cursor: str | None, *, elapsed: float = 0.0
    ) -> tuple[list[Interval], str]:
        """As every metric source; `elapsed` says at the first reading where t = 0 is on the server's clock.

        Nothing is given out before the first scrape after readiness, for it shows whether the host was restarted.
        """
        canary = config.canary
        api = prometheus_api.Api(canary.prometheus, self.token)
        now = api.time()
        at = Position.parse(cursor) if cursor is not None else Position(now - elapsed)
        series = _series(api, canary.selector, canary.code_label, _since(at, now), now)
        step = at.step or scrape_interval(series)
        if step is None:
            raise MetricUnavailable(
                f"{target.name}: Prometheus has fewer than two scrapes of {canary.selector}",
                remedy="wait for the next scrape; is the host among the targets of Prometheus?",
            )
        newest = max(when for one in series for when, _ in one.samples)
        if not at.step and newest <= at.ready and now < at.ready + 2 * step + STALE_S:
            return [], at.text()
        found = added = increments(series, at.seen)
        if not at.step:
            at = replace(at, step=step, bin=-math.floor(HISTORY_S / step))
            added = [one for one in found if _bin_of(at, one.end) > at.bin]
            added = _old_and_new(added, at.ready) if role == CANARY else added
        until = _until(at, series, now)
        taken = _binned(added, at, until)
        shape = Interval(0.0, at.step, target.name, role, observed=False, counts={}, source="prometheus")
        bins = [
            _interval(at, number, taken.get(number, ()), shape, counted_apart(canary.good))
            for number in range(at.bin + 1, until + 1)
            if number in taken or number > 0
        ]
        return bins, replace(at, bin=until, seen=_seen(at, found, until)).text()


def _since(at: Position, now: float) -> float:
    """When what is not counted yet begins: with the scrape that it is counted from."""
    begin = min(at.seen.values(), default=max(at.ready - HISTORY_S - 60, now - MOST_S))
    return max(begin - 1.0, now - MOST_S)


def _series(
    api: prometheus_api.Api, selector: str, code_label: str, since: float, now: float
) -> list[Series]:
    found = api.raw(selector, since, now)
    labels = {name for labels, _ in found for name in labels}
    if code_label not in labels:
        known = ", ".join(sorted(labels - {"__name__"}))
        raise MetricUnavailable(
            f"the series of {selector} have no label {code_label!r} with the status; they have {known}",
            remedy="set canary.code_label, or choose another metric in canary.selector",
        )
    return [
        Series(
            instance=json.dumps([labels.get("job", ""), labels.get("instance", "")]),
            key=json.dumps(labels, sort_keys=True),
            code=labels.get(code_label, ""),
            samples=samples,
        )
        for labels, samples in found
    ]


def _bin_of(at: Position, moment: float) -> int:
    return math.ceil((moment - at.ready) / at.step)


def _old_and_new(added: Sequence[Increment], ready: float) -> list[Increment]:
    """Of a canary's first reading: before its restart the old release, since readiness the new one, between them nobody."""
    kept = []
    for instance in {one.instance for one in added}:
        its = [one for one in added if one.instance == instance]
        restart = min((one.end for one in its if one.restarted), default=None)
        kept += [one for one in its if restart is not None and one.end < restart and one.end <= ready]
        kept += [one for one in its if one.end > ready and (one.begin >= ready or restart is not None)]
    return sorted(kept, key=lambda one: (one.end, one.instance))


def _until(at: Position, series: Iterable[Series], now: float) -> int:
    """The last bin that is complete: every instance that is still scraped has told of it, or it is too long ago."""
    stale = now - 2 * at.step - STALE_S
    newest: dict[str, float] = {}
    for one in series:
        newest[one.instance] = max(newest.get(one.instance, 0.0), one.samples[-1][0])
    fresh = [_bin_of(at, when) for when in newest.values() if when >= stale]
    return max(at.bin, min(fresh, default=at.bin), math.floor((stale - at.ready) / at.step))


def _binned(added: Iterable[Increment], at: Position, until: int) -> dict[int, list[Increment]]:
    """What is found when its bin has been given out goes to the next one."""
    bins: dict[int, list[Increment]] = {}
    for one in added:
        number = max(_bin_of(at, one.end), at.bin + 1)
        if number <= until:
            bins.setdefault(number, []).append(one)
    return bins


def _interval(
    at: Position, number: int, taken: Sequence[Increment], shape: Interval, apart: tuple[str, ...]
) -> Interval:
    if not taken:
        return replace(shape, t=number * at.step)
    codes: dict[str, int] = {}
    for one in taken:
        for code, count in one.counts.items():
            codes[code] = codes.get(code, 0) + count
    counts, garbage = classified(codes, apart)
    raised = {
        "garbage": garbage,
        "late": any(_bin_of(at, one.end) < number for one in taken),
        "reset": any(one.reset for one in taken),
    }
    flags = tuple(name for name, up in raised.items() if up)
    return replace(shape, t=number * at.step, observed=True, counts=counts, flags=flags)


def _seen(at: Position, found: Iterable[Increment], until: int) -> dict[str, float]:
    """Each instance's newest scrape that needs no second look; one that has been gone for long is forgotten."""
    seen = dict(at.seen)
    for one in found:
        if _bin_of(at, one.end) <= until:
            seen[one.instance] = max(one.end, seen.get(one.instance, one.end))
    newest = max(seen.values(), default=0.0)
    return {instance: when for instance, when in seen.items() if when >= newest - HISTORY_S}
