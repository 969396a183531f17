"""`{name}` in paths and commands: replaced for known variables only, everything else stays as it is.

`${name}` is the shell's and stays; so do `{a,b}`, `{}` and every name that is no variable.
"""

import re
from collections.abc import Mapping
from typing import Protocol

from rollout.errors import ConfigError

PLACE = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_]*)\}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
VALUE = re.compile(r"[A-Za-z0-9._:/@-]+")


class Named(Protocol):
    """A host as `fill` needs it: a fleet's member, or a host of a rollout."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def address(self) -> str:
        """Where it is."""

    @property
    def variables(self) -> Mapping[str, str]:
        """Its own variables."""


def variables_of(host: Named) -> dict[str, str]:
    """What may be written between braces for this host; its name and address cannot be overridden."""
    return {**host.variables, "name": host.name, "address": host.address}


def fill(text: str, variables: Mapping[str, str]) -> str:
    """`text` with its known variables replaced; ConfigError when a value that is used could be read as shell."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in variables:
            return found[0]
        if not VALUE.fullmatch(variables[name]):
            raise ConfigError(
                f"the value {variables[name]!r} of {{{name}}} cannot be put into a command",
                remedy="use only letters, digits and . _ : / @ - in host variables",
            )
        return variables[name]

    return PLACE.sub(value, text)


def unknown(text: str, variables: Mapping[str, str]) -> list[str]:
    """The names between braces that are no variable and so would stay as they are."""
    return [name for name in PLACE.findall(text) if name not in variables]
