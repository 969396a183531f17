"""When a host was seen to be in the inventory no more; when a CI server's run of a check began, and how long it took; a host's rollouts.

Revision: 0018, after 0017.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("fleet_hosts", sa.Column("left_at", sa.DateTime(timezone=True)))
    op.add_column("checks", sa.Column("began_at", sa.DateTime(timezone=True)))
    op.add_column("checks", sa.Column("took_s", sa.Float()))
    op.create_index("ix_rollout_hosts_app_name_rollout", "rollout_hosts", ["app", "name", "rollout"])
