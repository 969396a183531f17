"""From a row to the frozen dataclass of the same shape, and a guarded write."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, TypeVar

from sqlalchemy import Row, Table

T = TypeVar("T")


def load(cls: type[T], row: Row[Any] | None, **converters: Any) -> T | None:
    """`cls` filled from the row's columns of the same names, some of them through a converter."""
    return None if row is None else load_one(cls, row, **converters)


def load_one(cls: type[T], row: Any, **converters: Any) -> T:
    """As `load`, for a row that is there."""
    values = row._mapping  # noqa: SLF001  # SQLAlchemy's public name for it
    return cls(
        **{
            name: converters[name](values[name])
            if name in converters and values[name] is not None
            else values[name]
            for name in names(cls)
        }
    )


def load_all(cls: type[T], rows: Iterable[Row[Any]], **converters: Any) -> list[T]:
    """As `load`, for many."""
    return [load_one(cls, row, **converters) for row in rows]


def names(cls: type[Any]) -> list[str]:
    """The dataclass's field names."""
    return [field.name for field in fields(cls)]


def columns(cls: type[Any], table: Table) -> list[Any]:
    """The table's columns that the dataclass has."""
    return [table.c[name] for name in names(cls)]
