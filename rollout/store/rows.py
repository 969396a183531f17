"""From a row to the frozen dataclass of the same shape.

Statements that run for every host are built once, at import or by a cached function: building one with SQLAlchemy
costs several times what SQLite needs to run it.
"""

import functools
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, TypeVar, cast

from sqlalchemy import Row, Select, Table, select

T = TypeVar("T")


def load(cls: type[T], row: Row[Any] | None, **converters: Any) -> T | None:
    """`cls` filled from a row that begins with `columns(cls, …)`, some of them through a converter."""
    return None if row is None else load_one(cls, row, **converters)


def load_one(cls: type[T], row: Any, **converters: Any) -> T:
    """As `load`, for a row that is there."""
    known = names(cast("Any", cls))
    values = list(row[: len(known)])
    for name, convert in converters.items():
        place = known.index(name)
        if values[place] is not None:
            values[place] = convert(values[place])
    return cls(*values)


def load_all(cls: type[T], rows: Iterable[Row[Any]], **converters: Any) -> list[T]:
    """As `load`, for many."""
    return [load_one(cls, row, **converters) for row in rows]


@functools.cache
def names(cls: Any) -> tuple[str, ...]:
    """The dataclass's field names."""
    return tuple(field.name for field in fields(cls))


@functools.cache
def columns(cls: Any, table: Table) -> tuple[Any, ...]:
    """The table's columns that the dataclass has."""
    return tuple(table.c[name] for name in names(cls))


@functools.cache
def rows_of(cls: Any, table: Table) -> Select[Any]:
    """A query for them, to be narrowed: most of what building one costs is its columns."""
    return select(*columns(cls, table))
