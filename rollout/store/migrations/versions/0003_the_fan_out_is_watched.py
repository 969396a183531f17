"""When hosts were switched, when the canary passed, when the fan-out is looked at next; what hosts owe, since when they wait.

Revision: 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("rollouts", sa.Column("passed_t", sa.Float(), nullable=True))
    op.add_column("rollouts", sa.Column("accepted_at", sa.Float(), nullable=True))
    op.add_column("rollouts", sa.Column("watch_due_at", sa.Float(), nullable=True))
    op.add_column("rollout_hosts", sa.Column("touched_at", sa.Float(), nullable=True))
    op.add_column("rollout_hosts", sa.Column("switched_at", sa.Float(), nullable=True))
    op.add_column("fleet_hosts", sa.Column("operation", sa.BigInteger(), nullable=False, server_default="0"))
    for table in ("rollout_hosts", "fleet_hosts"):
        op.add_column(table, sa.Column("owes", sa.Boolean(), nullable=False, server_default=sa.false()))
        op.add_column(table, sa.Column("owed", sa.String(40), nullable=True))
    op.add_column("rollout_hosts", sa.Column("busy_since", sa.Float(), nullable=True))
