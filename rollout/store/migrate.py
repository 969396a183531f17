"""Schema migrations, by Alembic."""

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

_SCRIPTS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 7_655_688  # "rollout" on a telephone's keys: one migration at a time


def upgrade(engine: Engine) -> None:
    """Bring the schema to the newest revision; processes that start together do it once."""
    if present(engine):
        return
    # Only now: they take long to import, and `rollout stop` is in a hurry.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    from rollout.store import postgresql  # noqa: PLC0415

    with (
        engine.connect().execution_options(rollout_writes=True) as connection,
        connection.begin(),
        postgresql.unhurried(connection),
    ):
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        config = Config()
        config.set_main_option("script_location", str(_SCRIPTS))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def present(engine: Engine) -> bool:
    """The schema is at the newest revision."""
    newest = max(path.name[:4] for path in (_SCRIPTS / "versions").glob("[0-9]*.py"))
    with engine.connect() as connection:
        return _revision(connection) == newest


def _revision(connection: Connection) -> str | None:
    """As Alembic has written it; None in an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision
