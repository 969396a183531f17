"""A report of a CI server has the place that it has among the server's own words: one that comes again is no news.

Revision: 0017, after 0016.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("checks", sa.Column("stamp", sa.String(60), nullable=False, server_default=""))
