"""`rollout why`: where a commit is, what it waits for, and when it should be out."""

from typing import Annotated

import typer

from rollout.cli import output
from rollout.cli.call import Call

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="COMMIT",
        help="A hash or its beginning, or the branch; default: the branch's head.",
        show_default=False,
    ),
]


def why(call: Call, commit: Name = None) -> int:
    """Say in one sentence where a commit is, what it waits for, and when it should be out."""
    from rollout.services import editions, explaining, views

    app = call.app()
    with call.store.reading() as tx:
        found = explaining.asked_for(tx, app, commit)
        told = explaining.why(tx, app, found)
        other = editions.other(tx, call.config)
    if call.json:
        expected = views.moment(told.expected_at)
        document = {
            "commit": found.sha,
            "state": str(found.state),
            "because": told.in_full,
            "expected_at": expected,
        }
        output.document(output.with_edition(document, other))
        return 0
    output.say(f"commit {output.short(found.sha)}: {output.expected(told, app)}")
    output.say_edition(other)
    return 0
