"""Schema migrations, by Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from rollout.store import postgresql

_SCRIPTS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 7_655_688  # "rollout" on a telephone's keys: one migration at a time


def upgrade(engine: Engine) -> None:
    """Bring the schema to the newest revision; processes that start together do it once."""
    if present(engine):
        return
    with engine.connect().execution_options(rollout_writes=True) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        with postgresql.unhurried(connection):
            command.upgrade(_config(connection), "head")


def present(engine: Engine) -> bool:
    """The schema is at the newest revision."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() == _newest()


def _newest() -> str | None:
    return ScriptDirectory(str(_SCRIPTS)).get_current_head()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    return config
