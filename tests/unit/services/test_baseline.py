"""The hosts that a canary is compared with: who they are, that they are measured, and that they hold nobody up."""

import threading
from dataclasses import replace

import pytest

from rollout.domain.model import Role
from rollout.domain.states import RolloutState
from rollout.domain.verdict import Interval
from rollout.errors import Unreachable
from rollout.services import canaries, comparison, halts
from rollout.services.comparison import Comparison, Reading
from tests.support.fakes import a_deps, a_rollout
from tests.support.released import released
from tests.support.world import World

BASELINE = ["web07", "web08", "web09", "web10"]


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A fleet that runs a release, and a second one whose canary is watched."""
    return released(tmp_path, monkeypatch)


def watch(world):
    """Push; the rollout whose canary is being watched now."""
    sha = world.push()

    def watched():
        newest = world.newest()
        return newest and newest.commit == sha and newest.state is RolloutState.EVALUATING_CANARY

    world.run(until=watched)
    return world.newest().id


def tick(world, number):
    world.seconds += 2.1
    return canaries.evaluate(number, world.deps)


def samples(world, number):
    """The t of every sample, by host and role."""
    with world.store.reading() as tx:
        found = tx.samples.of(number)
    by_host = {}
    for one in found:
        by_host.setdefault((one.host, one.role), []).append(one.t)
    return by_host


def compared(world):
    with world.store.reading() as tx:
        return [host.name for host in tx.hosts.compared(tx.rollouts.newest("shop"))]


def test_baseline_is_measured_beside_the_canary(world):
    """The hosts that are activated last, each tick, under their role; nobody else."""
    number = watch(world)
    tick(world, number)
    tick(world, number)
    expected = {("web01", "canary"): [2.0, 4.0]}
    expected |= {(name, "baseline"): [2.0, 4.0] for name in BASELINE}
    assert samples(world, number) == expected


def test_first_rollout_has_nothing_to_be_compared_with(tmp_path, monkeypatch):
    """Where nothing ran before there is no old release, and hosts without one are not asked for their log."""
    world = World(tmp_path, monkeypatch)
    number = watch(world)
    tick(world, number)
    assert set(samples(world, number)) == {("web01", "canary")}


def test_baseline_runs_what_the_canary_ran_before(world):
    """A host that is known to run something else, or is not known, is not comparable."""
    watch(world)
    assert compared(world) == BASELINE
    with world.store.transaction() as tx:
        rows = {host.name: host for host in tx.hosts.of(world.newest().id)}
        tx.fleet.runs(rows["web07"], "f" * 40)
        tx.fleet.unread(rows["web08"])
    assert compared(world) == ["web09", "web10"]


def test_host_leaves_the_baseline_when_it_is_switched(world):
    """Whoever has the new release, or may have it, is compared with no more."""
    watch(world)
    world.run(until=lambda: world.newest().state is RolloutState.FANNING_OUT)
    assert compared(world) == BASELINE
    world.run(until=lambda: any(host.touched for host in world.rollout_hosts() if host.role is Role.BASELINE))
    switched = {host.name for host in world.rollout_hosts() if host.touched}
    assert switched & set(BASELINE)
    assert not switched & set(compared(world))


def test_excluded_and_failed_hosts_are_no_baseline(tmp_path):
    """Only a host that waits for its turn is known to run the old release undisturbed."""
    deps = a_deps(tmp_path, hosts=6, canary="baseline = 5")
    a_rollout(deps, state="done")
    states = {
        "shop01": "done",
        "shop02": "failed",
        "shop03": "excluded",
        "shop04": "prepared",
        "shop05": "unknown",
    }
    rollout = a_rollout(deps, state="evaluating_canary", hosts=states, previous="1".zfill(40))
    with deps.store.transaction() as tx:
        for host in tx.hosts.of(rollout.id)[1:]:
            tx.hosts.set_role(host, Role.BASELINE)
    assert of_rollout(deps, rollout) == ["shop04", "shop06"]
    with deps.store.transaction() as tx:  # put back, and to be tried again
        tx.hosts.update(tx.hosts.of(rollout.id)[3], touched=True)
    assert of_rollout(deps, rollout) == ["shop06"]


def of_rollout(deps, rollout):
    with deps.store.reading() as tx:
        return [host.name for host in tx.hosts.compared(rollout)]


class Scripted:
    """The world's metrics, but for the hosts in `behave`: name -> what happens before the answer."""

    def __init__(self, world):
        self.inner, self.behave, self.asked = world.metrics, {}, []
        world.deps = replace(world.deps, metrics={"access-log": self})

    def read(self, target, role, config, cursor, *, elapsed):
        self.asked.append(target.name)
        self.behave.get(target.name, lambda: None)()
        return self.inner.read(target, role, config, cursor, elapsed=elapsed)


def test_baseline_host_that_cannot_be_read_is_left_out(world):
    """A dead one is not observed: no sample of it, no word on the canary, and the others count."""
    number, scripted = watch(world), Scripted(world)

    def down():
        raise Unreachable("web08: no route")

    scripted.behave["web08"] = down
    tick(world, number)
    assert set(samples(world, number)) == {("web01", "canary")} | {
        (name, "baseline") for name in BASELINE if name != "web08"
    }
    world.settle()
    assert world.newest().state is RolloutState.DONE


def test_error_of_ours_in_a_baseline_reading_does_not_stop_the_judgement(world):
    """Whatever befalls it, the canary has its tick."""
    number, scripted = watch(world), Scripted(world)
    scripted.behave["web08"] = lambda: 1 / 0
    tick(world, number)
    assert samples(world, number)["web01", "canary"] == [2.0]


def test_slow_baseline_host_is_left_behind_and_counts_when_it_answers(world, monkeypatch):
    """It holds no tick up, is not asked twice at once, and what it says in the end is kept."""
    monkeypatch.setattr(comparison, "PATIENCE_S", 0.05)
    number, scripted, gate = watch(world), Scripted(world), threading.Event()
    scripted.behave["web08"] = lambda: gate.wait(30)
    for _ in range(3):
        tick(world, number)
    assert samples(world, number)["web01", "canary"] == [2.0, 4.0, 6.0]
    assert ("web08", "baseline") not in samples(world, number)
    assert scripted.asked.count("web08") == 1
    gate.set()
    under_way = world.deps.comparison._under_way
    for future in list(under_way.values()):
        future.result(30)
    tick(world, number)
    assert samples(world, number)["web08", "baseline"] == [2.0]
    tick(world, number)
    assert samples(world, number)["web08", "baseline"] == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert under_way == {}


def test_reading_from_before_a_resume_is_never_taken_for_one_after_it(world, monkeypatch):
    """Measured anew, t = 0 is another moment: the answer to the old question is dropped, whoever gives it."""
    monkeypatch.setattr(comparison, "PATIENCE_S", 0.05)
    number, scripted, gate = watch(world), Scripted(world), threading.Event()
    scripted.behave["web08"] = lambda: gate.wait(30)
    tick(world, number)
    old = next(iter(world.deps.comparison._under_way.values()))
    measured_anew(world, number)
    gate.set()
    old.result(30)
    tick(world, number)
    assert set(samples(world, number)) == {("web01", "canary")} | {(name, "baseline") for name in BASELINE}
    assert all(times == [2.0] for times in samples(world, number).values())
    assert scripted.asked.count("web08") == 2


def test_reading_of_a_canary_that_is_measured_anew_meanwhile_is_dropped(world):
    """Halted and resumed while its log was being read: the answer has another t = 0."""
    number, scripted = watch(world), Scripted(world)
    scripted.behave["web01"] = lambda: measured_anew(world, number)
    tick(world, number)
    assert samples(world, number) == {}


def measured_anew(world, number):
    """Halt in the evaluation, and resume."""
    world.seconds += 1
    with world.store.transaction() as tx:
        rollout = tx.rollouts.lock(number)
        canaries.rollouts.halt(tx, rollout, "a test", automatic=False)
    halts.resume(number, world.deps, who="me", why="again")


def test_readings_of_two_apps_do_not_meet(tmp_path):
    """Each app's rollout has its own, and forgets none of the other's."""
    deps = a_deps(tmp_path, apps=("shop", "blog"), hosts=2)
    comparison = Comparison()
    rollouts = {app: a_rollout(deps, app=app, state="evaluating_canary") for app in ("shop", "blog")}

    def read(host):
        one = Interval(t=2.0, dt=2.0, host=host.name, role="baseline", observed=True, counts={})
        return Reading(host, [one], "2")

    begun = {}
    for app, rollout in rollouts.items():
        with deps.store.reading() as tx:
            begun[app] = comparison.begin(rollout, tx.hosts.of(rollout.id)[1:], read)
    for app, rollout in rollouts.items():
        assert [told.host.name for told in comparison.finished(rollout, begun[app])] == [f"{app}02"]
        assert comparison.finished(rollout, []) == []


def test_canary_is_judged_by_what_every_host_has_told(world):
    """While the baseline's word on a bin is on its way, the canary is not judged by it."""
    number, scripted = watch(world), Scripted(world)

    def unready():
        raise Unreachable("late")

    tick(world, number)
    world.metrics.share = 0.0
    scripted.behave = dict.fromkeys(BASELINE, unready)
    for _ in range(3):
        tick(world, number)
        assert world.newest().state is RolloutState.EVALUATING_CANARY
    tick(world, number)
    assert world.newest().state is RolloutState.STOPPING


@pytest.mark.parametrize(("allowed", "state"), [("false", RolloutState.HALTED), ("true", RolloutState.DONE)])
def test_probe_alone_passes_no_canary_unless_it_is_allowed(tmp_path, monkeypatch, allowed, state):
    """Good answers to our own requests wait for a person's word; and one baseline host is probed, no more."""
    canary = f'source = "probe"\nprobe = "http://localhost/"\nallow_probe_pass = {allowed}\ndeadline = "1m"'
    world = World(tmp_path, monkeypatch, canary=canary)
    world.deps = replace(world.deps, metrics={"probe": world.metrics})
    world.push()
    first = world.settle()
    assert first.state is state
    if state is RolloutState.HALTED:
        assert first.canary_status == "inconclusive"
        assert "a probe alone" in first.canary_reason
        return
    number = watch(world)
    tick(world, number)
    assert set(samples(world, number)) == {("web01", "canary"), ("web07", "baseline")}
