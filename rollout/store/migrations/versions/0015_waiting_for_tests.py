"""The commits that wait for their tests, or are in test, are found without looking at all of the app: each crowd of webhooks asks.

Revision: 0015, after 0014.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_index("ix_commits_app_state", "commits", ["app", "state"])
