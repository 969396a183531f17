"""The store's conformance suite: the same truths on SQLite and on PostgreSQL."""

import contextlib
import gc
import threading
import weakref
from contextlib import closing
from dataclasses import asdict, replace
from datetime import timedelta
from itertools import product
from math import inf

import pytest
from sqlalchemy import text, update

from rollout.domain.counting import count
from rollout.domain.deliveries import End, Out, Outcome, end_of
from rollout.domain.model import NOT_ON_BRANCH, BranchCommit, Member, Push, Release, Role
from rollout.domain.states import CommitEvent, CommitState, HostEvent, HostState, RolloutEvent, RolloutState
from rollout.domain.verdict import Interval
from rollout.errors import ConfigError, Conflict, IllegalTransition, NotFound, ServiceUnavailable, StaleWrite
from rollout.store import clock as store_clock
from rollout.store import migrate
from rollout.store.rollouts import Planned
from rollout.store.store import CACHE_KB, Store
from rollout.store.tables import commits

SHA = "a" * 40
H, HE, R, RE = HostState, HostEvent, RolloutState, RolloutEvent


@pytest.fixture
def now(monkeypatch):
    """A clock that moves when told: now["s"] += 10."""
    seconds = {"s": 1000.0}
    monkeypatch.setattr(store_clock, "store_seconds", lambda _connection: seconds["s"])
    monkeypatch.setattr(store_clock, "own_seconds", lambda: seconds["s"])
    return seconds


def planned(names=("web1", "web2", "web3"), **changes):
    fleet = [
        (
            Member(name, f"127.1.0.{number}", 22, "deploy", {"zone": "a"}, "/srv/shop"),
            Role.CANARY if number == 0 else Role.OTHER,
        )
        for number, name in enumerate(names)
    ]
    values = {
        "app": "shop",
        "commit": SHA,
        "commits": [SHA],
        "previous": None,
        "digest": "d" * 64,
        "requested_by": "ann",
        "policy": {"a": 1},
        "max_failed": 0,
        "mode": "strict",
        "concurrency": 10,
        "worst_case": 1,
        "fleet": fleet,
    }
    return Planned(**values | changes)


def a_rollout(store, *events, **changes):
    """A rollout that has taken these edges; fanning out has a PASS."""
    with store.transaction() as tx:
        rollout = tx.rollouts.add(planned(**changes), why="test")
        for event in events:
            extra = {"canary_status": "pass"} if event is RE.CANARY_PASSED else {}
            rollout = tx.rollouts.change(rollout, event, who="test", **extra)
    return rollout


def fanning_out(store, **changes):
    rollout = a_rollout(store, RE.START, RE.CANARY_DEPLOYED, RE.CANARY_PASSED, **changes)
    with store.transaction() as tx:
        for host in tx.hosts.of(rollout.id):
            claimed = tx.claims.preparation(host.id, "w", 15)
            tx.hosts.change(claimed, HE.PREPARED, who="w")
        return rollout, tx.hosts.of(rollout.id)


def test_preparing_twice_changes_nothing(empty_database):
    """Processes that start together migrate once."""
    stores = [Store(empty_database) for _ in range(4)]
    threads = [threading.Thread(target=store.prepare) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stores[0].ready()
    for store in stores:
        store.close()


def test_what_a_newer_version_wrote_is_refused_with_what_leads_on(empty_database):
    """After a downgrade: nothing is written, both schemas are named, and it is no bug."""
    with closing(Store(empty_database)) as store:
        store.prepare()
        with store.transaction() as tx:
            tx.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        for asked in (store.prepare, store.ready):
            with pytest.raises(
                ConfigError, match="was written by a newer rollout: its schema is 9999"
            ) as refused:
                asked()
            assert migrate._newest() in str(refused.value)
            assert "backup" in refused.value.remedy


def test_what_is_committed_is_on_the_disk(tmp_path):
    """SQLite syncs with every commit: a webhook that was answered survives a power cut."""
    store = Store(f"sqlite:///{tmp_path}/rollout.db")
    with store.reading() as tx:
        assert tx.connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
    store.close()


@pytest.mark.parametrize("kind", ["transaction", "reading"])
def test_a_connection_to_sqlite_keeps_few_pages(tmp_path, kind):
    """A worker has twenty of them, and two megabytes of each were most of what it grows by with its database."""
    store = Store(f"sqlite:///{tmp_path}/rollout.db")
    with getattr(store, kind)() as tx:
        assert tx.connection.exec_driver_sql("PRAGMA cache_size").scalar_one() == -CACHE_KB
    store.close()


@pytest.mark.parametrize("kind", ["transaction", "reading"])
def test_a_transaction_that_has_ended_is_gone(store, kind):
    """Nobody writes through it into somebody else's, and it is freed at once: without a garbage collector, which comes late."""
    with getattr(store, kind)() as tx:
        tx.apps.red_told("shop")
        events = tx.events
    with pytest.raises(AttributeError):
        tx.apps.red_told("shop")
    with pytest.raises(AttributeError):
        events.of_subject("shop", "rollout 1")
    del events
    gone = weakref.ref(tx)
    gc.disable()
    try:
        del tx
        assert gone() is None
    finally:
        gc.enable()


def test_an_epoch_is_never_given_out_twice(store):
    """Claims that run side by side get rising, different numbers, above the clock's milliseconds."""
    given = []

    def take():
        for _ in range(20):
            with store.transaction() as tx:
                given.append(tx.apps.next_epoch("shop"))

    with store.transaction() as tx:
        tx.apps.ensure("shop")
    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given)) == 80
    assert min(given) > 1_700_000_000_000


def test_a_commit_is_received_once(store):
    """The second telling of a commit finds the first one's row."""
    with store.transaction() as tx:
        first, new = tx.commits.add("shop", SHA, who="webhook", why="pushed")
        second, again = tx.commits.add("shop", SHA, who="poll", why="found")
    assert (new, again) == (True, False)
    assert first == second
    assert first.state is CommitState.RECEIVED


def test_many_are_told_of_at_once(store):
    """Of several apps: each commit has one row whoever knew it, the numbers are in the order of the deliveries, and the first ones are found."""
    heads = {(app, f"{number:040x}"): "webhook" for app in ("shop", "blog") for number in range(30)}
    known, *_, last = heads
    accepted = End(Outcome.ACCEPTED, "new")
    told = [(Push("github", sha, "push", head=sha), app, accepted) for app, sha in heads]
    with store.transaction() as tx:
        tx.apps.lock_all({"shop", "blog"})
        tx.commits.add(*known, who="poll", why="found")
        found, new = tx.commits.add_pushed(heads, why="pushed")
        assert {head: (one.app, one.sha) for head, one in found.items()} == {head: head for head in heads}
        assert new == [head for head in heads if head != known]
        across = [("shop", last[1]), ("blog", known[1])]
        assert tx.commits.add_pushed(dict.fromkeys(across, "webhook"), why="pushed") == (
            {head: found[head] for head in across},
            [],
        )
        assert [event.who for event in tx.events.of_subject(last[0], f"commit {last[1]}")] == ["webhook"]
        numbers = tx.deliveries.add_all(told)
        assert numbers == sorted(set(numbers))
        tx.deliveries.add_all(told)
        first = tx.deliveries.first_of([known, last, ("shop", "f" * 40)])
        assert {head: one.id for head, one in first.items()} == {known: numbers[0], last: numbers[-1]}
        assert [(one.app, one.delivery) for one in tx.deliveries.newest(None, 60)][::-1] == list(heads)


def test_the_heads_of_branches_are_told_at_once(store):
    """Of each app the commit that is placed highest; none of an app of which git has told nothing."""
    line = [BranchCommit(f"{number:040x}", number, "", "", "") for number in (1, 2, 3)]
    with store.transaction() as tx:
        tx.apps.lock_all(["shop", "blog", "empty"])
        tx.commits.add_all("shop", line, who="git", why="read")
        tx.commits.add_all("blog", line[:2], who="git", why="read")
        tx.commits.add("empty", SHA, who="webhook", why="pushed")
        assert tx.commits.heads(["shop", "blog", "empty"]) == {"shop": line[2].sha, "blog": line[1].sha}
        tx.commits.place("shop", line[:2])  # forced back
        assert tx.commits.heads(["shop"]) == {"shop": line[1].sha}


def test_tests_are_claimed_by_one_and_taken_over_when_silent(store, now):
    """A live lease keeps others out; one that ran out lets the next in, and the first one's report is refused."""
    with store.transaction() as tx:
        commit, _ = tx.commits.add("shop", SHA, who="w", why="x")
        first = tx.commits.claim_tests(commit.id, "one", 15)
    with store.transaction() as tx:
        assert tx.commits.claim_tests(commit.id, "two", 15) is None
    now["s"] += 16
    with store.transaction() as tx:
        assert [due.id for due in tx.turns.due_for_tests("shop", 10)] == [commit.id]
        assert tx.commits.claim_tests(commit.id, "two", 15).attempt == 2
        assert not tx.commits.still_leased(first)
    with pytest.raises(StaleWrite), store.transaction() as tx:
        tx.commits.change(first, CommitEvent.PASS, who="one")


def test_a_renewed_lease_keeps_its_claim(store, now):
    """Renewing does not change the claim, and a lease that has run out is not revived."""
    with store.transaction() as tx:
        commit, _ = tx.commits.add("shop", SHA, who="w", why="x")
        claimed = tx.commits.claim_tests(commit.id, "one", 15)
    now["s"] += 10
    with store.transaction() as tx:
        tx.commits.renew("one", [commit.id], 15)
    now["s"] += 10
    with store.transaction() as tx:
        assert tx.turns.due_for_tests("shop", 10) == []
        assert tx.commits.still_leased(claimed)
    now["s"] += 10
    with store.transaction() as tx:
        tx.commits.renew("one", [commit.id], 15)
        assert [due.id for due in tx.turns.due_for_tests("shop", 10)] == [commit.id]


def test_a_backlog_has_so_many_messages_under_way_and_no_more(store, now):
    """However many commits wait, and however long, the broker gets a handful of messages for each app in a while."""
    with store.transaction() as tx:
        for number in range(50):
            tx.commits.add("shop", f"{number:040x}", who="w", why="x")
        blog, _ = tx.commits.add("blog", "b" * 40, who="w", why="x")
    sent = []
    for _ in range(6):
        with store.transaction() as tx:
            due = [commit.id for commit in tx.turns.due_for_tests("shop", 10, 3)]
            tx.turns.rung(due, 10)
            sent += due
        now["s"] += 4
    assert len(sent) == 6  # of three at a time, twice within 24 s
    with store.transaction() as tx:
        assert [due.id for due in tx.turns.due_for_tests("blog", 10)] == [blog.id]


def test_a_commit_that_left_the_branch_is_not_in_the_queue(store):
    """After a force-push only what the branch has now can be shipped."""
    from rollout.domain.model import BranchCommit

    one, two, other = ("1" * 40, "2" * 40, "3" * 40)
    with store.transaction() as tx:
        for sha in (one, two, other):
            tx.commits.add("shop", sha, who="w", why="x")
        tx.commits.place("shop", [BranchCommit(one, 1, "a", "b", "c"), BranchCommit(two, 2, "a", "b", "c")])
        tx.commits.place("shop", [BranchCommit(one, 1, "a", "b", "c"), BranchCommit(other, 2, "a", "b", "c")])
        assert [commit.sha for commit in tx.commits.after("shop", 0)] == [one, other]
        assert tx.commits.newest("shop").sha == other


def test_what_came_in_with_a_merge_has_its_row_and_waits_for_nothing(store):
    """Also one that had a row: it is not tested, is in no queue and no count, and what keeps its merge from shipping is found."""
    from rollout.domain.model import BranchCommit
    from rollout.store.census import Census

    one, merge, inner, known = ("1" * 40, "2" * 40, "3" * 40, "4" * 40)
    line = [
        BranchCommit(one, 1, "a", "b", "c"),
        BranchCommit(merge, 2, "m", "b", "m", mends=frozenset({one})),
    ]
    came_in = [BranchCommit(sha, 0, "i", "eve", "i", into=merge) for sha in (inner, known)]
    with store.transaction() as tx:
        tx.commits.add("shop", known, who="w", why="x")
        assert tx.commits.unplaced("shop") == [known]
        tx.commits.add_all("shop", [*line, *came_in], who="w", why="x")
        tx.commits.place("shop", line, came_in)
        assert tx.commits.line("shop", 0) == [(1, one), (2, merge)]
        assert [row.sha for row in tx.commits.unfinished("shop")] == [one, merge]
        assert [row.sha for row in tx.turns.due_for_tests("shop", 10, 9)] == [one, merge]
        assert tx.commits.unplaced("shop") == []
        assert Census(tx).commits() == {("shop", "received"): 2}
        rows = [tx.commits.get("shop", sha) for sha in (merge, inner, known)]
        assert [tx.commits.on_line(row).sha for row in rows] == [merge] * 3
        assert [row.merged_into for row in rows] == [None, merge, merge]
        assert rows[0].mends == one
        assert rows[2].reason == f"came in with {merge[:12]}, and is not tested by itself"
        assert tx.bars.in_the_way("shop", [one, merge], []) == {}
        assert tx.bars.in_the_way("shop", [one, merge], ["444", one]) == {merge: [(known, False)]}
        tx.bars.wish(rows[1], "no")
        assert tx.bars.in_the_way("shop", [one, merge], []) == {merge: [(inner, True)]}
        assert tx.bars.in_the_way("shop", [one], []) == {}


def test_what_came_in_with_a_merge_is_an_ordinary_commit_once_the_line_goes_through_it(store):
    """After a force-push: it waits for its tests, and the merge has left the branch."""
    from rollout.domain.model import BranchCommit

    one, merge, inner = ("1" * 40, "2" * 40, "3" * 40)
    line = [BranchCommit(one, 1, "a", "b", "c"), BranchCommit(merge, 2, "m", "b", "m")]
    came_in = [BranchCommit(inner, 0, "i", "eve", "i", into=merge)]
    with store.transaction() as tx:
        tx.commits.add_all("shop", [*line, *came_in], who="w", why="x")
        tx.commits.place("shop", line, came_in)
        tx.commits.place("shop", [line[0], BranchCommit(inner, 2, "i", "eve", "i")])
        assert inner in [row.sha for row in tx.turns.due_for_tests("shop", 10, 9)]
        row = tx.commits.get("shop", inner)
        assert (row.merged_into, row.reason, row.position) == (None, None, 2)
        assert not tx.commits.get("shop", merge).on_branch


def test_at_most_one_active_and_one_pending_rollout(store):
    """I1: the database itself refuses a second one."""
    a_rollout(store, RE.START)
    pending = a_rollout(store)
    with pytest.raises(Conflict):
        a_rollout(store)
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.rollouts.change(tx.rollouts.get(pending.id), RE.START, who="test")
    a_rollout(store, RE.START, app="other")


def test_only_legal_edges_and_each_with_its_event(store):
    """I7: an edge that the table lacks is refused, and every taken one has its event, who and why."""
    rollout = a_rollout(store, RE.START)
    with pytest.raises(IllegalTransition), store.transaction() as tx:
        tx.rollouts.change(rollout, RE.FINISH, who="test")
    with store.transaction() as tx:
        tx.rollouts.change(rollout, RE.HALT, who="ann", why="doubt", halted_stage=rollout.state)
    with store.reading() as tx:
        events = tx.events.of_rollout(rollout.id)
    assert [(event.what, event.before, event.after) for event in events] == [
        ("plan", None, "pending"),
        ("start", "pending", "deploying_canary"),
        ("halt", "deploying_canary", "halted"),
    ]
    assert (events[-1].who, events[-1].why) == ("ann", "doubt")


def test_an_event_is_undone_with_its_change(store):
    """I7: what was rolled back has left no event either."""
    rollout = a_rollout(store)

    def start_and_fail():
        with store.transaction() as tx:
            tx.rollouts.change(rollout, RE.START, who="test")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        start_and_fail()
    with store.reading() as tx:
        assert [event.what for event in tx.events.of_rollout(rollout.id)] == ["plan"]


def test_two_writers_of_one_row_and_one_loses_loudly(store):
    """A guarded write with an old version is an error, not a silence."""
    rollout = a_rollout(store, RE.START)
    with store.transaction() as tx:
        tx.rollouts.change(rollout, RE.STOP, who="one")
    with pytest.raises(StaleWrite), store.transaction() as tx:
        tx.rollouts.change(rollout, RE.HALT, who="two")


def test_tokens_are_bounded_under_a_race(store):
    """Strict, K = 0: of many that want to start at once, exactly one gets a token."""
    rollout, hosts = fanning_out(store, names=tuple(f"web{n}" for n in range(9)))
    won = []

    def start(host):
        with store.transaction() as tx:
            if tx.claims.activation(host.id, f"w{host.id}", 15) is not None:
                won.append(host.name)

    threads = [threading.Thread(target=start, args=(host,)) for host in hosts[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    with store.reading() as tx:
        assert tx.rollouts.get(rollout.id).in_flight == 1


def test_one_host_is_claimed_once_under_a_race(store):
    """The same message delivered many times starts one activation (I6), and leaves one token taken."""
    rollout, hosts = fanning_out(store, max_failed=2)
    won = []

    def start():
        with store.transaction() as tx:
            won.append(tx.claims.activation(hosts[1].id, "w", 15))

    threads = [threading.Thread(target=_quiet, args=(start,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim is not None for claim in won) == 1
    with store.reading() as tx:
        assert tx.rollouts.get(rollout.id).in_flight == 1


def _quiet(work):
    with contextlib.suppress(StaleWrite, Conflict):
        work()


def test_no_host_beyond_the_canary_starts_without_a_pass(store):
    """I11: the state alone is not enough, the row must carry the PASS."""
    rollout = a_rollout(store, RE.START)
    with store.transaction() as tx:
        canary, other, _ = tx.hosts.of(rollout.id)
        for host in (canary, other):
            tx.hosts.change(tx.claims.preparation(host.id, "w", 15), HE.PREPARED, who="w")
        assert tx.claims.activation(other.id, "w", 15) is None
        assert tx.claims.activation(canary.id, "w", 15) is not None


@pytest.mark.parametrize("event", [RE.HALT, RE.STOP])
def test_nothing_new_starts_in_a_rollout_that_is_halted_or_stopping(store, event):
    """A claim finds no row as soon as the state says so."""
    rollout, hosts = fanning_out(store)
    with store.transaction() as tx:
        tx.rollouts.change(tx.rollouts.lock(rollout.id), event, who="x")
        assert tx.claims.activation(hosts[1].id, "w", 15) is None


def test_counters_follow_the_hosts_and_can_be_recomputed(store):
    """Every change of a host moves its rollout's counters in the same transaction."""
    rollout, hosts = fanning_out(store, max_failed=2)
    with store.transaction() as tx:
        claims = [tx.claims.activation(host.id, "w", 15) for host in hosts[1:]]
        tx.hosts.change(claims[0], HE.DONE, who="w", token=False)
        tx.hosts.change(claims[1], HE.LOSE, who="w")
    with store.transaction() as tx:
        row = tx.rollouts.get(rollout.id)
        assert (row.done, row.failed, row.unknown, row.in_flight) == (1, 0, 1, 0)
        rows = tx.hosts.of(rollout.id)
        assert {n: sum(asdict(count(h))[n] for h in rows) for n in ("done", "unknown", "in_flight")} == {
            "done": 1,
            "unknown": 1,
            "in_flight": 0,
        }
        assert tx.rollouts.recount(rollout.id) == {}


def test_counters_that_are_wrong_are_those_of_the_hosts_again(store):
    """Recounting counts hosts of a kind together, and comes to what the one rule says of each of them."""
    kinds = [
        {"state": H.DONE},
        {"state": H.DONE},
        {"state": H.FAILED},
        {"state": H.FAILED, "accepted": True},
        {"state": H.UNKNOWN, "token": True},
        {"state": H.UNKNOWN, "token": True, "unreadable": True},
        {"state": H.UNKNOWN, "unreadable": True, "accepted": True},
        {"state": H.ACTIVATING, "token": True},
        {"state": H.PREPARED, "token": True},
    ]
    rollout, hosts = fanning_out(store, names=[f"web{number}" for number in range(len(kinds))])
    with store.transaction() as tx:
        for host, kind in zip(hosts, kinds, strict=True):
            tx.hosts.update(host, **kind)
        tx.rollouts.update(
            tx.rollouts.lock(rollout.id), done=7, failed=7, unreadable=7, unknown=7, in_flight=7
        )
    with store.transaction() as tx:
        repaired = tx.rollouts.recount(rollout.id)
        assert repaired == {"done": 2, "failed": 1, "unreadable": 1, "unknown": 2, "in_flight": 2}
        each = [asdict(count(host)) for host in tx.hosts.of(rollout.id)]
        assert repaired == {name: sum(one[name] for one in each) for name in repaired}
        row = tx.rollouts.get(rollout.id)
        assert (row.done, row.failed, row.unreadable, row.unknown, row.in_flight) == (2, 1, 1, 2, 2)


def test_one_ring_serves_all_outcomes_since_the_last_count(store):
    """The first outcome asks for a ring, the next ones do not until they were counted."""
    rollout, hosts = fanning_out(store, max_failed=2)
    with store.transaction() as tx:
        tx.rollouts.set_counting(rollout.id, counting=False)
        claims = [tx.claims.activation(host.id, "w", 15) for host in hosts[1:]]
        _, first = tx.hosts.change(claims[0], HE.DONE, who="w", token=False)
        _, second = tx.hosts.change(claims[1], HE.DONE, who="w", token=False)
    assert (first, second) == (True, False)


def test_a_permit_marks_the_host_touched_and_remembers_what_it_ran(store, now):
    """Whoever got a permit counts as touched; a second attempt does not forget what was there at first."""
    _, hosts = fanning_out(store)
    with store.transaction() as tx:
        claim = tx.claims.activation(hosts[1].id, "w", 15)
        (left,) = tx.claims.touch([(claim, "f" * 40)], 15)
        assert 0 < left <= 15
        touched = tx.hosts.get(claim.id)
        assert (touched.touched, touched.previous) == (True, "f" * 40)
        tx.claims.leases_left([touched], 15)
        assert tx.hosts.get(claim.id).previous == "f" * 40


def test_no_permit_after_the_lease_or_after_a_stop(store, now):
    """A worker that was paused too long, or whose rollout was stopped, gets no answer for the host."""
    rollout, hosts = fanning_out(store, max_failed=3)
    with store.transaction() as tx:
        claim, other = (tx.claims.activation(host.id, "w", 15) for host in hosts[1:])
    now["s"] += 16
    with store.transaction() as tx:
        assert tx.claims.touch([(claim, None)], 15) == [0.0]
    now["s"] -= 16
    with store.reading() as tx:
        assert not tx.hosts.get(claim.id).touched
    with store.transaction() as tx:
        tx.rollouts.change(tx.rollouts.lock(rollout.id), RE.STOP, who="ann")
    with store.transaction() as tx:
        assert tx.claims.touch([(other, None)], 15) == [0.0]
    with store.reading() as tx:
        assert not tx.hosts.get(other.id).touched


@pytest.mark.parametrize("way", [1, -1])
def test_a_claim_that_was_taken_over_has_no_part_in_what_the_newer_one_may(store, now, way):
    """I2: of two claims of one host that ask together, in whatever order, only the row's last may act, and for as long as its lease lasts."""
    _, hosts = fanning_out(store)
    with store.transaction() as tx:
        newer = tx.claims.activation(hosts[1].id, "w", 15)
        older = replace(newer, version=newer.version - 1)
        assert tx.claims.touch([(older, None), (newer, None)][::way], 15) == [0.0, 15.0][::way]
        assert tx.claims.leases_left([older, newer][::way], 15) == [0.0, 15.0][::way]


def test_a_stop_ends_the_renewal_of_leases(store, now):
    """A worker that goes on renewing cannot hold up a stop."""
    rollout, hosts = fanning_out(store)
    with store.transaction() as tx:
        claim = tx.claims.activation(hosts[1].id, "w", 15)
        tx.rollouts.change(tx.rollouts.lock(rollout.id), RE.STOP, who="ann")
        now["s"] += 10
        tx.claims.renew("w", [claim.id], 15)
        assert tx.hosts.get(claim.id).lease_until == 1015.0


def test_one_of_many_gets_the_tick(store, now):
    """Of all who want to do a stage's next step now, one does."""
    rollout = a_rollout(store, RE.START)
    with store.transaction() as tx:
        assert tx.rollouts.claim_tick(rollout.id, R.DEPLOYING_CANARY, 2.0)
        assert not tx.rollouts.claim_tick(rollout.id, R.DEPLOYING_CANARY, 2.0)
        now["s"] += 2
        assert tx.rollouts.claim_tick(rollout.id, R.DEPLOYING_CANARY, 2.0)


def test_every_process_knows_how_long_a_canary_has_been_watched(database, store, now, monkeypatch):
    """A process that comes later has the same t as one that looked first, and a step of the clock moves neither."""
    rollout = a_rollout(store, RE.START, RE.CANARY_DEPLOYED)
    with store.transaction() as tx:
        assert tx.watched_s(rollout) == 0.0
        rollout = tx.rollouts.update(rollout, ready_at=tx.now())
        assert tx.watched_s(rollout) == pytest.approx(0.0, abs=0.5)
        tx.samples.add(rollout.id, [Interval(5.0, 2.0, "web1", "canary", observed=True, counts={"2xx": 1})])
    now["s"] += 6
    # What the clock reads when a process comes, and what it knows by that: less than was measured is not believed.
    for reads, knows in [(6, 6.0)] if store.url.startswith("sqlite") else [(6, 6.0), (-600, 5.0)]:
        now["s"] = rollout.ready_at + reads
        monkeypatch.setattr(store_clock, "own_seconds", lambda: 1000.0)  # no step moves it
        with closing(Store(database)) as second, second.reading() as tx:
            assert tx.watched_s(rollout) == pytest.approx(knows, abs=0.5)
            if tx.is_postgresql:
                now["s"] += 3600
                assert tx.watched_s(rollout) == pytest.approx(knows, abs=0.5)
                assert tx.elapsed(rollout.ready_at) == pytest.approx(0.0, abs=0.5)


def test_the_clock_of_a_database_server_is_asked_once_a_second(store, now, monkeypatch):
    """In between a process adds what its own clock has gone on; what took long to say is not kept."""
    if store.url.startswith("sqlite"):
        pytest.skip("its clock is this machine's")
    own, asked, late = [500.0], [], [0.0]

    def ask(_connection):
        asked.append(own[0])
        own[0] += late[0]
        return now["s"]

    monkeypatch.setattr(store_clock, "store_seconds", ask)
    monkeypatch.setattr(store_clock, "own_seconds", lambda: own[0])
    with store.transaction() as tx:
        assert tx.now() == 1000.0
        own[0] += 0.7
        assert tx.now() == pytest.approx(1000.7)
        assert len(asked) == 1
        own[0] += 0.7
        now["s"], late[0] = 2000.0, 0.2
        assert (tx.now(), tx.now()) == (2000.0, 2000.0)
        assert len(asked) == 3


def test_stage_that_waits_for_a_clock_that_was_set_back_is_due(store, now):
    """A step back of ten minutes holds up neither a rollout's stage nor its watch, however long it may wait by itself."""
    rollout = a_rollout(store, RE.START, RE.CANARY_DEPLOYED, RE.CANARY_PASSED)
    limits = {"stage_s": 60.0, "pace": 0.005}
    with store.transaction() as tx:
        rollout = tx.rollouts.update(rollout, ready_at=now["s"] - 20_000)
        assert tx.rollouts.claim_watch(rollout.id, 100.0)
        assert tx.rollouts.claim_tick(rollout.id, R.FANNING_OUT, 5.0)
    assert store.heal(900.0, **limits) == 0
    if store.url.startswith("sqlite"):
        return  # its clock is never set
    now["s"] -= 600
    assert store.heal(900.0, **limits) == 2
    with store.transaction() as tx:
        assert tx.rollouts.claim_watch(rollout.id, 100.0)
        assert tx.rollouts.claim_tick(rollout.id, R.FANNING_OUT, 5.0)


def test_for_how_long_no_canary_could_be_read(store):
    """Since one of them was read last after the switch; what the baseline answered, and what was before the switch, says nothing of that."""
    rollout = a_rollout(store)

    def unread_s(*told):
        with store.transaction() as tx:
            its = [Interval(t, 2.0, host, role, seen, {}) for t, host, role, seen in told]
            tx.samples.add(rollout.id, its)
            return tx.samples.unread_s(rollout.id)

    assert unread_s() == 0.0
    assert unread_s((-2.0, "web1", "canary", True), (20.0, "web1", "canary", False)) == 20.0
    assert unread_s((20.0, "web3", "baseline", True)) == 20.0
    assert unread_s((18.0, "web2", "canary", True)) == 2.0


def test_samples_come_back_as_they_went(store):
    """The judge gets what was measured, in the order of time."""
    rollout = a_rollout(store)
    later = Interval(4.0, 2.0, "web1", "canary", True, {"2xx": 3}, flags=("late",))
    sooner = Interval(2.0, 2.0, "web1", "canary", False, {})
    with store.transaction() as tx:
        tx.samples.add(rollout.id, [later])
        tx.samples.add(rollout.id, [sooner])
        assert tx.samples.of(rollout.id) == [sooner, later]


def test_a_release_built_anew_replaces_the_old_one(store):
    """One release a commit."""
    with store.transaction() as tx:
        tx.commits.add_release("shop", Release(SHA, "1" * 64, "/a", 1))
        tx.commits.add_release("shop", Release(SHA, "2" * 64, "/b", 2))
        assert tx.commits.release("shop", SHA) == Release(SHA, "2" * 64, "/b", 2)


def test_a_notice_is_claimed_once_and_given_up_in_the_end(store, now):
    """A receiver that never answers is tried a bounded number of times."""
    with store.transaction() as tx:
        tx.notices.add("shop", None, "title", "body")
    tries = 0
    for _ in range(50):
        with store.transaction() as tx:
            claimed = tx.notices.claim(60.0)
            assert tx.notices.claim(60.0) == []
            for notice in claimed:
                tries += 1
                tx.notices.put_off(notice, 5.0)
        now["s"] += 6
    assert tries == 8


def test_a_notice_keeps_which_addresses_have_not_taken_it(store, now):
    """Its text stays as it was, also after several tries; without a word on who took it, it is owed to those of before."""
    seen = []
    with store.transaction() as tx:
        tx.notices.add("shop", None, "title", "body\nNext: 7")
    for owed in ((2, 3), (3,), ()):
        with store.transaction() as tx:
            (notice,) = tx.notices.claim(60.0)
            seen.append((notice.body, notice.owed))
            tx.notices.put_off(notice, 5.0, owed=owed)
        now["s"] += 6
    with store.transaction() as tx:
        (notice,) = tx.notices.claim(60.0)
    assert [*seen, (notice.body, notice.owed)] == [
        ("body\nNext: 7", None),
        ("body\nNext: 7", {2, 3}),
        ("body\nNext: 7", {3}),
        ("body\nNext: 7", {3}),
    ]


def test_a_delivery_keeps_its_one_outcome(store):
    """I4: what was answered 2xx is in the store with what came of it."""
    with store.transaction() as tx:
        push = Push("github", "d1", "push", head=SHA)
        first = tx.deliveries.add(push, "shop", End(Outcome.ACCEPTED, "new"))
        second = tx.deliveries.add(Push("github", "d2", "ping"), None, End(Outcome.IGNORED, "a ping"))
        assert second > first
        assert tx.deliveries.counts() == {"accepted": 1, "ignored": 1}


def test_a_delivery_ends_once(store):
    """What was decided first stays, with what it names and when; others keep waiting."""
    with store.transaction() as tx:
        tx.commits.add_all("shop", [BranchCommit(SHA, 1, "one", "Ann", "")], who="me", why="pushed")
        numbers = [
            tx.deliveries.add(Push("github", name, "push", head=SHA), "shop", End(Outcome.ACCEPTED, "new"))
            for name in ("a", "b")
        ]
        assert [number for number, _ in tx.deliveries.waiting("shop")] == numbers
        tx.deliveries.end(numbers[0], End(Outcome.STARTED, "out", "rollout 7"))
        tx.deliveries.end(numbers[0], End(Outcome.REJECTED, "late"))
        waits, ended = tx.deliveries.newest("shop", 10)
        assert (ended.outcome, ended.reason, ended.ref) == ("started", "out", "rollout 7")
        assert ended.settled_at is not None
        assert (waits.outcome, waits.settled_at) == ("accepted", None)
        assert [(number, told.sha) for number, told in tx.deliveries.waiting("shop")] == [(numbers[1], SHA)]


def test_no_delivery_that_can_end_is_left_out_of_those_that_wait(store):
    """Whatever state its commit is in, wherever git has it: what an end can be said of is looked at."""
    told = list(
        product(CommitState, (None, 7), (True, False), (None, "e" * 40), (None, NOT_ON_BRANCH, "red"))
    )
    with store.transaction() as tx:
        for number, (state, position, on_branch, into, reason) in enumerate(told):
            sha = f"{number:040x}"
            tx.commits.add("shop", sha, who="me", why="pushed")
            its = {"state": state, "position": position, "on_branch": on_branch, "merged_into": into}
            of = commits.c.sha == sha
            tx.connection.execute(update(commits).where(of).values(its | {"reason": reason}))
            tx.deliveries.add(Push("github", sha, "push", head=sha), "shop", End(Outcome.ACCEPTED, "new"))
        out = Out("f" * 40, 9, "rollout 1")
        every = tx.deliveries.older(tx.today() + timedelta(hours=1))
        ends = {number for number, _, its in every if its and end_of(its, out, "f" * 40) is not None}
        assert len(every) == len(told)
        assert ends
        assert ends <= {number for number, _ in tx.deliveries.waiting("shop")}


def test_deliveries_without_an_end_are_found_by_their_age(store):
    """Also of apps and commits that have no row."""
    with store.transaction() as tx:
        gone = Push("github", "a", "push", head="f" * 40)
        number = tx.deliveries.add(gone, "gone", End(Outcome.ACCEPTED, "new"))
        tx.deliveries.add(Push("github", "b", "push"), None, End(Outcome.IGNORED, "a tag"))
        assert tx.deliveries.older(tx.today() - timedelta(hours=1)) == []
        assert tx.deliveries.older(tx.today() + timedelta(hours=1)) == [(number, "gone", None)]


def test_what_is_not_there_is_not_found(store):
    """A rollout that nobody planned is an error with a way out."""
    with pytest.raises(NotFound), store.reading() as tx:
        tx.rollouts.get(99)


def test_a_database_that_does_not_answer_is_a_clear_error(tmp_path):
    """The error names the database without its password, and what to do."""
    gone = Store("postgresql+psycopg://rollout:hunter2@127.0.0.1:1/nowhere")
    with pytest.raises(ServiceUnavailable) as caught, gone.reading():
        pass
    assert "127.0.0.1:1" in str(caught.value)
    assert "hunter2" not in str(caught.value) + caught.value.remedy


def test_leases_of_another_boot_are_void(tmp_path, monkeypatch):
    """On SQLite the clock starts anew with the machine: whatever was leased before is free."""
    store = Store(f"sqlite:///{tmp_path}/rollout.db")
    store.prepare()
    rollout, hosts = fanning_out(store)
    with store.transaction() as tx:
        tx.claims.activation(hosts[1].id, "w", 15)
    monkeypatch.setattr(store_clock, "boot_of", lambda _connection: "another")
    store.prepare()
    with store.reading() as tx:
        assert [host.name for host in tx.hosts.silent()] == [hosts[1].name]
    assert rollout.id
    store.close()


def test_when_a_branch_was_looked_at_is_not_known_on_another_boot(tmp_path, monkeypatch):
    """Its moment is on another clock: that nobody has looked since is said without a time."""
    store = Store(f"sqlite:///{tmp_path}/rollout.db")
    store.prepare()
    with store.transaction() as tx:
        tx.apps.claim_poll("shop", 60.0)
        assert tx.apps.unasked_s("shop", 60.0) is None
    monkeypatch.setattr(store_clock, "boot_of", lambda _connection: "another")
    monkeypatch.setattr(store_clock, "store_seconds", lambda _connection: 90.0)
    store.prepare()
    with store.reading() as tx:
        assert tx.apps.unasked_s("shop", 60.0) == inf
    store.close()


def test_a_damaged_file_is_a_clear_error(tmp_path):
    """A file that is no database is said to be one that cannot be read, with what to do."""
    (tmp_path / "rollout.db").write_bytes(b"no database at all" * 1000)
    damaged = Store(f"sqlite:///{tmp_path}/rollout.db")
    with pytest.raises(ServiceUnavailable) as caught, damaged.reading() as tx:
        tx.rollouts.unfinished()
    assert "backup" in caught.value.remedy
    damaged.close()


@pytest.mark.parametrize("request_passed", [False, True], ids=["undecided", "a request that passed"])
def test_reports_of_others_push_none_out_that_an_undecided_commit_waits_with(
    store, monkeypatch, request_passed
):
    """However many come for other apps: those of a commit whose tests are not over stay, as it is with the merge of a request; and of the rest the newest."""
    from rollout.domain.model import Check, CheckState, Pull
    from rollout.store import checks

    monkeypatch.setattr(checks, "KEPT_CHECKS", 3)
    monkeypatch.setattr(checks, "SWEPT_EVERY", 1)
    good = Check("unit", CheckState.SUCCESS)
    with store.transaction() as tx:
        if request_passed:
            head = Pull(7, "refs/pull/7/head", SHA, "tea", "Eve", "tea")
            tx.commits.add_pull("shop", head, who="test", why="opened")
            claimed = tx.commits.claim_tests(tx.commits.get("shop", SHA).id, "worker", 15.0)
            tx.commits.change(claimed, CommitEvent.PASS, who="worker")
        else:
            tx.commits.add("shop", SHA, who="test", why="pushed")
        tx.checks.put(SHA, {"shop": good})
        for number in range(9):
            tx.checks.put(f"{number:040x}", {"blog": good})
        told = tx.checks.of_each("blog", [f"{number:040x}" for number in range(9)])
        assert list(told) == [f"{number:040x}" for number in (6, 7, 8)]
        assert tx.checks.of("shop", SHA) != []


def test_the_newest_word_on_each_run_of_a_check_is_kept(store):
    """One row for each run, whether the commit is known or not, each app its own."""
    from rollout.domain.model import Check, CheckState

    with store.transaction() as tx:
        tx.checks.put("a" * 40, {"shop": Check("unit", CheckState.PENDING)})
        tx.checks.put(
            "a" * 40, {"shop": Check("unit", CheckState.FAILURE, "https://ci/1", "github", "1 of 2")}
        )
        tx.checks.put("a" * 40, {"blog": Check("unit", CheckState.SUCCESS)})
        again = Check(
            "unit",
            CheckState.SUCCESS,
            source="github",
            thing="workflow_job 9",
            run=10**15 - 1,
            attempt=2,
            since=1.5,
            until=2.5,
        )
        tx.checks.put("a" * 40, {"shop": again})
    with store.reading() as tx:
        told = tx.checks.of("shop", "a" * 40)
    assert told == [Check("unit", CheckState.FAILURE, "https://ci/1", "github", "1 of 2"), again]


def test_words_on_a_commit_are_bounded(store, monkeypatch):
    """However many runs its checks have; of a known one the newest word is kept all the same."""
    from rollout.domain.model import Check, CheckState
    from rollout.store import checks

    monkeypatch.setattr(checks, "MOST_WORDS", 2)
    with store.transaction() as tx:
        words = [Check("unit", CheckState.PENDING, thing="check_run 1", run=run) for run in (1, 2, 3, 2)]
        assert [tx.checks.put("a" * 40, {"shop": word}) for word in words] == [set(), set(), {"shop"}, set()]


def test_a_commit_that_was_put_off_takes_nobodys_place(store, now):
    """It waits for a git server or a report, without a message: another one's may go out meanwhile."""
    with store.transaction() as tx:
        first, _ = tx.commits.add("shop", "a" * 40, who="w", why="x")
        second, _ = tx.commits.add("shop", "b" * 40, who="w", why="x")
        tx.commits.update(first, reason="waits for check unit", due_at=tx.now() + 5)
        assert [due.id for due in tx.turns.due_for_tests("shop", 10)] == [second.id]
        tx.turns.rung([second.id], 10)
        now["s"] += 6
        assert tx.turns.due_for_tests("shop", 10) == []
        assert [due.id for due in tx.turns.due_for_tests("shop", 10, 2)] == [first.id]
