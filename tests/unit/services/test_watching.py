"""The fan-out is watched: a fault that no canary showed halts it in its middle, and nothing else does."""

import random
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest

from rollout.domain import pipeline
from rollout.domain.states import HostState, RolloutState
from rollout.domain.verdict import Status, Verdict
from rollout.errors import Conflict, Unreachable
from rollout.services import halts, hosts, reconcile, replays, stopping, watching
from rollout.services.perform import HereAndNow
from rollout.services.sightings import Sightings
from rollout.services.steps import Again, End
from rollout.store import clock
from rollout.store.store import Store
from tests.support.released import released
from tests.support.world import World

R = RolloutState
HOSTS = 40


def a_world(tmp_path, monkeypatch, **given):
    """A fleet that runs a release, in which each further switch takes a second."""
    world = released(tmp_path, monkeypatch, hosts=HOSTS, **given)

    def a_second_passes(_name):
        world.seconds += 1.0

    monkeypatch.setattr(hosts, "IN_A_ROW", 1)  # as for hosts that take a second
    world.fleet.before_permit = a_second_passes
    return world


@pytest.fixture
def world(tmp_path, monkeypatch):
    return a_world(tmp_path, monkeypatch)


def on(world, sha):
    return [name for name, host in world.fleet.hosts.items() if host.current == sha]


def break_late(world, sha, hosts=3, share=0.5):
    """From the moment on when so many hosts have it, the commit answers badly wherever it is; when that was."""
    began = []

    def share_of(name, _role, at):
        if not began and len(on(world, sha)) >= hosts:
            began.append(world.seconds)
        host = world.fleet.hosts[name]
        wrong = host.current == sha and at >= host.used_since and began and at >= began[0]
        return share if wrong else 1.0

    world.metrics.share_of = share_of
    return began


def heal(world):
    world.metrics.share_of = lambda _name, _role, _at: 1.0


def halted(world):
    """A second release, with harm that begins in its fan-out, and what came of it."""
    sha = world.push()
    break_late(world, sha)
    assert world.settle().state is R.HALTED
    return sha


def fanning_out(world):
    """A second release in the middle of its fan-out."""
    sha = world.push()
    world.run(until=lambda: len(on(world, sha)) >= 5)
    assert world.newest().state is R.FANNING_OUT
    return world.newest().id


def samples(world):
    """The t of every sample, by host and role."""
    found = defaultdict(list)
    with world.store.reading() as tx:
        for one in tx.samples.of(world.newest().id):
            found[one.host, one.role].append(one.t)
    return found


def test_fault_that_begins_in_the_fan_out_halts_it_in_its_middle(world):
    """What passed the canary and harms later stops there: the hosts that are left keep what they run."""
    sha = world.push()
    began = break_late(world, sha)
    rollout = world.settle()
    assert (rollout.state, rollout.halted_stage, rollout.canary_status) == (R.HALTED, R.FANNING_OUT, "fail")
    assert world.seconds - began[0] < 20
    assert 3 <= len(on(world, sha)) < HOSTS - 10
    world.run(seconds=60)
    assert 3 <= len(on(world, sha)) < HOSTS - 10


def test_halt_says_what_was_seen_how_sure_it_is_and_what_now(world):
    """Hosts, shares and odds in the reason; in the notice what a person can type."""
    halted(world)
    rollout = world.newest()
    assert rollout.reason.startswith("harm in the fan-out: web01, ")
    assert rollout.reason.endswith(rollout.canary_reason)
    assert "baseline hosts to 0 % of" in rollout.reason
    assert "the odds that this is chance are below 1 in" in rollout.reason
    reconcile.tell(world.deps)
    _, body = world.notifier.sent[-1]
    assert f"rollout stop {rollout.id}, or rollout resume {rollout.id} --accept-canary --reason" in body


@pytest.mark.parametrize("everywhere", [1.0, 0.6])
def test_what_hits_switched_hosts_and_others_alike_halts_nothing(world, everywhere):
    """A healthy release goes to the whole fleet, also through an incident that all hosts share."""
    sha = world.push()
    world.metrics.share_of = lambda _name, _role, _at: everywhere if len(on(world, sha)) > 3 else 1.0
    assert world.settle().state is R.DONE
    assert len(on(world, sha)) == HOSTS


def slow_switches(world):
    """From its order to its health a host takes three seconds more."""

    def three_seconds_pass():
        world.seconds += 3.0

    for host in world.fleet.hosts.values():
        host.after_act = three_seconds_pass


def test_errors_of_a_switch_itself_are_not_the_releases(world):
    """Between the first order to a host and its health, its answers count for neither side."""
    slow_switches(world)
    sha = world.push()

    def share_of(name, _role, at):
        host = world.fleet.hosts[name]
        wrong = host.current == sha and host.used_since - 2.0 <= at <= host.used_since + 2.0
        return 0.0 if wrong and name != "web01" else 1.0

    world.metrics.share_of = share_of
    assert world.settle().state is R.DONE


def test_judge_is_told_when_a_switch_began_and_when_it_was_over(world, monkeypatch):
    """Each host with both of its moments, in seconds since the canary was ready; the canary from the beginning."""
    slow_switches(world)
    told = []

    def watch(_intervals, switched, _policy, *, left, since):
        told[:] = [switched, left, since]
        return Verdict(Status.RUNNING, "", 0.0)

    monkeypatch.setattr(watching.judge, "watch", watch)
    world.push()
    assert world.settle().state is R.DONE
    switched, left, since = told
    assert (switched.pop("web01"), left.pop("web01"), since) == (0.0, 0.0, 0.0)
    assert set(switched) == set(left)
    assert {round(switched[name] - left[name]) for name in switched} == {3}


@pytest.fixture
def stepped(tmp_path, monkeypatch, postgres):
    """A world on PostgreSQL whose clock is `world.off` off; every process has the true time on its own."""
    world = a_world(tmp_path, monkeypatch, url=postgres.prepared())
    world.off = 0.0
    monkeypatch.setattr(clock, "store_seconds", lambda _connection: world.seconds + world.off)
    monkeypatch.setattr(clock, "own_seconds", lambda: world.seconds)
    yield world
    world.store.close()


def true_moments(world, sha):
    """Host -> when it had the release, seconds since the canary had it."""
    ready = world.fleet.hosts["web01"].used_since
    return {name: world.fleet.hosts[name].used_since - ready for name in on(world, sha)}


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize(("step", "restarted"), [(3600.0, False), (-600.0, True)])
def test_judge_is_told_the_true_moments_though_the_clock_is_stepped(stepped, monkeypatch, step, restarted):
    """A step of the database's clock in the fan-out moves no switch by more than the time between two looks; nor does a new process."""
    told, looks, world = {}, [], stepped

    def watch(_intervals, switched, _policy, *, left, since):
        told.update(switched)
        looks.append(world.seconds)
        assert all(left[name] <= t for name, t in switched.items())
        return Verdict(Status.RUNNING, "", 0.0)

    monkeypatch.setattr(watching.judge, "watch", watch)
    sha = world.push()
    world.run(until=lambda: len(on(world, sha)) >= 8)
    if restarted:
        store = Store(world.store.url)
        world.store.close()
        world.store = store
        world.deps = replace(world.deps, store=store, sightings=Sightings())
        world.run(until=lambda: len(on(world, sha)) >= 12)
    world.off = step
    assert world.settle().state is R.DONE
    true = true_moments(world, sha)
    assert len(told) >= 6
    between = max(later - look for look, later in pairwise(looks))
    assert between < 60
    assert {name: t for name, t in told.items() if abs(t - true[name]) > between + 1.0} == {}
    for times in samples(world).values():
        assert max(times) <= world.seconds - world.fleet.hosts["web01"].used_since


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("step", [3600.0, -600.0])
def test_harm_after_a_step_of_the_clock_halts(stepped, step):
    """Whoever sets the clock, hosts that are switched are compared with those that are not, and harm halts in the middle."""
    sha = stepped.push()
    stepped.run(until=lambda: len(on(stepped, sha)) >= 3)
    stepped.off = step
    break_late(stepped, sha, hosts=12)
    assert stepped.settle().state is R.HALTED
    assert 12 <= len(on(stepped, sha)) < HOSTS - 5


@pytest.mark.needs("postgresql")
def test_process_that_comes_later_reads_new_hosts_from_the_same_moment_on(stepped):
    """A host that is read first after a restart has t = 0 where all others have it."""
    sha, read, asked = stepped.push(), stepped.metrics.read, {}

    def reading(target, role, config, cursor, *, elapsed):
        asked.setdefault(target.name, (cursor, stepped.seconds - elapsed))
        return read(target, role, config, cursor, elapsed=elapsed)

    stepped.run(until=lambda: len(on(stepped, sha)) >= 5)
    store = Store(stepped.store.url)
    stepped.deps, stepped.metrics.read = replace(stepped.deps, store=store), reading
    with store.transaction() as tx:
        tx.hosts.forget_cursors(stepped.newest().id)
    stepped.run(seconds=6)
    store.close()
    ready_at = stepped.newest().ready_at
    assert len(asked) > 5
    assert {name: t0 for name, (cursor, t0) in asked.items() if cursor or abs(t0 - ready_at) > 1.0} == {}


def test_host_leaves_the_baseline_when_it_is_switched(world):
    """From its switch on it is no baseline; and who looks back at the canary finds the hosts that it was compared with."""
    slow_switches(world)
    world.push()
    assert world.settle().state is R.DONE
    found = samples(world)
    baseline = {"web37", "web38", "web39", "web40"}
    assert {name for name, role in found if role == "baseline"} == baseline
    assert {name for name, role in found if role == "canary"} == {"web01"}
    ready = world.newest().ready_at
    left = {host.name: host.touched_at - ready for host in world.rollout_hosts()}
    assert all(max(found[name, "baseline"]) <= left[name] + 2.0 for name in baseline)
    assert any(found[name, "other"] for name in baseline)


def test_few_hosts_are_read_and_always_the_same(world):
    """Sixteen at most however many there are: the canary, its baseline, and others evenly in the order of activation."""
    asked = set()
    read = world.metrics.read

    def reading(target, *given, **named):
        asked.add(target.name)
        return read(target, *given, **named)

    world.metrics.read = reading
    world.push()
    assert world.settle().state is R.DONE
    spread = {"web03", "web08", "web13", "web18", "web23", "web28", "web33", "web38"}
    assert asked == {"web01", "web37", "web38", "web39", "web40"} | spread


def test_fleet_that_is_switched_in_no_time_is_done_in_no_time(tmp_path, monkeypatch):
    """The watch holds no fan-out open: it ends with it, and its last message finds nothing to do."""
    world = released(tmp_path, monkeypatch)
    world.push()
    world.run(until=lambda: world.newest().state is R.FANNING_OUT)
    began = world.seconds
    assert world.settle().state is R.DONE
    assert world.seconds == began
    world.run(seconds=10)
    assert [task for _, (task, *_), _ in world.bell.queue] == []


def test_lost_tick_is_rung_again_while_the_stage_is_busy(world):
    """The reconciler sees a fan-out that nobody watches, however often its outcomes are counted."""
    sha = world.push()
    break_late(world, sha)
    ring = world.bell.ring

    def losing(rings):
        return ring([one for one in rings if one.task != pipeline.WATCH_FAN_OUT] or [])

    world.bell.ring = losing
    world.run(until=lambda: len(on(world, sha)) >= 8)
    world.bell.ring = ring
    assert not {role for _, role in samples(world)} & {"other"}
    reconcile.sweep(world.deps)
    assert world.settle().state is R.HALTED
    assert len(on(world, sha)) < HOSTS


def test_message_that_is_doubled_reads_once(world):
    """One of all those who come looks; the others end there."""
    number = fanning_out(world)
    world.seconds += 10
    assert isinstance(watching.watch(number, world.deps), Again)
    assert isinstance(watching.watch(number, world.deps), End)
    for times in samples(world).values():
        assert len(times) == len(set(times))


@pytest.mark.parametrize("seed", range(4))
def test_harm_is_found_whatever_messages_are_lost_and_doubled(world, seed):
    """Shuffled, lost and doubled messages change when it halts, not whether; no request is counted twice."""
    sha = world.push()
    break_late(world, sha)
    assert world.settle(chooser=random.Random(seed), loss=0.2, doubling=0.2).state is R.HALTED
    for times in samples(world).values():
        assert len(times) == len(set(times))


def test_only_a_reason_is_above_a_fail(world):
    """Neither resume nor retry goes on after harm, each says what does."""
    halted(world)
    number = world.newest().id
    with pytest.raises(Conflict, match="does harm: web01") as caught:
        halts.resume(number, world.deps, who="me")
    assert f"rollout resume {number} --accept-canary" in caught.value.remedy
    with pytest.raises(Conflict, match="reason"):
        halts.resume(number, world.deps, who="me", accept_canary=True)
    assert world.newest().state is R.HALTED


def test_retry_does_not_go_on_after_harm_either(tmp_path, monkeypatch):
    """Failed hosts that may be tried again do not let a rollout go on that halted for harm."""
    world = a_world(tmp_path, monkeypatch, fan_out="max_failed = 3")
    sha = world.push()
    world.fleet.hosts["web02"].unhealthy.add(sha)
    break_late(world, sha)
    assert world.settle().canary_status == "fail"
    with pytest.raises(Conflict, match="does harm"):
        halts.retry(world.newest().id, world.deps, who="me")
    assert next(host for host in world.rollout_hosts() if host.name == "web02").state is HostState.FAILED


def test_accepted_rollout_goes_on_and_what_was_seen_before_halts_it_no_more(world):
    """A person's word with a reason: evidence begins anew, and the fleet gets it all."""
    sha = halted(world)
    heal(world)
    halts.resume(world.newest().id, world.deps, who="me", why="a load test of ours", accept_canary=True)
    rollout = world.settle()
    assert (rollout.state, rollout.canary_status) == (R.DONE, "pass")
    assert "a load test of ours" in rollout.canary_reason
    assert len(on(world, sha)) == HOSTS


def test_accepted_rollout_that_goes_on_harming_halts_again(world):
    """A word is for what was seen; what comes after it is watched like the rest, and takes its time again."""
    halted(world)
    resumed = world.seconds
    halts.resume(world.newest().id, world.deps, who="me", why="let us see", accept_canary=True)
    rollout = world.settle()
    assert (rollout.state, rollout.canary_status) == (R.HALTED, "fail")
    assert world.seconds - resumed >= 4


def test_harm_takes_it_back_where_the_policy_says_so(tmp_path, monkeypatch):
    """on_halt = "roll-back" is for this halt too."""
    world = a_world(tmp_path, monkeypatch, fan_out='on_halt = "roll-back"')
    sha = world.push()
    break_late(world, sha)
    world.run(until=lambda: world.newest().state is R.ROLLED_BACK)
    assert on(world, sha) == []


def test_stop_beside_a_reading_is_a_stop(world):
    """What is read when the stop comes halts nothing, and nobody looks any more."""
    sha = world.push()
    break_late(world, sha)
    world.run(until=lambda: len(on(world, sha)) >= 5)
    number, judge = world.newest().id, watching._judge

    def stopping_meanwhile(*given):
        stopping.stop(number, world.deps, who="me", why="enough")
        return judge(*given)

    world.seconds += 20
    watching._judge = stopping_meanwhile
    try:
        watching.watch(number, world.deps)
    finally:
        watching._judge = judge
    assert world.newest().state is R.STOPPING
    assert world.settle().state is R.ROLLED_BACK
    assert on(world, sha) == []
    assert isinstance(watching.watch(number, world.deps), End)


def test_verdict_on_what_was_accepted_meanwhile_halts_nothing(world):
    """A slow judge's word about the time before a person's is dropped."""
    halted(world)
    before = world.newest()
    halts.resume(before.id, world.deps, who="me", why="known", accept_canary=True)
    verdict = watching._judge(before, world.config.app(None), set(), world.deps)
    assert verdict.status == "fail"
    assert not watching._halt(before, verdict, world.deps)
    assert world.newest().state is R.FANNING_OUT


def test_host_that_cannot_be_read_is_left_out(world):
    """A dead one among them is no word on the release, and the others are judged."""
    sha = world.push()
    break_late(world, sha)
    read = world.metrics.read

    def reading(target, *given, **named):
        if target.name in {"web13", "web38"}:
            raise Unreachable(f"{target.name}: no route")
        return read(target, *given, **named)

    world.metrics.read = reading
    world.run(until=lambda: world.newest().state is R.HALTED)
    assert not {name for name, _ in samples(world)} & {"web13"}


def test_what_a_slow_host_tells_of_the_time_before_the_pass_changes_no_replay(world):
    """The canary was judged without it; it counts for the fan-out."""
    sha, read = world.push(), world.metrics.read
    slow = f"web{HOSTS}"

    def reading(target, *given, **named):
        if target.name == slow and world.newest().state is R.EVALUATING_CANARY:
            raise Unreachable(f"{slow}: no route")
        return read(target, *given, **named)

    world.metrics.read = reading
    world.run(until=lambda: len(on(world, sha)) >= 5)
    passed_t = world.newest().passed_t
    told = samples(world)
    assert [t for t in told[slow, "other"] if 0 < t <= passed_t]
    assert not [t for t in told[slow, "baseline"] if t <= passed_t]
    with world.store.reading() as tx:
        assert replays.replay(tx, world.newest(), {}).verdict.t == passed_t


def test_word_on_the_canary_is_not_that_on_the_fan_out(world):
    """A replay of a rollout that halted for harm compares with the PASS that its canary had."""
    halted(world)
    with world.store.reading() as tx:
        again = replays.replay(tx, world.newest(), {})
    assert (again.then, again.verdict.status) == (replays.Then.PASS, Status.PASS)


def test_without_messages_it_is_watched_too(world):
    """The process that switches hosts without a broker looks at them without one."""
    number = fanning_out(world)
    before = sum(map(len, samples(world).values()))
    world.seconds += 10
    here = HereAndNow(world.deps, 1)
    here.do([pipeline.watch_fan_out(number)])
    here.close()
    assert sum(map(len, samples(world).values())) > before


def test_pace_follows_how_long_it_takes(world):
    """Each 2 s at first, then more seldom: what there is to judge grows, and its cost must not."""
    number = fanning_out(world)
    world.seconds += 10
    assert watching.watch(number, world.deps) == Again(2.0)
    world.seconds += 1800
    step = watching.watch(number, world.deps)
    assert step.seconds > 9
    world.seconds += 5
    assert isinstance(watching.watch(number, world.deps), End)


def test_probe_asks_no_more_hosts_than_for_the_canary(tmp_path, monkeypatch):
    """Requests of our own are work for the hosts: the canary and one other have them."""
    canary = 'source = "probe"\nprobe = "http://localhost/"\nallow_probe_pass = true'
    world = World(tmp_path, monkeypatch, canary=canary)
    world.deps = replace(world.deps, metrics={"probe": world.metrics})
    world.push()
    world.settle()

    def a_second_passes(_name):
        world.seconds += 1.0

    monkeypatch.setattr(hosts, "IN_A_ROW", 1)  # as for hosts that take a second
    world.fleet.before_permit = a_second_passes
    world.push()
    assert world.settle().state is R.DONE
    assert {name for name, _ in samples(world)} == {"web01", "web07"}
