"""Two transactions on the same rows: nothing is lost between them, and neither fails for the other."""

import threading
import time
from contextlib import closing
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock, patch

import pytest
from sqlalchemy import delete, insert, text

from rollout.domain import deliveries, pipeline
from rollout.domain.branches import Branch
from rollout.domain.model import BranchCommit, Member, Push, Release, Role
from rollout.domain.states import CommitEvent, CommitState, HostEvent, HostState, RolloutEvent, RolloutState
from rollout.domain.verdict import Interval
from rollout.errors import StaleWrite
from rollout.services import (
    bars,
    bell,
    catching_up,
    halts,
    hosts,
    intake,
    reconcile,
    rollouts,
    stopping,
    turns,
    watching,
)
from rollout.services.comparison import Reading
from rollout.services.policies import Plans
from rollout.services.together import Together
from rollout.store import clock as store_clock
from rollout.store import migrate, tables
from rollout.store.rollouts import Planned
from rollout.store.store import Store
from tests.support.sources import an_app

SHA = "a" * 40
HE, RE = HostEvent, RolloutEvent


def fanning_out(store):
    """A rollout of three hosts that fans out, two of its hosts being prepared."""
    fleet = [
        (Member(f"web{n}", f"127.1.0.{n}", 22, "deploy", {}, "/srv/shop"), Role.OTHER if n else Role.CANARY)
        for n in range(3)
    ]
    policy = an_app("/srv/shop.git").policy()
    plan = Planned("shop", SHA, [SHA], None, "d" * 64, "ann", policy, 2, "ramp", 10, 3, fleet)
    with store.transaction() as tx:
        rollout = tx.rollouts.add(plan, why="test")
        for event in (RE.START, RE.CANARY_DEPLOYED, RE.CANARY_PASSED):
            rollout = tx.rollouts.change(rollout, event, who="test", canary_status="pass")
        claims = [tx.claims.preparation(host.id, "w", 15) for host in tx.hosts.of(rollout.id)[:2]]
    return rollout, claims


class Beside:
    """Work in another transaction (or `around` something else), begun inside ours; what it returned or raised."""

    def __init__(self, store, work, around=None):
        self._store, self._work, self._around = store, work, around or store.transaction
        self.result = self.error = None
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            with self._around() as it:
                self.result = self._work(it)
        except Exception as error:  # noqa: BLE001  # told to the test, which expects some
            self.error = error

    def begin(self, tx):
        """Start it, and wait until it has ended or waits for a lock of ours."""
        self._thread.start()
        deadline = time.monotonic() + 10
        while self._thread.is_alive() and time.monotonic() < deadline:
            if not tx.is_postgresql or self._waits():
                return
            time.sleep(0.01)

    def _waits(self):
        with self._store.reading() as tx:
            waiting = text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return tx.connection.execute(waiting).scalar_one() > 0

    def end(self):
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()
        return self


def test_an_outcome_that_comes_while_others_are_counted_is_rung_for(store):
    """Whoever counts has looked already: the outcome asks for another count, and none waits for the reconciler."""
    rollout, claims = fanning_out(store)
    with store.transaction() as tx:
        tx.rollouts.set_counting(rollout.id, counting=True)
    beside = Beside(store, lambda tx: tx.hosts.change(claims[0], HE.PREPARED, who="w"))
    with store.transaction() as tx:
        tx.rollouts.set_counting(rollout.id, counting=False)
        beside.begin(tx)
    assert beside.end().error is None
    assert beside.result[1] is True


def test_a_stop_does_not_fail_for_a_prepare_that_ends_at_that_moment(store):
    """The stop has its rows; the report that came beside it is the one that was overtaken."""
    rollout, claims = fanning_out(store)
    with store.transaction() as tx:
        tx.rollouts.set_counting(rollout.id, counting=True)
    beside = Beside(store, lambda tx: tx.hosts.change(claims[0], HE.PREPARED, who="w"))
    with store.transaction() as tx:
        tx.rollouts.change(tx.rollouts.lock(rollout.id), RE.STOP, who="ann")
        preparing = tx.hosts.of(rollout.id, HostState.PREPARING)
        beside.begin(tx)
        for host in preparing:
            tx.hosts.change(host, HE.PUT_OFF, who="ann")
    assert type(beside.end().error).__name__ == "StaleWrite"


def claimed_to_switch(store):
    """A rollout that fans out, and the claim of a host that has no permit yet."""
    rollout, claims = fanning_out(store)
    with store.transaction() as tx:
        tx.hosts.change(claims[1], HE.PREPARED, who="w")
        return rollout, tx.claims.activation(claims[1].id, "w", 15)


def stopped(tx, rollout):
    """The first step of a stop."""
    return stopping.stop_locked(tx, tx.rollouts.lock(rollout.id), who="ann", why="bad")


def test_no_permit_is_given_beside_a_stop(store):
    """I2: who asks for it while the stop is being written gets none, and the host needs no seal."""
    rollout, claim = claimed_to_switch(store)
    beside = Beside(store, lambda tx: tx.claims.touch([(claim, SHA)], 15))
    with store.transaction() as tx:
        stopped(tx, rollout)
        beside.begin(tx)
    assert beside.end().error is None
    assert beside.result == [0.0]
    with store.reading() as tx:
        assert tx.hosts.may_still_act(rollout.id) == []
        assert not tx.hosts.get(claim.id).touched


def test_a_permit_that_a_stop_finds_being_written_is_a_permit(store):
    """I2: it is not known yet whether it will have been given, so the host is sealed; and the stop does not wait for that."""
    rollout, claim = claimed_to_switch(store)
    beside = Beside(store, lambda tx: stopped(tx, rollout))
    with store.transaction() as tx:
        (left,) = tx.claims.touch([(claim, SHA)], 15)
        beside.begin(tx)
        if tx.is_postgresql:
            beside.end()
    assert beside.end().error is None
    assert left > 0
    with store.reading() as tx:
        (host,) = tx.hosts.may_still_act(rollout.id)
        assert (host.name, host.state, host.touched) == (claim.name, HostState.ACTIVATING, True)


def test_who_starts_beside_another_process_waits_for_its_word_on_the_boot(store):
    """Of processes that start together on a new database one says which boot it is, and the others do not fail for it."""
    facts = tables.facts
    with store.transaction() as tx:
        tx.connection.execute(delete(facts))
    beside = Beside(store, Store.prepare, around=lambda: closing(Store(store.url)))
    with store.transaction() as tx:
        migrate.alone(tx.connection)
        tx.connection.execute(insert(facts).values(name="boot", value=store_clock.boot_of(tx.connection)))
        beside.begin(tx)
    assert beside.end().error is None


def test_no_prepare_begins_beside_a_stop(store):
    """The claim waits for the stop's commit, and then finds nothing to do."""
    rollout, _ = fanning_out(store)
    with store.reading() as tx:
        pending = tx.hosts.of(rollout.id, HostState.PENDING)[0]
    beside = Beside(store, lambda tx: tx.claims.preparation(pending.id, "w", 15))
    with store.transaction() as tx:
        tx.rollouts.change(tx.rollouts.lock(rollout.id), RE.STOP, who="ann")
        beside.begin(tx)
    assert beside.end().error is None
    assert beside.result is None


def test_a_bar_that_is_said_while_the_tests_pass_is_not_lost(store):
    """Either the passing finds the wish, or the bar finds the passed commit."""
    with store.transaction() as tx:
        commit, _ = tx.commits.add("shop", SHA, who="w", why="x")
        claimed = tx.commits.claim_tests(commit.id, "w", 15)
        tx.commits.add_release("shop", Release(SHA, "d" * 64, "/a", 1))
    beside = Beside(store, lambda tx: bars.bar_locked(tx, claimed, who="ann", why="no"))
    with store.transaction() as tx:
        tx.commits.change(claimed, CommitEvent.PASS, who="w")
        beside.begin(tx)
    assert beside.end().error is None
    with store.reading() as tx:
        assert tx.commits.get("shop", SHA).state is CommitState.BARRED


def test_a_host_lost_before_the_machine_started_anew_is_timed_from_then(tmp_path, monkeypatch):
    """On SQLite the clock starts anew with the machine: a host cannot stay "just lost" for as long as it ran before."""
    store = Store(f"sqlite:///{tmp_path}/rollout.db")
    store.prepare()
    rollout, claims = fanning_out(store)
    with store.transaction() as tx:
        tx.hosts.change(claims[0], HE.PREPARED, who="w")
        claim = tx.claims.activation(tx.hosts.of(rollout.id)[0].id, "w", 15)
        assert claim is None  # the canary's turn is over
        tx.hosts.update(tx.hosts.of(rollout.id)[0], lost_at=9_999_999.0)
    monkeypatch.setattr(store_clock, "boot_of", lambda _connection: "another")
    monkeypatch.setattr(store_clock, "store_seconds", lambda _connection: 50.0)
    store.prepare()
    with store.reading() as tx:
        assert tx.hosts.of(rollout.id)[0].lost_at == 50.0
    store.close()


def two_rollouts(store, old_state):
    """Rollout 1 is over, rollout 2 fans out; the same host in both, in this state in the first and prepared in the second."""
    fleet = [(Member("web1", "127.1.0.1", 22, "deploy", {}, "/srv/shop"), Role.OTHER)]
    hosts = []
    with store.transaction() as tx:
        for sha in (SHA, "b" * 40):
            plan = Planned("shop", sha, [sha], None, "d" * 64, "ann", {}, 2, "ramp", 10, 3, fleet)
            rollout = tx.rollouts.add(plan, why="test")
            for event in (RE.START, RE.CANARY_DEPLOYED, RE.CANARY_PASSED):
                rollout = tx.rollouts.change(rollout, event, who="test", canary_status="pass")
            (host,) = tx.hosts.of(rollout.id)
            host, _ = tx.hosts.change(tx.claims.preparation(host.id, "w", 15), HE.PREPARED, who="w")
            if sha == SHA:
                claim = tx.claims.activation(host.id, "w", 15)
                tx.claims.touch([(claim, None)], 15)
                touched = tx.hosts.get(claim.id)
                host, _ = tx.hosts.change(touched, HE.DONE, who="w", token=False)
                if old_state is HostState.ROLLBACK_FAILED:
                    for event in (HE.ROLL_BACK, HE.ROLLBACK_FAILED):
                        host, _ = tx.hosts.change(host, event, who="w")
                for event in (RE.STOP, RE.ROLL_BACK, RE.ROLLED_BACK):
                    rollout = tx.rollouts.change(rollout, event, who="test", stop_epoch=1)
            hosts.append(host)
    return hosts


def test_an_old_rollback_does_not_begin_beside_a_newer_rollouts_claim(store):
    """I2: the newer claim is not committed yet when the old rollback looks for it; the rollback does not get above it."""
    old, new = two_rollouts(store, HostState.ROLLBACK_FAILED)
    with store.transaction() as tx:
        claim = tx.claims.activation(new.id, "w", 15)
        assert claim is not None
        beside = Beside(store, lambda tx: tx.claims.roll_back(old.id, "v", 15))
        beside.begin(tx)
    beside.end()
    assert beside.result is None
    assert beside.error is None or isinstance(beside.error, StaleWrite)
    with store.transaction() as tx:  # where the newer one comes to nothing, the older one goes on
        tx.hosts.change(claim, HE.FOUND_UNTOUCHED, who="w", token=False)
        again = tx.claims.roll_back(old.id, "v", 15)
        assert again is not None
        assert again.operation > claim.operation


def test_an_old_rollback_that_was_first_is_below_a_newer_rollouts_claim(store):
    """I2: whichever comes first, the newer rollout's order is the one that the host's fence lets stand."""
    old, new = two_rollouts(store, HostState.ROLLBACK_FAILED)
    with store.transaction() as tx:
        first = tx.claims.roll_back(old.id, "v", 15)
        beside = Beside(store, lambda tx: tx.claims.activation(new.id, "w", 15))
        beside.begin(tx)
    assert beside.end().error is None
    assert beside.result.operation > first.operation


def test_no_look_back_begins_above_a_newer_rollouts_claim(store):
    """A reading for an old rollout has no epoch above an order of a rollout that is planned beside it: it would seal it off."""
    old, _ = two_rollouts(store, HostState.DONE)
    with store.transaction() as tx:
        assert tx.claims.look(old.id, "w", 15) is None
        assert tx.claims.look(old.id + 99, "w", 15) is None


class Whole(Beside):
    """As `Beside`, of work that opens its transactions itself."""

    def _run(self):
        try:
            self.result = self._work()
        except Exception as error:  # noqa: BLE001  # as above
            self.error = error


def deps_of(store, **more):
    return SimpleNamespace(
        store=store,
        worker="w",
        settings=SimpleNamespace(lease_s=15.0, ring_again_s=5.0),
        bell=Mock(),
        leases=Mock(),
        together=Together(),
        plans=Plans(),
        **more,
    )


def job_of(rollout, host):
    return hosts._Job(host, rollout, Mock(), began=0.0, number=1, row_began=time.monotonic(), row_s=60)


def one_switches_and_one_waits(store):
    """A rollout that fans out: the job of a host that is being switched, while another one is prepared."""
    rollout, claims = fanning_out(store)
    with store.transaction() as tx:
        tx.hosts.change(claims[1], HE.PREPARED, who="w")
        last = tx.claims.preparation(tx.hosts.of(rollout.id)[2].id, "w", 15)
        tx.hosts.change(last, HE.PREPARED, who="w")
        switching = tx.claims.activation(claims[1].id, "w", 15)
        tx.hosts.update(tx.hosts.get(claims[0].id), state=HostState.DONE)
        rollout = tx.rollouts.get(rollout.id)
    return rollout, job_of(rollout, switching)


def switched(store, job):
    deps = deps_of(store)
    went = hosts._Went(job, last=False, runs=SHA)
    return Whole(store, lambda: hosts._report_and_go_on(deps, went, hosts._all_switched))


def test_who_plans_ahead_and_who_reports_a_switch_do_not_wait_for_each_other(store):
    """The next rollout is planned while one fans out: both have the app's row before the fleet's."""
    _, job = one_switches_and_one_waits(store)
    beside = switched(store, job)
    with store.transaction() as tx:
        tx.apps.lock("shop")
        beside.begin(tx)
        tx.fleet.know("shop", [Member(job.host.name, "127.1.0.9", 22, "deploy", {}, "/srv/shop")])
    assert beside.end().error is None
    assert beside.result is not None
    with store.reading() as tx:
        assert tx.hosts.get(job.host.id).state is HostState.DONE


def test_who_settles_a_silent_host_and_who_reports_on_it_do_not_wait_for_each_other(store):
    """Its lease ran out just as its report came: both have the rollout's row before the fleet's."""
    rollout, job = one_switches_and_one_waits(store)
    with store.transaction() as tx:
        silent = tx.hosts.update(tx.hosts.get(job.host.id), touched=True)
    beside = Beside(store, lambda tx: reconcile._settled(tx, silent, deps_of(store)))
    with store.transaction() as tx:
        tx.rollouts.hold(rollout.id)
        beside.begin(tx)
        tx.fleet.runs(job.host, SHA, settled=True)
    assert beside.end().error is None


def next_back(tx, rollout, owner):
    (claim,) = tx.claims.to_roll_back(tx.going_back.to_roll_back(rollout.id, 1), owner, 15)
    return claim


def test_two_that_bring_hosts_back_go_on_with_a_host_each(store):
    """Both have reported at once: neither's report is lost because the other one took the same next host."""
    rollout, _ = fanning_out(store)
    with store.transaction() as tx:
        for host in tx.hosts.of(rollout.id):
            tx.hosts.update(host, state=HostState.DONE, touched=True)
        stopping = tx.rollouts.change(tx.rollouts.get(rollout.id), RE.STOP, who="ann")
        rollout = tx.rollouts.change(stopping, RE.ROLL_BACK, who="stop")
        job = job_of(rollout, next_back(tx, rollout, "w"))
    deps = deps_of(store)
    went = hosts._Went(job, last=False)
    beside = Whole(store, lambda: hosts._report_and_go_on(deps, went, hosts._all_back))
    with store.transaction() as tx:
        tx.rollouts.hold(rollout.id)
        taken = next_back(tx, rollout, "other")
        beside.begin(tx)
    assert beside.end().error is None
    assert beside.result.host.id not in {job.host.id, taken.id}
    with store.reading() as tx:
        assert tx.hosts.get(job.host.id).state is HostState.ROLLED_BACK


def test_who_cannot_be_heard_and_who_reports_do_not_wait_for_each_other(store):
    """Hosts are left due while somebody reports on one: both have the rollout's row before its hosts'."""
    rollout, job = one_switches_and_one_waits(store)
    ring = pipeline.deploy_host(job.host)
    deps = deps_of(store)
    deps.bell.ring.return_value = False
    beside = Whole(store, lambda: bell.ring([ring], deps))
    with store.transaction() as tx:
        tx.rollouts.hold(rollout.id)
        beside.begin(tx)
        tx.hosts.update(tx.hosts.get(job.host.id), error="x")
    assert beside.end().error is None


def test_who_excludes_a_host_and_who_reports_on_it_do_not_wait_for_each_other(store):
    """A host in flight may be excluded while its report comes: both have the rollout's row before the fleet's."""
    rollout, job = one_switches_and_one_waits(store)
    fleet = Mock(members=Mock(return_value=[]))
    deps = deps_of(store, fleet=fleet, config=Mock(app=lambda _: an_app("/srv/shop.git")))
    beside = Whole(store, lambda: halts.exclude("shop", [job.host.name], deps, who="ann", why="smoke"))
    with store.transaction() as tx:
        tx.rollouts.hold(rollout.id)
        beside.begin(tx)
        tx.fleet.runs(job.host, SHA, settled=True)
    assert beside.end().error is None
    assert beside.result == [job.host.name]


def test_webhooks_of_a_repository_that_two_apps_ship_do_not_wait_for_each_other(store):
    """Whatever the order in rollout.toml, all have the apps' rows in one order."""
    apps = [
        SimpleNamespace(name=name, tests=SimpleNamespace(pull_requests=True)) for name in ("shop", "blog")
    ]
    with store.transaction() as tx:
        for app in apps:
            tx.apps.ensure(app.name)
    push = Push("github", "1", "pull")
    beside = Whole(store, lambda: intake.receive_pulls([(push, apps)], deps_of(store)))
    with store.transaction() as tx:
        tx.apps.lock("blog")
        beside.begin(tx)
        tx.apps.lock("shop")
    assert beside.end().error is None


def test_a_hotfix_and_a_prepare_of_what_it_sets_aside_do_not_wait_for_each_other(store):
    """Both have the rollout's row before the app's: the hotfix is not told that the database does not answer."""
    fleet = [(Member("web0", "127.1.0.1", 22, "deploy", {}, "/srv/shop"), Role.CANARY)]
    plan = Planned("shop", SHA, [SHA], None, "d" * 64, "automation", {}, 2, "ramp", 10, 3, fleet, ahead=True)
    with store.transaction() as tx:
        rollout = tx.rollouts.add(plan, why="test")
        host = tx.hosts.of(rollout.id)[0]
    told = BranchCommit(SHA, 1, "subject", "ann", "subject")
    deps, app = deps_of(store, workshop=Mock()), Mock(branch="main")
    app.name = "shop"
    with store.transaction() as tx:
        tx.commits.add_all("shop", [told], who="w", why="x")
    wish = intake.Wish("now", "ann")
    with patch.object(intake, "_read", return_value=(SHA, Branch((told,)))):
        beside = Whole(store, lambda: intake.enqueue(app, None, deps, who="ann", now=wish))
        with store.transaction() as tx:
            tx.rollouts.hold(rollout.id)
            beside.begin(tx)
            tx.claims.preparation(host.id, "w", 15)
        assert beside.end().error is None
    with store.reading() as tx:
        assert tx.rollouts.get(rollout.id).state is RolloutState.ERROR


def test_a_webhook_that_comes_as_its_rollout_begins_shares_its_end(store):
    """It told of a commit that polling had found, and is not stored yet when the rollout begins: it is not overlooked."""
    told = BranchCommit(SHA, 1, "subject", "ann", "subject")
    fleet = [(Member("web0", "127.1.0.1", 22, "deploy", {}, "/srv/shop"), Role.CANARY)]
    policy = an_app("/srv/shop.git").policy()
    plan = Planned("shop", SHA, [SHA], None, "d" * 64, "ann", policy, 2, "ramp", 10, 3, fleet)
    with store.transaction() as tx:
        tx.commits.add_all("shop", [told], who="w", why="x")
        commit = tx.commits.get("shop", SHA)
        for event in (CommitEvent.TEST, CommitEvent.PASS):
            commit = tx.commits.change(commit, event, who="w")
        rollout = tx.rollouts.add(plan, why="test")
    push = Push("github", "1", "push", full_name="acme/shop", branch="main", head=SHA)
    deps = deps_of(store, config=SimpleNamespace(apps={}, left_out={}))
    beside = Beside(store, lambda tx: rollouts._start(tx, tx.rollouts.lock(rollout.id), deps))
    with store.transaction() as tx:
        tx.commits.add("shop", SHA, who="webhook", why="pushed")
        number = tx.deliveries.add(push, "shop", deliveries.End(deliveries.Outcome.ACCEPTED, "known already"))
        beside.begin(tx)
    assert beside.end().error is None
    with store.reading() as tx:
        found = tx.deliveries.newest("shop", 1)[0]
    assert (found.id, found.outcome, found.ref) == (number, "started", f"rollout {rollout.id}")


def test_a_host_that_is_excluded_as_a_rollout_is_planned_is_out_of_it(store):
    """The planner does not know of the exclusion yet: whoever excludes waits for it, and takes the host out of what was planned."""
    members = [Member(f"web{n}", f"127.1.0.{n}", 22, "deploy", {}, "/srv/shop") for n in (1, 2)]
    fleet = [(members[0], Role.CANARY), (members[1], Role.OTHER)]
    plan = Planned("shop", SHA, [SHA], None, "d" * 64, "ann", {}, 2, "ramp", 10, 3, fleet)
    with store.transaction() as tx:
        tx.apps.ensure("shop")
    deps = deps_of(
        store,
        fleet=Mock(**{"members.return_value": members}),
        config=Mock(app=lambda _: an_app("/srv/shop.git")),
    )
    beside = Whole(store, lambda: halts.exclude("shop", ["web2"], deps, who="ann", why="broken"))
    with store.transaction() as tx:
        tx.apps.lock("shop")
        beside.begin(tx)
        rollout = tx.rollouts.add(plan, why="test")
    assert (beside.end().error, beside.result) == (None, [])
    with store.reading() as tx:
        states = {host.name: host.state for host in tx.hosts.of(rollout.id)}
    assert states == {"web1": HostState.PENDING, "web2": HostState.EXCLUDED}


@pytest.mark.parametrize("who", ["the sweep", "a test that has ended"])
def test_who_rings_for_tests_and_who_stores_a_crowd_of_reports_do_not_wait_for_each_other(store, who):
    """Both write several commits' rows, in any order: both have the apps' rows first."""
    tests = SimpleNamespace(parallel=2, source="external", required=("unit",), deadline=60.0)
    queue = SimpleNamespace(most=3)
    apps = {name: SimpleNamespace(name=name, tests=tests, queue=queue) for name in ("shop", "blog")}
    shas = ["1" * 40, "2" * 40]
    with store.transaction() as tx:
        for name in apps:
            for sha in shas:
                tx.commits.add(name, sha, who="webhook", why="pushed")
    deps = deps_of(store, config=SimpleNamespace(apps=apps))
    work = (
        partial(reconcile._due_tests, deps) if who == "the sweep" else partial(turns.ring, apps["shop"], deps)
    )
    beside = Whole(store, work)
    with store.transaction() as tx:
        tx.apps.lock_all(apps)
        for name in reversed(apps):
            tx.commits.lock(name, shas[1])
        beside.begin(tx)
        for name in apps:
            tx.commits.lock(name, shas[0])
    assert beside.end().error is None


def test_two_that_poll_at_the_same_moment_ask_once(store):
    """However many processes find that a look is due: one of them has it."""
    with store.transaction() as tx:
        tx.apps.ensure("shop")
    beside = Beside(store, lambda tx: tx.apps.claim_poll("shop", 30.0))
    with store.transaction() as tx:
        mine = tx.apps.claim_poll("shop", 30.0)
        beside.begin(tx)
    assert (mine, beside.end().result, beside.error) == (True, False, None)


def test_the_leases_of_hosts_wait_for_nobody_who_decides_for_an_app_whose_branch_is_read(store):
    """Of the rows that are renewed together with hosts' the app's is left out while somebody else has it, who may want one of those."""
    with store.transaction() as tx:
        assert tx.apps.claim_poll("shop", 30.0)
        held = tx.connection.execute(text("SELECT looked_s FROM apps")).scalar_one()
        tx.connection.execute(text("UPDATE apps SET looked_s = looked_s - 9"))

    def hold(tx):
        tx.apps.hold_polls(["shop"])
        return tx.connection.execute(text("SELECT looked_s FROM apps")).scalar_one() >= held

    beside = Beside(store, hold)
    with store.transaction() as tx:
        tx.apps.lock("shop")
        beside.begin(tx)
        if tx.is_postgresql:  # SQLite has one writer at a time
            assert beside.end().result is False
    assert beside.end().error is None
    with store.transaction() as tx:
        assert hold(tx)


@pytest.mark.parametrize("one_by_one", [True, False])
def test_two_that_give_an_app_its_first_row_both_go_on(store, one_by_one):
    """In a fresh installation webhooks, polls and orders come at once: none of them fails for another one's row."""

    def lock(tx):
        if one_by_one:
            tx.apps.lock("shop")
        else:
            tx.apps.lock_all(["shop", "site"])
        return True

    beside = Beside(store, lock)
    with store.transaction() as tx:
        lock(tx)
        beside.begin(tx)
    assert (beside.end().error, beside.result) == (None, True)


def test_who_keeps_what_hosts_answered_and_who_reports_on_one_do_not_wait_for_each_other(store):
    """The fan-out is watched while its hosts are switched: both have the rollout's row before its hosts'."""
    rollout, claims = fanning_out(store)
    heard = Interval(2.0, 2.0, claims[0].name, "other", observed=True, counts={"2xx": 5})
    reading = Reading(claims[0], [heard], "new")
    beside = Whole(store, lambda: watching._keep(rollout, [reading], deps_of(store)))
    with store.transaction() as tx:
        tx.rollouts.hold(rollout.id)
        beside.begin(tx)
        tx.hosts.update(claims[0], error="a report")
    assert beside.end().error is None
    with store.reading() as tx:
        assert (tx.hosts.get(claims[0].id).cursor, len(tx.samples.of(rollout.id))) == ("new", 1)


def test_several_apps_are_locked_in_the_order_of_their_names(store):
    """By the bytes, whatever the database's language thinks: whoever waits for the first one has none of the others."""
    names = ["a-b", "aa", "ab"]
    with store.transaction() as tx:
        tx.apps.lock_all(names)
    beside = Beside(store, lambda tx: tx.apps.lock_all(list(reversed(names))))
    with store.transaction() as tx:
        tx.apps.lock("a-b")
        beside.begin(tx)
        tx.apps.lock("ab")
        tx.apps.lock("aa")
    assert beside.end().error is None


def test_who_follows_hosts_and_who_takes_stock_of_them_do_not_wait_for_each_other(store):
    """A whole fleet has moved, and the inventory has another order than the rollout: both have the app's row first."""
    rollout, _ = fanning_out(store)
    fleet = [Member(f"web{n}", f"127.2.0.{n}", 22, "deploy", {}, "/srv/shop") for n in range(3)]
    with store.transaction() as tx:
        for host in tx.hosts.of(rollout.id):
            tx.hosts.update(host, state=HostState.DONE, lease_until=None)
        tx.rollouts.change(tx.rollouts.get(rollout.id), RE.FINISH, who="test")
    beside = Whole(store, lambda: catching_up.follow("shop", fleet, deps_of(store)))
    with store.transaction() as tx:
        tx.apps.lock("shop")
        tx.fleet.know("shop", fleet[2:])
        beside.begin(tx)
        tx.fleet.take_stock("shop", fleet)
    assert beside.end().error is None
    with store.reading() as tx:
        assert {host.address for host in tx.hosts.of(rollout.id)} == {one.address for one in fleet}
