"""What people and programs are shown: the JSON shapes of the contract, as plain dictionaries. Reads only."""

from datetime import datetime
from typing import Any

from rollout.domain import checks
from rollout.domain.model import AppName, Commit, Delivery, FleetHost, Rollout, RolloutHost, RolloutId
from rollout.domain.states import HostState, outcome
from rollout.services import bars, freezes
from rollout.store.store import Transaction

RECENT = 200  # past rollouts that are looked through


def moment(at: datetime | None) -> str | None:
    """UTC, to the millisecond, as `2026-01-31T12:00:00.000Z`."""
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rollouts(tx: Transaction, found: list[Rollout]) -> list[dict[str, Any]]:
    """Elements of `status` and `history`: without hosts."""
    ids = [rollout.id for rollout in found]
    counts, canaries = tx.rollouts.host_counts(ids), tx.hosts.canary_names(ids)
    because = tx.events.let_on_because(ids)
    return [
        _rollout(rollout, counts[rollout.id], canaries.get(rollout.id, []))
        | _hotfix(because.get(rollout.id, ""))
        | _begins_after(tx, rollout)
        | {"barred": bars.barred_on_its_way(tx, rollout)}
        for rollout in found
    ]


def rollout(tx: Transaction, found: Rollout) -> dict[str, Any]:
    """`show ID`: with its hosts, in the order of activation."""
    return rollouts(tx, [found])[0] | {"hosts": [_host(host) for host in tx.hosts.of(found.id)]}


def _rollout(found: Rollout, counts: dict[str, int], canaries: list[str]) -> dict[str, Any]:
    return {
        "id": found.id,
        "app": found.app,
        "commit": found.commit,
        "commits": list(found.commits),
        "previous": found.previous,
        "state": str(found.state),
        "outcome": outcome(found.state),
        "reason": found.reason,
        "requested_by": found.requested_by,
        "started_at": moment(found.started_at),
        "acknowledged_at": moment(found.acknowledged_at),
        "ended_at": moment(found.ended_at),
        "unconfirmed": list(found.unconfirmed),
        "counts": {"total": found.total, **{str(state): counts.get(state, 0) for state in HostState}},
        "budget": {"max_failed": found.max_failed, "worst_case": found.worst_case},
        "canary": {"status": found.canary_status, "reason": found.canary_reason, "hosts": canaries},
    }


def _hotfix(because: str) -> dict[str, Any]:
    """Which freeze a person went past with `deploy --now` or a `resume`, and why; null for what went past none."""
    its = because.removeprefix(freezes.HOTFIX)
    return {"hotfix": None if its == because else f"although {its}"}


def _begins_after(tx: Transaction, found: Rollout) -> dict[str, Any]:
    """The rollout that one which was planned ahead waits for; null for all others."""
    active = tx.rollouts.active(found.app) if found.is_ahead else None
    return {"begins_after": None if active is None else active.id}


def _host(host: RolloutHost) -> dict[str, Any]:
    return {
        "name": host.name,
        "state": str(host.state),
        "attempt": host.attempt,
        "release": host.release,
        "previous": host.previous,
        "error": host.error,
        "took_s": host.took_s,
    }


def failures(tx: Transaction, found: RolloutId) -> list[tuple[str, str, list[str]]]:
    """Failed, unknown and not-back hosts grouped by cause: (class of the error, one example, names)."""
    groups: dict[str, tuple[str, list[str]]] = {}
    for host in tx.hosts.of(found):
        if host.error is None or host.state in {HostState.DONE, HostState.ROLLED_BACK}:
            continue
        groups.setdefault(host.cause or "error", (host.error, []))[1].append(host.name)
    return [(cause, example, names) for cause, (example, names) in groups.items()]


def timeline(tx: Transaction, found: RolloutId) -> list[dict[str, Any]]:
    """Every event of the rollout and of its hosts, in order."""
    return [
        {
            "at": moment(event.at),
            "subject": event.subject,
            "what": event.what,
            "before": event.before,
            "after": event.after,
            "who": event.who,
            "why": event.why,
        }
        for event in tx.events.of_rollout(found)
    ]


def log(tx: Transaction, found: Rollout, host: str | None = None, after: int = 0) -> dict[str, Any]:
    """Output of the commit's tests, and of steps on hosts after the output of id `after`."""
    commit = tx.commits.get(found.app, found.commit)
    return {
        "rollout": found.id,
        "commit": found.commit,
        "tests": commit.output if commit and host is None else None,
        "hosts": [
            {
                "id": one["id"],
                "at": moment(one["at"]),
                "host": one["host"],
                "step": one["step"],
                "attempt": one["attempt"],
                "text": one["text"],
            }
            for one in tx.outputs.of(found.id, host, after)
        ],
    }


def carrying(tx: Transaction, app: AppName, sha: str) -> Rollout | None:
    """The newest rollout that brings this commit, alone or in a batch."""
    recent = [*reversed(tx.rollouts.unfinished(app)), *tx.rollouts.finished(app, RECENT)]
    return next((one for one in recent if sha in one.commits), None)


def commit(tx: Transaction, found: Commit) -> dict[str, Any]:
    """`/api/commits/<sha>`."""
    shipped = carrying(tx, found.app, found.sha)
    return {
        "commit": found.sha,
        "app": found.app,
        "state": str(found.state),
        "subject": found.subject,
        "author": found.author,
        "reason": found.reason,
        "barred": found.barred_for,
        "received_at": moment(found.received_at),
        "tested_at": moment(found.tested_at),
        "tests": {
            "runs": found.attempt,
            "red": found.reds,
            "flaky": found.flaky,
            "took_s": found.took_s,
        },
        "pull_request": found.pull if found.is_pull else None,
        "checks": [
            {
                "name": one.name,
                "state": str(one.state),
                "url": one.url,
                "source": one.source,
                "details": one.details,
            }
            for one in checks.by_name(tx.checks.of(found.app, found.sha))
        ],
        "rollout": shipped.id if shipped else None,
    }


def delivery(found: Delivery) -> dict[str, Any]:
    """An element of `/api/deliveries` and of `history --deliveries`."""
    return {
        "id": found.id,
        "received_at": moment(found.received_at),
        "provider": found.provider,
        "delivery": found.delivery,
        "app": found.app,
        "branch": found.branch,
        "commit": found.head,
        "outcome": found.outcome,
        "reason": found.reason,
        "ref": found.ref,
        "settled_at": moment(found.settled_at),
    }


def fleet(tx: Transaction, app: AppName) -> list[dict[str, Any]]:
    """`hosts`: what is recorded; `found` and drift as of the last reading, null when it was never read."""
    return [_fleet_host(host) for host in tx.fleet.hosts(app)]


def _fleet_host(host: FleetHost) -> dict[str, Any]:
    return {
        "app": host.app,
        "name": host.name,
        "address": host.address,
        "release": host.release,
        "verified_at": moment(host.verified_at),
        "found": host.found,
        "drift": None if host.verified_at is None else host.found != host.release,
        "excluded": host.excluded,
        "left_at": moment(host.left_at),
    }
