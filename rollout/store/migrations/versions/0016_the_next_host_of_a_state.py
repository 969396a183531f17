"""The next host that is in a state is found without sorting all that are: every host's report asks for the next one.

Revision: 0016, after 0015.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_index(
        "ix_rollout_hosts_rollout_state_position", "rollout_hosts", ["rollout", "state", "position"]
    )
    op.drop_index("ix_rollout_hosts_rollout_state", "rollout_hosts")
