"""While git does not say what the branch is nobody knows what was pushed: whoever asks what comes next is told, and all when it lasts."""

from math import isinf

from rollout.config.deploy_file import AppConfig
from rollout.domain.model import AppName
from rollout.errors import RolloutError
from rollout.store.store import Transaction

SUBJECT = "branch"
LASTS = 5  # tries in a row until people are told: some minutes


def unread(tx: Transaction, app: AppConfig) -> str | None:
    """That newer commits are not known, and why; None when git answered who asked last."""
    name = AppName(app.name)
    failures = tx.apps.poll_failures(name)
    if not failures:
        return None
    last = tx.events.newest(name, SUBJECT)
    why = last.why if last is not None else f"{app.repository} does not answer"
    tries = f", {failures} times in a row" if failures > 1 else ""
    return f"newer commits are not known: {why} (asked in vain{tries})"


def unasked(tx: Transaction, app: AppConfig) -> str | None:
    """That nobody works here, by who should have asked git what the branch is; None while somebody does, and for a branch that is not polled."""
    idle_s = tx.apps.unasked_s(AppName(app.name), app.poll)
    if idle_s is None:
        return None
    since = "yet" if isinf(idle_s) else f"for {idle_s / 60:.0f} min"
    return f"nothing goes on by itself: nobody has looked at branch {app.branch} {since}; is `rollout up` running?"


def begins(tx: Transaction, app: AppConfig, error: RolloutError, *, who: str) -> int:
    """Git was asked in vain once more: how often in a row now."""
    name, before = AppName(app.name), tx.apps.poll_failures(AppName(app.name))
    tries = before + 1
    why, last = str(error), tx.events.newest(name, SUBJECT) if before else None
    if last is None or last.why != why:
        tx.record(name, SUBJECT, "cannot be read", who=who, why=why)
    if tries == LASTS:
        body = (
            f"{why}\n\nAsked in vain {LASTS} times in a row, and asked on. What is pushed is not known until git answers, and neither"
            " tested nor shipped."
        )
        step = error.remedy or "rollout check says more"
        tx.notices.add(name, None, f"{name}: branch {app.branch} cannot be read", f"{body}\nNext: {step}")
    return tries


def ends(tx: Transaction, app: AppConfig, *, who: str) -> None:
    """Git said what the branch is; people are told who were told that it did not."""
    name = AppName(app.name)
    failures = tx.apps.poll_failures(name)
    if not failures:
        return
    tx.apps.answers(name)
    why = f"after {failures} tries in vain"
    tx.record(name, SUBJECT, "is read again", who=who, why=why)
    if failures >= LASTS:
        body = f"It is read again {why}. What was pushed meanwhile is tested, and goes out.\nNext: rollout status"
        tx.notices.add(name, None, f"{name}: branch {app.branch} is read again", body)
