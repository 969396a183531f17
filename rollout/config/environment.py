"""The environment that other people's programs get from us."""

import os
from collections.abc import Mapping

OURS = "ROLLOUT_"


def for_programs(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Ours without our own variables, as they hold secrets."""
    return {name: value for name, value in environ.items() if not name.startswith(OURS)}
