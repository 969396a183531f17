"""Hosts that are behind: how often each was tried, and when somebody last looked at the app's inventory for new ones.

Revision: 0010, after 0009.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("rollout_hosts", sa.Column("tries", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("apps", sa.Column("members_read_at", sa.Float(), nullable=True))
