"""Which configuration automation goes by: what its worker says of itself now and then, in one row of `facts`; and one for each part that goes by another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import delete, insert, select, update

from rollout.store.tables import facts

if TYPE_CHECKING:
    from rollout.store.store import Transaction

_NAME = "edition"
_OF_A_PART = f"{_NAME} of the "


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
        """Automation goes by this now."""
        self._put(_NAME, digest, process)

    def put_astray(self, part: str, digest: str, process: str) -> None:
        """This part goes by another one."""
        self._put(_OF_A_PART + part, digest, process)

    def last(self) -> Edition | None:
        """What was said last of automation; None: nothing yet."""
        found = self._tx.connection.execute(
            select(facts.c.value).where(facts.c.name == _NAME)
        ).scalar_one_or_none()
        return None if found is None else self._edition(found)

    def astray(self) -> dict[str, Edition]:
        """What was said last of each part that went by another one then."""
        found = self._tx.connection.execute(
            select(facts.c.name, facts.c.value)
            .where(facts.c.name.startswith(_OF_A_PART))
            .order_by(facts.c.name)
        )
        return {name.removeprefix(_OF_A_PART): self._edition(value) for name, value in found}

    def forget_astray(self) -> None:
        """Nobody has said so yet."""
        self._tx.connection.execute(delete(facts).where(facts.c.name.startswith(_OF_A_PART)))

    def _put(self, name: str, digest: str, process: str) -> None:
        its = {"value": f"{digest} {self._tx.now()} {process}"}
        done = self._tx.connection.execute(update(facts).where(facts.c.name == name).values(its))
        if done.rowcount == 0:
            self._tx.connection.execute(insert(facts).values(name=name, **its))

    def _edition(self, value: str) -> Edition:
        digest, at, process = value.split(" ", 2)
        return Edition(digest, process, self._tx.now() - float(at))
