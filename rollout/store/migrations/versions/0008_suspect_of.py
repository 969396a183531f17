"""A suspect knows the rollout that went wrong with it: what is found out of one batch says nothing of another.

Revision: 0008, after 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("commits", sa.Column("suspect_of", number, nullable=True))
