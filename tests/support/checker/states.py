"""I7, I1 and I8: every state was reached along the table, in events that chain up, and nothing is left behind."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from rollout.domain.states import ACTIVE, COMMITS, FINISHED, HOSTS, ROLLOUTS
from tests.support.checker.history import History, Row, Violation

MACHINES: Mapping[str, Mapping[Any, Mapping[Any, Any]]] = {
    "rollout": ROLLOUTS,
    "host": HOSTS,
    "commit": COMMITS,
}
BEGINS = {"rollout": None, "commit": None, "host": "pending"}  # a host's row comes with its rollout's plan
BIRTHS = {("rollout", "plan"): "pending", ("commit", "receive"): "received"}
REMARKS = {"unreadable", "read again", "accept failure"}  # of a host whose state stays
LEASED = {"preparing", "activating", "rolling_back"}


def legal(history: History) -> Iterator[Violation]:
    """I7: each event is an edge, begins where the last one ended, and the row is where the last one ended."""
    last: dict[tuple[Any, ...], str | None] = {}
    for event in history.events:
        if event["before"] is None and event["after"] is None:
            continue
        kind = event["subject"].partition(" ")[0]
        was = last.get(_key(event), BEGINS[kind])
        step = f"event {event['id']} `{event['what']}`: {event['before']} → {event['after']}"
        if event["before"] != was:
            yield Violation("I7", event["subject"], f"{step}, but it was {was}")
        if not _is_edge(kind, event):
            yield Violation("I7", event["subject"], f"{step} is no edge of the table")
        last[_key(event)] = event["after"]
    for key, subject, state in _final(history):
        told = last.get(key, BEGINS[subject.partition(" ")[0]])
        if told != state:
            yield Violation("I7", subject, f"its row says {state}, its last event {told}")


def one_active(history: History) -> Iterator[Violation]:
    """I1: never two active rollouts of an app, nor two pending ones."""
    states: dict[str, dict[str, str]] = defaultdict(dict)
    for event in history.events:
        if event["after"] is None or not event["subject"].startswith("rollout "):
            continue
        of_app = states[event["app"]]
        of_app[event["subject"]] = event["after"]
        for what, group in (("active", ACTIVE), ("pending", {"pending"})):
            there = sorted(subject for subject, state in of_app.items() if state in group)
            if len(there) > 1:
                yield Violation(
                    "I1", event["subject"], f"{what} together after event {event['id']}: {', '.join(there)}"
                )


def no_zombies(history: History) -> Iterator[Violation]:
    """I8: whatever is unfinished has a lease or a due time; at rest nothing is unfinished but what waits for a person."""
    for row in history.rollouts.values():
        yield from _rollout_zombie(row, history)
    for row in history.rows("rollout_hosts"):
        if row["state"] in LEASED and row["lease_until"] is None:
            yield Violation("I8", f"host {row['name']}", f"{row['state']} without a lease")
    for row in history.rows("commits"):
        unwatched = row["state"] == "received" and row["due_at"] is None
        if unwatched or (row["state"] == "testing" and row["lease_until"] is None):
            yield Violation("I8", f"commit {row['sha']}", f"{row['state']}, and nobody will look at it")
        elif history.at_rest and row["state"] in {"received", "testing"}:
            yield Violation("I8", f"commit {row['sha']}", f"at rest, and still {row['state']}")


def _rollout_zombie(row: Row, history: History) -> Iterator[Violation]:
    subject, state = f"rollout {row['id']}", row["state"]
    if state in FINISHED or state == "halted":
        return
    if row["due_at"] is None:
        yield Violation("I8", subject, f"{state} without a due time")
    elif history.at_rest:
        yield Violation("I8", subject, f"at rest, and still {state}")


def _key(event: Row) -> tuple[Any, ...]:
    rollout = event["rollout"] if event["subject"].startswith("host ") else None
    return event["app"], rollout, event["subject"]


def _is_edge(kind: str, event: Row) -> bool:
    before, what, after = event["before"], event["what"], event["after"]
    if before is None:
        return BIRTHS.get((kind, what)) == after
    if MACHINES[kind].get(before, {}).get(what) == after:
        return True
    return kind == "host" and before == after and what in REMARKS


def _final(history: History) -> Iterator[tuple[tuple[Any, ...], str, str]]:
    for row in history.rollouts.values():
        subject = f"rollout {row['id']}"
        yield (row["app"], None, subject), subject, row["state"]
    for row in history.rows("rollout_hosts"):
        subject = f"host {row['name']}"
        yield (row["app"], row["rollout"], subject), subject, row["state"]
    for row in history.rows("commits"):
        subject = f"commit {row['sha']}"
        yield (row["app"], None, subject), subject, row["state"]
