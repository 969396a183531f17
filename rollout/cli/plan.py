"""`rollout plan`: what would happen, before it does."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollout.cli import output
from rollout.cli.call import Call
from rollout.errors import Conflict

if TYPE_CHECKING:
    from rollout.config.deploy_file import AppConfig
    from rollout.domain.model import Commit
    from rollout.services.explaining import Lasts, Why
    from rollout.services.foreseeing import Forecast
    from rollout.services.planning import Draft
    from rollout.store.store import Transaction

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="COMMIT",
        help="A hash or its beginning, or the branch; default: what goes out next.",
        show_default=False,
    ),
]
SHOWN_HOSTS = 12  # of each role; all of them with --json


def plan(call: Call, commit: Name = None) -> int:
    """What would go out: commits, order of hosts, the worst case of hurt hosts, the expected time. Nothing is written."""
    from rollout.domain.model import AppName
    from rollout.services import editions, explaining, planning, verifying

    app = call.app()
    fleet = call.deps.fleet.members(app)  # an inventory may take its time, so before the store is read
    with call.store.reading() as tx:
        wanted = None if commit is None else explaining.asked_for(tx, app, commit)
        foreseen, told = _foreseen(tx, app, wanted)
        drafted = planning.draft(tx, app, list(foreseen.commits), fleet)
        lasts = explaining.lasts(tx, AppName(app.name))
        elsewhere = verifying.elsewhere(tx, app, fleet, call.deps)
        other = editions.other(tx, call.config)
    if call.json:
        document = _document(app, drafted, told, lasts, foreseen.previous)
        output.document(output.with_edition(document, other))
    else:
        _say(app, drafted, told, lasts)
        output.say_edition(other)
    if elsewhere:
        output.warn(output.clean(elsewhere))
    return 0


def _foreseen(tx: "Transaction", app: "AppConfig", wanted: "Commit | None") -> "tuple[Forecast, Why]":
    """Conflict when a named commit will not go out by itself: the sentence says why, and what a person may do."""
    from rollout.services import explaining, foreseeing

    if wanted is None:
        foreseen = foreseeing.forecast(tx, app)
        told = (
            explaining.why(tx, app, foreseen.commits[-1]) if foreseen.commits else explaining.coming(tx, app)
        )
        return foreseen, told
    told, foreseen = explaining.why(tx, app, wanted), foreseeing.forecast(tx, app, wanted)
    if not foreseen.commits or not explaining.may_go(tx.commits.on_line(wanted)):
        raise Conflict(
            f"no rollout of commit {wanted.sha[:12]} is to come: {told.in_full}",
            remedy="`rollout plan` shows what goes out next",
        )
    return foreseen, told


def _document(
    app: "AppConfig", drafted: "Draft", told: "Why", lasts: "Lasts", previous: str | None
) -> dict[str, Any]:
    from rollout.domain import budget
    from rollout.services import views

    total = len(drafted.fleet)
    return {
        "app": app.name,
        "commit": drafted.commits[-1].sha if drafted.commits else None,
        "commits": [
            {"commit": one.sha, "state": str(one.state), "author": one.author, "subject": one.subject}
            for one in drafted.commits
        ],
        "previous": previous,
        "because": told.in_full,
        "expected_at": views.moment(told.expected_at),
        "hosts": [{"name": member.name, "role": str(role)} for member, role in drafted.fleet],
        "budget": {
            "max_failed": drafted.limits.max_failed,
            "worst_case": budget.worst_case(drafted.limits, total),
            "worst_case_at_once": budget.worst_case_after(drafted.limits, 0, total),
        },
        "duration": {
            "measured": lasts.measured,
            "expected_s": round(lasts.half_s, 1),
            "at_most_s": None if lasts.most_s is None else round(lasts.most_s, 1),
        },
    }


def _say(app: "AppConfig", drafted: "Draft", told: "Why", lasts: "Lasts") -> None:
    from rollout.domain import budget
    from rollout.domain.model import Role

    words = output.expected(told, app)
    if not drafted.commits:
        output.say(f"{output.paint(app.name, 'bold')} nothing goes out: {words}")
        return
    shipped, limits, total = drafted.commits[-1], drafted.limits, len(drafted.fleet)
    output.say(f"{output.paint(app.name, 'bold')} {output.short(shipped.sha)}: {words}")
    for number, one in enumerate(drafted.commits):
        title, text = "" if number else "commits", output.clean(f"{one.subject}, by {one.author}")
        output.say(f"{title:<11} {output.short(one.sha)} {output.state(str(one.state), 8)} {text}")
    for title, role in (("canary", Role.CANARY), ("then", Role.OTHER), ("baseline", Role.BASELINE)):
        names = [member.name for member, its in drafted.fleet if its is role]
        if names:
            output.say(f"{title:<11} {output.count(len(names), 'host')}: {output.names(names, SHOWN_HOSTS)}")
    at_once = f"1 at first, up to {limits.concurrency}" if limits.mode is budget.Mode.RAMP else "1"
    output.say(f"{'at risk':<11} {at_once}; halts when more than {limits.max_failed} have failed")
    first, most = budget.worst_case_after(limits, 0, total), budget.worst_case(limits, total)
    output.say(
        f"{'worst case':<11} {output.count(first, 'host')} hurt when it is broken from the first host on, {most} of {total} whatever happens"
    )
    output.say(f"{'takes':<11} {_takes(lasts)}")


def _takes(lasts: "Lasts") -> str:
    about = f"about {output.seconds(lasts.half_s)}"
    if not lasts.measured:
        return f"{about}, until a rollout has been measured"
    half = f"{about}, as half of the last {output.count(lasts.measured, 'rollout')} did or less"
    return half if lasts.most_s is None else f"{half}; 9 of 10 took at most {output.seconds(lasts.most_s)}"
