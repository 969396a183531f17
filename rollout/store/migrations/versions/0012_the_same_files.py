"""What a commit has in it, by git's own hash, and for whose sake one is barred that has the same in it.

Revision: 0012, after 0011.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("commits", sa.Column("tree", sa.String(40), nullable=True))
    op.add_column("commits", sa.Column("same_as", sa.String(40), nullable=True))
