"""Whether a commit is good by what CI servers reported: each required check must say so, within a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from rollout.domain.model import Check, CheckState


class Word(StrEnum):
    """What follows from the reports so far."""

    WAIT = "wait"
    PASS = "pass"  # noqa: S105  # a verdict, not a password
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Decision:
    """The word, and why, for people."""

    word: Word
    why: str
    late: bool = False  # it fails because nobody reported in time, not because somebody said so


def decide(required: Sequence[str], reported: Sequence[Check], age_s: float, limit_s: float) -> Decision:
    """Pass when every required check is a success; fail when one is a failure, or when some are not in after `limit_s`.

    `age_s`: since the commit was received. Checks that are not required decide nothing.
    """
    states = {check.name: check.state for check in reported}
    failed = [name for name in required if states.get(name) is CheckState.FAILURE]
    if failed:
        return Decision(Word.FAIL, f"check {', '.join(failed)} failed")
    missing = [name for name in required if states.get(name) is not CheckState.SUCCESS]
    if not missing:
        return Decision(Word.PASS, f"checks passed: {', '.join(required)}")
    if age_s >= limit_s:
        why = f"no result of check {', '.join(missing)} after {limit_s:.0f} s: is the CI server's report on its way?"
        return Decision(Word.FAIL, why, late=True)
    return Decision(Word.WAIT, f"waits for check {', '.join(missing)}")
