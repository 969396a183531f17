"""When hosts were switched, when the canary passed, when the fan-out is looked at next; what hosts owe, since when they wait.

Revision: 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


# What was sent to a host last; and, where that host could not be brought back, where it was to go.
_NEWEST_OPERATION = """
    UPDATE fleet_hosts SET operation = COALESCE(
        (SELECT MAX(h.operation) FROM rollout_hosts h WHERE h.app = fleet_hosts.app AND h.name = fleet_hosts.name), 0)
"""
_DEBTS = """
    UPDATE fleet_hosts SET owes = TRUE, owed = (
        SELECT COALESCE(r.rollback_to, h.previous) FROM rollout_hosts h JOIN rollouts r ON r.id = h.rollout
        WHERE h.app = fleet_hosts.app AND h.name = fleet_hosts.name AND h.touched
        ORDER BY h.operation DESC LIMIT 1)
    WHERE 'rollback_failed' = (
        SELECT h.state FROM rollout_hosts h
        WHERE h.app = fleet_hosts.app AND h.name = fleet_hosts.name AND h.touched
        ORDER BY h.operation DESC LIMIT 1)
"""


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
    for statement in (_NEWEST_OPERATION, _DEBTS):
        op.execute(statement)
