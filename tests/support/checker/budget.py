"""I3 and the counters: the events replayed host by host, and how many were at risk at once."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.checker.history import History, Row, Violation

KEEPS_TOKEN = {"activate", "lose", "prepare", "prepared", "put off", "roll back"}
ANEW = {"retry", "prepare again", "catch up", "found untouched", "activate"}
UNDER_WAY = {"deploying_canary", "evaluating_canary", "fanning_out", "halted"}


@dataclass
class _Fleet:
    """The hosts of one rollout, as far as the events have been read."""

    rollout: Row
    canaries: frozenset[str]
    stage: str = "pending"
    state: dict[str, str] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    successes: int = 0  # hosts beyond the canary that became done, ever

    def take(self, event: Row) -> None:
        name, what = event["subject"].partition(" ")[2], event["what"]
        if what == "accept failure":
            self.accepted.add(name)
        if event["after"] == event["before"]:
            return
        self.state[name] = event["after"]
        if what == "activate":
            self.tokens.add(name)
        elif what not in KEEPS_TOKEN and not (what == "retry" and event["before"] == "activating"):
            self.tokens.discard(name)
        if what in ANEW:  # nobody has accepted what comes of that
            self.accepted.discard(name)
        if what == "done" and name not in self.canaries:
            self.successes += 1

    @property
    def hurt(self) -> list[str]:
        """Failed, or nobody knows; what a person accepted does not count."""
        return [
            name
            for name, state in self.state.items()
            if state in {"failed", "unknown"} and name not in self.accepted
        ]

    @property
    def in_flight(self) -> set[str]:
        """These are being switched, or wait for their next attempt with the token in hand."""
        return {name for name in self.tokens if self.state[name] != "unknown"}

    @property
    def at_risk(self) -> set[str]:
        """Hurt, or about to be."""
        return self.in_flight.union(self.hurt)

    @property
    def bound(self) -> int:
        """K + 1; in `ramp` one more for every success, at most `concurrency`."""
        strict = self.rollout["mode"] == "strict"
        window = 1 if strict else min(1 + self.successes, self.rollout["concurrency"])
        return int(self.rollout["max_failed"] + window)


def nothing_counts_before_it_begins(history: History) -> Iterator[Violation]:
    """I3: of a rollout that is planned ahead no host fails: what is prepared for it is only tried again."""
    begun = set()
    for event in history.events:
        if event["what"] == "start" and event["subject"].startswith("rollout "):
            begun.add(event["rollout"])
        if event["what"] == "fail" and event["subject"].startswith("host ") and event["rollout"] not in begun:
            yield Violation(
                "I3", event["subject"], f"failed in rollout {event['rollout']}, which had not begun"
            )


def within_bound(history: History) -> Iterator[Violation]:
    """I3: no more hosts are failed or unknown than the plan printed, at risk than the window allows, in flight than may be."""
    fleets: dict[int, _Fleet] = {
        number: _Fleet(
            row,
            # Not who once was: a host whose place another took is done like any other, and widens the window.
            frozenset(
                name
                for (of, name), host in history.hosts.items()
                if of == number and host["role"] == "canary"
            ),
        )
        for number, row in history.rollouts.items()
    }
    for event in history.events:
        fleet = fleets.get(event["rollout"])
        if fleet is None or event["after"] is None:
            continue
        if not event["subject"].startswith("host "):
            fleet.stage = event["after"]
            continue
        fleet.take(event)
        subject, when = f"rollout {event['rollout']}", f"after event {event['id']}"
        if len(fleet.hurt) > min(fleet.rollout["worst_case"], fleet.bound):
            yield Violation(
                "I3", subject, f"{when} {len(fleet.hurt)} hosts are failed or unknown, {fleet.bound} may be"
            )
        if len(fleet.in_flight) > fleet.rollout["concurrency"]:
            yield Violation("I3", subject, f"{when} {len(fleet.in_flight)} hosts are in flight at once")
        if fleet.stage == "done" and len(fleet.in_flight) > 1:
            yield Violation("I3", subject, f"{when} {len(fleet.in_flight)} hosts catch up at once")
        if fleet.stage in UNDER_WAY and len(fleet.at_risk) > fleet.bound:
            yield Violation(
                "I3", subject, f"{when} {len(fleet.at_risk)} hosts are at risk, {fleet.bound} may be"
            )


def accepted_once(history: History) -> Iterator[Violation]:
    """I3: who accepted a host's failure accepted that one: a failure of a later attempt counts again."""
    accepted: set[tuple[int, str]] = set()
    for event in history.events:
        key = event["rollout"], event["subject"].partition(" ")[2]
        if event["what"] == "accept failure":
            accepted.add(key)
        elif event["what"] in ANEW:
            accepted.discard(key)
    for key, row in history.hosts.items():
        if row["accepted"] and row["state"] in {"failed", "unknown"} and key not in accepted:
            yield Violation(
                "I3", f"host {key[1]}", "its failure is left out of the count, and was not accepted"
            )


def counters(history: History) -> Iterator[Violation]:
    """Every outcome was counted once: a rollout's counters are what its host rows say."""
    true: dict[int, dict[str, int]] = defaultdict(
        lambda: dict.fromkeys(("done", "failed", "unreadable", "unknown", "in_flight"), 0)
    )
    for row in history.rows("rollout_hosts"):
        unknown = row["state"] == "unknown" and not row["accepted"]
        counts = true[row["rollout"]]
        counts["done"] += row["state"] == "done"
        counts["failed"] += row["state"] == "failed" and not row["accepted"]
        counts["unreadable"] += bool(unknown and row["unreadable"])
        counts["unknown"] += unknown
        counts["in_flight"] += bool(row["token"]) and row["state"] != "unknown"
    for number, row in history.rollouts.items():
        wrong = {name: (row[name], value) for name, value in true[number].items() if row[name] != value}
        if wrong:
            told = ", ".join(
                f"{name} is {value}, by its hosts {ours}" for name, (value, ours) in wrong.items()
            )
            yield Violation("counters", f"rollout {number}", told)
