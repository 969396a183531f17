"""`[apps.X.fleet]`: which hosts, and how to reach them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StrictStr, Tag

from rollout.config import ranges
from rollout.config.fields import FilePath, OptionalFilePath, Port, User
from rollout.config.table import Clash, Table
from rollout.domain import template

BUILT_IN = frozenset({"name", "address"})


def _value(given: object) -> str:
    if (
        isinstance(given, bool)
        or not isinstance(given, str | int)
        or not template.VALUE.fullmatch(str(given))
    ):
        raise ValueError("a text of letters, digits and . _ : / @ -")
    return str(given)


def _vars(given: dict[str, str]) -> dict[str, str]:
    if any(not template.NAME.fullmatch(name) or name in BUILT_IN for name in given):
        raise ValueError("variables named with letters, digits and _, other than name and address")
    return given


def _ranged(given: str) -> str:
    ranges.count(given)
    return given


def _own(given: str) -> str:
    return _ranged(given) if given else given  # "" is what a rollout's policy keeps of a host that has none


class Entry(Table):
    """A host, or several that differ by a range, as a table."""

    name: Annotated[StrictStr, AfterValidator(_ranged)]
    address: Annotated[StrictStr, AfterValidator(_own)] = ""
    port: Port | None = None
    user: User | None = None
    vars: Annotated[dict[str, Annotated[str, BeforeValidator(_value)]], AfterValidator(_vars)] = Field(
        default_factory=dict
    )


def _kind(given: Any) -> str | None:
    return "name" if isinstance(given, str) else "table" if isinstance(given, dict | Entry) else None


Host = Annotated[
    Annotated[Annotated[StrictStr, AfterValidator(_ranged)], Tag("name")] | Annotated[Entry, Tag("table")],
    Discriminator(
        _kind,
        custom_error_type="host",
        custom_error_message='a name such as "web[001:100].example.com", or a table {name=…, address=…}',
    ),
]


class FleetConfig(Table):
    """The `[apps.X.fleet]` table."""

    hosts: tuple[Host, ...] = ()
    inventory: OptionalFilePath = None
    user: User = "deploy"
    port: Port = 22
    identity_file: OptionalFilePath = Field(default=Path("~/.ssh/id_ed25519"), validate_default=True)
    known_hosts: FilePath = Field(default=Path("~/.ssh/known_hosts"), validate_default=True)

    def clashes(self) -> Iterator[Clash]:
        """Hosts come from one place, and there are some."""
        if self.inventory and self.hosts:
            yield Clash("inventory", str(self.inventory), "nothing, as there are hosts: one of the two")
        if not (self.inventory or self.hosts):
            yield Clash("hosts", None, "at least one host (or an inventory)")
