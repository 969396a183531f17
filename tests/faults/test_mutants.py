"""Is the checker worth something? The product is broken on purpose, once for each thing that it must not forget.

Each mutant runs under a scenario that provokes it. The checker, which sees rows, events and journals alone, must accuse
the mutant, and must find nothing when the same scenario meets the product as it is.
"""

import dataclasses
import functools
import random
import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Boolean, DateTime, and_, bindparam, or_, update

from rollout.domain.model import AppName, Push
from rollout.domain.states import HOSTS, CommitState, HostEvent, HostState, RolloutEvent, RolloutState
from rollout.domain.verdict import Status
from rollout.errors import OutcomeUnknown, StepFailed, Unreachable
from rollout.services import (
    bars,
    canaries,
    freezes,
    halts,
    hosts,
    intake,
    planning,
    reconcile,
    rollouts,
    stopping,
)
from rollout.services.targets import target_of
from rollout.store import claims as claims_store
from rollout.store import fleet as fleet_store
from rollout.store import hosts as hosts_store
from rollout.store import rollouts as rollouts_store
from rollout.store.claims import Claims
from rollout.store.commits import Commits
from rollout.store.fleet import Fleet
from rollout.store.going_back import GoingBack
from rollout.store.hosts import Hosts
from rollout.store.journal import Deliveries
from rollout.store.rollouts import Rollouts
from rollout.store.store import Store
from rollout.store.straight import Prepared
from rollout.store.tables import fleet_hosts, rollout_hosts
from rollout.store.tables import rollout_hosts as hosts_table
from rollout.store.tables import rollouts as rollouts_table
from tests.support import across, host_sh
from tests.support.checker import read
from tests.support.checker.check import check
from tests.support.checker.history import Deed, History
from tests.support.checker.story import Story
from tests.support.model_host import at_once
from tests.support.world import World

Plant = Callable[[pytest.MonkeyPatch], None]
DONE, STAGES = HostState.DONE, {RolloutState.FANNING_OUT}
SLOW = "web05"  # the host to which things happen


class Killed(BaseException):
    """A worker's process ends here."""


@dataclass(frozen=True)
class Mutant:
    """A product that forgets something, and how it shows."""

    what: str
    accused: str  # the invariant under which the checker must accuse it
    plant: Plant
    scenario: Callable[[Path, pytest.MonkeyPatch, Plant], History]


# -- scenarios on a World ------------------------------------------------------------------------------------------------


def a_world(folder, patch, plant, **options):
    plant(patch)
    return World(folder, patch, **options)


def ended(world, *, at_rest=False, deeds=()):
    history = dataclasses.replace(read.world(world, at_rest=at_rest), deeds=deeds)
    world.store.close()
    return history


def row_of(world, name=SLOW):
    return next(host for host in world.rollout_hosts() if host.name == name)


def state_is(world, *states):
    return lambda: world.newest() is not None and world.newest().state in states


def once(work):
    """A hook that works the first time only."""
    left = deque([work])
    return lambda: left.pop()() if left else None


def plain(folder, patch, plant):
    """A rollout from push to done, nothing goes wrong."""
    world = a_world(folder, patch, plant)
    world.push()
    world.settle()
    return ended(world, at_rest=True)


def two_at_once_by_hand(folder, patch, plant):
    """In a freeze two commits come in, and a person ships both; then automation may go on."""
    world = a_world(folder, patch, plant, hosts=3)
    app = world.config.app("shop")
    freezes.freeze(app, world.deps, who="ann", why="a fair", until=None)
    world.push()
    newer = world.push()
    world.run(seconds=10)
    intake.enqueue(app, newer, world.deps, who="ann", now=intake.Wish("both", "ann"))
    world.run(seconds=60)
    freezes.unfreeze(app, world.deps, who="ann", why="it is over")
    world.run(seconds=60)  # as long as a rollout takes
    return ended(world)


def second_push_in_the_middle(folder, patch, plant):
    """A second commit passes while the first one fans out."""
    world = a_world(folder, patch, plant)
    world.push()
    world.run(until=state_is(world, *STAGES))
    world.push()
    world.run(seconds=5)
    return ended(world)


def late_report(folder, patch, plant):
    """A worker sleeps after its host acted; its lease runs out, the host is read, and only then the worker reports."""
    world = a_world(folder, patch, plant)
    world.push()

    def oversleep():
        world.seconds += 2 * world.deps.settings.lease_s
        world.run(until=lambda: row_of(world).state is DONE, seconds=60)

    world.fleet.hosts[SLOW].after_act = once(oversleep)
    world.settle()
    return ended(world)


def message_again(folder, patch, plant):
    """A host's message comes again when the host is done and the others are not."""
    world = a_world(folder, patch, plant)
    world.push()
    world.run(until=lambda: world.newest() is not None and row_of(world).state is DONE)
    hosts.deploy(row_of(world).rollout, row_of(world).id, world.deps)
    world.settle()
    return ended(world)


def messages_ahead(folder, patch, plant):
    """Whoever can write to the broker sends every host's message while the canary is watched."""
    world = a_world(folder, patch, plant)
    world.push()
    world.run(until=state_is(world, RolloutState.EVALUATING_CANARY))
    world.run(seconds=2)
    for host in world.rollout_hosts():
        hosts.deploy(host.rollout, host.id, world.deps)
    world.settle()
    return ended(world)


def all_at_once(folder, patch, plant):
    """While one host is being switched, the messages of all others are there, and all of them are unhealthy."""
    world = a_world(folder, patch, plant, fan_out='max_failed = 0\nmode = "strict"')
    sha = world.push()
    for host in list(world.fleet.hosts.values())[1:]:
        host.unhealthy.add(sha)
        host.before_act = once(
            lambda: [hosts.deploy(one.rollout, one.id, world.deps) for one in world.rollout_hosts()]
        )
    world.settle()
    return ended(world)


def one_at_a_time(folder, patch, plant):
    """The messages of all hosts are there while one is being switched, and one at a time may be."""
    world = a_world(folder, patch, plant, fan_out="max_failed = 5\nconcurrency = 1")
    world.push()
    for host in list(world.fleet.hosts.values())[1:]:
        host.before_act = once(
            lambda: [hosts.deploy(one.rollout, one.id, world.deps) for one in world.rollout_hosts()]
        )
    world.settle()
    return ended(world)


def answers_lost_for_good(folder, patch, plant):
    """Every host beyond the canary acts, and is never heard of again."""
    world = a_world(folder, patch, plant, fan_out="max_failed = 1")
    world.push()
    for host in list(world.fleet.hosts.values())[1:]:
        host.loses_answer = 1
        host.after_act = functools.partial(setattr, host, "unreachable", True)
    world.settle()
    return ended(world)


def answer_lost(folder, patch, plant):
    """A host acts, and its answer is lost."""
    world = a_world(folder, patch, plant)
    world.push()
    world.fleet.hosts[SLOW].loses_answer = 1
    world.settle()
    return ended(world)


def order_lost(folder, patch, plant):
    """The connection breaks before the order arrives: nobody knows, and nothing was done."""
    world = a_world(folder, patch, plant)
    world.push()

    def lose():
        raise OutcomeUnknown("the connection broke")

    world.fleet.hosts[SLOW].before_act = once(lose)
    world.settle()
    return ended(world)


def order_late_at_a_stop(folder, patch, plant):
    """An order is permitted and on its way when the rollout is stopped; it arrives after the acknowledgement."""
    world = a_world(folder, patch, plant)
    world.push()
    world.settle()
    world.push()

    def stop():
        stopping.stop(world.newest().id, world.deps, who="me", why="stop")
        world.run(
            until=state_is(world, RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK, RolloutState.STOPPED)
        )

    world.fleet.hosts[SLOW].before_act = once(stop)
    world.settle()
    return ended(world)


def permit_asked_for_after_a_stop(folder, patch, plant):
    """A host has greeted when the rollout is stopped; its worker asks whether it may be switched when that is acknowledged."""
    world = a_world(folder, patch, plant)
    world.push()
    world.settle()
    world.push()
    greeted = []

    def stop(name):
        if name == SLOW and not greeted:
            greeted.append(name)
            stopping.stop(world.newest().id, world.deps, who="me", why="stop")
            reconcile.watch(world.deps)
            world.seconds += 1

    world.fleet.before_permit = stop
    world.settle()
    return ended(world)


def in_hand_at_a_stop(world, befalls):
    """A host has its order in hand, and its worker has lost it; something befalls its row, then comes a stop, then it acts."""
    world.push()
    world.settle()
    world.fleet.cuts.add(SLOW)
    world.push()
    world.run(until=lambda: SLOW in world.fleet.in_hand)
    befalls()
    stopping.stop(world.newest().id, world.deps, who="me", why="stop")
    world.run(
        until=state_is(world, RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK, RolloutState.STOPPED)
    )
    _, steps, within = world.fleet.in_hand[SLOW]
    at_once(steps, within)  # as far as the host's fence lets it
    world.settle()
    return ended(world)


def excluded_with_an_order_in_hand(folder, patch, plant):
    """A person excludes a host that is unknown, and then stops the rollout."""
    world = a_world(folder, patch, plant)
    return in_hand_at_a_stop(
        world, lambda: halts.exclude("shop", [SLOW], world.deps, who="me", why="bad memory")
    )


def read_oddly_with_an_order_in_hand(folder, patch, plant):
    """The reading of an unknown host ends with an exit status that is no answer; then the rollout is stopped."""
    world = a_world(folder, patch, plant)
    true, odd = world.fleet.status, []

    def status(target, **options):
        if target.name == SLOW and not odd:
            odd.append(True)
            raise StepFailed(f"{SLOW}: the command ended with 255; it said: cannot fork")
        return true(target, **options)

    world.fleet.status = status
    return in_hand_at_a_stop(world, lambda: world.run(until=lambda: odd, seconds=30))


def busy_at_a_stop(folder, patch, plant):
    """A host has looked at its time, and holds the lock, when the stop comes; it goes on 3 s later, or after the end of the stop.

    Whether the host was seen to run the stopped release after the acknowledgement.
    """
    world = a_world(folder, patch, plant)
    world.push()
    world.settle()
    world.fleet.cuts.add(SLOW)
    sha = world.push()
    host = world.fleet.hosts[SLOW]
    world.run(until=lambda: SLOW in world.fleet.in_hand)
    _, steps, within = world.fleet.in_hand[SLOW]
    moment = steps.send(within)
    while moment != "allowed":
        moment = next(steps)

    def wait():
        world.seconds += 0.5

    world.fleet.while_waiting = wait
    stopping.stop(world.newest().id, world.deps, who="me", why="stop")
    goes_on = world.seconds + 3.0
    world.run(until=lambda: world.newest().acknowledged_at is not None or world.seconds >= goes_on)
    late = world.newest().acknowledged_at is not None
    moment = next(steps)
    assert (moment, host.current) == ("switched", sha)
    at_once(steps)
    world.settle()
    assert world.newest().state is RolloutState.ROLLED_BACK
    assert world.newest().unconfirmed == ()
    world.store.close()
    return late


def late_roll_back(folder, patch, plant):
    """An old rollback is reported when the next rollout has switched the host."""
    world = a_world(folder, patch, plant, hosts=5, fan_out="max_failed = 2")
    across.late_roll_back(world, patch, hosts)
    return ended(world)


def roll_back_in_between(folder, patch, plant):
    """An old rollback is tried again when the next rollout is done."""
    world = a_world(folder, patch, plant, hosts=5, fan_out="max_failed = 2")
    _, bad, old = across.owes_a_rollback(world)
    across.fix(world, bad)
    world.settle()
    across.roll_back_again(world, old, hosts)
    world.run(seconds=5)
    return ended(world)


def owed_and_taken_back(folder, patch, plant):
    """The next rollout reaches the host that an old rollback did not, and is taken back too."""
    world = a_world(folder, patch, plant, hosts=5, fan_out="max_failed = 2")
    _, bad, _ = across.owes_a_rollback(world)
    _, new = across.fix(world, bad)
    world.run(until=lambda: across.row_of(world, new).state is DONE)
    across.take_back(world, new)
    return ended(world)


def owed_and_unhealthy(folder, patch, plant):
    """The next rollout reaches the host that an old rollback did not, and is unhealthy there."""
    world = a_world(folder, patch, plant, hosts=5, fan_out="max_failed = 2")
    _, bad, _ = across.owes_a_rollback(world)
    sha, new = across.fix(world, bad)
    world.fleet.hosts[SLOW].unhealthy.add(sha)
    world.run(until=lambda: across.row_of(world, new).state is HostState.FAILED)
    return ended(world)


def accepted_and_switched_anew(folder, patch, plant):
    """A person accepts that a host is away; it comes back, is switched anew, and fails."""
    world = a_world(folder, patch, plant, hosts=6, fan_out="max_failed = 0\nretries = 0\nconcurrency = 1")
    across.accepted_and_switched_anew(world, halts)
    return ended(world)


def retried_while_unreadable(folder, patch, plant):
    """A person retries a host that nobody could read, and that is still away."""
    world = a_world(folder, patch, plant, hosts=5, fan_out="max_failed = 0\nretries = 0")
    host = world.fleet.hosts[SLOW]
    host.loses_answer, host.after_act = 1, once(lambda: setattr(host, "unreachable", True))
    world.push()
    world.settle()
    halts.retry(world.newest().id, world.deps, who="me")
    return ended(world)


def back_twice(folder, patch, plant):
    """`rollback --to`, then `rollback`, then the next push."""
    world = a_world(folder, patch, plant, hosts=2)
    shas = []
    for _ in range(3):
        shas.append(world.push())
        world.settle()
    for to in (shas[1], None):
        app = world.config.app(None)
        back = stopping.roll_back_done(app, world.deps, to=to, who="me", why="slow").id
        world.run(until=lambda back=back: across.state_of(world, back) is RolloutState.ROLLED_BACK)
    for sha in shas[1:]:
        bars.unbar("shop", sha, world.deps, who="me", why="because")
    world.push()
    world.run(until=lambda: world.newest().commit not in shas, seconds=60)
    return ended(world)


def killed_after_the_commit(folder, patch, plant):
    """A worker is killed right after the transaction that wrote a host's outcome."""
    armed = []
    original = Store.transaction

    @contextmanager
    def transaction(store):
        with original(store) as tx:
            yield tx
        if armed:
            armed.clear()
            raise Killed

    patch.setattr(Store, "transaction", transaction)
    world = a_world(folder, patch, plant)
    world.push()
    world.fleet.hosts[SLOW].after_act = once(lambda: armed.append(True))
    with suppress(Killed):
        world.settle()
    world.settle()
    return ended(world)


def no_traffic(folder, patch, plant):
    """Nobody asks the canary anything."""
    world = a_world(folder, patch, plant, canary='deadline = "60s"')
    world.metrics.rate = 0
    world.push()
    world.settle()
    return ended(world)


def messages_lost(folder, patch, plant):
    """The broker is emptied in the middle of a fan-out."""
    world = a_world(folder, patch, plant)
    world.push()
    world.run(until=state_is(world, *STAGES))
    world.bell.queue.clear()
    world.run(seconds=300)
    return ended(world, at_rest=True)


def barred_in_time(folder, patch, plant):
    """A person bars a commit while it is being tested."""
    world = a_world(folder, patch, plant)
    world.push()
    world.settle()
    bad = world.push()
    bars.bar("shop", bad, world.deps, who="me", why="not this one")
    world.run(seconds=120)
    return ended(world)


def webhooks(folder, patch, plant):
    """Three deliveries, each answered as the web service answers."""
    world = a_world(folder, patch, plant, hosts=2)
    deeds = []
    for number in range(3):
        sha = world.workshop.push()
        push = Push("github", f"guid-{number}", "push", full_name="shop", branch="main", head=sha)
        stored = intake.receive_all([(push, world.config.app("shop"))], world.deps)[0]
        deeds.append(Deed(datetime.now(UTC), "webhook", {}, {"status": 202, "delivery": stored.delivery}))
    return ended(world, deeds=deeds)


# -- mutants of the product ------------------------------------------------------------------------------------------------


def no_version_guard(patch):
    of_any_version = or_(rollout_hosts.c.version == bindparam("its_version"), rollout_hosts.c.version > 0)
    its_row = rollout_hosts.c.id == bindparam("its_id")
    guarded = Prepared(update(rollout_hosts).where(its_row, of_any_version))
    patch.setattr(hosts_store, "_GUARDED", guarded)


def no_state_guard(patch):
    def unleased(self, host, _state):
        return self._tx.hosts.get(host)

    def anything(_state, what):
        return next(edges[what] for edges in HOSTS.values() if what in edges)

    patch.setattr(Claims, "_unleased", unleased)
    whatever = claims_store._WITH_DEBT.where(hosts_table.c.id == bindparam("host"))
    patch.setattr(claims_store, "_TO_ACTIVATE", Prepared(whatever))
    for module in (hosts_store, claims_store):
        patch.setattr(module, "next_host_state", anything)


def no_stage_guard(patch):
    patch.setattr(rollouts_store, "_may_activate", lambda *, canary: [])
    patch.setattr(rollouts_store, "_take_token", rollouts_store._take_token.__wrapped__)


def no_budget(patch):
    def take(*, canary):
        may = and_(rollouts_store._THIS, *rollouts_store._may_activate(canary=canary))
        return Prepared(update(rollouts_table).where(may).values(in_flight=rollouts_table.c.in_flight + 1))

    patch.setattr(rollouts_store, "_take_token", take)


def any_number_at_once(patch):
    def take(*, canary):
        table = rollouts_table.c
        room = table.failed + table.unknown + table.in_flight < table.max_failed + table.window
        may = and_(rollouts_store._THIS, *rollouts_store._may_activate(canary=canary), room)
        return Prepared(update(rollouts_table).where(may).values(in_flight=table.in_flight + 1))

    patch.setattr(rollouts_store, "_take_token", take)


def early_acknowledgement(patch):
    patch.setattr(stopping, "_unsealed", lambda _tx, _rollout: [])


def permitted_are_not_sealed(patch):
    def without_permit(self, rollout):
        return self.of(rollout, HostState.ACTIVATING)

    patch.setattr(Hosts, "without_permit", without_permit)


def permits_for_all(patch):
    patch.setattr(Claims, "touch", lambda _self, greeted, lease_s: [lease_s] * len(greeted))


def seals_what_is_not_sealed(patch):
    def seal(host, app, epoch, timeout_s, deps):
        deps.fleet.status(
            target_of(host, app), asked=host.operation or 0, seal=(epoch, epoch), timeout_s=timeout_s
        )
        return True

    patch.setattr(stopping, "_seal", seal)


def excluded_are_not_sealed(patch):
    def in_flight(self, rollout):
        return self.of(rollout, HostState.ACTIVATING, HostState.UNKNOWN)

    patch.setattr(Hosts, "may_still_act", in_flight, raising=False)


def odd_readings_fail(patch):
    true = hosts._not_read

    def not_read(tx, job, error):
        if isinstance(error, Unreachable | OutcomeUnknown):
            return true(tx, job, error)
        return hosts._fail(tx, job, error)

    patch.setattr(hosts, "_not_read", not_read)


def token_back_on_a_timeout(patch):
    def lose(tx, job, error):
        return hosts._change(tx, job, HostEvent.FOUND_UNTOUCHED, why=str(error), token=False)

    patch.setattr(hosts, "_lose", lose)


def any_report_is_recorded(patch):
    anything = or_(fleet_hosts.c.operation <= bindparam("its_epoch"), fleet_hosts.c.operation > 0)
    report = fleet_store._FLEET_HOST.where(anything)
    known = {"release": bindparam("its_release"), "operation": bindparam("its_epoch")}
    unused = or_(
        bindparam("stays", type_=Boolean),
        bindparam("its_time", type_=DateTime).is_not(None),
        bindparam("its_address").is_not(None),
    )
    patch.setattr(fleet_store, "_FLEET_REPORT", Prepared(report))
    patch.setattr(fleet_store, "_RUNS", Prepared(report.where(unused).values(**known)))


def old_roll_backs_go_on(patch):
    patch.setattr(GoingBack, "touched_later", lambda _self, _host, **_: False)


def debts_are_forgotten(patch):
    patch.setattr(Fleet, "owe", lambda *_: None)


def hosts_are_not_told_of_debts(patch):
    def replace(what, **values):
        values.pop("owes", None)
        return dataclasses.replace(what, **values)

    patch.setattr(hosts, "replace", replace)


def accepted_for_ever(patch):
    patch.setattr(hosts, "_UNTOUCHED", hosts._FOUND)
    true = Claims._claim_all

    def claim(self, hosts, what, owner, lease_s, more=None, **options):
        for values in more or ():
            values.pop("accepted", None)
        return true(self, hosts, what, owner, lease_s, more, **options)

    patch.setattr(Claims, "_claim_all", claim)


def retry_takes_unread_for_untouched(patch):
    def again(tx, host, who):
        values = {"token": False, "accepted": False, "unreadable": False, "error": None, "cause": None}
        tx.hosts.change(host, HostEvent.RETRY, who=who, attempt=host.attempt + 1, **values)

    patch.setattr(halts, "_again", again)


def back_from_the_newest_number(patch):
    def released(self, app):
        for one in self.finished(app, 100):
            if one.state is RolloutState.DONE or one.rollback_to:
                return one.rollback_to or one.commit
        return None

    patch.setattr(Rollouts, "released", released)


def unknown_is_not_counted(patch):
    def without(true):
        return lambda *host, **its: dataclasses.replace(true(*host, **its), unknown=0, unreadable=0)

    for module in (hosts_store, claims_store):
        patch.setattr(module, "count", without(module.count))
    patch.setattr(rollouts_store, "count_of", without(rollouts_store.count_of))


def outcome_counted_twice(patch):
    once_only = Rollouts.move_counts

    def twice(self, *args, **values):
        once_only(self, *args, **values)
        once_only(self, *args, **values)

    patch.setattr(Rollouts, "move_counts", twice)


def unknown_is_success(patch):
    def settle(tx, job, _status):
        return hosts._done(tx, job)

    patch.setattr(hosts, "_settle", settle)


def pass_without_data(patch):
    true = canaries.judged

    def judged(intervals, policy):
        judge = true(intervals, policy)
        if len(intervals) <= 5:
            return judge
        return SimpleNamespace(verdict=dataclasses.replace(judge.verdict, status=Status.PASS))

    patch.setattr(canaries, "judged", judged)


def event_outside_the_transaction(patch):
    original = Store.transaction

    @contextmanager
    def transaction(store):
        later = []
        with original(store) as tx:
            tx.record = lambda *args, **values: later.append((args, values))
            yield tx
        if later:
            with original(store) as tx:
                for args, values in later:
                    tx.record(*args, **values)

    patch.setattr(Store, "transaction", transaction)


def release_not_recorded(patch):
    patch.setattr(Fleet, "all_run", lambda *_, **__: None)


def deliveries_not_kept(patch):
    patch.setattr(Deliveries, "add_all", lambda _, told: [1] * len(told))


def two_at_a_time(patch):
    prepare = Store.prepare

    def unguarded(store):
        prepare(store)
        with closing(sqlite3.connect(store.url.removeprefix("sqlite:///"))) as database:
            database.execute("DROP INDEX IF EXISTS uq_rollouts_active")

    patch.setattr(Store, "prepare", unguarded)
    patch.setattr(planning, "_next", planning._choose)
    begins_whatever_is(patch)


def begins_whatever_is(patch):
    def begin(tx, rollout, deps):
        return tx.rollouts.change(rollout, RolloutEvent.START, who=deps.worker, due_at=0.0, began_s=tx.now())

    patch.setattr(rollouts, "_start", begin)


def barred_is_passed(patch):
    true = bars.candidate

    def candidate(commit, tx):
        return dataclasses.replace(true(commit, tx), state=CommitState.PASSED, barred=False)

    patch.setattr(bars, "candidate", candidate)
    begins_whatever_is(patch)


def queue_from_the_root(patch):
    after = Commits.after
    patch.setattr(Commits, "after", lambda self, app, _position: after(self, AppName(app), 0))
    patch.setattr(planning, "_has_gaps", lambda _base, _queue: False)


def nobody_rings_again(patch):
    patch.setattr(reconcile, "_due_rollouts", lambda _deps: [])


# -- the host's own fence, for real ----------------------------------------------------------------------------------------

OLD, NEW = host_sh.a_release(host_sh.A), host_sh.a_release(host_sh.B)
OTHER = host_sh.a_release(host_sh.B, {"app": "not what was tested"})


def rewritten(*changes):
    """A mutant of host.sh: each text, which must be there, replaced."""

    def plant(patch):
        text = host_sh.PROGRAM.read_text()
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        install = host_sh.Host.install

        def install_mutant(host):
            install(host)
            host.program.write_text(text)

        patch.setattr(host_sh.Host, "install", install_mutant)

    return plant


@dataclass
class Scene:
    """A real host, and a story in which rollout 1 (OLD) is done on it and rollout 2 (NEW) has claimed it."""

    host: host_sh.Host
    story: Story

    def history(self):
        self.host.quiet()
        disks = {"web1": read.disk(self.host.root, read.boot_time())}
        self.story.options = {"disks": disks, "at_rest": False, "slack": timedelta(milliseconds=30)}
        return self.story.history()


def a_scene(folder, patch, plant, *, new=NEW):
    plant(patch)
    host = host_sh.Host(folder / "srv", host_sh.shell("dash", folder / "applets"))
    story = Story("web1", clock=lambda: datetime.now(UTC))
    for release in (OLD, NEW):
        story.commit(release.commit)
        story.tables["releases"][-1]["digest"] = release.digest
        story.tables["commits"][-1]["digest"] = release.digest
    host.prepare(OLD, op=1)
    host.prepare(new, op=2)
    story.numbers = 10
    first = story.plan(OLD.commit)
    story.tables["rollouts"][0]["digest"] = OLD.digest
    story.rollout(first, "start")
    story.claim(first, "web1")
    assert host.activate(OLD, op=11, epoch=11).code == host_sh.DONE
    story.current["web1"] = OLD.commit
    story.report(first, "web1")
    story.tables["samples"].append({"rollout": 1, "role": "canary", "observed": True, "counts": {"2xx": 50}})
    story.rollout(first, "canary deployed", "canary passed", "finish", due_at=None)
    second = story.plan(NEW.commit)
    story.tables["rollouts"][1]["digest"] = NEW.digest
    story.rollout(second, "start")
    story.claim(second, "web1")
    return Scene(host, story)


def stopped_untouched(scene):
    """The stop of rollout 2 is acknowledged: the host that held a lease has not been switched."""
    scene.story.rollout(2, "stop", "acknowledge", due_at=None)
    scene.story.host(2, "web1", "lose", token=False)


def permitted_too_late(folder, patch, plant):
    """The worker sleeps between the greeting and its answer, the stop waits for its right to end, and it wakes."""
    scene = a_scene(folder, patch, plant)
    talk = scene.host.ask("activate", NEW, op=12, epoch=12)
    greeted = int(talk.hear("clock"))
    host_sh.until(lambda: int(scene.host.call("hello")["clock"] or 0) > greeted + 50, what="the right to end")
    stopped_untouched(scene)
    acknowledged = int(scene.host.call("hello")["clock"] or 0)
    host_sh.until(
        lambda: int(scene.host.call("hello")["clock"] or 0) > acknowledged + 60, what="clocks to differ"
    )
    talk.within(50).reply()
    return scene.history()


def sealed_before_the_permit(folder, patch, plant):
    """A stop seals the greeted host; then the permit arrives, well in its time."""
    scene = a_scene(folder, patch, plant)
    talk = scene.host.ask("activate", NEW, op=12, epoch=12).greeted()
    assert scene.host.status(epoch=20, op=20)["sealed"] == "yes"
    stopped_untouched(scene)
    acknowledged = int(scene.host.call("hello")["clock"] or 0)
    host_sh.until(
        lambda: int(scene.host.call("hello")["clock"] or 0) > acknowledged + 60, what="clocks to differ"
    )
    talk.within().reply()
    return scene.history()


def other_bytes_arrive(folder, patch, plant):
    """What arrives under the commit's name is not what was tested."""
    swapped = host_sh.Release(NEW.commit, OTHER.archive, NEW.digest)
    scene = a_scene(folder, patch, plant, new=swapped)
    if scene.host.activate(NEW, op=12, epoch=12).code == host_sh.DONE:
        scene.story.current["web1"] = NEW.commit
        scene.story.report(2, "web1")
    else:
        scene.story.host(2, "web1", "fail", token=False)
    return scene.history()


def done_and_told_again(folder, patch, plant, *orders):
    """Rollout 2 is done on the host; then other orders arrive, each an operation and an epoch."""
    scene = a_scene(folder, patch, plant)
    assert scene.host.activate(NEW, op=12, epoch=12).code == host_sh.DONE
    scene.story.current["web1"] = NEW.commit
    scene.story.report(2, "web1")
    for release, op, epoch in orders:
        scene.host.activate(release, op=op, epoch=epoch)
    return scene.history()


def lower_epoch(folder, patch, plant):
    """An order of an older time, with a new number."""
    return done_and_told_again(folder, patch, plant, (OLD, 13, 11))


def lower_operation(folder, patch, plant):
    """An order that was overtaken."""
    return done_and_told_again(folder, patch, plant, (NEW, 10, 12))


def same_operation(folder, patch, plant):
    """The same order, delivered twice."""
    return done_and_told_again(folder, patch, plant, (NEW, 12, 12))


EPOCH = ('[ "$epoch" -ge "$seen_epoch" ] || refuse epoch', ":")
OPERATION = ('[ "$op" -gt "$seen_op" ] || refuse op', ":")
KNOWN = ("    answer_known\n", "")
DIGEST = ('[ "$(tree_digest "$new")" = "$digest" ] || refuse digest', ":")
WITHIN = ('[ "$now" -lt "$deadline" ]', "true")
MARK = ("""printf '' >".rollout/raised/$1-$2\"""", ":")

MUTANTS = [
    Mutant("no version guard in Hosts._write", "I7", no_version_guard, late_report),
    Mutant("no state guard in the claim", "I6", no_state_guard, message_again),
    Mutant("no stage guard in the claim", "I11", no_stage_guard, messages_ahead),
    Mutant("tokens without a budget", "I3", no_budget, all_at_once),
    Mutant("tokens beyond `concurrency`", "I3", any_number_at_once, one_at_a_time),
    Mutant("a stop is acknowledged early", "I2", early_acknowledgement, order_late_at_a_stop),
    Mutant("a stop takes a permitted claim back", "I2", permitted_are_not_sealed, order_late_at_a_stop),
    Mutant("a permit is given whatever the claim", "I2", permits_for_all, permit_asked_for_after_a_stop),
    Mutant(
        "excluded hosts are left out of a stop", "I2", excluded_are_not_sealed, excluded_with_an_order_in_hand
    ),
    Mutant("an odd reading makes a host failed", "I2", odd_readings_fail, read_oddly_with_an_order_in_hand),
    Mutant("a token comes back on a timeout", "I6", token_back_on_a_timeout, answer_lost),
    Mutant("unknown hosts are not counted", "I3", unknown_is_not_counted, answers_lost_for_good),
    Mutant("a late report is recorded over a newer one", "I5", any_report_is_recorded, late_roll_back),
    Mutant("old rollbacks go on beside a newer rollout", "I5", old_roll_backs_go_on, roll_back_in_between),
    Mutant("a debt is not inherited", "I2", debts_are_forgotten, owed_and_taken_back),
    Mutant("a host is not told of its debt", "I2", hosts_are_not_told_of_debts, owed_and_unhealthy),
    Mutant("an acceptance outlives its attempt", "I3", accepted_for_ever, accepted_and_switched_anew),
    Mutant(
        "`retry` takes an unread host for untouched",
        "I5",
        retry_takes_unread_for_untouched,
        retried_while_unreadable,
    ),
    Mutant("`rollback` goes back from the newest number", "I12", back_from_the_newest_number, back_twice),
    Mutant("an outcome is counted twice", "counters", outcome_counted_twice, plain),
    Mutant("unknown is taken as success", "I5", unknown_is_success, order_lost),
    Mutant("a PASS without data", "I11", pass_without_data, no_traffic),
    Mutant("an event outside the transaction", "I7", event_outside_the_transaction, killed_after_the_commit),
    Mutant("the release is not recorded", "I5", release_not_recorded, plain),
    Mutant("a webhook is not kept", "I4", deliveries_not_kept, webhooks),
    Mutant("two rollouts at a time", "I1", two_at_a_time, second_push_in_the_middle),
    Mutant("a barred commit is shipped", "I9", barred_is_passed, barred_in_time),
    Mutant("the queue begins at the root", "I12", queue_from_the_root, two_at_once_by_hand),
    Mutant("nobody rings again", "I8", nobody_rings_again, messages_lost),
]

HOST_MUTANTS = [
    Mutant("host.sh checks no digest", "I9", rewritten(DIGEST), other_bytes_arrive),
    Mutant("host.sh checks no epoch", "fence", rewritten(EPOCH), lower_epoch),
    Mutant("host.sh checks no operation number", "fence", rewritten(OPERATION), lower_operation),
    Mutant("host.sh forgets what it has done", "I6", rewritten(KNOWN, OPERATION), same_operation),
    Mutant("host.sh ignores `within`", "I2", rewritten(WITHIN), permitted_too_late),
    Mutant("host.sh's seal leaves no mark", "I2", rewritten(MARK), sealed_before_the_permit),
]


def each(mutants):
    return pytest.mark.parametrize(
        "mutant", mutants, ids=[mutant.what.replace(" ", "-") for mutant in mutants]
    )


def accused(mutant, folder, patch):
    random.seed(1)
    return [*map(str, check(mutant.scenario(folder, patch, mutant.plant)))]


def innocent(mutant, folder, patch):
    return check(mutant.scenario(folder, patch, lambda _patch: None))


@each(MUTANTS)
def test_a_mutant_of_the_product_is_accused(mutant, tmp_path, monkeypatch):
    """The checker sees, in what the broken product leaves behind, the very thing that was broken."""
    found = accused(mutant, tmp_path, monkeypatch)
    assert any(one.startswith(f"{mutant.accused} ") for one in found), found


@pytest.mark.faults  # every test on a World ends with the same check
@each(MUTANTS)
def test_the_product_itself_is_innocent(mutant, tmp_path, monkeypatch):
    """The same scenario without the mutant leaves nothing to accuse."""
    assert innocent(mutant, tmp_path, monkeypatch) == []


@pytest.mark.needs("dash", "flock", "setsid")
@each(HOST_MUTANTS)
def test_a_mutant_of_host_sh_is_accused(mutant, tmp_path, monkeypatch):
    """The checker sees in a real host's journal and on its disk what the host's fence let through."""
    found = accused(mutant, tmp_path, monkeypatch)
    assert any(one.startswith(f"{mutant.accused} ") for one in found), found


@pytest.mark.needs("dash", "flock", "setsid")
@each(HOST_MUTANTS)
def test_host_sh_itself_is_innocent(mutant, tmp_path, monkeypatch):
    """The same orders to host.sh as it is leave nothing to accuse."""
    assert innocent(mutant, tmp_path, monkeypatch) == []


def test_a_host_too_busy_to_be_sealed_is_waited_for(tmp_path, monkeypatch):
    """What holds the lock and may still switch has ended when a stop is acknowledged; a `sealed=no` is no seal."""
    assert not busy_at_a_stop(tmp_path / "true", monkeypatch, lambda _patch: None)
    assert busy_at_a_stop(tmp_path / "mutant", monkeypatch, seals_what_is_not_sealed)


def test_the_docs_count_the_mutants():
    """docs/reliability.md says how many there are; the busy host's is the one beyond the lists."""
    said = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    assert f"{len(MUTANTS) + len(HOST_MUTANTS) + 1} planted mutants" in said
