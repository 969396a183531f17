"""Whether the canary's source gives data, for `rollout check`: read as a tick reads it, the last ten minutes of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rollout.cli import output
from rollout.cli.findings import Finding, fine, of_error, warning
from rollout.config.deploy_file import AppConfig
from rollout.errors import MetricUnavailable
from rollout.services import canaries
from rollout.services.targets import member_target

if TYPE_CHECKING:
    from rollout.domain.model import Member
    from rollout.services.ports import Deps

LOOKED_AT_S = 600.0


def look(where: str, app: AppConfig, member: "Member", told: Mapping[str, str], deps: "Deps") -> Finding:
    """What the source says of this host. Before the first release nothing answers there: then nothing is a problem."""
    released = told.get("current", "none") != "none"
    source, here = deps.metrics[app.canary.source], canaries.on_this_host(app, member)
    try:
        # As a baseline host: of a canary, what came after its last switch would not count as history.
        found, _ = source.read(member_target(member, app), "baseline", here, None, elapsed=LOOKED_AT_S)
    except MetricUnavailable as error:
        if released:
            return of_error(where, error)
        return warning(
            where, f"{error} (it has no release yet)", "see that the release writes it: check again later"
        )
    if any("unanswered" in one.flags for one in found) and released:
        return warning(
            where, f"{here.canary.probe} does not answer there", "is canary.probe the app's address?"
        )
    if app.canary.source == "probe" and not app.canary.allow_probe_pass:
        return warning(
            f"{app.name}: canary source",
            "a probe fails canaries and passes none: every rollout waits for a person at canary.deadline",
            "set canary.allow_probe_pass = true, or a source that sees your users' requests",
        )
    requests = sum(sum(one.counts.values()) for one in found)
    if not requests and released:
        return warning(
            where,
            f"{app.canary.source}: no request in the last {LOOKED_AT_S / 60:.0f} minutes; without any, no canary is passed",
            'send it traffic; or see that its numbers are the app\'s, or set canary.source = "probe" with allow_probe_pass',
        )
    return fine(f"{app.name}: canary source", f"{app.canary.source}, {_seen(member.name, requests, app)}")


def _seen(name: str, requests: int, app: AppConfig) -> str:
    if app.canary.source == "probe":
        return f"asked on {name}"
    return f"{output.count(requests, 'request')} on {name} in the last {LOOKED_AT_S / 60:.0f} minutes"
