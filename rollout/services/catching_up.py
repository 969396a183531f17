"""Hosts that are behind are brought to what the fleet runs: they were down, excluded, new, or lost their disk.

The rollout that is done goes on with them, one at a time, whatever calls this and however often (docs/decisions/0014).
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from rollout.config.deploy_file import AppConfig
from rollout.domain import catching_up
from rollout.domain.catching_up import LEFT, TOLD, WAITS_S, Behind, Step
from rollout.domain.model import AppName, Member, Rollout, RolloutHost
from rollout.domain.pipeline import Ring, deploy_host, prepare_host
from rollout.domain.states import CommitState, HostEvent, HostState
from rollout.errors import OutcomeUnknown, Unreachable
from rollout.services import bars, freezes, notices, planning
from rollout.services.policies import path_on, policy, unreadable
from rollout.services.ports import Deps
from rollout.services.rollouts import counters, limits
from rollout.store.store import Transaction

log = structlog.get_logger()
H, HE = HostState, HostEvent
AUTOMATION = "automation"
MEMBERS_S = 300.0  # how often is looked for new hosts
PACE_S = 5.0  # and before a step: who left the fleet is not brought to anything


@dataclass(frozen=True, slots=True)
class Late:
    """A host that is behind, for people."""

    name: str
    because: str
    next_at: datetime | None  # when something is done about it; None: as soon as it is its turn, or never


def go_on(app_name: str, deps: Deps) -> list[Ring]:
    """Hosts that have moved are followed; the messages for the next step of one that is behind."""
    app = deps.config.app(app_name)
    name = AppName(app.name)
    with deps.store.reading() as tx:
        if not _is_at_rest(tx, name):
            return []
        goal = tx.catching_up.goal(name)
        every_s = PACE_S if goal is not None and _is_pressing(tx, app, goal) else MEMBERS_S
        if not tx.catching_up.members_due(name, every_s):
            return []
    with deps.store.transaction() as tx:
        if not tx.catching_up.claim_members(name, every_s):
            return []
    members = deps.fleet.members(app)  # an inventory may take its time, so outside the transaction
    follow(name, members, deps)
    with deps.store.transaction() as tx:
        tx.apps.lock(name)
        if not _is_at_rest(tx, name):
            return []
        goal, rings = tx.catching_up.goal(name), []
        if goal is not None:
            here = {member.name: member for member in members}
            rings = _step(tx, app, tx.rollouts.lock(goal.id), here, deps)
        tx.fleet.take_stock(name, members)  # after the rollout's hosts, as whoever reports on one
        return rings


def _is_at_rest(tx: Transaction, app: AppName) -> bool:
    """There was a rollout, and none is planned or under way; whoever owes a rollback is followed also when none is done."""
    return tx.rollouts.newest(app) is not None and not tx.rollouts.unfinished(app)


def follow(app: AppName, members: list[Member], deps: Deps) -> None:
    """Hosts of which the inventory says something else by now are looked for by that, and read where they are elsewhere: each may be another machine, or the same."""
    with deps.store.reading() as tx:
        moved = tx.places.moved(app, members, functools.partial(deps.plans.path_on, tx))
    if moved:  # these rows alone: each may be one of another rollout
        with deps.store.transaction() as tx:
            tx.apps.lock(app)  # as whoever takes stock of the fleet: their hosts are in another order
            tx.places.move(app, moved, members)


def late(tx: Transaction, app: AppConfig) -> list[Late]:
    """Who is behind, why, and when he is tried next; nobody while a rollout is under way, which brings them all."""
    goal = tx.catching_up.goal(AppName(app.name))
    if goal is None:
        return []
    return list(_late_ones(tx, app, goal).values())


def _late_ones(tx: Transaction, app: AppConfig, goal: Rollout) -> dict[str, Late]:
    behind = [one for one in tx.catching_up.behind(goal) if one.wanted]
    held = _held(tx, app, goal)
    if unreadable(goal):
        here = [host.name for host in tx.fleet.hosts(goal.app) if host.left_at is None]
        names = [*(one.host.name for one in behind), *_to_join(tx, goal, here)]
        return {name: Late(name, f"waits: {held}", None) for name in names}
    # A newer rollout that was taken back may be the one for which a host is looked at.
    looked_at = {} if all(one.answers for one in behind) else tx.hosts.read_by_nobody(goal.app)
    return {
        one.host.name: _late(tx, goal, one, held, looked_at.get(one.host.name, one.host)) for one in behind
    }


def prospects(tx: Transaction, app: AppConfig, names: Iterable[str]) -> dict[str, str]:
    """What becomes of these hosts by themselves, now that nobody keeps them out."""
    name = AppName(app.name)
    fleet = {host.name: host for host in tx.fleet.hosts(name)}
    goal, under_way = tx.catching_up.goal(name), planning.under_way(tx, name)
    if goal is None:
        when = "has its part in the next rollout"
        if under_way is not None:
            when = f"is brought to what the fleet runs when rollout {under_way.id} is over"
        told = dict.fromkeys(names, when)
    else:
        told = _prospects(tx, app, goal, names)
    gone = "is not in the inventory: nothing is brought to it"
    return {one: gone if fleet[one].left_at else words for one, words in told.items()}


def _prospects(tx: Transaction, app: AppConfig, goal: Rollout, names: Iterable[str]) -> dict[str, str]:
    held, rows, late = (
        _held(tx, app, goal),
        {host.name: host for host in tx.hosts.of(goal.id)},
        _late_ones(tx, app, goal),
    )
    owing = {one.host.name for one in tx.catching_up.behind(goal) if not one.wanted}
    is_brought = "is brought to what the fleet runs" if held is None else "is behind what the fleet runs"
    told = {}
    for name in names:
        if name in late:
            told[name] = f"{is_brought}: {late[name].because}"
        elif name in owing:
            told[name] = f"{is_brought}: a rollback that it owes comes first"
        elif name not in rows:  # it was kept out when that was planned
            told[name] = f"{is_brought}: waits{f': {held}' if held else ' for its turn'}"
        elif rows[name].state is H.DONE:
            told[name] = "runs what the fleet runs"
        else:
            told[name] = "keeps what a stop has left on it, until the next rollout"
    return told


def _is_pressing(tx: Transaction, app: AppConfig, goal: Rollout) -> bool:
    behind = tx.catching_up.behind(goal)
    if any(map(catching_up.to_put_off, behind)) or any(map(catching_up.to_leave, behind)):
        return True
    return bool(behind) and _following(tx, app, goal, behind) is not None


def _following(
    tx: Transaction, app: AppConfig, goal: Rollout, behind: list[Behind]
) -> tuple[Step, Behind] | None:
    begin = _held(tx, app, goal) is None
    return catching_up.following(behind, tx.now(), counters(goal), limits(goal), begin=begin)


def _held(tx: Transaction, app: AppConfig, goal: Rollout) -> str | None:
    """Why automation brings nothing to anybody now."""
    commit = tx.commits.get(goal.app, goal.commit)
    if commit is not None and commit.state is CommitState.PASSED:
        return _is_barred_inside(tx, goal) or _unreadable(goal) or freezes.frozen(tx, app)
    return planning.not_to_be_had(goal.commit, commit)


def _unreadable(goal: Rollout) -> str | None:
    """Nobody can say where a host that joins has its releases by it."""
    unread = unreadable(goal)
    return f"{unread}; {planning.TAKES_ALONG}" if unread else None


def _is_barred_inside(tx: Transaction, goal: Rollout) -> str | None:
    """As what follows it, hosts that are behind wait for what mends that, or for a person's word."""
    barred = next(iter(bars.barred_below(tx, goal.app)), None)
    return f"commit {barred[:12]}, which is inside of {goal.commit[:12]}, is barred" if barred else None


def _step(
    tx: Transaction, app: AppConfig, goal: Rollout, members: Mapping[str, Member], deps: Deps
) -> list[Ring]:
    _join(tx, goal, members)
    behind = [one for one in tx.catching_up.behind(goal) if one.host.name in members or _is_busy(one.host)]
    for one in behind:
        if catching_up.to_put_off(one):
            tx.hosts.update(one.host, due_at=tx.now() + WAITS_S[one.host.tries])
        if catching_up.to_leave(one):
            _leave(tx, goal, one.host)
    found = _following(tx, app, goal, behind)
    if found is None:
        return []
    step, host = found[0], found[1].host
    if step in {Step.BEGIN, Step.PREPARE}:
        commit = tx.commits.get(goal.app, goal.commit)
        if commit is not None and planning.is_built_again(tx, commit, deps):
            return []
    if step is Step.BEGIN:
        host = _begin(tx, host, newer=found[1].newer)
        step = Step.PREPARE
    elif step is Step.PREPARE and not host.tries:  # it is new
        host = tx.hosts.update(host, tries=1)
    tx.hosts.rung([host.id], deps.settings.ring_again_s)
    log.info("catching_up", rollout=goal.id, host=host.name, step=str(step))
    return [prepare_host(host) if step is Step.PREPARE else deploy_host(host)]


def _is_busy(host: RolloutHost) -> bool:
    return host.state in catching_up.BUSY or host.state is H.UNKNOWN


def _join(tx: Transaction, goal: Rollout, members: Mapping[str, Member]) -> None:
    if unreadable(goal):
        return
    for name in _to_join(tx, goal, members):
        tx.catching_up.join(goal, replace(members[name], path=path_on(policy(goal), members[name])))
        why = "it is in the fleet, and was not when this was planned"
        tx.record(goal.app, f"host {name}", "join", who=AUTOMATION, why=why, rollout=goal.id)


def _to_join(tx: Transaction, goal: Rollout, fleet: Iterable[str]) -> list[str]:
    """Who is in the fleet, and was not, or was kept out, when this was planned."""
    known = {host.name for host in tx.hosts.of(goal.id)}
    excluded = {host.name for host in tx.fleet.hosts(goal.app) if host.excluded is not None}
    return [name for name in fleet if name not in known | excluded]


def _begin(tx: Transaction, host: RolloutHost, *, newer: str | None = None) -> RolloutHost:
    gone_back = f"it runs {newer[:12]}, from which the fleet has gone back" if newer else None
    why = {
        H.FAILED: f"it failed, and answers: {host.error}",
        H.EXCLUDED: "it is no longer excluded",
        H.DONE: gone_back or "what was brought to it is not on it any more",
    }[host.state]
    values: dict[str, Any] = {"tries": host.tries + 1 if host.state is H.FAILED else 1}
    if host.state is H.DONE and not newer:  # what it ran before is gone too: its way back leads to nothing
        values |= {"touched": False, "previous": None, "owes": False, "owed": None, "release": None}
    begun, _ = tx.hosts.change(
        host,
        HE.CATCH_UP,
        who=AUTOMATION,
        why=why,
        attempt=host.attempt + 1,
        token=False,
        accepted=False,
        error=None,
        cause=None,
        **values,
    )
    return begun


def _leave(tx: Transaction, goal: Rollout, host: RolloutHost) -> None:
    tx.hosts.update(host, tries=TOLD)
    why = f"{host.error}; tried {LEFT} times, and left until the next rollout"
    tx.record(goal.app, f"host {host.name}", "left behind", who=AUTOMATION, why=why, rollout=goal.id)
    what = f"is not on {host.name}, which is behind"
    notices.add(tx, goal, what, why, f"rollout log {goal.id} --host {host.name}; then {_again(host)}")


def _again(host: RolloutHost) -> str:
    return f"rollout include {host.name} (it is tried again), or rollout exclude {host.name} --reason …"


def _unread(looked_at: RolloutHost) -> str:
    """What the last look came upon: a key that is refused heals by no waiting."""
    if looked_at.state is H.DONE and not looked_at.failures:
        return "has another address since"
    silent = {None, Unreachable.__name__, OutcomeUnknown.__name__}
    if not looked_at.failures or looked_at.cause in silent:
        return "does not answer"
    return f"cannot be read ({looked_at.error})"


def _late(tx: Transaction, goal: Rollout, one: Behind, held: str | None, looked_at: RolloutHost) -> Late:
    """`looked_at`: the row for which it is read while nobody knows what it runs."""
    host = one.host
    if host.state in catching_up.BUSY:
        return Late(host.name, f"is {host.state}", None)
    if not one.answers:
        return Late(host.name, f"{_unread(looked_at)}, and is looked at again", _due(tx, looked_at))
    if host.state is H.FAILED and host.tries >= LEFT:
        return Late(host.name, f"left after {LEFT} tries ({host.error}): {_again(host)}", None)
    runs = f"runs {one.newer[:12]}, from which the fleet has gone back, and " if one.newer else ""
    if held is not None:
        return Late(host.name, f"{runs}waits: {held}", None)
    if not catching_up.has_room(one, counters(goal), limits(goal)):
        return Late(host.name, f"waits: more than {goal.max_failed} hosts have failed", None)
    then = f"{host.error}; it is tried again" if host.error else f"{runs}waits for its turn"
    return Late(host.name, then, _due(tx, host))


def _due(tx: Transaction, host: RolloutHost) -> datetime | None:
    wait_s = 0.0 if host.due_at is None else host.due_at - tx.now()
    return tx.today() + timedelta(seconds=wait_s) if wait_s > 0 else None
