"""I4, I9, I11 and I12, as the rows tell: what was taken in, and what was allowed to go out."""

from collections import Counter
from collections.abc import Iterator

from rollout.domain.states import FINISHED
from tests.support.checker.history import History, Row, Violation

HARM = "harm in the fan-out"
OF_COMMITS = {"accepted", "started", "superseded", "duplicate"}
OUTCOMES = OF_COMMITS | {"ignored", "reported", "rejected", "error"}
ACTIVATE_IN = {"deploying_canary", "fanning_out"}


def deliveries(history: History) -> Iterator[Violation]:
    """I4: each webhook that was answered 2xx has its one outcome, and its commit a row."""
    answered = [
        deed for deed in history.deeds if deed.action == "webhook" and 200 <= deed.answer["status"] < 300
    ]
    told = Counter(deed.answer["delivery"] for deed in answered if "delivery" in deed.answer)
    stored = {row["id"]: row for row in history.rows("deliveries")}
    for number, times in told.items():
        if number not in stored:
            yield Violation("I4", f"delivery {number}", "answered 2xx, and not recorded")
        if times > 1:
            yield Violation("I4", f"delivery {number}", f"{times} answers share one record")
    for number, row in stored.items():
        if row["outcome"] not in OUTCOMES:
            yield Violation("I4", f"delivery {number}", f"its outcome is {row['outcome']!r}")
        elif row["outcome"] in OF_COMMITS and (row["app"], row["head"]) not in history.commits:
            yield Violation("I4", f"delivery {number}", f"{row['outcome']}, and {row['head']} has no row")
        if (row["outcome"] == "accepted") != (row.get("settled_at") is None):
            yield Violation("I4", f"delivery {number}", f"{row['outcome']}, settled {row['settled_at']}")
        if row["outcome"] == "accepted" and (why := _decided(history, row["app"], row["head"])):
            yield Violation("I4", f"delivery {number}", f"has no end, and its commit {why}")
        if row["outcome"] == "started" and not _carries(history, row):
            yield Violation("I4", f"delivery {number}", f"started with {row['ref']}, which ships another one")


def _decided(history: History, app: str, sha: str) -> str | None:
    """What has become of a commit; None while it is on its way, or git has not confirmed it."""
    commit = history.commits.get((app, sha))
    if commit is None or commit["position"] is None:
        return None
    if commit["state"] in {"failed", "barred"}:
        return f"is {commit['state']}"
    if not commit["on_branch"]:
        return "has left the branch"
    begun = {event["rollout"] for event in history.events if event["what"] == "start"}
    # One that was planned ahead decides nothing until it begins: it may be planned anew.
    of_app = [row for row in history.rollouts.values() if row["app"] == app and row["id"] in begun]
    its = [row["id"] for row in of_app if sha == row["commit"] or sha in row.get("commits", ())]
    return f"is in rollout {its[0]}" if its else None


def _carries(history: History, delivery: Row) -> bool:
    number = (delivery["ref"] or "").removeprefix("rollout ")
    rollout = history.rollouts.get(int(number)) if number.isdigit() else None
    return rollout is not None and (rollout["app"], rollout["commit"]) == (delivery["app"], delivery["head"])


def tested(history: History) -> Iterator[Violation]:
    """I9: a rollout starts with a commit that passed, and its digest is the one that was built and tested."""
    states: dict[tuple[str, str], str] = {}
    for event in history.events:
        kind, _, name = event["subject"].partition(" ")
        if kind == "commit" and event["after"] is not None:
            states[event["app"], name] = event["after"]
        if kind == "rollout" and event["what"] == "start":
            sha = history.rollouts[event["rollout"]]["commit"]
            state = states.get((event["app"], sha))
            if state != "passed":
                yield Violation("I9", event["subject"], f"started while its commit {sha} was {state}")
    releases = {(row["app"], row["commit"]): row["digest"] for row in history.rows("releases")}
    for number, row in history.rollouts.items():
        key = row["app"], row["commit"]
        for where, digest in (
            ("the commit", (history.commits.get(key) or {}).get("digest")),
            ("the release", releases.get(key)),
        ):
            if digest is not None and digest != row["digest"]:
                yield Violation("I9", f"rollout {number}", f"ships {row['digest']}, {where} is {digest}")


def canary_first(history: History) -> Iterator[Violation]:
    """I11 and I2: a host is claimed only in its stage, or after the end while no other rollout of the app is there.

    Beyond the canary only after a PASS, and a PASS has data.
    """
    stage: dict[int, str] = {}
    passed: set[int] = set()
    for event in history.events:
        number = event["rollout"]
        if number not in history.rollouts:
            continue
        kind, _, name = event["subject"].partition(" ")
        if kind == "rollout" and event["after"] is not None:
            stage[number] = event["after"]
            if event["what"] in {"canary passed", "canary accepted"}:
                passed.add(number)
            if event["what"] == "canary passed" and not _has_data(history, number):
                yield Violation("I11", event["subject"], "its canary passed without a single request")
            if event["what"] == "halt" and (event["why"] or "").startswith(HARM):
                passed.discard(number)  # a FAIL takes the PASS away, until a person gives a reason
                if not _has_data(history, number):
                    yield Violation("I11", event["subject"], "halted for harm without a single request")
        if kind == "host" and event["what"] == "activate":
            state, claim = stage.get(number), f"claimed by event {event['id']} for rollout {number}"
            after_the_end = state == "done" and not _another(history, number, stage)
            if state not in ACTIVATE_IN and not after_the_end:
                yield Violation("I2", event["subject"], f"{claim}, which was {state}")
            if name not in history.canaries[number] and number not in passed:
                yield Violation("I11", event["subject"], f"{claim} without a PASS")


def _another(history: History, number: int, stage: dict[int, str]) -> bool:
    """Another rollout of the app is planned or under way; or newer and done, unless a person went back to this one's commit."""
    ours = history.rollouts[number]
    of_app = {other for other, row in history.rollouts.items() if row["app"] == ours["app"]} - {number}
    named = any(history.rollouts[other]["rollback_to"] == ours["commit"] for other in of_app)
    return any(
        stage[other] not in FINISHED
        or (
            stage[other] == "done" and other > number and not named and not _gone_past(history, other, of_app)
        )
        for other in of_app & stage.keys()
    )


def _gone_past(history: History, number: int, of_app: set[int]) -> bool:
    """A person went back past it, from a newer rollout to the commit of an older one; from there the fleet may have gone back further."""
    older = {history.rollouts[other]["commit"] for other in of_app if other < number}
    return any(history.rollouts[other]["rollback_to"] in older for other in of_app if other > number)


def forward(history: History) -> Iterator[Violation]:
    """I12: automation plans and begins no commit that is below the one that runs, or will when it begins."""
    before: dict[int, str | None] = {}  # what ran before each done rollout
    runs: dict[str, str | None] = {}
    fans_out: dict[str, str] = {}  # by app: what an active rollout that has its PASS brings
    for event in history.events:
        row = history.rollouts.get(event["rollout"])
        if row is None or event["after"] is None or not event["subject"].startswith("rollout "):
            continue
        running = runs.get(row["app"])
        planned = event["what"] == "plan"
        if planned and row["app"] in fans_out:
            running = fans_out[row["app"]]  # ahead of time: for when that one is done
        if planned or event["what"] == "start":
            previous = row.get("previous", running)
            if previous != running:
                yield Violation(
                    "I12", event["subject"], f"{event['what']} after {previous}, but {running} ran"
                )
        if (planned or event["what"] == "start") and row["requested_by"] == "automation":
            ours = _position(history, row["app"], row["commit"])
            theirs = _position(history, row["app"], running) if running else None
            if ours is not None and theirs is not None and ours < theirs:
                yield Violation(
                    "I12", event["subject"], f"commit at {ours} replaces the running one at {theirs}"
                )
        if event["after"] == "fanning_out":
            fans_out[row["app"]] = row["commit"]
        elif event["before"] == "fanning_out":
            del fans_out[row["app"]]
        if event["after"] == "done":
            before[row["id"]], runs[row["app"]] = running, row["commit"]
        if event["after"] == "rolled_back" and row["id"] in before:
            runs[row["app"]] = row["rollback_to"] or before[row["id"]]


def _has_data(history: History, rollout: int) -> bool:
    return any(
        row["rollout"] == rollout
        and row["role"] == "canary"
        and row["observed"]
        and sum(row["counts"].values()) > 0
        for row in history.rows("samples")
    )


def _position(history: History, app: str, sha: str) -> int | None:
    row = history.commits.get((app, sha))
    return row["position"] if row and row["on_branch"] else None
