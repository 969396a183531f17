"""Who has not taken a notice yet, and whether a git server that was asked in vain was silent, have columns of their own.

They stood in a last line of the notice's body, and in the sign of the count. And a `deploy --now` of a commit that has
failed is withdrawn, as it is since then when one fails: its tests, run again some day, would ship it by that word.

Revision: 0021, after 0020.
"""

import re
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

OWED = re.compile(r"\n\x1e([0-9 ]+)\Z")
notices = sa.table(
    "notices",
    *map(sa.column, ("id", "app", "title", "attempts", "due_at")),
    sa.column("body", sa.Text()),
    sa.column("owed", sa.JSON()),
    sa.column("created_at", sa.DateTime(timezone=True)),
)
apps = sa.table("apps", *map(sa.column, ("poll_failures", "poll_silent")))
commits = sa.table(
    "commits", *map(sa.column, ("id", "app", "sha", "state", "reason", "now_reason", "now_by"))
)
events = sa.table(
    "events",
    *map(sa.column, ("app", "subject", "what", "who", "why")),
    sa.column("at", sa.DateTime(timezone=True)),
)


def upgrade() -> None:
    """Go forward."""
    op.add_column("notices", sa.Column("owed", sa.JSON()))
    op.add_column("apps", sa.Column("poll_silent", sa.Boolean(), nullable=False, server_default=sa.false()))
    its = apps.c.poll_failures
    op.execute(sa.update(apps).where(its > 0).values(poll_silent=sa.true()))
    op.execute(sa.update(apps).where(its < 0).values(poll_failures=-its))
    _read_who_is_owed()
    _withdraw_wishes()


def _read_who_is_owed() -> None:
    """Of those that wait; what was sent or given up is nobody's any more, and loses the line only."""
    kept = sa.select(notices.c.id, notices.c.body).where(notices.c.body.contains("\x1e"))
    for notice in op.get_bind().execute(kept).all():
        if (found := OWED.search(notice.body)) is None:
            continue
        values = {"body": OWED.sub("", notice.body), "owed": sorted(map(int, found[1].split()))}
        op.execute(sa.update(notices).where(notices.c.id == notice.id).values(values))


def _withdraw_wishes() -> None:
    failed = (commits.c.state == "failed", commits.c.now_reason.is_not(None))
    at = datetime.now(UTC)
    for its in op.get_bind().execute(sa.select(commits).where(*failed).order_by(commits.c.id)).all():
        why = "it had failed before the upgrade" + (f": {its.reason}" if its.reason else "")
        event = {"at": at, "app": its.app, "subject": f"commit {its.sha}", "who": "upgrade", "why": why}
        op.execute(sa.insert(events).values(what="deploy --now withdrawn", **event))
        title = f"{its.app}: `deploy --now` of {its.sha[:12]} is withdrawn"
        body = (
            f"{its.now_by or 'somebody'} said: {its.now_reason}; {why}.\n"
            f"Next: if it is to go out all the same, rollout deploy {its.sha[:12]} --now --reason …"
        )
        notice = {
            "app": its.app,
            "title": title,
            "body": body,
            "attempts": 0,
            "due_at": 0.0,
            "created_at": at,
        }
        op.execute(sa.insert(notices).values(notice))
    op.execute(sa.update(commits).where(*failed).values(now_reason=None, now_by=None))
