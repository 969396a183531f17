"""Each delivery comes to one end: when, and what that end names; and when a branch was looked at.

Deliveries of before come to their ends as the rows are now.

Revision: 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("apps", sa.Column("looked_s", sa.Float(), nullable=True))
    op.add_column("deliveries", sa.Column("ref", sa.String(60), nullable=True))
    op.add_column("deliveries", sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE deliveries SET settled_at = received_at WHERE outcome <> 'accepted'")
    op.create_index("ix_deliveries_outcome_app_head", "deliveries", ["outcome", "app", "head"])
