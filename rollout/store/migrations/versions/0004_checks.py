"""How a commit's tests went: how often red, flaky or not, how long; what CI servers reported.

Revision: 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("commits", sa.Column("flaky", sa.Boolean(), nullable=False, server_default=sa.false()))
    for counter in ("reds", "lost"):
        op.add_column("commits", sa.Column(counter, sa.Integer(), nullable=False, server_default="0"))
    op.add_column("commits", sa.Column("took_s", sa.Float(), nullable=True))
    op.add_column("apps", sa.Column("red_told", sa.String(40), nullable=True))
    op.create_table(
        "checks",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("app", sa.String(100), nullable=False),
        sa.Column("sha", sa.String(40), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("source", sa.String(30), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_checks"),
        sa.UniqueConstraint("app", "sha", "name", name="uq_checks_app_sha_name"),
    )
