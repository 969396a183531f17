"""What the hosts' own journals and disks say: the fence, I2, I5, I6, I9, I10 and I11 at the place where they matter."""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from tests.support.checker.history import OUTCOMES, History, Row, Violation

NOT_KNOWN = {
    "activating",
    "unknown",
    "rolling_back",
    "rollback_failed",
}  # states of a host that must be read first
ASKED_FOR = timedelta(seconds=30)  # at least so long a host that is at work is asked for again


def fence(history: History) -> Iterator[Violation]:
    """Epochs never fall, operation numbers rise, and an intent has at most one outcome, its own, before the next."""
    for name, disk in history.disks.items():
        epoch = operation = intent = 0
        ended = set()
        for record in disk.records:
            told = f"{record.verb} {record.what} op={record.operation} epoch={record.epoch}"
            if record.touches:
                if record.epoch < epoch:
                    yield Violation("fence", f"host {name}", f"{told} after epoch {epoch}")
                if record.operation <= operation:
                    yield Violation("fence", f"host {name}", f"{told} after operation {operation}")
                intent = record.operation
            elif record.what != "seal" and record.operation != intent and (intent or disk.whole):
                yield Violation("fence", f"host {name}", f"{told} without its intent")
            if record.what in OUTCOMES:
                if record.operation in ended:
                    yield Violation("fence", f"host {name}", f"{told}, a second outcome")
                ended.add(record.operation)
            epoch, operation = max(epoch, record.epoch), max(operation, record.operation)


def stopped(history: History) -> Iterator[Violation]:
    """I2: after the acknowledgement no host, but those named unconfirmed, gets an intent for the stopped release."""
    for name, record, rollout in history.switches():
        if rollout is None or record.at is None:
            continue
        at = history.acknowledged.get(rollout["id"])
        if at is not None and record.at > at + history.slack and name not in rollout["unconfirmed"]:
            late = (record.at - at).total_seconds()
            yield Violation(
                "I2",
                f"host {name}",
                f"op={record.operation} activated {record.commit} {late:.3f} s after rollout {rollout['id']} was stopped",
            )


def told_early(history: History) -> Iterator[Violation]:
    """I2: whoever was told that a stop is acknowledged finds it so in the rows."""
    for deed in history.deeds:
        if deed.action != "stop" or not deed.answer.get("acknowledged"):
            continue
        number = deed.arguments["rollout"]
        if not any(
            event["rollout"] == number
            and event["before"] == "stopping"
            and event["at"] <= deed.at + history.slack
            for event in history.events
        ):
            yield Violation("I2", f"rollout {number}", f"told acknowledged at {deed.at}, before it was")


def after_the_canary(history: History) -> Iterator[Violation]:
    """I9 and I11: an intent belongs to a rollout that had started, and beyond the canary to one with a PASS."""
    for name, record, rollout in history.switches():
        if rollout is None:
            yield Violation(
                "I9", f"host {name}", f"op={record.operation}: no rollout of {record.commit} had started"
            )
            continue
        number = rollout["id"]
        passed = history.passed.get(number)
        if name in history.canaries[number]:
            continue
        if passed is None or (record.at is not None and record.at + history.slack < passed):
            yield Violation(
                "I11", f"host {name}", f"op={record.operation} before rollout {number} had its PASS"
            )


def once_per_attempt(history: History) -> Iterator[Violation]:
    """I6: no more intents than attempts, nor than claims that can have acted. Void intents came to nothing."""
    claims: Counter[tuple[str, str]] = Counter()
    attempts: Counter[tuple[str, str]] = Counter()
    for row in history.rows("rollout_hosts"):
        attempts[row["name"], history.rollouts[row["rollout"]]["commit"]] += 1
    for event in history.events:
        row = history.rollouts.get(event["rollout"])
        if row is None or not event["subject"].startswith("host "):
            continue
        key = event["subject"].partition(" ")[2], row["commit"]
        again = event["what"] in {"retry", "prepare again", "catch up"}
        attempts[key] += again
        claims[key] += event["what"] == "activate"
        claims[key] -= event["what"] == "found untouched" or (again and event["before"] == "activating")
    for name, disk in history.disks.items():
        void = {record.operation for record in disk.records if record.what == "void"}
        intents = Counter(
            (name, record.commit or "")
            for record in disk.records
            if record.what == "intent" and record.verb == "activate" and record.operation not in void
        )
        for key, times in intents.items():
            most = min(claims[key], attempts[key])
            if times > most:
                yield Violation("I6", f"host {name}", f"{times} intents to activate {key[1]}, {most} may be")


def outcomes_are_true(history: History) -> Iterator[Violation]:
    """I5: what is recorded as done or rolled back was done, by the host's own journal."""
    told: Counter[tuple[str, str, str | None]] = Counter()
    for event in history.events:
        row = history.rollouts.get(event["rollout"])
        if row is None or not event["subject"].startswith("host "):
            continue
        name = event["subject"].partition(" ")[2]
        if event["what"] == "done":
            told[name, "activate", row["commit"]] += 1
        if event["what"] == "rolled back":
            told[name, "rollback", None] += 1
    for (name, verb, commit), times in told.items():
        disk = history.disks.get(name)
        if disk is None or not disk.whole:
            continue
        true = sum(
            record.what == "done" and record.verb == verb and commit in {None, record.commit}
            for record in disk.records
        )
        if times > true:
            what = f"{verb} {commit or ''}".strip()
            yield Violation(
                "I5", f"host {name}", f"{what} is recorded {times} times as done, journalled {true} times"
            )


def recorded(history: History) -> Iterator[Violation]:
    """I5 and I9: a reachable host whose state is known has the recorded release, and its tested bytes."""
    last: dict[str, Row] = {}
    for row in history.rows("rollout_hosts"):
        if row["operation"] and row["operation"] >= last.get(row["name"], {}).get("operation", 0):
            last[row["name"]] = row
    for row in history.rows("fleet_hosts"):
        name, ours = row["name"], last.get(row["name"])
        disk = history.disks.get(name)
        if disk is None or ours is None or not disk.reachable:
            continue
        if ours["state"] in NOT_KNOWN or row["release"] == "unknown":
            continue
        if row["release"] != disk.current:
            yield Violation("I5", f"host {name}", f"recorded {row['release']}, on its disk {disk.current}")
    digests = {row["commit"]: row["digest"] for row in history.rows("releases")}
    for name, disk in history.disks.items():
        wanted = digests.get(disk.current)
        if disk.digest is not None and wanted is not None and disk.digest != wanted:
            yield Violation(
                "I9",
                f"host {name}",
                f"runs {disk.current} with the bytes of {disk.digest}, tested were {wanted}",
            )


def newest_stands(history: History) -> Iterator[Violation]:
    """I5: a host that is done in the newest rollout that touched it runs that release, whatever is recorded of it."""
    newest: dict[str, Row] = {}
    caught_up = {
        (event["rollout"], event["subject"])
        for event in history.events
        if event["what"] in {"catch up", "join"}
    }
    for (_, name), row in sorted(history.hosts.items()):
        last = newest.get(name)
        # After `rollback --to` an older rollout goes on with the hosts that it had left behind, or never had.
        if (
            last
            and (last["rollout"], f"host {name}") in caught_up
            and last["operation"] > (row["operation"] or 0)
        ):
            continue
        if row["touched"] and row["operation"]:
            newest[name] = row
    for name, row in newest.items():
        disk, rollout = history.disks.get(name), history.rollouts[row["rollout"]]
        # What a person kept of a stopped one may go back with the rollout before it.
        if disk is None or not disk.reachable or row["state"] != "done" or rollout["state"] == "stopped":
            continue
        if disk.current != rollout["commit"]:
            yield Violation(
                "I5",
                f"host {name}",
                f"done in rollout {rollout['id']} with {rollout['commit']}, on its disk {disk.current}",
            )


def never_back_to_it(history: History) -> Iterator[Violation]:
    """I2: what a rollout that is rolled back has brought to a host is nothing that a later operation goes back to."""
    for (number, name), row in history.hosts.items():
        at, rollout, disk = history.rolled_back.get(number), history.rollouts[number], history.disks.get(name)
        if disk is None or at is None or not row["touched"] or row.get("previous") == rollout["commit"]:
            continue
        for record in disk.records:
            goal = record.came_from if record.what == "back" else record.commit
            back = record.what == "back" or (record.verb == "rollback" and record.what == "intent")
            late = record.at is not None and record.at > at + history.slack
            if back and late and goal == rollout["commit"] and not _wanted_again(history, number, name, goal):
                yield Violation(
                    "I2", f"host {name}", f"op={record.operation} goes back to {goal}, of rollout {number}"
                )


def _wanted_again(history: History, number: int, host: str, commit: str) -> bool:
    """A newer rollout has brought the commit to the host, or a person has named it."""
    return any(
        (
            row["commit"] == commit
            and other > number
            and (history.hosts.get((other, host)) or {}).get("touched")
        )
        or row["rollback_to"] == commit
        for other, row in history.rollouts.items()
    )


def read_before_anew(history: History) -> Iterator[Violation]:
    """I5: an unknown host is prepared again only when it was read, and sealed, since it was lost."""
    lost: dict[tuple[int, str], Any] = {}
    for event in history.events:
        name = event["subject"].partition(" ")[2]
        if event["after"] == "unknown" and event["before"] != "unknown":
            lost[event["rollout"], name] = event["at"]
        if (event["before"], event["after"]) != ("unknown", "prepared"):
            continue
        disk, since = history.disks.get(name), lost[event["rollout"], name]
        if disk is None or not disk.whole or not disk.seals:
            continue
        if not any(
            record.what == "seal" and record.at is not None and since <= record.at <= event["at"]
            for record in disk.records
        ):
            yield Violation(
                "I5", event["subject"], f"prepared again by event {event['id']}, and nobody had read it"
            )


def way_back(history: History) -> Iterator[Violation]:
    """I10: a rollback goes to something that the host has had."""
    for name, disk in history.disks.items():
        if not disk.whole:
            continue
        had = {None, "foreign"}
        for record in disk.records:
            if (
                record.what == "intent"
                and record.verb == "rollback"
                and record.commit not in had | {record.came_from}
            ):
                yield Violation("I10", f"host {name}", f"op={record.operation} rolls back to {record.commit}")
            had |= {record.commit, record.came_from}


def guilt(history: History) -> Iterator[Violation]:
    """Unknown is honest: a canary host for which a commit was failed says itself that it was unhealthy there."""
    for number, row in history.rollouts.items():
        named = re.match(r"canary (\S+) failed: ", row.get("canary_reason") or "")
        disk = history.disks.get(named[1]) if named else None
        if named is None or disk is None or not disk.whole:
            continue
        if not any(
            (record.verb, record.what, record.commit) == ("activate", "failed", row["commit"])
            for record in disk.records
        ):
            yield Violation(
                "I5", f"rollout {number}", f"its commit was failed for {named[1]}, which never said so"
            )


def half_way(history: History) -> Iterator[Violation]:
    """I5: a host that failed was not left on a release that it has no outcome of, nor is its journal said to be gone."""
    for (number, name), row in history.hosts.items():
        disk, error = history.disks.get(name), row.get("error") or ""
        if row["state"] != "failed" or row.get("lost_at") is not None or disk is None or not disk.whole:
            continue
        records = [record for record in disk.records if record.what != "seal"]
        if "journal is gone" in error and any(
            record.operation == row["operation"] and record.what != "void" for record in records
        ):
            yield Violation("I5", f"host {name}", f"rollout {number} says that its journal is gone: {error}")
        last = records[-1] if records else None
        if last is None or (last.verb, last.what, last.operation) != ("activate", "intent", row["operation"]):
            continue
        if last.commit == disk.current and "could not be put back" not in error:
            yield Violation(
                "I5", f"host {name}", f"failed in rollout {number}, and was left half way: {error}"
            )


def given_up(history: History) -> Iterator[Violation]:
    """I2: a host that is still at work is asked for its way back again, for as long as that can last."""
    since: dict[tuple[int, str], datetime] = {}
    for event in history.events:
        key = event["rollout"], event["subject"]
        if event["what"] == "roll back" and event["subject"].startswith("host "):
            since.setdefault(key, event["at"])
        if event["what"] not in {"rolled back", "rollback failed"} or key not in since:
            continue
        waited, refused = (
            event["at"] - since.pop(key),
            re.search(r"refused: (busy|late)$", event["why"] or ""),
        )
        if event["what"] == "rollback failed" and refused and waited < ASKED_FOR:
            yield Violation(
                "I2", event["subject"], f"given up after {waited}, {refused[1]}, in rollout {key[0]}"
            )


def debts_are_paid(history: History) -> Iterator[Violation]:
    """I2: a host that owes a rollback has a row whose rollback is under way, or due to be tried again.

    Nobody brings back one that has left the fleet; once it is in it again it is read, and brought to what the others run.
    """
    paid = {
        row["name"]
        for row in history.hosts.values()
        if row["state"] == "rolling_back"
        or (row["state"] == "rollback_failed" and row.get("due_at") is not None)
    }
    for row in history.rows("fleet_hosts"):
        over = row.get("left_at") is not None or row.get("release") == row.get("owed")
        if row.get("owes") and row["name"] not in paid and not over:
            yield Violation("I2", f"host {row['name']}", "owes a rollback that nobody tries again")
