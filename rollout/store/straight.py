"""The statements that run for every host, straight to the driver: SQLAlchemy writes each once, and does not run it.

What it does for each run cost five times what SQLite takes to answer (decision 0018). Only a `Prepared` goes this way, which
is made at import or by a cached function: what is kept of it is kept for the store's whole life.
"""

from __future__ import annotations

import json
from collections import namedtuple
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy import JSON, Insert
from sqlalchemy.exc import MultipleResultsFound, NoResultFound

from rollout.store.at_once import as_list, over_many, with_constants

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Dialect


class Prepared:
    """A statement whose parameters come with each run, values to be set included; lists for an IN are not among them."""

    def __init__(self, statement: Any) -> None:
        self.statement = statement


class Answer:
    """All its rows, with names for their columns, and how many it changed."""

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows, self.rowcount = rows, rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def first(self) -> Any:
        """The first row, or None."""
        return self._rows[0] if self._rows else None

    def one(self) -> Any:
        """The only row."""
        if len(self._rows) != 1:
            raise (MultipleResultsFound if self._rows else NoResultFound)(f"{len(self._rows)} rows, not one")
        return self._rows[0]

    def scalar_one(self) -> Any:
        """The only row's first column."""
        return self.one()[0]

    def scalar_one_or_none(self) -> Any:
        """The same, or None where there is no row."""
        return self.one()[0] if self._rows else None

    def scalars(self) -> list[Any]:
        """The first column."""
        return [row[0] for row in self._rows]


class Straight:
    """What one store has run, as its driver takes it."""

    def __init__(self) -> None:
        self._ways: dict[tuple[Prepared, tuple[str, ...]], _Way] = {}

    def run(self, connection: Connection, prepared: Prepared, values: Mapping[str, Any]) -> Answer:
        """As `connection.execute`, errors included."""
        way = self._way(connection, prepared, values)
        return _sent(connection, way, way.parameters(values))

    def run_each(
        self, connection: Connection, prepared: Prepared, values: Sequence[Mapping[str, Any]]
    ) -> list[Answer]:
        """As `run`, for each of these, which all have the same names; PostgreSQL is sent one statement for all of them.

        No two of them are for the same row. Of an INSERT come its numbers alone, and only if it returns them.
        """
        if not values:
            return []
        if any(one.keys() != values[0].keys() for one in values):
            raise TypeError("rows with different parameters are for different statements")
        way = self._way(connection, prepared, values[0])
        if len(values) == 1:
            return [_sent(connection, way, way.parameters(values[0]))]
        if connection.dialect.name != "sqlite":
            return way.at_once.sent(connection, values)
        if isinstance(prepared.statement, Insert) and not way.has_rows:
            return [_sent(connection, way, [way.parameters(one) for one in values], many=True)]
        return [_sent(connection, way, way.parameters(one)) for one in values]

    def _way(self, connection: Connection, prepared: Prepared, values: Mapping[str, Any]) -> _Way:
        key = prepared, tuple(values)
        way = self._ways.get(key)
        if way is None:
            way = self._ways[key] = _Way(prepared.statement, connection.dialect, key[1])
        return way


def _sent(connection: Connection, way: _Way, parameters: Any, *, many: bool = False) -> Answer:
    driver, cursor = connection.connection, None
    try:
        cursor = driver.cursor()
        (cursor.executemany if many else cursor.execute)(way.sql, parameters)
        found = cursor.fetchall() if way.has_rows else None
        rowcount = cursor.rowcount
    except BaseException as error:  # noqa: BLE001 -- it raises it, or what SQLAlchemy makes of it
        _raise(connection, error, way, parameters, cursor)
    return Answer(way.read(found, cursor) if found else [], rowcount)


def _raise(connection: Connection, error: BaseException, way: _Way, parameters: Any, cursor: Any) -> NoReturn:
    # Not public; and nothing that is knows when a connection is lost, and asks the engine's listeners about it.
    its = way.sql if isinstance(error, connection.dialect.loaded_dbapi.Error) else None
    connection._handle_dbapi_exception(error, its, parameters, cursor, None)  # noqa: SLF001


class _Way:
    """A statement with parameters of these names, in the words of one kind of database."""

    def __init__(self, statement: Any, dialect: Dialect, names: tuple[str, ...]) -> None:
        self._dialect, self._statement = dialect, statement
        if dialect.name == "postgresql":
            statement = with_constants(statement, names)
        compiled = statement.compile(dialect=dialect, column_keys=list(names))
        assert not compiled.prefetch, "defaults that SQLAlchemy makes are for SQLAlchemy to run"
        its = compiled.construct_expanded_state(dict.fromkeys(names))
        if its.parameter_expansion.keys() & set(names):
            raise TypeError("a list for an IN is part of its statement: that is for `connection.execute`")
        self.sql: str = its.statement
        self._kinds = {name: compiled.binds[name].type for name in names}
        self._types = [column.type for column in statement.exported_columns]
        self.has_rows = bool(self._types)
        self._row: Any = None
        # Drivers want their parameters in a list, or by name: a place is either's.
        by_number = compiled.positional
        places = enumerate(its.positiontup) if by_number else ((name, name) for name in its.parameters)
        self._template: Any = [None] * len(its.positiontup) if by_number else {}
        self._given: list[tuple[Any, str, Any]] = []
        for place, name in places:
            process = its.processors.get(name)
            if name in compiled.binds:
                process = self._its(compiled.binds[name].type).bind_processor(dialect)
            if name in names:
                self._given.append((place, name, process))
            else:
                value = its.parameters[name]
                self._template[place] = value if process is None else process(value)

    @cached_property
    def at_once(self) -> _AtOnce:
        """The same for many rows."""
        processes = {
            name: json.dumps if isinstance(self._kinds[name], JSON) else process
            for _, name, process in self._given
        }
        many = over_many(self._statement, self._kinds)
        inserts = isinstance(self._statement, Insert)
        return _AtOnce(_Way(many, self._dialect, tuple(self._kinds)), processes, inserts=inserts)

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """These, and the statement's own."""
        filled = self._template.copy()
        for place, name, process in self._given:
            value = values[name]
            filled[place] = value if process is None else process(value)
        return filled

    def read(self, found: Sequence[Any], cursor: Any) -> list[Any]:
        """The driver's rows as the columns' types have them."""
        if self._row is None:
            description = cursor.description  # PostgreSQL's types depend on what comes
            self._convert = [
                (place, process)
                for place, (kind, its) in enumerate(zip(self._types, description, strict=True))
                if (process := self._its(kind).result_processor(self._dialect, its[1]))
            ]
            names = [its[0] for its in description]
            row: Any = namedtuple("Row", names, rename=True)  # type: ignore[misc]  # noqa: PYI024
            self._row = row._make
        rows = []
        for one in found:
            values = list(one)
            for place, process in self._convert:
                values[place] = process(values[place])
            rows.append(self._row(values))
        return rows

    def _its(self, kind: Any) -> Any:
        return kind.dialect_impl(self._dialect)


class _AtOnce:
    """One statement for many rows."""

    def __init__(self, way: _Way, processes: Mapping[str, Any], *, inserts: bool) -> None:
        self._way, self._processes, self._inserts = way, processes, inserts

    def sent(self, connection: Connection, values: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """What came of each."""
        lists = {name: as_list(self._column(name, values)) for name in self._processes}
        rows = _sent(connection, self._way, self._way.parameters(lists))
        if not self._way.has_rows:
            return [Answer([], len(values))]
        if self._inserts:  # it gives out numbers in the rows' order, and says them in any
            return [Answer([row], 1) for row in sorted(rows)]
        found: list[list[Any]] = [[] for _ in values]
        for row in rows:
            found[row[-1] - 1].append(row)
        return [Answer(its, len(its)) for its in found]

    def _column(self, name: str, values: Sequence[Mapping[str, Any]]) -> list[Any]:
        process = self._processes[name]
        return [one[name] if process is None else process(one[name]) for one in values]
