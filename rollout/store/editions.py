"""Which configuration automation goes by: what its worker says of itself now and then, in one row of `facts`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import insert, select, update

from rollout.store.tables import facts

if TYPE_CHECKING:
    from rollout.store.store import Transaction

_NAME = "edition"
_ITS = facts.c.name == _NAME


class Edition(NamedTuple):
    """What it goes by, who said so, and how many seconds ago; below 0 when that was before the machine was started again."""

    digest: str
    process: str
    ago_s: float


class Editions:
    """The newest word counts."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def put(self, digest: str, process: str) -> None:
        """It goes by this now."""
        its = {"value": f"{digest} {self._tx.now()} {process}"}
        if self._tx.connection.execute(update(facts).where(_ITS).values(its)).rowcount == 0:
            self._tx.connection.execute(insert(facts).values(name=_NAME, **its))

    def last(self) -> Edition | None:
        """What was said last; None: nothing yet."""
        found = self._tx.connection.execute(select(facts.c.value).where(_ITS)).scalar_one_or_none()
        if found is None:
            return None
        digest, at, process = found.split(" ", 2)
        return Edition(digest, process, self._tx.now() - float(at))
