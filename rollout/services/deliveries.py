"""What became of the webhooks: each delivery comes to one end, in the transaction of what decides over its commit."""

import structlog

from rollout.domain.deliveries import PATIENCE, End, Out, Told, end_of, lost
from rollout.domain.model import AppName, Commit
from rollout.services.ports import Deps
from rollout.store.store import Transaction

log = structlog.get_logger()


def settle(tx: Transaction, app: AppName) -> dict[int, End]:
    """End what can be ended by now; the ends by the deliveries' numbers.

    To be called by whatever begins a rollout, decides over a commit, or reads the branch, in the same transaction, which
    holds the app's row: as whoever stores a delivery does.
    """
    waiting = tx.deliveries.waiting(app)
    if not waiting:
        return {}
    out, newest = _out(tx, app), tx.commits.newest(app)
    head = newest.sha if newest else None
    ends = {number: end for number, told in waiting if (end := end_of(told, out, head)) is not None}
    for number, end in ends.items():
        tx.deliveries.end(number, end)
    return ends


def decided(tx: Transaction, commit: Commit) -> End | None:
    """How a delivery of this commit would end now; None while the commit is on its way."""
    told = Told(
        commit.sha,
        commit.state,
        commit.position,
        commit.on_branch,
        commit.reason,
        commit.merged_into,
        commit.pull,
    )
    newest = tx.commits.newest(commit.app)
    return end_of(told, _out(tx, commit.app), newest.sha if newest else None)


def give_up(deps: Deps) -> int:
    """Those of which nobody will find out any more end in an error that says why; how many."""
    with deps.store.reading() as tx:
        if not tx.deliveries.older(tx.today() - PATIENCE):
            return 0
    with deps.store.transaction() as tx:
        ends = {
            number: end
            for number, app, told in tx.deliveries.older(tx.today() - PATIENCE)
            if (end := lost(told, app, configured=app in deps.config.names)) is not None
        }
        for number, end in ends.items():
            tx.deliveries.end(number, end)
            log.warning("delivery_lost", delivery=number, why=end.reason)
    return len(ends)


def _out(tx: Transaction, app: AppName) -> Out | None:
    # What is only planned may be set aside.
    rollout = tx.rollouts.active(app) or tx.rollouts.newest_done(app)
    commit = tx.commits.get(app, rollout.commit) if rollout else None
    if rollout is None or commit is None or commit.position is None or not commit.on_branch:
        return None
    return Out(commit.sha, commit.position, f"rollout {rollout.id}")
