"""Past rollouts judged once more: what was said then, what is said now, and how many would have been stopped."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollout.cli import output, verdict_telling
from rollout.cli.call import Call
from rollout.cli.failures import WrongUsage
from rollout.cli.scene import Bar
from rollout.cli.tellers import teller
from rollout.config import durations
from rollout.domain.model import Rollout, RolloutId
from rollout.errors import Conflict, NotFound
from rollout.services import replays
from rollout.services.replays import Replay
from rollout.store.store import Transaction

RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
MOST = 10_000  # rollouts at once
UNDECIDED = "undecided"  # then or now: no word fell as long as it was watched
Changes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rollouts: the newest finished ones, or those with numbers in these ranges."""

    ranges: tuple[tuple[int, int], ...] = ()
    last: int | None = None

    @property
    def one(self) -> bool:
        """A single one, by its number."""
        return self.last is None and len(self.ranges) == 1 and self.ranges[0][0] == self.ranges[0][1]


def wanted(given: Sequence[str], last: int | None) -> Wanted:
    """Of `--rollout` and `--last`."""
    return Wanted(tuple(_range(one) for one in given), last)


def run(call: Call, asked: Wanted, changes: Changes) -> int:
    """Judge them, and tell."""
    with call.store.reading() as tx:
        found = _find(tx, call, asked)
    if asked.one and replays.under_way(found[0]):
        number = found[0].id
        raise Conflict(
            f"rollout {number} is {found[0].state}: its canary is not judged yet",
            remedy=f"look at it: rollout show {number}; or wait: rollout status {number} --watch",
        )
    told = _replayed(call, found, changes)
    if call.json:
        documents = [_document(one) for one in told]
        output.document(documents[0] if asked.one else documents)
    elif asked.one:
        _say_one(told[0], changes)
    else:
        _say_all(call, told, changes)
    return 0


def _range(given: str) -> tuple[int, int]:
    found = RANGE.fullmatch(given)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last:
        raise WrongUsage(
            f"--rollout: found {given!r}, expected a number such as 7, or a range such as 3-9",
            remedy="rollout history lists them",
        )
    return first, last


def _find(tx: Transaction, call: Call, asked: Wanted) -> list[Rollout]:
    """Newest first, each once. A number that no rollout has is NotFound; in a range it is passed over."""
    apps = call.apps()
    if asked.last is not None:
        return tx.rollouts.finished(apps[0] if len(apps) == 1 else None, asked.last)
    found: dict[int, Rollout] = {}
    for first, last in asked.ranges:
        if first == last:
            found[first] = tx.rollouts.get(RolloutId(first))
        else:
            found |= {one.id: one for one in tx.rollouts.numbered(first, last, MOST) if one.app in apps}
    if not found:
        raise NotFound("there is no rollout with such a number", remedy="rollout history lists them")
    return [found[number] for number in sorted(found, reverse=True)]


def _replayed(call: Call, found: Sequence[Rollout], changes: Changes) -> list[Replay]:
    """One after another: the samples of one are some thousand rows."""
    told: list[Replay] = []
    with teller(as_json=call.json or not output.is_terminal()) as progress:
        for rollout in found:
            progress.show([Bar("judged", len(told), len(found))])
            with call.store.reading() as tx:
                told.append(replays.replay(tx, rollout, changes))
    return told


def _document(one: Replay) -> dict[str, Any]:
    """As of a file, with whose it is, what was told then, and whether the word fell before the samples ended."""
    nothing: dict[str, Any] = {
        "status": None,
        "reason": None,
        "explanation": one.missing,
        "t": None,
        "evidence": {},
    }
    recorded = {"status": one.rollout.canary_status, "reason": one.rollout.canary_reason}
    return {
        "rollout": one.rollout.id,
        "recorded": recorded | {"accepted": one.then is replays.Then.ACCEPTED},
        **(verdict_telling.document(one.verdict) if one.verdict else nothing),
        "decided": one.decided,
    }


def _say_one(one: Replay, changes: Changes) -> None:
    rollout = one.rollout
    reason = f": {output.clean(rollout.canary_reason)}" if rollout.canary_reason else ""
    output.say(f"rollout {rollout.id} of {rollout.app}, commit {output.short(rollout.commit)}")
    output.say(f"then {one.then}{reason}")
    if one.verdict is None:
        output.say(f"now nothing: {one.missing}")
        return
    verdict_telling.say(one.verdict, f"now, {_policy(changes)}, ")
    if not one.decided:
        output.say("No word fell as long as it was watched.")


def _say_all(call: Call, told: Sequence[Replay], changes: Changes) -> None:
    if not told:
        output.say("there are no past rollouts")
        return
    several = len(call.apps()) > 1
    rows = [_row(one) for one in told]
    head = ("id", "app", "commit", "then", "now", "after", "why")
    shown = [place for place, name in enumerate(head) if several or name != "app"]
    output.table([head[place] for place in shown], [[row[place] for place in shown] for row in rows])
    output.say()
    output.say(_summary(told, changes))


def _row(one: Replay) -> tuple[object, ...]:
    verdict = one.verdict
    whose = (one.rollout.id, one.rollout.app, output.short(one.rollout.commit), one.then)
    if verdict is None:
        return (*whose, None, None, one.missing)
    now = verdict.status if one.decided else UNDECIDED
    return (*whose, now, f"{verdict.t:g} s", verdict.reason)


def _summary(told: Sequence[Replay], changes: Changes) -> str:
    """How many would have been stopped; and of how many that cannot be said."""
    stopped = [one for one in told if one.stopped]
    passed = [one for one in stopped if one.then in {replays.Then.PASS, replays.Then.ACCEPTED}]
    undecided = [one for one in told if one.verdict and not one.decided]
    missing = [one for one in told if one.verdict is None]
    words = (
        f"{len(stopped)} of {output.count(len(told), 'rollout')} would have been stopped {_policy(changes)}"
    )
    words += f" ({len(passed)} of them had gone on)." if stopped else "."
    if undecided:
        words += f" {len(undecided)} would have been watched for longer than {_it_was(undecided)}."
    if missing:
        words += f" {len(missing)} cannot be judged again."
    return words


def _it_was(undecided: Sequence[Replay]) -> str:
    return "it was" if len(undecided) == 1 else "they were"


def _policy(changes: Changes) -> str:
    """By which policy."""
    if not changes:
        return "by the policy of then"
    return f"with {', '.join(f'{_KEYS[name]} {_text(name, value)}' for name, value in changes.items())}"


_KEYS = {
    "good": "good",
    "minimum_good": "minimum_good",
    "bake_s": "bake",
    "deadline_s": "deadline",
    "margin": "margin",
}


def _text(name: str, value: Any) -> str:
    if name == "good":
        return "+".join(value)
    return durations.text(value) if name.endswith("_s") else f"{round(100 * value, 6):g}%"
