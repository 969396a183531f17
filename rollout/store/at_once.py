"""One statement of PostgreSQL's that does for many rows what a `Prepared` does for each of them.

The server and its driver spend more on a statement than on most rows. So each parameter becomes a list, and the lists are
read side by side as rows of a table: what is sent, and so what the server has prepared, is the same for any number of them.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Insert,
    String,
    Text,
    Update,
    bindparam,
    cast,
    column,
    func,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql import visitors

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
PLACE = "place"  # of a row among those that were given, from 1


def with_constants(statement: Any, names: Collection[str]) -> Any:
    """The statement with all but the parameters of these names written into it.

    A server that is to plan once for all runs knows then how many rows are in such a state; else it plans anew for each, which
    costs more than most runs do, or it reads the whole table.
    """

    def written(element: Any, **_: Any) -> ColumnElement[Any] | None:
        if not isinstance(element, BindParameter) or element.key in names:
            return None
        its = element.type.dialect_impl(_DIALECT)
        has_words = element.value is not None and its.literal_processor(_DIALECT) is not None
        return element.render_literal_execute() if has_words else None

    return visitors.replacement_traverse(statement, {}, written)


def over_many(statement: Any, kinds: Mapping[str, Any]) -> Any:
    """The statement for rows with parameters of these names and types.

    It returns what it did for each, with the row's place at the end; an INSERT nothing but what it says itself.
    """
    given = _given(kinds)
    if isinstance(statement, Insert):
        rows = select(*(given.c[name] for name in kinds)).order_by(given.c[PLACE])
        return statement.from_select(list(kinds), rows)
    if isinstance(statement, Update):
        own = _names_in(statement)
        statement = statement.values(
            {name: bindparam(name, type_=kind) for name, kind in kinds.items() if name not in own}
        ).returning(given.c[PLACE])

    def from_its_row(element: Any, **_: Any) -> ColumnElement[Any] | None:
        its = isinstance(element, BindParameter) and element.key in kinds
        return given.c[element.key] if its else None

    many = visitors.replacement_traverse(statement, {}, from_its_row)
    # What it returned before, if anybody has asked for that, is remembered by what is made of it.
    for remembered in ("exported_columns", "_all_selected_columns"):
        many.__dict__.pop(remembered, None)
    return many if isinstance(many, Update) else many.add_columns(given.c[PLACE])


def _given(kinds: Mapping[str, Any]) -> Any:
    """The rows, as a table."""
    # A cast to so many characters would cut what has more.
    kinds = {name: Text() if isinstance(kind, String) else kind for name, kind in kinds.items()}
    # From a query of its own: a planner that knew how many there are would plan anew for each run.
    lists = (
        cast(select(bindparam(name, type_=Text())).scalar_subquery(), ARRAY(kind))
        for name, kind in kinds.items()
    )
    columns = (column(name, kind) for name, kind in kinds.items())
    table = func.unnest(*lists).table_valued(*columns, with_ordinality=PLACE, name="given")
    return table.render_derived("given")


def as_list(values: Iterable[Any]) -> str:
    """As PostgreSQL reads an array: a driver would have to guess the type of each."""
    return "{" + ",".join(map(_written, values)) + "}"


def _written(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, int | float):
        return repr(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _names_in(statement: Any) -> set[str]:
    """Of its parameters."""
    return {element.key for element in visitors.iterate(statement) if isinstance(element, BindParameter)}
