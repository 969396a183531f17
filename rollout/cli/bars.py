"""`rollout bar` and `unbar`: keeping a commit out by hand."""

from typing import TYPE_CHECKING, Annotated

import typer

from rollout.cli import output
from rollout.cli.call import Call, who
from rollout.cli.options import NeededReason, Reason

if TYPE_CHECKING:
    from rollout.domain.model import Commit

Name = Annotated[str, typer.Argument(metavar="COMMIT", help="A hash or its beginning.")]


def bar(call: Call, commit: Name, *, reason: NeededReason) -> int:
    """Keep a commit out: automation ships neither it nor what comes after it, until it is reverted or unbarred."""
    from rollout.services import bars, explaining

    barred = bars.bar(call.app().name, commit, call.deps, who=who(), why=reason)
    with call.store.reading() as tx:
        brought, line = bars.brought_by(tx, barred), tx.commits.on_line(barred)
        left = None if brought else bars.what_a_bar_leaves(tx, barred)
    words = "is barred"
    if line.sha != barred.sha:  # it is not tested, nor shipped, by itself
        words = f"is barred, and {output.short(line.sha)} with it, which it came in with"
    _print(call, barred, words)
    if left:
        output.warn(left)
    if brought is not None:
        rollout, found = brought
        goes = "it" if found.sha == barred.sha else f"{output.short(found.sha)}, which has the same in it,"
        output.warn(
            f"{goes} is on its way with rollout {rollout.id} ({explaining.stage(rollout)}), which a bar does not stop:"
            f" rollout stop {rollout.id} takes it back"
        )
    return 0


def unbar(call: Call, commit: Name, *, reason: Reason = None) -> int:
    """Let automation ship a barred commit after all."""
    from rollout.services import bars

    why = reason or f"allowed by {who()}"
    allowed, lifted = bars.unbar(call.app().name, commit, call.deps, who=who(), why=why)
    words = "may be shipped again"
    if lifted:
        words += f"; it was barred: {output.clean(lifted)}"
    elif allowed.suspect:
        words += (
            "; it goes out by itself, as all do that went wrong together, and nobody is barred by elimination"
        )
    _print(call, allowed, words)
    return 0


def _print(call: Call, commit: "Commit", words: str) -> None:
    if call.json:
        output.document({"commit": commit.sha, "state": str(commit.state), "reason": commit.barred_for})
    else:
        output.say(f"commit {output.short(commit.sha)} {words}")
