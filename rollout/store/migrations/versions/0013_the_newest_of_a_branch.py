"""The newest commits of a branch are found without looking at all of them: each webhook of a known commit asks for the head.

Revision: 0013, after 0012.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_index("ix_commits_app_position", "commits", ["app", "position"])
