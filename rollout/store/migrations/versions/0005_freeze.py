"""Automation stands still for an app: since when, until when, by whom, and why.

Revision: 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    for moment in ("frozen_at", "frozen_until"):
        op.add_column("apps", sa.Column(moment, sa.DateTime(timezone=True), nullable=True))
    for text in ("frozen_by", "frozen_reason"):
        op.add_column("apps", sa.Column(text, sa.Text(), nullable=True))
