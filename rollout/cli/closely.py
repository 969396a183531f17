"""What `show`, `log` and `history` print."""

from typing import TYPE_CHECKING, Any

from rollout.cli import canary_chart, finding, output, scene, shapes, waiting
from rollout.cli.call import Call
from rollout.domain import checks
from rollout.domain.model import Commit, RolloutId
from rollout.domain.states import FINISHED
from rollout.errors import NotFound
from rollout.services import bars, telling, views
from rollout.services.evidence import canary as canary_evidence

if TYPE_CHECKING:
    from rich.console import Console

View = dict[str, Any]


def show(call: Call, number: int, *, events: bool) -> int:
    """A rollout with its hosts."""
    view = finding.view(call, number, hosts=True)
    if call.json:
        output.document(shapes.rollout(view))
        return 0
    with call.store.reading() as tx:
        timeline = views.timeline(tx, RolloutId(number))
        failures = views.failures(tx, RolloutId(number))
        found = tx.rollouts.get(RolloutId(number))
        commit = tx.commits.get(found.app, found.commit)
        screen = canary_chart.console()
        evidence = canary_evidence(tx, found, canary_chart.columns(screen), closely=True)
        barred, suspects = bars.blamed(tx, found)
    _head(view, output.clean(commit.subject) if commit else "", drawn=bool(evidence["bins"]))
    found_out = found.canary_status == "fail"  # else a person took it back, with whatever was in it
    for commit in barred:
        _line(
            "culprit" if found_out else "barred",
            f"{_by(commit)}; barred: {output.clean(commit.barred_for or '')}",
        )
    if innocent := bars.how_the_innocent_ship(barred):
        _line("", innocent)
    for commit in suspects:
        _line("suspect", f"{_by(commit)}; goes out by itself next, unless another one is found before it")
    _chart(evidence, screen)
    _hosts(view)
    _failures(number, failures)
    _timeline([one for one in timeline if events or one["subject"] == f"rollout {number}"])
    return 0


def log(call: Call, number: int, host: str | None, *, follow: bool) -> int:
    """The output of tests and hosts."""
    found = finding.rollout(call, number)
    with call.store.reading() as tx:
        if host is not None and host not in {one.name for one in tx.hosts.of(found.id)}:
            raise NotFound(
                f"rollout {number} has no host {host!r}", remedy=f"`rollout show {number}` lists them"
            )
        told = views.log(tx, found, host)
    if call.json:
        output.document(told)
        return 0
    _log(told)
    if follow:
        _follow(call, number, host, told)
    return 0


def log_of_tests(call: Call, name: str) -> int:
    """The output of a commit's tests: also of one that failed and so has no rollout."""
    with call.store.reading() as tx:
        found = bars.named(tx, call.app().name, name)
        reported = checks.by_name(tx.checks.of(found.app, found.sha))
    told: View = {"rollout": None, "commit": found.sha, "tests": found.output or None, "hosts": []}
    if call.json:
        output.document(told)
    else:
        _log(told)
        output.say(
            output.clean(
                f"{output.short(found.sha)} is {found.state}" + (f": {found.reason}" if found.reason else "")
            )
        )
        for line in telling.told_of_tests(found):
            output.say(output.clean(line))
        for check in reported:
            words = f"check {check.name}: {check.state} (by {check.source}) {check.url}"
            output.say(output.clean(words).rstrip())
            if check.details:
                output.say(output.clean(check.details, lines=True))
    return 0


def history(call: Call, limit: int) -> int:
    """Finished rollouts, newest first."""
    apps = call.apps()
    with call.store.reading() as tx:
        found = tx.rollouts.finished(apps[0] if len(apps) == 1 else None, limit)
        shown = views.rollouts(tx, found)
    if call.json:
        output.document([shapes.rollout(view) for view in shown])
        return 0
    rows = [
        (
            one.id,
            one.app,
            output.short(one.commit),
            one.state,
            f"{one.done}/{one.total}",
            output.ago(one.ended_at),
            one.requested_by,
            one.reason or "",
        )
        for one in found
    ]
    output.table(("id", "app", "commit", "state", "done", "ended", "by", "reason"), rows)
    return 0


def deliveries(call: Call, limit: int) -> int:
    """The last webhooks, newest first, and what became of each."""
    only = call.apps()[0] if call.app_name is not None else None  # else also those that are nobody's
    with call.store.reading() as tx:
        found = tx.deliveries.newest(only, limit)
    if call.json:
        output.document([views.delivery(one) for one in found])
        return 0
    rows = [
        (
            one.id,
            output.ago(one.received_at),
            one.provider,
            one.app or "",
            output.short(one.head) if one.head else "",
            one.outcome,
            output.ago(one.settled_at) if one.settled_at else "",
            one.reason,
        )
        for one in found
    ]
    output.table(("id", "came", "from", "app", "commit", "outcome", "settled", "reason"), rows)
    return 0


def _head(view: View, subject: str, *, drawn: bool) -> None:
    output.say(
        output.paint(f"rollout {view['id']} of {view['app']}", "bold") + f"  {output.state(view['state'])}"
    )
    more = len(view["commits"]) - 1
    batch = f" and the {output.count(more, 'commit')} before it" if more else ""
    lines = {
        "commit": f"{view['commit']}{batch}  {subject}".rstrip(),
        "before": view["previous"] or "nothing of ours",
        "hosts": scene.progress(view["counts"]),
        "budget": f"halts when more than {view['budget']['max_failed']} have failed;"
        f" at worst {view['budget']['worst_case']} are hurt",
        "canary": _canary(view, drawn=drawn),
        "by": f"{output.clean(view['requested_by'])} at {view['started_at']}",
        "begins": f"when rollout {view['begins_after']} is done" if view["begins_after"] else "",
        "hotfix": output.clean(view["hotfix"] or ""),
        "reason": output.clean(view["reason"] or ""),
        "although": output.clean(view["barred"] or ""),
        "unconfirmed": output.names(view["unconfirmed"]),
    }
    for name, text in lines.items():
        if text:
            _line(name, text)


def _line(name: str, text: str) -> None:
    output.say(f"  {name.ljust(11)} {text}")


def _by(commit: Commit) -> str:
    return output.clean(f'{commit.sha[:12]} "{commit.subject}" by {commit.author}')


def _canary(view: View, *, drawn: bool) -> str:
    """Its word, and why; that stands below the chart where there is one."""
    canary = view["canary"]
    told = f"{canary['status'] or 'not yet'} on {output.names(canary['hosts'])}"
    if drawn or not canary["reason"]:
        return told
    return f"{told}: {output.clean(canary['reason'])} (no samples to draw)"


def _chart(evidence: View, screen: "Console") -> None:
    """Canary against baseline, and what it means; without samples the head has said all there is."""
    if not evidence["bins"]:
        return
    output.say()
    canary_chart.draw(evidence, screen)
    if evidence["explanation"]:
        output.say(output.clean(evidence["explanation"]))


def _hosts(view: View) -> None:
    rows = [
        (
            host["name"],
            host["state"],
            host["attempt"],
            output.short(host["release"]),
            output.short(host["previous"]),
            "-" if host["took_s"] is None else output.seconds(host["took_s"]),
            host["error"] or "",
        )
        for host in view["hosts"]
    ]
    output.say()
    output.table(("host", "state", "attempt", "release", "before", "took", "error"), rows)


def _failures(number: int, failures: list[tuple[str, str, list[str]]]) -> None:
    if not failures:
        return
    output.say("\nfailures by cause")
    for cause, example, hosts in failures:
        output.say(f"  {cause}: {output.count(len(hosts), 'host')} ({output.names(hosts)})")
        output.say(f"    for example {output.clean(example)}")
    output.say(f"    what they printed: rollout log {number} --host {output.clean(failures[0][2][0])}")


def _timeline(events: list[View]) -> None:
    output.say("\ntimeline")
    for event in events:
        edge = f"{event['before'] or ''} {output.arrow()} {event['after']}" if event["after"] else ""
        why = f": {output.clean(event['why'])}" if event["why"] else ""
        words = (
            event["at"],
            output.clean(event["subject"]),
            event["what"],
            edge,
            f"by {output.clean(event['who'])}",
        )
        output.say("  " + "  ".join(word for word in words if word) + why)


def _log(told: View) -> None:
    if told["tests"]:
        output.say(output.paint(f"tests of {output.short(told['commit'])}", "bold"))
        output.say(output.clean(told["tests"], lines=True).rstrip("\n"))
    for one in told["hosts"]:
        title = f"{one['at']} {one['host']} {one['step']}, attempt {one['attempt']}"
        output.say(output.paint(output.clean(title), "bold"))
        output.say(output.clean(one["text"], lines=True).rstrip("\n"))


def _follow(call: Call, number: int, host: str | None, told: View) -> None:
    after = max((one["id"] for one in told["hosts"]), default=0)
    tested = bool(told["tests"])
    for _ in waiting.ticks():
        with call.store.reading() as tx:
            found = tx.rollouts.get(RolloutId(number))
            news = views.log(tx, found, host, after)
        _log(news | {"tests": None if tested else news["tests"]})
        tested = tested or bool(news["tests"])
        after = max((one["id"] for one in news["hosts"]), default=after)
        if found.state in FINISHED:
            return
