"""`[notify]`: whom we tell."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StrictStr

from rollout.config.fields import matching
from rollout.config.table import Table

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+")


class NotifyConfig(Table):
    """The `[notify]` table. Apprise addresses hold tokens: they are never printed."""

    urls: tuple[
        Annotated[
            StrictStr, AfterValidator(matching(ADDRESS.pattern, "an Apprise address such as mailto://…"))
        ],
        ...,
    ] = Field(default=(), repr=False)
