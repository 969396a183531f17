"""The newest commits of a branch are found without looking at all of them: each webhook of a known commit asks for the head.

Revision: 0014, after 0013.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_index("ix_commits_app_position", "commits", ["app", "position"])
