"""Commits inside merges: which commit of the branch's line each came in with, and what they revert.

Revision: 0011, after 0010.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("commits", sa.Column("merged_into", sa.String(40), nullable=True))
    op.add_column("commits", sa.Column("mends", sa.Text(), nullable=False, server_default=""))
    op.create_index("ix_commits_app_merged_into", "commits", ["app", "merged_into"])
