"""What every table of rollout.toml is: frozen, closed to unknown keys, and checked as a whole."""

from collections.abc import Iterator
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

TOGETHER = "together"


class Clash(NamedTuple):
    """A value that does not go with the others of its table."""

    key: str
    found: object
    expected: str


class Table(BaseModel):
    """A table of rollout.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def clashes(self) -> Iterator[Clash]:
        """What is wrong with the values taken together."""
        yield from ()

    @model_validator(mode="after")
    def _together(self) -> Self:
        clashes = list(self.clashes())
        if clashes:
            raise PydanticCustomError(TOGETHER, "values that go together", {"clashes": clashes})
        return self
