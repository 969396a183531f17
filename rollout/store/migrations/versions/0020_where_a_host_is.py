"""Port, user and variables of a host stand where its address does: what is known of where it is, is in one place.

Of the hosts that are known it is what their last rollout at that address had, else their last one; of others the next reading of the inventory says it.

Revision: 0020, after 0019.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

ITS = ("app", "name", "address", "port", "user", "variables")


def upgrade() -> None:
    """Go forward."""
    op.add_column("fleet_hosts", sa.Column("port", sa.Integer()))
    op.add_column("fleet_hosts", sa.Column("user", sa.String(100)))
    op.add_column("fleet_hosts", sa.Column("variables", sa.JSON()))
    fleet = sa.table("fleet_hosts", *(sa.column(name) for name in ITS))
    hosts = sa.table("rollout_hosts", *(sa.column(name) for name in (*ITS, "rollout")))
    its = (hosts.c.app == fleet.c.app, hosts.c.name == fleet.c.name)

    def last(name: str, *where: sa.ColumnElement[bool]) -> sa.ScalarSelect[object]:
        found = sa.select(hosts.c[name]).where(*its, *where)
        return found.order_by(hosts.c.rollout.desc()).limit(1).correlate(fleet).scalar_subquery()

    is_there = hosts.c.address == fleet.c.address
    said = {
        name: sa.func.coalesce(last(name, is_there), last(name)) for name in ("port", "user", "variables")
    }
    op.execute(sa.update(fleet).values(said))
