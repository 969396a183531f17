"""The commits that have a message are found without looking at all that wait: each crowd of webhooks asks how many there are.

Revision: 0022, after 0021.
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_index("ix_commits_app_state_due_at", "commits", ["app", "state", "due_at"])
    op.drop_index("ix_commits_app_state", "commits")
