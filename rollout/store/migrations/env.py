"""Alembic's entry: the connection is given by `store/migrate.py`, with its transaction."""

from alembic import context

from rollout.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the caller's transaction holds everything, on SQLite too
    render_as_batch=True,
)
context.run_migrations()
