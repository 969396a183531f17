"""Durations: "90s" "5m" "1h" in the file, seconds in the program."""

import re
from decimal import Decimal

DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)")
SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}


def parse(given: object) -> float:
    """Seconds; ValueError says what was expected. A bare number has no unit and is refused."""
    found = DURATION.fullmatch(given) if isinstance(given, str) else None
    if not found:
        raise ValueError('a duration such as "90s", "5m" or "1h"')
    return float(Decimal(found[1]) * SECONDS[found[2]])


def text(seconds: float) -> str:
    """The duration in the largest unit that keeps it whole: 90 is "90s", 300 is "5m"."""
    exact = Decimal(repr(seconds))
    if exact and exact % 60 == 0:
        unit = "h" if exact % 3600 == 0 else "m"
        return f"{exact / SECONDS[unit]:f}".removesuffix(".0") + unit
    return f"{exact:f}".removesuffix(".0") + "s"
