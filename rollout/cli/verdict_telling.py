"""A verdict as a document, and in words."""

from typing import TYPE_CHECKING, Any

from rollout.cli import output

if TYPE_CHECKING:
    from rollout.domain.verdict import Verdict

COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}


def document(verdict: "Verdict") -> dict[str, Any]:
    """What `judge --json` prints."""
    return {
        "status": str(verdict.status),
        "reason": verdict.reason,
        "explanation": verdict.explanation,
        "t": verdict.t,
        "evidence": dict(verdict.evidence),
    }


def say(verdict: "Verdict", before: str = "") -> None:
    """The word, then the sentences, then the numbers."""
    word = output.paint(str(verdict.status), COLOURS[verdict.status])
    output.say(f"{before}{word}: {verdict.reason}, after {verdict.t:g} s")
    output.say(output.clean(verdict.explanation))
    told = ", ".join(f"{name} {value:.4g}" for name, value in verdict.evidence.items())
    output.say(output.paint(f"evidence: {told}", "dim"))
