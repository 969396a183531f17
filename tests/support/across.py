"""A host that an old rollout's rollback did not reach, while the next rollout goes on."""

from dataclasses import replace

from sqlalchemy import insert, select

from rollout.domain.states import HostState, RolloutState
from rollout.services import stopping
from rollout.store.tables import fleet_hosts, rollout_hosts, rollouts

SLOW = "web05"


def inventory_says(world, monkeypatch, name, **its):
    """Of this host, from now on."""
    members = world.fleet.members
    monkeypatch.setattr(
        world.fleet,
        "members",
        lambda config: [replace(one, **its) if one.name == name else one for one in members(config)],
    )


def out_of_the_inventory(world, monkeypatch, *names):
    """From now on; what it says otherwise comes back with the call that is returned."""
    members = world.fleet.members
    patch = monkeypatch.setattr
    patch(world.fleet, "members", lambda its: [one for one in members(its) if one.name not in names])
    return lambda: patch(world.fleet, "members", members)


def another_app_switches(tx, name, *, app="site", **its):
    """The app has this machine in its fleet under a name of its own, and switches it now, in the same folder; `its`: of its row."""
    shops, number = tx.rollouts.newest("shop").id, None
    for table, where, other in (
        (fleet_hosts, {"app": "shop", "name": name}, {"name": "other01"}),
        (rollouts, {"id": shops}, {"state": "done"}),
        (rollout_hosts, {"rollout": shops, "name": name}, {"name": "other01"}),
    ):
        query = select(table).where(*(table.c[what] == value for what, value in where.items()))
        row = dict(tx.connection.execute(query).mappings().one()) | {"app": app} | other
        row.pop("id", None)
        if table is rollout_hosts:
            row |= {"rollout": number, "touched": True, "touched_at": tx.now(), **its}
        number = tx.connection.execute(insert(table).values(row)).inserted_primary_key[0]


def another_is_planned(tx, number, name, *, state, touched):
    """After rollout `number` one more that has this host, in this state."""
    for table, where, its in (
        (rollouts, {"id": number}, {"state": state}),
        (rollout_hosts, {"rollout": number, "name": name}, {"state": HostState.PENDING, "touched": touched}),
    ):
        query = select(table).where(*(table.c[what] == value for what, value in where.items()))
        row = dict(tx.connection.execute(query).mappings().one()) | its
        row.pop("id")
        if table is rollout_hosts:
            row["rollout"] = number
        number = tx.connection.execute(insert(table).values(row)).inserted_primary_key[0]


def row_of(world, number, name=SLOW):
    """The host in this rollout."""
    with world.store.reading() as tx:
        return next(host for host in tx.hosts.of(number) if host.name == name)


def recorded(world, name=SLOW):
    """What the store knows of the host across rollouts."""
    with world.store.reading() as tx:
        return next(host for host in tx.fleet.hosts("shop") if host.name == name)


def state_of(world, number):
    """The rollout's state."""
    with world.store.reading() as tx:
        return tx.rollouts.get(number).state


def owes_a_rollback(world):
    """A good release everywhere; the next one is stopped, and SLOW, which answers again, has not heard of it: releases and rollout."""
    good = world.push()
    world.settle()
    host = world.fleet.hosts[SLOW]
    host.after_act = lambda: setattr(host, "unreachable", True)
    bad = world.push()
    world.run(until=lambda: host.unreachable and row_of(world, world.newest().id).state is HostState.DONE)
    number = world.newest().id
    stopping.stop(number, world.deps, who="me", why="bad")
    world.run(until=lambda: state_of(world, number) is RolloutState.ROLLED_BACK)
    host.after_act = lambda: None

    def long_wait():
        row = row_of(world, number)
        return row.state is HostState.ROLLBACK_FAILED and (row.due_at or 0.0) - world.seconds > 100

    world.run(until=long_wait, seconds=900)
    assert (host.current, long_wait()) == (bad, True)
    host.unreachable = False
    return good, bad, number


def roll_back_again(world, number, hosts):
    """SLOW's back-off is over, and its message is there before anything else."""
    row = row_of(world, number)
    world.seconds = max(world.seconds, row.lease_until or 0.0)
    hosts.roll_back(row.rollout, row.id, world.deps)


def fix(world, bad):
    """The fix of it is planned."""
    newest = world.newest().id
    sha = world.push(f"Fix\n\nRollout-Fixes: {bad}")
    world.run(until=lambda: world.newest().id > newest)
    return sha, world.newest().id


def until_prepared(world, number):
    """SLOW waits for its turn in this rollout, whose canary has passed."""
    world.run(until=lambda: state_of(world, number) is RolloutState.FANNING_OUT)
    world.run(until=lambda: row_of(world, number).state is HostState.PREPARED)


def at_its_switch(world, patch, number, what):
    """SLOW is prepared in this rollout; `what(act, permit)` is done in place of its next switch, `act(permit)`, and has been when this returns."""
    until_prepared(world, number)
    true, called = world.fleet._switch, []

    def switch(verb, target, order, permit, on_switch=None):
        if target.name != SLOW or verb != "activate" or called:
            return true(verb, target, order, permit)
        called.append(order)
        return what(lambda allow: true(verb, target, order, allow), permit)

    patch.setattr(world.fleet, "_switch", switch)
    world.run(until=lambda: called)


def take_back(world, number):
    """Stop it, or roll it back when it is done; until it is over."""
    if state_of(world, number) is RolloutState.DONE:
        app = world.config.app(None)
        back = stopping.roll_back_done(app, world.deps, to=None, who="me", why="bad too").id
    else:
        back = stopping.stop(number, world.deps, who="me", why="bad too").rollout.id
    world.run(until=lambda: state_of(world, back) is RolloutState.ROLLED_BACK)
    return back


def before_reports(patch, hosts, act):
    """`act(job)` is done before each report on a host."""
    reports, goes_on = hosts._report, hosts._report_and_go_on

    def report(deps, job, what):
        act(job)
        return reports(deps, job, what)

    def go_on(deps, went, what, **rest):
        act(went.job)
        return goes_on(deps, went, what, **rest)

    patch.setattr(hosts, "_report", report)
    patch.setattr(hosts, "_report_and_go_on", go_on)


def late_roll_back(world, patch, hosts):
    """SLOW goes back to what it ran, and before the worker says so the next rollout has switched it."""
    _, bad, old = owes_a_rollback(world)
    _, new = fix(world, bad)
    world.run(until=lambda: state_of(world, new) is RolloutState.FANNING_OUT)
    was = []

    def late(job):
        if job.host.rollout == old and not was:
            was.append(job)
            world.run(until=lambda: row_of(world, new).state is HostState.DONE, seconds=14)

    before_reports(patch, hosts, late)
    roll_back_again(world, old, hosts)
    world.settle()
    return new


def kept_and_switched_again(world, patch, hosts):
    """A rollout is stopped and its hosts kept; the next one's canary is switched before the first one's worker reports."""
    world.push()
    world.settle()
    bad = world.push()
    was = []

    def late(job):
        if job.rollout.commit == bad and job.host.state is HostState.ACTIVATING and not was:
            was.append(job)
            stopping.stop(job.rollout.id, world.deps, who="me", why="keep", keep=True)
            world.run(until=lambda: state_of(world, job.rollout.id) is RolloutState.STOPPED, seconds=10)
            _, new = fix(world, bad)
            name = job.host.name
            world.run(until=lambda: row_of(world, new, name).state is HostState.DONE, seconds=12)

    before_reports(patch, hosts, late)
    world.settle()


def accepted_and_switched_anew(world, halts):
    """SLOW's order is lost, and it is away; a person accepts that; it comes back, and cannot run the release."""
    world.push()
    world.settle()
    sha, host = world.push(), world.fleet.hosts[SLOW]
    world.fleet.cuts.add(SLOW)
    world.run(until=lambda: setattr(host, "unreachable", SLOW in world.fleet.in_hand) or host.unreachable)
    world.settle()
    halts.resume(world.newest().id, world.deps, who="me", why="known dead", accept_failed=True)
    world.fleet.in_hand.pop(SLOW)[1].close()
    host.unreachable = False
    host.unhealthy.add(sha)
    world.settle()
