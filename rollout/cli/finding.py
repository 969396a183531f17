"""Which rollout is meant, and how it looks now."""

from typing import Any

from rollout.cli.call import Call
from rollout.domain.model import Rollout, RolloutId
from rollout.domain.states import RolloutState
from rollout.errors import ConfigError, Conflict
from rollout.services import views


def rollout(call: Call, number: int) -> Rollout:
    """The rollout of this id; NotFound."""
    with call.store.reading() as tx:
        return tx.rollouts.get(RolloutId(number))


def view(call: Call, number: int, *, hosts: bool = False) -> dict[str, Any]:
    """Its view, with or without its hosts."""
    with call.store.reading() as tx:
        found = tx.rollouts.get(RolloutId(number))
        return views.rollout(tx, found) if hosts else views.rollouts(tx, [found])[0]


def unfinished(call: Call) -> list[Rollout]:
    """Of the app that is meant, or of all, also of those that rollout.toml has no more; oldest first."""
    meant = None if call.app_name is None else call.apps()
    with call.store.reading() as tx:
        return [one for one in tx.rollouts.unfinished() if meant is None or one.app in meant]


def to_stop(call: Call, number: int | None) -> Rollout:
    """The named one, or the one that is under way; Conflict when there is none."""
    if number is not None:
        return rollout(call, number)
    found = unfinished(call)
    if not found:
        raise Conflict(
            "there is nothing to stop: no rollout is under way",
            remedy="to go back to what ran before: rollout rollback",
        )
    active = [one for one in found if one.state is not RolloutState.PENDING] or found
    if len(active) > 1:
        told = ", ".join(f"{one.id} ({one.app}, {one.state})" for one in active)
        raise ConfigError(f"several rollouts are under way: {told}", remedy="say which one: rollout stop ID")
    return active[0]
