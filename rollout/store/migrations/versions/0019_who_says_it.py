"""Which of a CI server's things says something of a check, and of which run: each is kept, and counts.

Of what an older version heard in a webhook nobody knows what said it, and its `thing` is empty: the next word of that server under its name takes its place.

Revision: 0019, after 0018.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    with op.batch_alter_table("checks") as checks:
        checks.add_column(sa.Column("thing", sa.String(300), nullable=False, server_default=""))
        for number in ("run", "attempt"):
            checks.add_column(sa.Column(number, sa.BigInteger(), nullable=False, server_default="0"))
        for time in ("since", "until"):
            checks.add_column(sa.Column(time, sa.Float()))
        checks.drop_constraint("uq_checks_app_sha_name", type_="unique")
        checks.create_unique_constraint(
            "uq_checks_app_sha_name_thing_run", ["app", "sha", "name", "thing", "run"]
        )
