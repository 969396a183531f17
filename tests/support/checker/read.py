"""From what a run leaves behind to a History: journals and disks of hosts, the store's tables, a World of the tests."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tests.support.checker.history import Disk, History, Record, Row
from tests.support.host_sh import tree_digest

TABLES = (
    "events",
    "rollouts",
    "rollout_hosts",
    "fleet_hosts",
    "commits",
    "releases",
    "deliveries",
    "samples",
    "outputs",
    "notices",
)
_JSON = {"commits", "confirmed", "unconfirmed", "policy", "variables", "counts", "flags"}


# -- hosts -------------------------------------------------------------------------------------------------------------


def boot_time() -> datetime:
    """When this machine's CLOCK_BOOTTIME (`clock=` of a host on this machine) was 0."""
    return datetime.now(UTC) - timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))


def journal(content: str, booted: datetime | None = None) -> list[Record]:
    """The whole records of a journal; `booted` maps the host's clock to the time of day."""
    return [
        _record(dict(word.partition("=")[::2] for word in line.split(" ")), booted)
        for line in content.split("\n")
        if line.startswith("op=") and line.endswith(" whole=1")
    ]


def disk(path: Path, booted: datetime | None = None) -> Disk:
    """A host's folder, read as it lies there: journal, `current`, and the digest of the tree behind it."""
    file = path / ".rollout" / "journal"
    content = file.read_text(errors="replace") if file.exists() else ""
    first = next((line for line in content.split("\n") if line.endswith(" whole=1")), "")
    current = _current(path)
    tree = path / "releases" / current if current not in {None, "foreign"} else None
    return Disk(
        records=journal(content, booted),
        current=current,
        digest=tree_digest(tree) if tree is not None else None,
        whole=" line=1 " in first or not first,
    )


def model(host: Any) -> Disk:
    """A ModelHost of tests/support/model_host.py."""
    return Disk(
        records=[
            Record(
                entry.operation,
                entry.epoch,
                entry.verb,
                entry.what,
                entry.commit,
                entry.at,
                entry.came_from,
                entry.already,
            )
            for entry in host.journal
        ],
        current=host.current,
        # A host that has lost its disk since anybody was there is like one that nobody could read.
        reachable=not (host.unreachable or host.refuses_login or host.unseen),
        whole=host.whole,
        seals=True,
    )


def _record(words: Mapping[str, str], booted: datetime | None) -> Record:
    return Record(
        operation=int(words["op"]),
        epoch=int(words["epoch"]),
        verb=words["verb"],
        what=words["what"],
        commit=_target(words["commit"]),
        at=booted + timedelta(milliseconds=int(words["clock"])) if booted else None,
        came_from=_target(words.get("from", "none")),
        already=words.get("already") == "yes",
    )


def _target(word: str) -> str | None:
    return None if word == "none" else word


def _current(path: Path) -> str | None:
    link = path / "current"
    if not link.exists() and not link.is_symlink():
        return None
    place = link.resolve()
    ours = link.is_symlink() and place.parent == (path / "releases").resolve() and place.is_dir()
    return place.name if ours else "foreign"


# -- the store ---------------------------------------------------------------------------------------------------------


def store(url: str, app: str | None = None) -> dict[str, list[Row]]:
    """Every table, in one transaction: a SQLite file by plain sqlite3, whatever else by SQLAlchemy.

    With `app`, that app's rows alone: hosts of several apps may have the same names.
    """
    tables = _sqlite(url) if url.startswith("sqlite:///") else _any(url)
    if app is None:
        return tables
    return {name: [row for row in rows if row.get("app", app) == app] for name, rows in tables.items()}


def _sqlite(url: str) -> dict[str, list[Row]]:
    with closing(sqlite3.connect(unquote(url.removeprefix("sqlite:///")), isolation_level=None)) as database:
        database.row_factory = sqlite3.Row
        database.execute("BEGIN")
        return _tables(lambda query: [dict(row) for row in database.execute(query)])


def _any(url: str) -> dict[str, list[Row]]:
    engine = create_engine(url, poolclass=NullPool, isolation_level="REPEATABLE READ")
    with engine.connect() as connection:
        return _tables(lambda query: [dict(row) for row in connection.execute(text(query)).mappings()])


def _tables(ask: Callable[[str], Iterable[dict[str, Any]]]) -> dict[str, list[Row]]:
    return {name: [_plain(row) for row in ask(f"SELECT * FROM {name}")] for name in TABLES}


def _plain(row: dict[str, Any]) -> Row:
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if name in _JSON and isinstance(value, str):
        return json.loads(value)
    if (name == "at" or name.endswith("_at")) and isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value


# -- a World -----------------------------------------------------------------------------------------------------------


def world(run: Any, *, at_rest: bool = False, secrets: Sequence[str] = ()) -> History:
    """A World of tests/support/world.py as it is now."""
    return History(
        tables=store(run.store.url),
        disks={name: model(host) for name, host in run.fleet.hosts.items()},
        at_rest=at_rest,
        secrets=secrets,
        texts={"notices": "\n".join(f"{title}\n{body}" for title, body in run.notifier.sent)},
    )
