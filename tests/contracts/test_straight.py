"""Statements that go straight to the driver: their rows and their errors are those that SQLAlchemy would have given."""

import contextlib
from datetime import UTC, datetime

import pytest
from sqlalchemy import bindparam, event, insert, literal, select, update
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InvalidRequestError,
    MultipleResultsFound,
    NoResultFound,
    OperationalError,
    PendingRollbackError,
)

from rollout.domain.model import BranchCommit, Member, Release, Role
from rollout.domain.states import CommitState, HostState, RolloutState
from rollout.domain.verdict import Interval
from rollout.errors import Conflict, ServiceUnavailable
from rollout.store import (
    apps,
    bars,
    checks,
    claims,
    commits,
    fleet,
    going_back,
    hosts,
    journal,
    rollouts,
    store,
    straight,
    turns,
)
from rollout.store.rollouts import Planned
from rollout.store.straight import Prepared
from rollout.store.tables import deliveries, facts, fleet_hosts, rollout_hosts
from tests.conftest import KINDS, with_tables
from tests.support import stores

SHA = "a" * 40
TODAY = datetime(2026, 3, 4, 5, 6, 7, 890, tzinfo=UTC)
CLAIM = {"its_id": 1, "its_version": 1}
REPORT = {"its_app": "shop", "its_name": "web1", "its_epoch": 7}
ADDRESS = "127.1.0.1"
DUE = {"now": 1e12, "rollout": 1}
POLL = {"its_name": "shop", "now": 5.0, "just_now": 0.0, "held": 65.0, "never": 1e12}
EVENT = {"at": TODAY, "app": "shop", "rollout": 1, "subject": "rollout 1", "what": "plan", "before": None}
EVENT |= {"after": "pending", "who": "ann", "why": "it's 100 % :new"}
SAMPLE = {"rollout": 1, "t": 1.5, "dt": 0.5, "host": "web1", "role": Role.CANARY, "observed": True}
SAMPLE |= {"counts": {"good": 3}, "source": "prometheus", "flags": ["slow"]}
COMMIT = commits._DEFAULTS | {
    "app": "shop",
    "sha": "9" * 40,
    "state": "received",
    "received_at": TODAY,
    "due_at": 0.0,
}
DELIVERY = {
    "received_at": TODAY,
    "provider": "github",
    "delivery": "ä",
    "app": None,
    "branch": "main",
    "head": SHA,
}
DELIVERY |= {"outcome": "accepted", "reason": "pushed", "ref": None, "settled_at": TODAY}
CHECK = {
    "app": "shop",
    "sha": SHA,
    "name": "unit",
    "state": "failure",
    "url": "",
    "source": "github",
    "details": "",
}
CHECK |= {
    "stamp": "7.5 1",
    "reported_at": TODAY,
    "began_at": None,
    "took_s": None,
    "thing": "check_run 1",
    "run": 2**53,
}
CHECK |= {"attempt": 0, "since": None, "until": 1.5}
COUNTED = {"its_app": "shop", "its_sha": SHA, "its_name": "unit"}

# Each kind of statement that is converted, with values as its callers give them.
RUNS = {
    "a host": (hosts._BY_ID, {"host": 1}),
    "no host": (hosts._BY_ID, {"host": 99}),
    "to be prepared": (hosts._PREPARABLE, {**DUE, "most": 2}),
    "to be prepared ahead": (hosts._PREPARABLE_AHEAD, {**DUE, "before": 1, "most": 2}),
    "to go back": (going_back._BACK_NEXT, {**DUE, "most": 2}),
    "to go back at once": (going_back._BACK_AT_ONCE, {**DUE, "most": 2}),
    "the first to go back": (going_back._FIRST_SWITCHED_DUE_AT, {"rollout": 1}),
    "to be tried again": (hosts._TO_RETRY, DUE),
    "to be read": (hosts._TO_READ, {"now": 1e12, "most": 2}),
    "any to watch": (hosts._TO_WATCH, {"now": 1e12}),
    "startable": (hosts._startable(canary=False), {**DUE, "most": 2}),
    "startable canary": (hosts._startable(canary=True), {**DUE, "most": 2}),
    "to activate": (claims._TO_ACTIVATE, {"host": 2}),
    "the next to activate": (claims._NEXT_TO_ACTIVATE, {**DUE, "most": 2}),
    "to roll back": (claims._TO_ROLL_BACK, {"host": 3}),
    "still claimed": (claims._STILL_CLAIMED, CLAIM),
    "a lease": (claims._LEASE_LEFT, CLAIM),
    "a lease of a stage": (claims._lease_left(back=False), CLAIM),
    "a lease on the way back": (claims._lease_left(back=True), CLAIM),
    "in these states": (claims._in_states(frozenset(hosts.SWITCHING), locked=False), {"rollout": 1}),
    "in these states, locked": (
        claims._in_states(frozenset(hosts.SWITCHING), locked=True),
        {"rollout": 1},
    ),
    "a claim": (
        hosts._GUARDED,
        {**CLAIM, "version": 2, "state": "done", "token": False, "lease_until": None, "took_s": 1.25},
    ),
    "another one's claim": (hosts._GUARDED, {**CLAIM, "its_version": 9, "state": "done"}),
    "a first touch": (
        claims._FIRST_TOUCH,
        {**CLAIM, "now": 1.0, "touched": True, "touched_at": 3.5, "previous": None},
    ),
    "any touch": (
        claims._ANY_TOUCH,
        {**CLAIM, "now": 1.0, "touched": True, "touched_at": 3.5, "previous": SHA},
    ),
    "a report": (fleet._FLEET_REPORT, {**REPORT, "owes": True, "owed": None, "operation": 7}),
    "a release": (
        fleet._RUNS,
        {**REPORT, "its_address": ADDRESS, "its_release": SHA, "its_time": TODAY, "stays": True},
    ),
    "its canaries": (hosts._CANARIES, {"rollout": 1}),
    "its hosts": (hosts._of(()), {"rollout": 1}),
    "its hosts in some states": (hosts._of((HostState.PENDING, HostState.PREPARED)), {"rollout": 1}),
    "under way": (hosts._UNDER_WAY, {"rollout": 1, "now": 1.0}),
    "silent": (hosts._SILENT, {"now": 1e12, "most": 2}),
    "nobody could read": (hosts._FIRST_TO_LOOK_AT, {"now": 1e12, "most": 2}),
    "failed to go back": (going_back._TO_TRY_AGAIN, {"now": 1e12, "most": 2}),
    "missed their way back": (going_back._MISSED_IT, {"now": 1e12, "most": 2}),
    "a first cursor": (hosts._CURSOR, {"its_id": 1, "its_cursor": None, "cursor": "12"}),
    "another one's cursor": (hosts._CURSOR, {"its_id": 1, "its_cursor": "7", "cursor": "12"}),
    "a rollout": (rollouts._BY_ID, {"rollout": 1}),
    "in a state": (rollouts._IN_STATE, {"its_state": "fanning_out"}),
    "active": (rollouts._ACTIVE, {"its_app": "shop"}),
    "planned": (rollouts._PENDING, {"its_app": "shop"}),
    "unfinished": (rollouts._UNFINISHED, {}),
    "the app's unfinished": (rollouts._UNFINISHED_OF, {"its_app": "shop"}),
    "due": (rollouts._DUE, {"now": 1e12}),
    "newest": (rollouts._NEWEST, {}),
    "the app's newest": (rollouts._NEWEST_OF, {"its_app": "shop"}),
    "the newest done": (rollouts._NEWEST_DONE, {"its_app": "third", "its_commit": SHA}),
    "what runs": (rollouts._RELEASED, {"its_app": "third"}),
    "taken back since": (rollouts._TAKEN_BACK_SINCE, {"its_app": "other", "its_commit": SHA, "since": 4}),
    "how long they took": (rollouts._DURATIONS, {"its_app": "third", "most": 3}),
    "unwatched": (rollouts._UNWATCHED, {"before": 1.0}),
    "a due time": (rollouts._SET, {"rollout": 1, "due_at": 2.5}),
    "due after all": (rollouts._NOT_RUNG, {"rollout": 1, "due_at": 0.0}),
    "a tick": (rollouts._CLAIM_TICK, {"rollout": 1, "its_state": "fanning_out", "now": 1.0, "due_at": 3.0}),
    "a change": (
        rollouts._GUARDED,
        {
            "rollout": 1,
            "its_version": 1,
            "its_state": "fanning_out",
            "version": 2,
            "state": RolloutState.HALTED,
            "confirmed": ["web1"],
            "ended_at": TODAY,
            "stop_epoch": 2**62,
        },
    ),
    "a commit": (commits._OF_SHA, {"its_app": "shop", "its_sha": SHA}),
    "the same commit": (commits._BY_ID, {"its_id": 1}),
    "its release": (commits._RELEASE, {"its_app": "shop", "its_sha": SHA}),
    "what comes after": (commits._AFTER, {"its_app": "shop", "its_position": 1}),
    "the line's newest": (commits._NEWEST, {"its_app": "shop"}),
    "wanted": (commits._WANTED_NOW, {"its_app": "shop"}),
    "in hand": (turns._IN_HAND, {"its_app": "shop", "now": 0.5, "again_s": 60.0}),
    "a message under way": (turns._RUNG, {"its_id": 1, "due_at": 7.5, "reason": None}),
    "tests that went silent": (turns._SILENT, {"its_app": "shop", "now": 1e12}),
    "to be tested": (turns._WAITING, {"its_app": "shop", "now": 1e12}),
    "pull requests to be tested": (turns._WAITING_PULLS, {"its_app": "shop", "now": 1e12}),
    "how far tests came": (turns._TRIED, {"its_app": "shop"}),
    "what must not ship": (bars._TROUBLE, {"its_app": "shop"}),
    "barred, and the same": (
        bars._BARRED_WITH,
        {"its_app": "shop", "its_id": 1, "its_digest": None, "its_tree": "c" * 40},
    ),
    "nothing that is the same": (
        bars._BARRED_WITH,
        {"its_app": "shop", "its_id": 1, "its_digest": None, "its_tree": None},
    ),
    "the same ran well": (
        bars._RAN_WELL,
        {"its_app": "third", "its_digest": "d" * 64, "its_tree": None},
    ),
    "a commit's change": (
        commits._GUARDED,
        {**CLAIM, "version": 2, "state": CommitState.BARRED, "took_s": 1.25, "reason": None, "suspect": True},
    ),
    "a first word": (checks._SAY, checks._its(CHECK | {"run": 1})),
    "a later word": (checks._SAY, checks._its(CHECK | {"state": "success", "began_at": TODAY})),
    "a word without a stamp": (checks._SAY, checks._its(CHECK | {"stamp": ""})),
    "how many words": (checks._MANY, COUNTED),
    "how many other words": (checks._MANY, COUNTED | {"its_name": "lint"}),
    "an app": (apps._HAS_ROW, {"its_name": "shop"}),
    "its note": (apps._NOTE, {"its_name": "shop"}),
    "a first note": (apps._SET_NOTE, {"its_name": "shop", "its_note": "ä", "note": "ä"}),
    "no note, as before": (apps._SET_NOTE, {"its_name": "shop", "its_note": None, "note": None}),
    "who made it red": (apps._RED_TOLD, {"its_name": "shop"}),
    "another one made it red": (apps._SET_RED_TOLD, {"its_name": "shop", "its_sha": SHA, "red_told": SHA}),
    "a head was told of": (apps._TOLD, {"its_name": "shop", "now": 2.5}),
    "the newest one was told of": (apps._TOLD_SAME, {"its_name": "shop", "now": 2.5}),
    "its freeze": (apps._FROZEN, {"its_name": "shop"}),
    "what it heard": (apps._HEARD, {"its_name": "shop"}),
    "deliveries that wait": (journal._WAITING, {"app": "third"}),
    "samples of it": (journal._ITS_SAMPLES, {"rollout": 1}),
    "a notice": (journal._ANY_NOTICE, {"now": 1e12}),
    "its identity": (rollouts._IDENTITY, {"rollout": 1}),
    "its hold": (rollouts._HOLD, {"rollout": 1}),
    "its window": (rollouts._WINDOW, {"rollout": 1}),
    "where it goes back to": (rollouts._ROLLBACK_TO, {"rollout": 1}),
    "what is shipped": (rollouts._UNFINISHED_COMMITS, {"its_app": "shop"}),
    "counting": (rollouts._COUNTING, {"rollout": 1}),
    "a canary's token": (rollouts._take_token(canary=True), {"rollout": 1}),
    "a token": (rollouts._take_token(canary=False), {"rollout": 1}),
    "tokens passed on": (
        rollouts._PASS_TOKENS_ON,
        {"rollout": 1, "its_window": 2, "new_window": 3, "passed": 2, "given_back": 1},
    ),
    "a state": (rollouts._STATE, {"rollout": 1}),
    "a poll": (apps._poll_is_due(polled=True), POLL),
    "what was asked for": (apps._poll_is_due(polled=False), POLL),
    "what waits too long": (
        store._ANY_TOO_LATE,
        {"now": 1.0, "longest_s": 900.0, "stage_s": 60.0, "pace": 0.1},
    ),
    "a stop": (claims._STOP, {"rollout": 1}),
    "counts": (
        rollouts._move_counts(("done", "in_flight"), window=True),
        {"rollout": 1, "done_more": 1, "in_flight_more": -1, "new_window": 3},
    ),
    "no counts": (rollouts._move_counts((), window=False), {"rollout": 1}),
    "an output": (
        journal._ONE_OUTPUT,
        {"rollout": 1, "host": "web1", "step": "restart", "attempt": 1, "at": TODAY, "text": "ä\n'"},
    ),
}
# Hostile to whoever writes lists of words, and what is nearly a number.
WORDS = ['a"b\\c', "{a,b}", "NULL", "", " ä\n\t€ ", "\\", '"', "'", "%s :new", None]
# What runs for several at once; some of them find no row.
EACH = {
    "claims": (
        hosts._GUARDED,
        [
            {**claim, "version": 7, "state": state, "token": token, "lease_until": until, "error": word}
            for claim, state, token, until, word in [
                ({"its_id": 3, "its_version": 1}, "done", False, None, WORDS[0]),
                ({"its_id": 1, "its_version": 9}, "failed", False, 1.5, None),
                ({"its_id": 1, "its_version": 1}, "prepared", True, 0.1 + 0.2, "NULL"),
                ({"its_id": 99, "its_version": 1}, "failed", True, 1e300, ""),
                ({"its_id": 2, "its_version": 1}, "prepared", True, 12345678901.123457, WORDS[4]),
            ]
        ],
    ),
    "first touches": (
        claims._FIRST_TOUCH,
        [
            {"its_id": n, "its_version": 1, "now": now, "touched": True, "touched_at": 3.5, "previous": None}
            for n, now in [(2, 1.0), (1, 1.0), (3, 1.0)]
        ],
    ),
    "late touches": (
        claims._ANY_TOUCH,
        [
            {"its_id": n, "its_version": 1, "now": now, "touched": True, "touched_at": 3.5, "previous": SHA}
            for n, now in [(1, 13.0), (3, 1.0)]
        ],
    ),
    "leases": (claims._LEASE_LEFT, [{"its_id": n, "its_version": 1} for n in (3, 99, 1, 2)]),
    "claims that are so still": (claims._STILL_CLAIMED, [{"its_id": n, "its_version": 1} for n in (3, 1)]),
    "leases of a stage": (claims._lease_left(back=False), [{"its_id": n, "its_version": 1} for n in (3, 1)]),
    "leases on the way back": (
        claims._lease_left(back=True),
        [{"its_id": n, "its_version": 1} for n in (3, 1)],
    ),
    "releases": (
        fleet._RUNS,
        [
            {
                **REPORT,
                "its_name": name,
                "its_epoch": epoch,
                "its_address": f"127.1.0.{name[3:]}",
                "its_release": release,
                "its_time": TODAY,
                "stays": stays,
            }
            for name, epoch, release, stays in [
                ("web3", 2**62, SHA, True),
                ("web9", 1, SHA, True),
                ("web2", 7, "b" * 40, True),
                ("web1", -1, None, False),
            ]
        ],
    ),
    "an event": (journal._MORE, [EVENT]),
    "events": (journal._MORE, [EVENT, *(EVENT | {"why": word, "rollout": None} for word in WORDS), EVENT]),
    "a commit is told of": (commits._ADD, [COMMIT]),
    "commits are told of": (
        commits._ADD,
        [COMMIT, *(COMMIT | {"sha": f"{n}" * 40, "subject": w} for n, w in enumerate(WORDS[:-1]))],
    ),
    "words": (checks._ADD, [CHECK | {"name": f"{n}", "details": w} for n, w in enumerate(WORDS[:-1])]),
    "later words": (
        checks._SAY,
        [
            checks._its(CHECK | {"app": app, "stamp": stamp, "since": since})
            for app, stamp, since in [("third", "", 0.1), ("nobody", "8", 2.5), ("shop", "9.5", None)]
        ],
    ),
    "how many words of each": (
        checks._MANY,
        [COUNTED | {"its_app": app} for app in ("nobody", "shop", "third")],
    ),
    "the same commits": (commits._BY_ID, [{"its_id": number} for number in (2, 99, 1)]),
    "whose commits": (
        commits._OF_SHA,
        [{"its_app": app, "its_sha": SHA} for app in ("third", "nobody", "shop")],
    ),
    "in hand, of each": (
        turns._IN_HAND,
        [{"its_app": app, "now": 0.5, "again_s": 60.0} for app in ("third", "shop")],
    ),
    "messages under way": (turns._RUNG, [{"its_id": n, "due_at": 7.5, "reason": None} for n in (2, 99, 1)]),
    "heads were told of": (
        apps._TOLD,
        [{"its_name": app, "now": 2.5} for app in ("shop", "nobody", "other")],
    ),
    "the newest ones were told of": (
        apps._TOLD_SAME,
        [{"its_name": app, "now": 2.5} for app in ("shop", "other")],
    ),
    "deliveries": (journal._ADD_DELIVERY, [DELIVERY | {"reason": word} for word in WORDS[:-1]]),
    "samples": (journal._SAMPLES, [SAMPLE, SAMPLE | {"observed": False, "counts": {}}]),
}
TABLES = (
    "rollouts",
    "rollout_hosts",
    "fleet_hosts",
    "apps",
    "commits",
    "events",
    "outputs",
    "samples",
    "checks",
)


def seed(store):
    """A rollout of three hosts: one is pending, one prepared, one was switched by an earlier rollout that goes back."""
    fleet = [
        (Member(f"web{n}", f"127.1.0.{n}", 22, "deploy", {"zone": "ä"}, "/srv"), Role.OTHER)
        for n in (1, 2, 3)
    ]
    with store.transaction() as tx:
        tx.rollouts.add(
            Planned("shop", SHA, [SHA], None, "d" * 64, "ann", {"a": 1}, 2, "ramp", 9, 3, fleet), why=""
        )
        tx.rollouts.add(
            Planned("other", SHA, [SHA], SHA, "d" * 64, "ann", {}, 2, "ramp", 9, 1, fleet[:1]), why=""
        )
        to = tx.connection.execute
        to(update(rollouts.rollouts).values(state="fanning_out", canary_status="pass", in_flight=1))
        to(
            update(rollouts.rollouts)
            .where(rollouts.rollouts.c.id == 2)
            .values(state="rolling_back", stop_epoch=5)
        )
        its = update(rollout_hosts)
        to(its.where(rollout_hosts.c.id == 1).values(lease_until=12.5))
        to(its.where(rollout_hosts.c.id == 2).values(state="prepared"))
        to(its.where(rollout_hosts.c.id == 3).values(state="done", rollout=2, touched=True, operation=4))
        to(update(fleet_hosts).where(fleet_hosts.c.name == "web2").values(owes=True, owed=SHA))
        tx.rollouts.add(
            Planned("third", SHA, [SHA], SHA, "d" * 64, "ann", {}, 2, "ramp", 9, 1, fleet[:1]), why=""
        )
        its_end = {"state": "done", "started_at": TODAY, "ended_at": TODAY, "took_s": 2.5}
        to(update(rollouts.rollouts).where(rollouts.rollouts.c.id == 3).values(its_end))
        line = [BranchCommit(f"{n:x}" * 40, n, f"ä {n}", "Ann", "", tree=f"{n:x}" * 40) for n in (10, 11, 12)]
        tx.commits.add_all("shop", line, who="ann", why="pushed")
        tx.commits.add_release("shop", Release(SHA, "d" * 64, "/there", 12))
        lost = {"state": "testing", "lease_until": 1.0, "now_reason": "hurry", "now_by": "ann"}
        to(update(commits.commits).where(commits.commits.c.id == 2).values(lost))
        to(update(commits.commits).where(commits.commits.c.id == 3).values(state="barred"))
        its = {"app": "third", "sha": SHA, "state": "passed", "digest": "d" * 64}
        to(insert(commits.commits).values(its | {"on_branch": True, "received_at": TODAY}))
        tx.samples.add(1, [Interval(1.5, 0.5, "web1", "canary", True, {"2xx": 3}, "log", ("slow",))])
        tx.notices.add("shop", 1, "a title", "its body")
        to(
            insert(checks.checks).values(
                [CHECK, CHECK | {"app": "third"}, CHECK | {"run": 3, "name": "lint"}]
            )
        )
        to(insert(deliveries).values([DELIVERY | {"app": "third", "head": one} for one in (SHA, "f" * 40)]))
    return store


@pytest.fixture
def seeded(store):
    """A seeded store of each kind."""
    return seed(store)


@pytest.fixture(scope="module")
def seeds():
    """The seeded stores of this module, by their kinds."""
    opened = {}
    yield opened
    for one in opened.values():
        one.close()


@pytest.fixture(params=KINDS)
def untouched(request, seeds, tmp_path_factory):
    """The same for whoever undoes all that it does: one of each kind for all such tests."""
    if request.param not in seeds:
        address = with_tables(request, tmp_path_factory.mktemp("seeded"))
        seeds[request.param] = seed(stores.opened(address))
    return seeds[request.param]


def outcome(store, work, *, numbers=True):
    """What came of it, what is in the tables then, and the driver's words for it; all undone."""
    said, found = [], None
    with contextlib.suppress(KeyError), store.transaction() as tx:
        answer = work(tx)
        rows = [tuple(row) for row in answer] if getattr(answer, "returns_rows", True) else []
        found = rows, [[type(value) for value in row] for row in rows], answer.rowcount
        for name in TABLES:
            rows = tx.connection.exec_driver_sql(f"SELECT * FROM {name} ORDER BY 1, 2").all()
            # PostgreSQL gives no number twice, though it was undone.
            numbered = numbers and name not in {"events", "outputs", "samples"}
            said.append(rows if numbered else [row[1:] for row in rows])
        raise KeyError
    return found, said


@pytest.mark.parametrize("name", RUNS)
def test_rows_and_changes_are_those_of_sqlalchemy(untouched, name):
    """The same rows with the same types, the same count of changed ones, and the same in every table afterwards."""
    prepared, values = RUNS[name]
    by_itself = outcome(untouched, lambda tx: tx.connection.execute(prepared.statement, values))
    for _ in range(2):  # the first one writes the statement, the second one uses it
        rows, tables = outcome(untouched, lambda tx: tx.run(prepared, values))
        assert tables == by_itself[1]
        assert rows[:2] == by_itself[0][:2]
        if (
            prepared.statement.is_update and not prepared.statement.exported_columns
        ):  # where it means something
            assert rows[2] == by_itself[0][2]


@pytest.mark.parametrize("name", EACH)
def test_many_at_once_are_as_one_after_another(untouched, name):
    """Each gets the rows and the count that it gets by itself, and in every table is the same afterwards, whatever the values are."""
    prepared, each = EACH[name]
    columns = len(prepared.statement.exported_columns)
    found = []

    def keeping(work):
        def kept(tx):
            answers = work(tx)
            rows = [[tuple(row)[:columns] for row in one] for one in answers]
            found.append(rows if columns else [one.rowcount for one in answers])
            return straight.Answer([], 0)

        return outcome(untouched, kept, numbers=not prepared.statement.is_insert)[1]

    tables = keeping(lambda tx: [tx.run(prepared, values) for values in each])
    for _ in range(7):  # PostgreSQL has prepared it at the last ones
        assert keeping(lambda tx: tx.run_each(prepared, each)) == tables
    if not prepared.statement.is_insert:  # of which nobody asks it
        assert found[1:] == 7 * found[:1]


def test_numbers_of_many_at_once_are_in_their_order(seeded):
    """Each row that is added is told its own number."""
    rows = [DELIVERY | {"reason": f"{n}"} for n in range(300)]
    with seeded.transaction() as tx:
        numbers = [one.scalar_one() for one in tx.run_each(journal._ADD_DELIVERY, rows)]
        found = {one.id: one.reason for one in tx.deliveries.newest(None, 300)}
    assert [found[number] for number in numbers] == [row["reason"] for row in rows]


def test_many_at_once_have_the_same_parameters(untouched):
    """What only one of them sets would be lost for it, or set for all: it is refused."""
    with untouched.transaction() as tx, pytest.raises(TypeError):
        tx.run_each(hosts._GUARDED, [{**CLAIM, "state": "done"}, {**CLAIM, "state": "done", "token": True}])


def test_none_at_once_ask_nothing(untouched):
    """Where there is nobody, nothing is sent."""
    with untouched.transaction() as tx:
        assert tx.run_each(hosts._GUARDED, []) == []


def test_every_prepared_statement_is_compared():
    """A statement that is added to these modules is one that is compared here."""
    compared = {id(prepared.statement) for prepared, _ in [*RUNS.values(), *EACH.values()]}
    known = [
        (m, name)
        for m in (apps, bars, checks, claims, commits, fleet, going_back, hosts, journal, rollouts, turns)
        for name in vars(m)
    ]
    missing = [
        f"{module.__name__}.{name}"
        for module, name in known
        if isinstance(one := getattr(module, name), Prepared) and id(one.statement) not in compared
    ]
    assert missing == []


def test_an_epoch_comes_out_of_its_update(seeded):
    """A row that a change returns is read, and the change is made."""
    with seeded.transaction() as tx:
        prepared = apps._next_epoch(postgresql=tx.is_postgresql)
        values = {"its_name": "shop", "milliseconds": 5, "more": 1}
        assert [tuple(row) for row in tx.run(prepared, values)] == [(6,)]
        assert tx.connection.execute(prepared.statement, values).scalar_one() == 8


def test_columns_have_their_names(untouched):
    """Rows are asked for columns by their labels, and cut."""
    with untouched.reading() as tx:
        row = tx.run(claims._TO_ACTIVATE, {"host": 2}).one()
        assert (row.it_owes, row.it_owed, row.name, row[:2]) == (True, SHA, "web2", (2, 1))


@pytest.mark.parametrize("verb", ["one", "scalar_one", "scalar_one_or_none", "first"])
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_too_many_and_too_few_rows(store, verb, rows):
    """No row, and more than one where one is asked for, are what they are of SQLAlchemy's results."""
    query = Prepared(select(facts.c.value).where(facts.c.name.like(bindparam("its"))).order_by(facts.c.name))
    told = []
    with store.transaction() as tx:
        for name in ("x1", "x2")[:rows]:
            tx.connection.execute(insert(facts).values(name=name, value="v"))
        for answer in (tx.connection.execute(query.statement, {"its": "x%"}), tx.run(query, {"its": "x%"})):
            try:
                found = getattr(answer, verb)()
                told.append(found if isinstance(found, str | None) else tuple(found))
            except (NoResultFound, MultipleResultsFound) as error:
                told.append(type(error))
    assert told[0] == told[1]


def error_of(store, work):
    with pytest.raises(DBAPIError) as caught, store._writing() as connection:
        work(connection)
    return caught.value


def test_a_second_one_is_refused_as_before(store):
    """The driver's refusal comes as SQLAlchemy's, with the statement, and is the store's Conflict."""
    again = Prepared(insert(facts).inline())
    values = {"name": "boot", "value": "x"}
    errors = [
        error_of(store, lambda connection: connection.execute(again.statement, values)),
        error_of(store, lambda connection: store._straight.run(connection, again, values)),
    ]
    its = [
        (type(one), type(one.orig), str(one.orig), one.statement, one.connection_invalidated)
        for one in errors
    ]
    assert its[0] == its[1]
    assert its[0][0] is IntegrityError
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.run(again, values)
    with store.transaction() as tx:
        tx.run(again, {"name": "new", "value": "x"})  # the connection is as good as before


def test_a_parameter_that_is_missing_is_missed(store):
    """Forgetting a value is an error, and not a NULL."""
    with store.reading() as tx, pytest.raises(InvalidRequestError, match="host"):
        tx.run(hosts._BY_ID, {})


def test_a_list_is_not_for_this_way(store):
    """How many values an IN has is part of its statement: such a one would be kept once for each."""
    listed = Prepared(select(facts.c.name).where(facts.c.name.in_(bindparam("names", expanding=True))))
    with store.reading() as tx, pytest.raises(TypeError):
        tx.run(listed, {"names": ["boot"]})


def test_a_value_that_no_driver_takes(store):
    """What is wrong with a value is said in the same words, and the transaction goes on where the database lets it."""
    query = Prepared(select(literal(1)).where(facts.c.name == bindparam("its")))
    told = []
    for way in (
        lambda c: c.execute(query.statement, {"its": object()}),
        lambda c: store._straight.run(c, query, {"its": object()}),
    ):
        error = error_of(store, way)
        told.append((type(error), type(error.orig), error.connection_invalidated))
    assert told[0] == told[1]


def test_a_lost_connection_is_noticed(store):
    """PostgreSQL's end of a session invalidates the connection: the store says that the database went away, and has a new one then."""
    with store.reading() as tx:
        if not tx.is_postgresql:
            pytest.skip("SQLite has no server that could go away")

    def lose(tx):
        pid = tx.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with store.transaction() as other:
            other.connection.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(OperationalError) as caught:
            tx.run(hosts._BY_ID, {"host": 1})
        with pytest.raises(PendingRollbackError):
            tx.run(hosts._BY_ID, {"host": 1})
        assert tx.connection.invalidated
        assert caught.value.connection_invalidated
        raise caught.value

    with pytest.raises(ServiceUnavailable), store.transaction() as tx:
        lose(tx)
    with store.reading() as tx:
        assert tx.run(hosts._BY_ID, {"host": 1}).first() is None


@pytest.mark.parametrize("interrupted", [KeyboardInterrupt, ValueError])
def test_what_comes_in_between_stays_what_it_is(store, monkeypatch, interrupted):
    """Ctrl-C invalidates PostgreSQL's connection, which may wait for an answer, and not SQLite's; another error does neither."""
    listened = []
    event.listen(store._engine, "handle_error", listened.append)

    class Cursor:
        def execute(self, *_):
            raise interrupted

        def close(self):
            listened.append("closed")

    class Driver:
        def cursor(self):
            return Cursor()

    def interrupt(connection):
        pooled = connection.connection
        monkeypatch.setattr(type(connection), "connection", Driver())
        try:
            store._straight.run(connection, hosts._BY_ID, {"host": 1})
        finally:
            monkeypatch.undo()
            listened.append(("lost", connection.invalidated, not pooled.is_valid))

    with pytest.raises(interrupted), store._reading() as connection:
        interrupt(connection)
    lost = interrupted is KeyboardInterrupt and store._engine.dialect.name == "postgresql"
    assert [one for one in listened if type(one) is tuple] == [("lost", lost, lost)]
    assert len([one for one in listened if type(one) not in {tuple, str}]) == 1
    assert ("closed" in listened) == (not lost)


def test_only_what_was_prepared_is_kept(store):
    """What is written anew for each call does not pile up in memory; what is prepared is written once for its parameters."""
    kept = straight.Straight()
    with store.reading() as tx:
        for number in range(5):
            kept.run(tx.connection, hosts._BY_ID, {"host": number})
        with pytest.raises(AttributeError):
            kept.run(tx.connection, select(facts.c.name), {})
    assert [key for key in kept._ways if isinstance(key[0], Prepared)] == [(hosts._BY_ID, ("host",))]
    assert len(kept._ways) == 1
