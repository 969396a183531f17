"""What came before what: a report of a CI server among that server's words, a webhook's head and the reading of the branch.

Revision: 0017, after 0016.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("checks", sa.Column("stamp", sa.String(60), nullable=False, server_default=""))
    for column in ("told_s", "read_s", "answered_s"):
        op.add_column("apps", sa.Column(column, sa.Float()))
