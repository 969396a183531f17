"""What is wrong with rollout.toml, said so that a person can mend it: path, found, expected, nearest spelling."""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rollout.config.fields import LATER
from rollout.config.table import TOGETHER, Table
from rollout.errors import ConfigError

SECRET = frozenset({"server.database", "server.broker", "notify.urls", "repository", "canary.prometheus"})
TAGS = frozenset({"name", "table"})
EXPECTED = {
    "missing": "a value, as it has no default",
    "string_type": "a text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "model_type": "a table",
    "dict_type": "a table",
    "tuple_type": "a list",
    "too_short": "at least one element",
}
MOST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def unknown_key(path: str, key: str, known: Iterable[str]) -> Problem:
    """A key that nobody reads, with the one that was probably meant."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
    return Problem(path, f"unknown key; {meant}")


def wrong(path: str, found: object, expected: str) -> Problem:
    """A value that is not what it should be."""
    if expected.startswith(LATER):
        return Problem(
            path, f"found {shown(path, found)}, which is not yet built{expected.removeprefix(LATER)}"
        )
    return Problem(path, f"found {shown(path, found)}, expected {expected}")


def shown(path: str, found: object) -> str:
    """The value as it stands in the file, cut; what may hold a password is not shown."""
    if any(part in path for part in SECRET) and isinstance(found, str) and ("@" in found or "://" in found):
        return "a value that is not shown here, as it may hold a password"
    if found is None:
        return "nothing"
    text = "a table" if isinstance(found, Mapping) else json.dumps(found, default=str)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def from_validation(error: ValidationError, model: type[Table], at: str) -> Iterator[Problem]:
    """Every problem that pydantic found in the table `at`."""
    for detail in error.errors(include_url=False):
        yield from _from_detail(detail, model, at)


def refuse(path: Path, problems: Sequence[Problem]) -> None:
    """ConfigError that lists the problems, when there are some."""
    if problems:
        raise ConfigError(listed(path, problems), remedy=f"edit {path}")


def listed(path: Path, problems: Sequence[Problem]) -> str:
    """All of them, a line each below the first."""
    return "\n".join([f"{path}: {len(problems)} to mend", *(f"  {problem}" for problem in problems)])


def _from_detail(detail: ErrorDetails, model: type[Table], at: str) -> Iterator[Problem]:
    location = [part for index, part in enumerate(detail["loc"]) if not _is_tag(detail["loc"], index)]
    path = _join(at, location)
    match detail["type"]:
        case kind if kind == TOGETHER:
            for clash in detail["ctx"]["clashes"]:
                yield wrong(f"{path}.{clash.key}", clash.found, clash.expected)
        case "extra_forbidden":
            yield unknown_key(path, str(location[-1]), _table_at(model, location[:-1]).model_fields)
        case "missing":
            yield wrong(path, None, EXPECTED["missing"])
        case "value_error":
            yield wrong(path, detail["input"], str(detail["ctx"]["error"]))
        case "literal_error":
            yield wrong(path, detail["input"], detail["ctx"]["expected"].replace("'", '"'))
        case kind:
            yield wrong(path, detail["input"], EXPECTED.get(kind, detail["msg"]))


def _is_tag(location: Sequence[int | str], index: int) -> bool:
    return index > 1 and isinstance(location[index - 1], int) and location[index] in TAGS


def _join(at: str, location: Sequence[int | str]) -> str:
    path = at
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path


def _table_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel]:
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            inner = _tables_in(model.model_fields[part].annotation)
            model = inner or model
    return model


def _tables_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in {tuple, Union, UnionType} or hasattr(annotation, "__metadata__"):
        for inner in get_args(annotation):
            found = _tables_in(inner)
            if found:
                return found
    return None
