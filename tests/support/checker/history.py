"""What is left when everything is over: rows, journals, and what clients did. The checker sees nothing else."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

Row = Mapping[str, Any]
OUTCOMES = frozenset({"done", "failed", "left", "void"})


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must hold and did not."""

    invariant: str  # "I1" … "I15", "counters" or "fence"
    subject: str  # "rollout 7", "host web01", "commit 1a2b…", "delivery 3"
    evidence: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.subject}: {self.evidence}"


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a host's journal (docs/host.md); of a modelled host also `seal`, which a real one keeps as a mark."""

    operation: int
    epoch: int
    verb: str  # activate, rollback, status
    what: str  # intent, back, left, done, failed, void, seal
    commit: str | None
    at: datetime | None = None  # the host's clock, as the caller maps it; None: not known
    came_from: str | None = None
    already: bool = False

    @property
    def touches(self) -> bool:
        """An intent to switch, or a rollback that found nothing to do: what passed the fence."""
        return self.what == "intent" or self.already


@dataclass(frozen=True, slots=True)
class Disk:
    """A host at the end."""

    records: Sequence[Record]
    current: str | None  # a commit, "foreign", or None for nothing
    digest: str | None = None  # of the tree behind `current`, computed anew; None: nobody looked
    reachable: bool = True
    whole: bool = True  # the journal goes back to its first record
    seals: bool = False  # the journal tells of readings that sealed; a real host keeps marks


@dataclass(frozen=True, slots=True)
class Deed:
    """What a client did, and what it was told.

    `webhook`: answer has `status` and `delivery`. `stop`: arguments have `rollout`, answer `acknowledged`.
    """

    at: datetime
    action: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    answer: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """Something that must be bounded, as the caller measured it."""

    invariant: str
    name: str
    value: float
    most: float


@dataclass(frozen=True)
class History:
    """Everything that is known. `disks` are the hosts of one app (see `read.store`), by name."""

    tables: Mapping[str, Sequence[Row]]  # the store's, by name; events in the order of their ids
    disks: Mapping[str, Disk] = field(default_factory=dict)
    deeds: Sequence[Deed] = ()
    at_rest: bool = False  # nothing was under way any more when the rows were read
    secrets: Sequence[str] = ()
    texts: Mapping[str, str] = field(default_factory=dict)  # outputs and files, by name
    measured: Sequence[Measured] = ()
    slack: timedelta = timedelta(0)  # how far the hosts' clocks and the workers' may differ

    def rows(self, table: str) -> Sequence[Row]:
        """A table's rows; none when it was not read."""
        return self.tables.get(table, ())

    @cached_property
    def events(self) -> Sequence[Row]:
        """In the order in which they were written."""
        return sorted(self.rows("events"), key=lambda event: event["id"])

    @cached_property
    def rollouts(self) -> Mapping[int, Row]:
        """By id."""
        return {row["id"]: row for row in self.rows("rollouts")}

    @cached_property
    def hosts(self) -> Mapping[tuple[int, str], Row]:
        """Hosts in rollouts, by rollout and name."""
        return {(row["rollout"], row["name"]): row for row in self.rows("rollout_hosts")}

    @cached_property
    def commits(self) -> Mapping[tuple[str, str], Row]:
        """By app and hash."""
        return {(row["app"], row["sha"]): row for row in self.rows("commits")}

    @cached_property
    def canaries(self) -> Mapping[int, frozenset[str]]:
        """For each rollout the hosts that were its canary at any time: planned first, or in another's place."""
        of: dict[int, list[Row]] = defaultdict(list)
        for row in self.rows("rollout_hosts"):
            of[row["rollout"]].append(row)
        heirs: dict[int, set[str]] = defaultdict(set)
        for event in self.events:
            if event["what"] == "takes the canary's place":
                heirs[event["rollout"]].add(event["subject"].partition(" ")[2])
        return {
            rollout: frozenset(heirs[rollout])
            | {row["name"] for row in rows if row["position"] < sum(one["role"] == "canary" for one in rows)}
            for rollout, rows in of.items()
        }

    @cached_property
    def started(self) -> Mapping[int, datetime]:
        """When each rollout left `pending` for its canary."""
        return self._when(lambda event: event["what"] == "start")

    @cached_property
    def passed(self) -> Mapping[int, datetime]:
        """When each rollout's canary got its PASS."""
        return self._when(lambda event: event["what"] in {"canary passed", "canary accepted"})

    @cached_property
    def acknowledged(self) -> Mapping[int, datetime]:
        """When each rollout's stop was acknowledged: in the events, or already to a client."""
        found = dict(self._when(lambda event: event["before"] == "stopping"))
        for deed in self.deeds:
            if deed.action == "stop" and deed.answer.get("acknowledged"):
                rollout = deed.arguments["rollout"]
                found[rollout] = min(found.get(rollout, deed.at), deed.at)
        return found

    @cached_property
    def rolled_back(self) -> Mapping[int, datetime]:
        """When each rollout's hosts were back, or could not be brought back at the first try."""
        return self._when(lambda event: event["after"] == "rolled_back")

    def switches(self) -> Iterator[tuple[str, Record, Row | None]]:
        """Every intent to activate: host, record, and the rollout that it belongs to."""
        for name, disk in self.disks.items():
            for record in disk.records:
                if record.what == "intent" and record.verb == "activate":
                    yield name, record, self._rollout_of(name, record)

    def _rollout_of(self, host: str, record: Record) -> Row | None:
        """The newest rollout of this commit that had started by then."""
        candidates = [
            row
            for number, row in self.rollouts.items()
            if row["commit"] == record.commit
            and (number, host) in self.hosts
            and number in self.started
            and (record.at is None or self.started[number] <= record.at + self.slack)
        ]
        return max(candidates, key=lambda row: row["id"], default=None)

    def _when(self, wanted: Any) -> dict[int, datetime]:
        found: dict[int, datetime] = {}
        for event in self.events:
            if event["subject"] == f"rollout {event['rollout']}" and wanted(event):
                found.setdefault(event["rollout"], event["at"])
        return found
