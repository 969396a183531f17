"""Ringing for tests: whose turn it is, and no more of an app at a time than its `tests.parallel`."""

from rollout.config.deploy_file import AppConfig
from rollout.domain.model import AppName, Commit
from rollout.domain.pipeline import Ring, run_tests
from rollout.services.ports import Deps
from rollout.store.store import Transaction


def take(tx: Transaction, app: AppConfig, deps: Deps) -> list[Ring]:
    """The messages for the commits whose turn it is; they count as under way. To be rung after the commit.

    For whoever holds the app's row: so do all who have several commits' rows in one transaction, and none waits for another.
    """
    due = _due(tx, app, deps)
    tx.turns.rung([commit.id for commit in due], deps.settings.ring_again_s)
    return [run_tests(commit.id) for commit in due]


def any_due(tx: Transaction, app: AppConfig, deps: Deps) -> bool:
    """Whether `take` would find something; for reading transactions."""
    return bool(_due(tx, app, deps))


def _due(tx: Transaction, app: AppConfig, deps: Deps) -> list[Commit]:
    again_s, parallel, most = deps.settings.ring_again_s, app.tests.parallel, app.queue.most
    return tx.turns.due_for_tests(AppName(app.name), again_s, parallel, most)


def ring(app: AppConfig, deps: Deps) -> None:
    """Room has become free: the next ones."""
    with deps.store.reading() as tx:
        if not any_due(tx, app, deps):
            return
    with deps.store.transaction() as tx:
        tx.apps.lock(AppName(app.name))
        rings = take(tx, app, deps)
    deps.bell.ring(rings)
