"""One app's slow hosts leave another app's hosts their places in the hosts workers."""

from rollout.domain import slots
from rollout.domain.model import Rollout
from rollout.services.ports import Deps
from rollout.store.store import Transaction


def most(tx: Transaction, rollout: Rollout, deps: Deps) -> int | None:
    """How many hosts of this rollout may be under way, to be prepared, switched or brought back; None: no other app wants any."""
    configured = len(deps.config.names)
    if configured < 2:
        return None
    apps, taken = tx.rollouts.elsewhere(rollout.app)
    return slots.share(deps.settings.slots, apps + 1, taken, configured=configured) if apps else None
