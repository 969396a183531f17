"""Ages and durations by the store's clock.

Revision: 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("commits", sa.Column("received_s", sa.Float(), nullable=True))
    op.add_column("rollouts", sa.Column("began_s", sa.Float(), nullable=True))
    op.add_column("rollouts", sa.Column("took_s", sa.Float(), nullable=True))
