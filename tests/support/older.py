"""Tables as an older version left them, for tests of migrations."""

from alembic.migration import MigrationContext
from alembic.operations import Operations


def checks_of_0018(connection):
    """One word on each check of a commit, and nobody knows what said it."""
    operations = Operations(MigrationContext.configure(connection))
    with operations.batch_alter_table("checks") as checks:
        checks.drop_constraint("uq_checks_app_sha_name_thing_run", type_="unique")
        for column in ("thing", "run", "attempt", "since", "until"):
            checks.drop_column(column)
        checks.create_unique_constraint("uq_checks_app_sha_name", ["app", "sha", "name"])


def columns_of_0020(connection):
    """Who has not taken a notice stands in its body, and whether a git server was silent in a count's sign."""
    operations = Operations(MigrationContext.configure(connection))
    operations.drop_column("notices", "owed")
    operations.drop_column("apps", "poll_silent")


def hosts_of_0019(connection):
    """Of where a host is, `fleet_hosts` has the address only."""
    operations = Operations(MigrationContext.configure(connection))
    for column in ("port", "user", "variables"):
        operations.drop_column("fleet_hosts", column)


def commits_of_0021(connection):
    """Those that have a message are counted among all that wait."""
    operations = Operations(MigrationContext.configure(connection))
    operations.drop_index("ix_commits_app_state_due_at", "commits")
    operations.create_index("ix_commits_app_state", "commits", ["app", "state"])
