"""A history told by hand, step by step along the tables: clean unless the teller makes it otherwise."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.checker.history import Disk, History, Record
from tests.support.checker.states import BEGINS, BIRTHS, MACHINES

APP = "shop"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NOTHING = {"token": False, "unreadable": False, "accepted": False, "touched": False, "lease_until": None}


class Story:
    """Rows, events and journals of one app. A second passes with every event, or the time is given."""

    def __init__(
        self,
        *hosts: str,
        mode: str = "strict",
        max_failed: int = 1,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.names = hosts or ("web1", "web2", "web3", "web4")
        self.mode, self.max_failed = mode, max_failed
        self.ticks = 0
        self.clock = clock or self._tick
        self.tables: dict[str, list[dict[str, Any]]] = {
            name: []
            for name in (
                "events",
                "rollouts",
                "rollout_hosts",
                "commits",
                "releases",
                "deliveries",
                "samples",
            )
        }
        self.tables["fleet_hosts"] = [{"app": APP, "name": name, "release": None} for name in self.names]
        self.journals: dict[str, list[Record]] = {name: [] for name in self.names}
        self.current: dict[str, str | None] = dict.fromkeys(self.names)
        self.numbers = 0
        self.options: dict[str, Any] = {}

    # -- one step ------------------------------------------------------------------------------------------------------

    def event(self, subject: str, what: str, row: dict[str, Any], rollout: int | None, **values: Any) -> None:
        """An edge, its event, and the row after it."""
        kind = subject.partition(" ")[0]
        before = row.get("state", BEGINS[kind])
        after = BIRTHS[kind, what] if before is None else str(MACHINES[kind][before][what])
        self.tables["events"].append(
            {
                "id": len(self.tables["events"]) + 1,
                "at": self.clock(),
                "app": APP,
                "rollout": rollout,
                "subject": subject,
                "what": what,
                "before": before and str(before),
                "after": after,
                "who": "teller",
                "why": None,
            }
        )
        row.update(state=after, **values)

    def commit(self, sha: str, *whats: str) -> None:
        """A new commit and what happens to it; it passes when nothing is said."""
        position = len(self.tables["commits"]) + 1
        digest = (sha * 64)[:64]
        row = {"app": APP, "sha": sha, "position": position, "on_branch": True, "digest": digest}
        self.tables["commits"].append(row | {"due_at": 0.0, "lease_until": 0.0})
        self.tables["releases"].append({"app": APP, "commit": sha, "digest": digest})
        for what in ("receive", *(whats or ("test", "pass"))):
            self.event(f"commit {sha}", what, self.tables["commits"][-1], None)

    def rollout(self, number: int, *whats: str, **values: Any) -> None:
        """What happens to a rollout."""
        for what in whats:
            self.event(f"rollout {number}", what, self.tables["rollouts"][number - 1], number, **values)

    def host(self, number: int, name: str, *whats: str, **values: Any) -> None:
        """What happens to a host in a rollout."""
        for what in whats:
            self.event(f"host {name}", what, self.row(number, name), number, **values)

    def row(self, number: int, name: str) -> dict[str, Any]:
        """A host's row in a rollout."""
        return next(
            row for row in self.tables["rollout_hosts"] if (row["rollout"], row["name"]) == (number, name)
        )

    def record(self, name: str, verb: str, what: str, commit: str | None, **values: Any) -> None:
        """A line in a host's journal, of its last operation."""
        values = {"operation": self.numbers, "epoch": self.numbers, "at": self.clock()} | values
        self.journals[name].append(Record(verb=verb, what=what, commit=commit, **values))

    # -- many steps ----------------------------------------------------------------------------------------------------

    def plan(self, sha: str) -> int:
        """A pending rollout of this commit to all hosts; the first is its canary."""
        number = len(self.tables["rollouts"]) + 1
        K, window = self.max_failed, 1 if self.mode == "strict" else len(self.names)  # noqa: N806
        self.tables["rollouts"].append(
            {
                "id": number,
                "app": APP,
                "commit": sha,
                "digest": (sha * 64)[:64],
                "requested_by": "automation",
                "max_failed": K,
                "mode": self.mode,
                "concurrency": len(self.names),
                "worst_case": min(len(self.names), K + window),
                "rollback_to": None,
                "unconfirmed": [],
                "due_at": 0.0,
            }
        )
        for position, name in enumerate(self.names):
            self.tables["rollout_hosts"].append(
                {
                    "rollout": number,
                    "app": APP,
                    "name": name,
                    "role": "other" if position else "canary",
                    "position": position,
                    "operation": None,
                    "release": None,
                    "state": "pending",
                    **NOTHING,
                }
            )
        self.rollout(number, "plan")
        for name in self.names:
            self.host(number, name, "prepare", lease_until=1.0)
            self.host(number, name, "prepared", lease_until=None)
        return number

    def claim(self, number: int, name: str) -> None:
        """The right to switch this host."""
        self.numbers += 1
        self.host(number, name, "activate", token=True, touched=True, operation=self.numbers, lease_until=1.0)

    def act(self, number: int, name: str, *, what: str = "done") -> None:
        """The host does what it was told."""
        sha = self.tables["rollouts"][number - 1]["commit"]
        self.record(name, "activate", "intent", sha, came_from=self.current[name])
        self.record(name, "activate", what, sha, came_from=self.current[name])
        if what == "done":
            self.current[name] = sha

    def report(self, number: int, name: str, what: str = "done") -> None:
        """The outcome is written."""
        self.host(number, name, what, token=False, lease_until=None, release=self.current[name])
        self.recorded(name)

    def recorded(self, name: str) -> None:
        """The store knows what the host runs."""
        next(row for row in self.tables["fleet_hosts"] if row["name"] == name)["release"] = self.current[name]

    def switch(self, number: int, name: str) -> None:
        """A host from prepared to done."""
        self.claim(number, name)
        self.act(number, name)
        self.report(number, name)

    def to_fan_out(self, sha: str) -> int:
        """A rollout whose canary has passed."""
        number = self.plan(sha)
        self.rollout(number, "start")
        self.switch(number, self.names[0])
        self.rollout(number, "canary deployed")
        self.tables["samples"].append(
            {"rollout": number, "role": "canary", "observed": True, "counts": {"2xx": 50}}
        )
        self.rollout(number, "canary passed")
        return number

    def to_done(self, sha: str) -> int:
        """A rollout from plan to done."""
        number = self.to_fan_out(sha)
        for name in self.names[1:]:
            self.switch(number, name)
        self.rollout(number, "finish", due_at=None)
        return number

    def to_stopped(self, number: int) -> None:
        """A stop, acknowledged."""
        self.rollout(number, "stop")
        self.rollout(number, "roll back")

    def go_back(self, number: int, name: str, sha: str | None) -> None:
        """A host is rolled back."""
        self.numbers += 1
        self.host(number, name, "roll back", operation=self.numbers, lease_until=1.0)
        self.record(name, "rollback", "intent", sha, came_from=self.current[name])
        self.record(name, "rollback", "done", sha, came_from=self.current[name])
        self.current[name] = sha
        self.report(number, name, "rolled back")

    # -- the end -------------------------------------------------------------------------------------------------------

    def history(self) -> History:
        """All of it; counters that nobody set are true."""
        for row in self.tables["rollouts"]:
            for name, value in self._counts(row["id"]).items():
                row.setdefault(name, value)
        disks = {name: Disk(records, self.current[name]) for name, records in self.journals.items()}
        return History(**{"tables": self.tables, "disks": disks, "at_rest": True} | self.options)

    def _counts(self, number: int) -> dict[str, int]:
        rows = [row for row in self.tables["rollout_hosts"] if row["rollout"] == number]
        return {
            **{what: sum(row["state"] == what for row in rows) for what in ("done", "failed", "unknown")},
            "unreadable": sum(row["unreadable"] for row in rows),
            "in_flight": sum(row["token"] and row["state"] != "unknown" for row in rows),
        }

    def _tick(self) -> datetime:
        self.ticks += 1
        return BEGIN + timedelta(seconds=self.ticks)
