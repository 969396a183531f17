"""What `rollout status` shows: what is done (each app's release), what is being done, and what is next."""

from collections.abc import Sequence

from rollout.cli import finding, following, output, scene, shapes, waiting
from rollout.cli.call import Call
from rollout.cli.scene import Bar
from rollout.cli.tellers import teller
from rollout.domain.model import AppName, Rollout
from rollout.domain.states import FINISHED
from rollout.services import catching_up, editions, explaining, outages, planning, telling, views
from rollout.store.store import Transaction

WRONG = "what comes next is not known here: its table in rollout.toml is wrong"
GONE = "nothing comes next: rollout.toml has it no more; what is under way ends all the same"
SHOWN_COMMITS = 5
SHOWN_LATE = 3


def show(call: Call, number: int | None) -> int:
    """Once."""
    if number is not None:
        view = finding.view(call, number)
        if call.json:
            _document(call, [view])
        else:
            _say_rollout(view)
        return 0
    found = finding.unfinished(call)
    if call.json:
        with call.store.reading() as tx:
            shown = views.rollouts(tx, found)
        _document(call, shown)
        return 0
    for app in _apps(call, found):
        with call.store.reading() as tx:
            _say_app(call, tx, app)
    output.say_edition(_other(call))
    return 0


def _apps(call: Call, unfinished: Sequence[Rollout]) -> list[AppName]:
    """Those that are meant, and those that rollout.toml has no more while a rollout of theirs is under way."""
    apps = call.apps()
    return apps + sorted({one.app for one in unfinished} - set(apps))


def _document(call: Call, shown: Sequence[scene.View]) -> None:
    other = _other(call)
    output.document([output.with_edition(shapes.rollout(view), other) for view in shown])


def _other(call: Call) -> str | None:
    with call.store.reading() as tx:
        return editions.other(tx, call.config)


def watch(call: Call, number: int | None) -> int:
    """Live; with a number until that rollout is over, else until Ctrl-C."""
    try:
        with teller(as_json=False) as told:
            for _ in waiting.ticks():
                if number is not None and finding.rollout(call, number).state in FINISHED:
                    break
                told.show(_bars(call, number))
    except KeyboardInterrupt:
        return 0
    assert number is not None  # without one only Ctrl-C ends it
    following.tell_end(call, finding.rollout(call, number))
    return 0


def _bars(call: Call, number: int | None) -> list[Bar]:
    if number is not None:
        return scene.of_rollout(finding.view(call, number))
    bars: list[Bar] = []
    apps = _apps(call, finding.unfinished(call))
    with call.store.reading() as tx:
        for app in apps:
            found = views.rollouts(tx, tx.rollouts.unfinished(app))
            bars += [bar for view in found for bar in scene.of_rollout(view)]
            bars.append(Bar(f"{app} next" if found else app, 0, None, _next(call, tx, app)))
    return bars


def _unknown(call: Call, app: AppName) -> str | None:
    """Why nobody can say what comes next."""
    if app in call.config.left_out:
        return WRONG
    return None if app in call.config.apps else GONE


def _next(call: Call, tx: Transaction, app: AppName) -> str:
    if (unknown := _unknown(call, app)) is not None:
        return unknown
    configured = call.config.app(app)
    return output.expected(explaining.coming(tx, configured), configured)


def _say_app(call: Call, tx: Transaction, app: AppName) -> None:
    released, done = tx.rollouts.released(app), tx.rollouts.newest_done(app)
    runs = "runs nothing of ours yet" if released is None else f"runs {output.short(released)}"
    if done is not None and done.commit == released:
        runs += f" (rollout {done.id}, {output.ago(done.ended_at)})"
    output.say(f"{output.paint(app, 'bold')} {runs}")
    found = views.rollouts(tx, tx.rollouts.unfinished(app))
    for view in found:
        _say_rollout(view, indent="  ")
    if (unknown := _unknown(call, app)) is not None:
        output.say(f"  {output.paint(unknown, 'red')}")
        return
    red = telling.first_red(tx, call.config.app(app))
    if red is not None:
        words = f"{telling.broken(red)}: {red.reason}"
        output.say(f"  {output.paint(output.clean(words), 'red')}")
    for commit in planning.untested(tx, app)[:SHOWN_COMMITS]:
        words = f"commit {output.short(commit.sha)} {telling.where(commit)}"
        output.say(f"  {output.clean(words)}  {output.clean(commit.subject)}".rstrip())
    late = catching_up.late(tx, call.config.app(app))
    for one in late[:SHOWN_LATE]:
        words = output.expected(explaining.Why(one.because, one.next_at), call.config.app(app))
        output.say(f"  behind: {output.clean(one.name)}  {words}")
    if len(late) > SHOWN_LATE:
        output.say(f"  behind: {len(late) - SHOWN_LATE} more; all with rollout hosts")
    output.say(f"  next: {_next(call, tx, app)}")
    if (idle := outages.unasked(tx, call.config.app(app))) is not None:
        output.say(f"  {output.paint(output.clean(idle), 'red')}")


def _say_rollout(view: scene.View, indent: str = "") -> None:
    words = f"rollout {view['id']}  {output.state(view['state'])}  {output.short(view['commit'])}"
    output.say(f"{indent}{words}  {scene.progress(view['counts'])}")
    if view["hotfix"]:
        output.say(f"{indent}  hotfix, {output.clean(view['hotfix'])}")
    if view["barred"]:
        output.say(f"{indent}  although {output.clean(view['barred'])}")
    if view["begins_after"]:
        output.say(f"{indent}  planned ahead: begins when rollout {view['begins_after']} is done")
    if view["reason"]:
        output.say(f"{indent}  {output.clean(view['reason'])}")
    if view["state"] == "halted":
        number = view["id"]
        output.say(f"{indent}  now: rollout show {number}; then rollout resume|retry|stop {number}")
