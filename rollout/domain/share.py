"""A part of a fleet: "1%" or a number of hosts. Exact arithmetic: 1 % of 300 is 3, never 2.9999."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole (`part`), or a fixed number (`count`); exactly one of the two is set."""

    part: Fraction | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if (self.part is None) == (self.count is None):
            raise ValueError("a share is either a part or a count")
        if self.part is not None and not 0 <= self.part <= 1:
            raise ValueError("a share lies between 0% and 100%")
        if self.count is not None and self.count < 0:
            raise ValueError("a number of hosts is not negative")

    @classmethod
    def parse(cls, given: object) -> Self:
        """Of "1%", "0.5%" or a whole number; ValueError says what was expected."""
        if isinstance(given, int) and not isinstance(given, bool):
            return cls(count=given)
        found = PERCENT.fullmatch(given) if isinstance(given, str) else None
        if not found:
            raise ValueError('a share such as "1%", or a number of hosts')
        return cls(part=Fraction(found[1]) / 100)

    def of(self, total: int) -> int:
        """How many of `total`, rounded down. A fixed number stays what it is."""
        return self.count if self.part is None else int(self.part * total)  # type: ignore[return-value]

    def __str__(self) -> str:
        return str(self.count) if self.part is None else f"{percent_text(self.part)}%"


def percent_text(part: Fraction) -> str:
    """`part` in hundredths, without trailing zeros: 1/200 is 0.5."""
    return f"{float(part * 100):.6f}".rstrip("0").rstrip(".")
