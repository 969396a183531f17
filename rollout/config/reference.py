"""The commented reference of rollout.toml: `rollout init` writes it, the documentation shows it, tests compare both."""

import re
from importlib import resources

DEFAULT = re.compile(r"^#(?=[a-z_]+ = )", re.MULTILINE)


def text() -> str:
    """A rollout.toml with every key, the optional ones commented out with their defaults."""
    return resources.files("rollout.config").joinpath("reference.toml").read_text(encoding="utf-8")


def with_defaults() -> str:
    """The same with every key in force."""
    return DEFAULT.sub("", text())
