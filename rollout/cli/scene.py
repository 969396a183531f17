"""What a rollout looks like at a moment: a few bars, from its view alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rollout.cli.output import clean, count, short
from rollout.domain.states import RolloutState

View = Mapping[str, Any]
R = RolloutState


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of progress. Without a total nobody knows how long it takes."""

    name: str
    done: int
    total: int | None
    detail: str = ""

    def __str__(self) -> str:
        numbers = "" if self.total is None else f" {self.done} of {self.total}"
        return f"{self.name}{numbers}{f': {self.detail}' if self.detail else ''}"


def of_rollout(view: View) -> list[Bar]:
    """The bars of a rollout, by its state; none when it is over."""
    return [
        Bar(f"rollout {view['id']} {bar.name}", bar.done, bar.total, bar.detail)
        for bar in _BARS.get(RolloutState(view["state"]), _none)(view)
    ]


def headline(view: View) -> str:
    """A rollout in one line."""
    number, state, reason = view["id"], view["state"].replace("_", " "), view["reason"]
    words = f"rollout {number} of {view['app']} is {state}: commit {short(view['commit'])}, {progress(view['counts'])}"
    return f"{words}; {clean(reason)}" if reason else words


def progress(counts: Mapping[str, int]) -> str:
    """24 of 100 hosts done, 1 failed, 5 activating."""
    shown = [f"{counts['done']} of {count(counts['total'], 'host')} done"]
    worth = ("activating", "failed", "unknown", "excluded", "rolling_back", "rolled_back", "rollback_failed")
    return ", ".join(
        [*shown, *(f"{counts[state]} {state.replace('_', ' ')}" for state in worth if counts[state])]
    )


def touched(counts: Mapping[str, int]) -> int:
    """Hosts that are or were away from what they ran before (a failed one may be untouched)."""
    states = ("activating", "done", "failed", "unknown", "rolling_back", "rolled_back", "rollback_failed")
    return sum(counts[state] for state in states)


def _none(_: View) -> list[Bar]:
    return []


def _pending(view: View) -> list[Bar]:
    return [Bar("canary", 0, len(view["canary"]["hosts"]), "planned")]


def _canary(view: View) -> list[Bar]:
    total = len(view["canary"]["hosts"])
    return [Bar("canary", min(view["counts"]["done"], total), total, "being switched"), _prepared(view)]


def _watched(view: View) -> list[Bar]:
    reason = clean(view["canary"]["reason"] or "no numbers yet")
    return [Bar("canary", 0, None, f"watched: {reason}"), _prepared(view)]


def _prepared(view: View) -> Bar:
    counts = view["counts"]
    waiting = counts["pending"] + counts["preparing"] + counts["excluded"]
    return Bar("prepared", counts["total"] - waiting, counts["total"] - counts["excluded"])


def _fan_out(view: View) -> list[Bar]:
    counts = view["counts"]
    return [Bar("hosts", counts["done"], counts["total"] - counts["excluded"], progress(counts))]


def _halted(view: View) -> list[Bar]:
    counts = view["counts"]
    total = counts["total"] - counts["excluded"]
    return [Bar("halted", counts["done"], total, clean(view["reason"] or "waits for a person"))]


def _stopping(view: View) -> list[Bar]:
    return [Bar("stopping", 0, None, f"waits for the acknowledgement; {progress(view['counts'])}")]


def _rolling_back(view: View) -> list[Bar]:
    counts = view["counts"]
    failed = f"{counts['rollback_failed']} could not be brought back yet" if counts["rollback_failed"] else ""
    return [Bar("back", counts["rolled_back"] + counts["rollback_failed"], touched(counts), failed)]


_BARS: Mapping[RolloutState, Callable[[View], list[Bar]]] = {
    R.PENDING: _pending,
    R.DEPLOYING_CANARY: _canary,
    R.EVALUATING_CANARY: _watched,
    R.FANNING_OUT: _fan_out,
    R.HALTED: _halted,
    R.STOPPING: _stopping,
    R.ROLLING_BACK: _rolling_back,
}
