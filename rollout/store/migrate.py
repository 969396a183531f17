"""Schema migrations, by Alembic. It is imported by who migrates: the other processes, and each command, start without it."""

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from rollout.errors import ConfigError

_SCRIPTS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 7_655_688  # "rollout" on a telephone's keys: one process at a time migrates, or voids another boot's leases


def upgrade(engine: Engine) -> None:
    """Bring the schema to the newest revision; processes that start together do it once."""
    if present(engine):
        return
    from rollout.store import postgresql  # noqa: PLC0415  # its driver takes long to import

    with (
        engine.connect().execution_options(rollout_writes=True) as connection,
        connection.begin(),
        postgresql.unhurried(connection),
    ):
        alone(connection)
        _run(connection)


def alone(connection: Connection) -> None:
    """Until this transaction ends no other process does what is done once; SQLite's writers are one at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))


def present(engine: Engine) -> bool:
    """The schema is at the newest revision; ConfigError when it is at one that only a newer rollout knows."""
    newest = _newest()
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return False
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    if revision is not None and revision > newest:
        raise ConfigError(
            f"the database {engine.url.render_as_string(hide_password=True)} was written by a newer rollout:"
            f" its schema is {revision}, and this one knows none after {newest}",
            remedy="install the version that ran here last, or a newer one; or put a backup from before its upgrade in its place"
            " (no version takes the schema back)",
        )
    return bool(revision == newest)


@cache  # reads files: no transaction waits for that, and nobody a second time
def _newest() -> str:
    """Each file's name begins with its revision, and these count up."""
    return max(file.name.split("_")[0] for file in (_SCRIPTS / "versions").glob("*.py"))


def _run(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415  # a quarter of what a process takes to start
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
