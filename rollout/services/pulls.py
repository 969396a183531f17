"""Heads of pull requests: tested and reported, never shipped. What is fetched comes from the configured repository alone."""

from collections.abc import Callable, Sequence

import structlog

from rollout.config.deploy_file import AppConfig
from rollout.domain.model import AppName, Commit, Pull
from rollout.errors import RolloutError
from rollout.services import turns
from rollout.services.ports import Deps
from rollout.store.store import Transaction

log = structlog.get_logger()
Look = Callable[[AppConfig, Sequence[Pull], Deps], object]
MOST_PULLS = 20  # with the highest numbers: git does not say which are open


def look(app: AppConfig, found: Sequence[Pull], deps: Deps) -> None:
    """Give the newest heads their rows and ring for their tests; an older head of the same waits no more, nor does a merged one."""
    name = AppName(app.name)
    newest = sorted(found, key=lambda pull: pull.number)[-MOST_PULLS:]
    with deps.store.reading() as tx:
        known = tx.commits.told_of(name, [pull.sha for pull in newest])
    news = [pull for pull in newest if pull.sha not in known]
    try:
        fetched = deps.workshop.fetch_pulls(app.name, app, newest) if news else []
    except RolloutError as error:  # the branch has been read, and is what matters
        log.warning("pulls_not_fetched", app=app.name, error=str(error))
        return
    merged = _merged(app, fetched, deps)
    with deps.store.transaction() as tx:
        tx.apps.lock(name)
        for pull in fetched:
            tx.commits.add_pull(name, pull, who="poll", why=f"head of pull request {pull.number}")
        tx.commits.bring_pulls(name, merged)
        tx.commits.current_pulls(name, [pull.sha for pull in newest])
        rings = turns.take(tx, app, deps)
    deps.bell.ring(rings)


def _merged(app: AppConfig, pulls: Sequence[Pull], deps: Deps) -> dict[str, str]:
    """Those that were merged before the branch was known, each with the oldest commit of its line that is: servers keep their heads for ever.

    Of one that was merged later a reading of the branch tells.
    """
    with deps.store.reading() as tx:
        oldest = tx.commits.oldest(AppName(app.name)) if pulls else None
    if oldest is None:
        return {}
    others = [pull.sha for pull in pulls if pull.sha != oldest]
    try:
        return {sha: oldest for sha in others if deps.workshop.contains(app.name, oldest, sha)}
    except RolloutError as error:  # no mirror of the branch here yet: they are taken for open ones
        log.warning("merged_pulls_not_told", app=app.name, error=str(error))
        return {}


def red(tx: Transaction, commit: Commit, reason: str) -> None:
    """Tell people that it failed its tests, but for an older head: they have pushed a newer one since."""
    if tx.commits.has_newer_head(commit):
        return
    short = commit.sha[:12]
    tx.notices.add(
        commit.app,
        None,
        f"{commit.app}: pull request {commit.pull} is red at {short} by {commit.author}",
        f"{commit.subject}\n{reason}\n\nNext: rollout log {short}",
    )
