"""What every host's report asks: who is next?"""

import pytest

from rollout.domain.states import HostState as H
from rollout.store import catching_up, claims, going_back, hosts
from tests.contracts.test_store import fanning_out


@pytest.mark.parametrize(
    "prepared",
    [hosts._PREPARABLE, claims._NEXT_TO_ACTIVATE, going_back._BACK_AT_ONCE, going_back._BACK_NEXT],
    ids=["to prepare", "to activate", "back at once", "back next"],
)
def test_the_next_host_is_found_without_sorting_all_of_them(prepared, store):
    """A fleet of ten thousand asks ten thousand times: SQLite takes the first of its index each time."""
    if not store.url.startswith("sqlite"):
        pytest.skip("PostgreSQL plans by what the tables hold")
    plan = steps(store, prepared.statement)
    assert plan[0] == (
        "SEARCH rollout_hosts USING INDEX ix_rollout_hosts_rollout_state_position (rollout=? AND state=?)"
    )
    assert not [step for step in plan if "B-TREE" in step]


@pytest.mark.parametrize("statement", [catching_up._BEHIND, hosts.TO_LOOK_AT], ids=["behind", "to look at"])
def test_a_hosts_other_rollouts_are_found_without_looking_through_all_of_them(statement, store):
    """Who is behind is asked every few seconds, and an installation has thousands of rows of every host."""
    if not store.url.startswith("sqlite"):
        pytest.skip("PostgreSQL plans by what the tables hold")
    asked = "USING INDEX ix_rollout_hosts_app_name_rollout (app=? AND name=?"
    assert [step for step in steps(store, statement) if asked in step or f"COVERING {asked[6:]}" in step]


def steps(store, statement):
    """SQLite's plan for it."""
    with store.reading() as tx:
        compiled = statement.compile(dialect=tx.connection.dialect)
        names = [name for name, bind in compiled.binds.items() if bind.required]
        its = compiled.construct_expanded_state(dict.fromkeys(names, 1))
        values = tuple(its.parameters[name] for name in its.positiontup)
        found = tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {its.statement}", values)
        return [row[3] for row in found]


def test_those_at_rest_go_back_before_those_in_flight(store):
    """A host that is being switched holds its slot until its restart is over; who is done is back at once."""
    rollout, rows = fanning_out(store, names=("web1", "web2", "web3"))
    with store.transaction() as tx:
        for host, state in zip(rows, (H.ACTIVATING, H.DONE, H.UNKNOWN), strict=True):
            tx.hosts.update(tx.hosts.get(host.id), state=state, touched=True, lease_until=0.0, due_at=None)
        found = tx.going_back.to_roll_back(rollout.id, 3)
        assert [host.name for host in found] == ["web2", "web1", "web3"]
        assert [host.name for host in tx.going_back.to_roll_back(rollout.id, 1)] == ["web2"]
