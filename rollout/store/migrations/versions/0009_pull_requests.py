"""A commit may be the head of a pull request: tested, and never shipped as such.

Revision: 0009, after 0008.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("commits", sa.Column("pull", sa.Integer(), nullable=True))
