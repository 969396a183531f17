"""Rollouts whose canary was watched: samples as they are stored, and the word that was told, each by the real rule."""

from datetime import timedelta

from sqlalchemy import update

from rollout.domain.states import RolloutEvent, RolloutState
from rollout.domain.verdict import Status
from rollout.services.policies import policy
from rollout.services.verdicts import judged, policy_of
from rollout.store.tables import rollouts
from tests.support.fakes import a_rollout

R, RE = RolloutState, RolloutEvent
CANARY, OTHERS = "shop01", ("shop02", "shop03", "shop04")


def a_watched_rollout(deps, samples, *, app="shop"):
    """Its canary is being watched; `samples` are stored as they came."""
    rollout = a_rollout(deps, app=app, state="evaluating_canary")
    with deps.store.transaction() as tx:
        tx.samples.add(rollout.id, samples)
        return tx.rollouts.update(tx.rollouts.get(rollout.id), canary_status="running")


def a_judged_rollout(deps, samples, *, app="shop", accepted=False, ended_days_ago=0):
    """It is over: done, rolled back, or accepted by a person, by what the judge said of these samples."""
    rollout = a_watched_rollout(deps, samples, app=app)
    with deps.store.transaction() as tx:
        verdict = judged(samples, policy_of(policy(rollout))).verdict
        rollout = _end(tx, rollout, verdict, accepted=accepted)
        ended = tx.today() - timedelta(days=ended_days_ago)
        tx.connection.execute(update(rollouts).where(rollouts.c.id == rollout.id).values(ended_at=ended))
        return tx.rollouts.get(rollout.id)


def _end(tx, rollout, verdict, *, accepted):
    told = {"canary_status": str(verdict.status), "canary_reason": verdict.explanation}
    if verdict.status is Status.PASS:
        return _change(tx, rollout, told, RE.CANARY_PASSED, RE.FINISH)
    if accepted:
        halted = tx.rollouts.update(rollout, **told)
        halted = tx.rollouts.change(
            halted, RE.HALT, who="automation", why="doubt", halted_stage=R.EVALUATING_CANARY
        )
        by_hand = {"canary_status": "pass", "canary_reason": "accepted by cli:ann: known"}
        return _change(tx, halted, by_hand, RE.CANARY_ACCEPTED, RE.FINISH)
    epoch = tx.apps.next_epoch(rollout.app)
    stop = told | {
        "stop_epoch": epoch,
        "stop_started": tx.now(),
        "reason": f"canary failed: {verdict.reason}",
    }
    return _change(tx, rollout, stop, RE.STOP, RE.ROLL_BACK, RE.ROLLED_BACK)


def _change(tx, rollout, values, *events):
    for what in events:
        rollout = tx.rollouts.change(rollout, what, who="test", why="a test", due_at=None, **values)
        values = {}
    return rollout
