"""Requests of our own, for an app that has no traffic: on the host itself, with curl or wget, over SSH.

From the host, because what can reach it is SSH, and because so no answer is the app's own silence and never the network's
between here and there. Four requests a bin of 2 s, of the same address on the canary and on one baseline host.
No answer within 2 s counts as a 5xx, with the flag `unanswered`. There is no history.
"""

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rollout.config.deploy_file import AppConfig
from rollout.domain.model import Target
from rollout.domain.verdict import Interval
from rollout.errors import MetricUnavailable
from rollout.metrics.statuses import classified, counted_apart
from rollout.services.ports import Fleet

BIN_S = 2
REQUESTS = 4
LIMIT_S = 2
TIMEOUT_S = 10.0
MOST_UNOBSERVED = 300  # bins told of after a silence: ten minutes
_BEGINS = "rollout_probe=1"


@dataclass(frozen=True, slots=True)
class Probe:
    """The metric source `probe`."""

    fleet: Fleet

    def read(
        self, target: Target, role: str, config: AppConfig, cursor: str | None, *, elapsed: float = 0.0
    ) -> tuple[list[Interval], str]:
        """One observed bin, that of now; those since the last one had no requests of ours and are not observed."""
        up, statuses = self._ask(target, config.canary.probe)
        ready, last = _parsed(cursor) if cursor is not None else (up - elapsed, -1)
        now = max(int((up - ready) // BIN_S), last + 1)
        unanswered = statuses.pop("000", 0)
        counts, garbage = classified(statuses, counted_apart(config.canary.good))
        counts["5xx"] += unanswered
        raised = {"garbage": garbage, "unanswered": unanswered}
        seen = Interval(
            t=float((now + 1) * BIN_S),
            dt=float(BIN_S),
            host=target.name,
            role=role,
            observed=True,
            counts=counts,
            source="probe",
            flags=tuple(name for name, is_so in raised.items() if is_so),
        )
        unseen = [
            Interval(
                float((one + 1) * BIN_S),
                float(BIN_S),
                target.name,
                role,
                observed=False,
                counts={},
                source="probe",
            )
            for one in range(max(last + 1, now - MOST_UNOBSERVED), now)
        ]
        return [*unseen, seen], json.dumps({"v": 1, "ready": ready, "bin": now})

    def _ask(self, target: Target, url: str) -> tuple[int, Counter[str]]:
        given = [f"url={url}", f"requests={REQUESTS}", f"limit={LIMIT_S}", ""]
        told = self.fleet.read(target, _program(), given, timeout_s=TIMEOUT_S)
        lines = told.splitlines()
        if _BEGINS not in lines or lines[-1] != "end=0":
            raise MetricUnavailable(
                f"{target.name}: the probe of {url} came to no end: {told[-200:]!r}",
                remedy="are timeout and sed installed on the host?",
            )
        pairs = [line.split("=", 1) for line in lines[lines.index(_BEGINS) + 1 :]]
        if ["error", "tool"] in pairs:
            raise MetricUnavailable(
                f"{target.name} has neither curl nor wget to probe {url} with", remedy="install one of them"
            )
        up = next(value for key, value in pairs if key == "up")
        return int(up), Counter(value for key, value in pairs if key == "status")


def _parsed(cursor: str) -> tuple[float, int]:
    try:
        given = json.loads(cursor)
        return float(given["ready"]), int(given["bin"])
    except (ValueError, TypeError, KeyError) as error:
        raise MetricUnavailable(f"the stored cursor of a probe cannot be read: {cursor[:80]!r}") from error


@cache
def _program() -> str:
    return Path(__file__).with_name("probe.sh").read_text()
