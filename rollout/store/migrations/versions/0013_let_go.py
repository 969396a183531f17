"""What a person has unbarred since it was barred last: being the same as a barred one does not bar it again.

Revision: 0013, after 0012.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward; what was unbarred and has passed is not barred again by the first look at the branch."""
    op.add_column("commits", sa.Column("unbarred", sa.Boolean(), nullable=False, server_default=sa.false()))
    commits = sa.table("commits", *map(sa.column, ("app", "sha", "state", "unbarred")))
    events = sa.table("events", *map(sa.column, ("app", "subject", "what")))
    told = sa.select(events.c.app + " " + events.c.subject).where(events.c.what == "unbar")
    its = commits.c.app + " commit " + commits.c.sha
    op.execute(
        sa.update(commits).where(commits.c.state == "passed", its.in_(told)).values(unbarred=sa.true())
    )
