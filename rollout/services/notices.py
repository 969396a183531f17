"""Whom we tell what: written into the outbox with the change, sent after the commit, never in anybody's way."""

import structlog

from rollout.domain.model import Rollout
from rollout.domain.retry import backoff_s
from rollout.errors import DeliveryFailed
from rollout.services.ports import Deps
from rollout.store.store import Transaction

log = structlog.get_logger()
HOLD_S = 60.0


def add(tx: Transaction, rollout: Rollout, what: str, why: str, command: str) -> None:
    """`what` happened to the rollout and why; `command` is the next one to type."""
    title = f"{rollout.app}: rollout {rollout.id} {what}"
    commit = tx.commits.get(rollout.app, rollout.commit)
    its = f' ("{commit.subject}" by {commit.author})' if commit else ""
    more = len(rollout.commits) - 1
    batch = f" and the {more} before it" if more else ""
    told = f"Commit {rollout.commit[:12]}{its}{batch} to {rollout.total} hosts, asked for by {rollout.requested_by}."
    body = f"{why}\n\n{told}\nNext: {command}"
    tx.notices.add(rollout.app, rollout.id, title, body)


def send_due(deps: Deps) -> None:
    """Send what waits; an address that does not take it is tried again later, by itself, and not for ever."""
    urls = deps.config.notify.urls
    with deps.store.reading() as tx:
        if not tx.notices.any_due():
            return
    with deps.store.transaction() as tx:
        claimed = tx.notices.claim(HOLD_S)
    for notice in claimed:
        try:
            if urls:
                deps.notifier.send(urls, notice.title, notice.body, only=notice.owed)
        except DeliveryFailed as error:
            log.warning(
                "notice_not_delivered", notice=notice.id, attempt=notice.attempts + 1, error=str(error)
            )
            with deps.store.transaction() as tx:
                wait_s = backoff_s(notice.attempts + 1, first=10.0, most=600.0)
                tx.notices.put_off(notice, wait_s, owed=error.numbers)
        else:
            with deps.store.transaction() as tx:
                tx.notices.sent(notice)
