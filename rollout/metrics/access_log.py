"""Counts per status class from a web server's access log, aggregated on the host by `access_log.sh`.

* Formats: combined (Apache, nginx; the status is the field after the quoted request) and JSON lines (`status`), told
  apart line by line. The time is the line's own, minus `$request_time` where it is there (`rt=0.123`,
  `request_time=…`, alone behind the last quote, or a JSON key), so that a request begun before readiness is not counted.
  A line without a time, or with one that makes no sense, counts when it is read.
* Not counted: 1xx; our own probe and health checkers by their user agent (kube-probe, ELB-HealthChecker, GoogleHC, Route 53, Consul);
  curl and wget where they ask for /health, /healthz, /healthcheck, /livez, /readyz or /ping. Lines that are no requests are
  passed over, and the bin says so with the flag `garbage`.
* A bin is given out 3 s after its end, once; a line that comes later goes to the next bin, which has the flag `late`.
* A renamed log is found in its folder by inode and read to its end (flag `rotated`); one that was truncated, or renamed
  out of sight, has lost lines: the bins since the last reading are not observed.
* The first reading counts the log's tail too, at most 600 s and 8 MiB of it, into bins with t <= 0: what the host answered
  before the switch. A canary's ends where its `current` was switched, and a bin of which a part is missing is left out.
* How long a canary is watched goes by the host's uptime: a step of its clock moves t = 0 along, and lines that were written
  before the step are put where they belong.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from rollout.config.deploy_file import AppConfig
from rollout.domain import template
from rollout.domain.model import Target
from rollout.domain.verdict import Interval
from rollout.errors import MetricUnavailable
from rollout.metrics.answer import Answer, parse
from rollout.metrics.cursor import Cursor
from rollout.metrics.statuses import CLASSES, counted_apart
from rollout.services.ports import Fleet

BIN_S = 2
CLOSE_AFTER_S = 3
HISTORY_S = 600
MOST_BYTES = (
    8 * 1024 * 1024
)  # read of a log at once; what is left comes with the next reading, of history the newest part
TIMEOUT_S = 10.0
CANARY = "canary"


@dataclass(frozen=True, slots=True)
class AccessLog:
    """The metric source `access-log`."""

    fleet: Fleet

    def read(
        self, target: Target, role: str, config: AppConfig, cursor: str | None, *, elapsed: float = 0.0
    ) -> tuple[list[Interval], str]:
        """The bins that are complete since `cursor`, each once, and the next cursor; None begins, with the history.

        `elapsed`: seconds since readiness, which is t = 0 from the first reading on. Raises MetricUnavailable when the
        log cannot be read; nothing is lost by it, the next reading goes on.
        """
        path = _path(config.canary.log, target)
        before = Cursor.parse(cursor) if cursor is not None else None
        apart = counted_apart(config.canary.good)
        asked = _begin(target, role, elapsed) if before is None else _go_on(before)
        answer = self._ask(target, path, [*asked, f"apart={' '.join(apart)}"])
        past: list[Interval] = []
        if before is None:
            past = _history(answer, partial(_interval, host=target.name, role=role, apart=apart))
            before, answer = Cursor(answer.ready, answer.file, answer.offset), _since_readiness(answer)
        taken = _take(before, answer)
        until = _closable(taken, answer)
        bins = [
            _interval(number, taken.open, target.name, role, apart, lost=taken.lost)
            for number in range(taken.closed, until)
        ]
        bins[:1] = [replace(one, flags=taken.flags) for one in bins[:1]]
        return [*past, *bins], _after(taken, until).text()

    def _ask(self, target: Target, path: str, asked: Sequence[str]) -> Answer:
        lines = [f"log={path}", *asked, f"most={MOST_BYTES}", ""]
        told = self.fleet.read(target, _program(), lines, timeout_s=TIMEOUT_S)
        try:
            answer = parse(told)
        except (ValueError, KeyError) as error:
            raise MetricUnavailable(
                f"{target.name}: the reading of {path} came to no end: {told[-200:]!r}",
                remedy="are awk, tail, head and stat installed on the host?",
            ) from error
        if answer.error:
            raise _refused(answer.error, target.name, path)
        return answer


def _begin(target: Target, role: str, elapsed: float) -> list[str]:
    """Only a canary was switched: its `current` says since when the log is the new release's."""
    current = f"{target.path}/current" if role == CANARY else ""
    return [f"since={max(0, round(elapsed))}", f"history={HISTORY_S}", f"current={current}"]


def _go_on(before: Cursor) -> list[str]:
    return [
        f"file={before.file}",
        f"mark={before.mark}",
        f"offset={before.offset}",
        f"skip={int(before.skip)}",
        f"ready={before.ready}",
        f"was_now={before.now}",
        f"was_up={before.up}",
    ]


def _history(answer: Answer, interval: Callable[..., Interval]) -> list[Interval]:
    """The whole bins between the log's first line (or 600 s ago) and the switch; none when the log says nothing of them."""
    if answer.begins is None:
        return []
    begins = max(answer.begins // BIN_S + 1, -HISTORY_S // BIN_S)
    counts = {str(number): classes for number, classes in (answer.counts or {}).items()}
    return [interval(number, counts) for number in range(begins, answer.switched // BIN_S)]


def _since_readiness(answer: Answer) -> Answer:
    """Without history, and without what it says of lines that nobody reads twice."""
    counts = {number: classes for number, classes in (answer.counts or {}).items() if number >= 0}
    return replace(answer, counts=counts, tallies=None)


def _path(log: str, target: Target) -> str:
    """The log's path with the host's name and address filled in."""
    path = template.fill(log, {"name": target.name, "address": target.address})
    if not path.startswith("/") or not path.isprintable():
        raise MetricUnavailable(
            f"canary.log: {path!r} is no absolute path on a host", remedy="edit rollout.toml"
        )
    return path


@cache
def _program() -> str:
    return Path(__file__).with_name("access_log.sh").read_text()


def _refused(why: str, host: str, path: str) -> MetricUnavailable:
    remedies = {
        "missing": "is canary.log right, and has the app served a request? It must exist before the canary is watched",
        "unreadable": "let the user that we log in as read it, for example by its group",
        "awk": "is awk installed on the host?",
    }
    said = {
        "missing": "there is no access log",
        "unreadable": "the access log cannot be read",
        "awk": "awk failed",
    }
    return MetricUnavailable(f"{host}: {said.get(why, why)}: {path}", remedy=remedies.get(why, ""))


def _take(before: Cursor, answer: Answer) -> Cursor:
    """The cursor with what was read put into its open bins."""
    bins = {int(number): dict(classes) for number, classes in before.open.items()}
    late = False
    for number, classes in (answer.counts or {}).items():
        late = late or number < before.closed
        into = bins.setdefault(max(number, before.closed), {})
        for name, count in classes.items():
            into[name] = into.get(name, 0) + count
    garbage = bool(answer.tallies and answer.tallies["garbage"])
    raised = {"late": late, "rotated": answer.rotated, "garbage": garbage}
    return replace(
        before,
        ready=answer.ready,
        now=answer.now,
        up=answer.up,
        file=answer.file,
        mark=answer.mark,
        offset=answer.offset,
        skip=answer.skip,
        lost=max(before.lost, (answer.now - answer.ready) // BIN_S) if answer.lost else before.lost,
        open={str(number): classes for number, classes in sorted(bins.items())},
        flags=tuple(sorted({*before.flags, *(name for name, up in raised.items() if up)})),
    )


def _closable(cursor: Cursor, answer: Answer) -> int:
    """The first bin that may still get lines: its end is not 3 s past, or the reading has not come so far."""
    seen = answer.now - cursor.ready
    if answer.more:
        seen = min(seen, answer.last)
    return max(cursor.closed, (seen - CLOSE_AFTER_S) // BIN_S)


def _interval(
    number: int,
    counts: Mapping[str, Mapping[str, int]],
    host: str,
    role: str,
    apart: tuple[str, ...],
    lost: int | None = None,
) -> Interval:
    return Interval(
        t=float((number + 1) * BIN_S),
        dt=float(BIN_S),
        host=host,
        role=role,
        observed=lost is None or number > lost,
        counts={**dict.fromkeys((*CLASSES, *apart), 0), **counts.get(str(number), {})},
    )


def _after(cursor: Cursor, until: int) -> Cursor:
    still = {number: classes for number, classes in cursor.open.items() if int(number) >= until}
    return replace(cursor, closed=until, open=still, flags=() if until > cursor.closed else cursor.flags)
