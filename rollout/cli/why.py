"""`rollout why`: where a commit is, what it waits for, and when it should be out."""

from datetime import timedelta
from typing import Annotated

import typer

from rollout.cli import output
from rollout.cli.call import Call

Name = Annotated[str, typer.Argument(metavar="COMMIT", help="A hash or its beginning.")]


def why(call: Call, commit: Name) -> int:
    """Say in one sentence where a commit is, what it waits for, and when it should be out."""
    from rollout.services import bars, explaining, views

    app = call.app()
    with call.store.reading() as tx:
        found = bars.named(tx, app.name, commit)
        told, now = explaining.why(tx, app, found), tx.today()
    if call.json:
        expected = views.moment(told.expected_at)
        document = {
            "commit": found.sha,
            "state": str(found.state),
            "because": told.because,
            "expected_at": expected,
        }
        output.document(document)
        return 0
    at = ""
    if told.expected_at is not None:
        wall = told.expected_at.astimezone(app.queue.zone)
        day = "%a %H:%M" if told.expected_at - now > timedelta(hours=12) else "%H:%M"
        at = f", at about {wall:{day}} {wall:%Z}"
    output.say(f"commit {output.short(found.sha)}: {output.clean(told.because)}{at}")
    return 0
