"""The JSON documents of the contract: these keys and no others, so that scripts can rely on them."""

from collections.abc import Mapping
from typing import Any

ROLLOUT = (
    "id",
    "app",
    "commit",
    "commits",
    "previous",
    "state",
    "outcome",
    "reason",
    "started_at",
    "ended_at",
    "counts",
    "budget",
    "canary",
)
HOST = ("app", "name", "address", "release", "verified_at", "drift")

Shape = Mapping[str, Any]


def rollout(view: Shape) -> dict[str, Any]:
    """An element of `status` and `history`; with `hosts`, `show`."""
    keys = (*ROLLOUT, "hosts") if "hosts" in view else ROLLOUT
    return {key: view[key] for key in keys}


def host(view: Shape) -> dict[str, Any]:
    """An element of `hosts`; of one that drifted, also what was found on its disk."""
    return {key: view[key] for key in ((*HOST, "found") if view["drift"] else HOST)}


def outcome(view: Shape) -> dict[str, Any]:
    """What `stop`, `rollback`, `resume` and `retry` answer: the rollout, and what a stop found out."""
    return rollout(view) | {key: view[key] for key in ("acknowledged_at", "unconfirmed")}
