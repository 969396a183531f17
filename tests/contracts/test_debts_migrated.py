"""A store of before 0003, with hosts that a stopped rollout could not bring back."""

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from rollout.domain.states import HostState, RolloutState
from rollout.store import migrate
from tests.support.across import SLOW, fix, owes_a_rollback, recorded, row_of, state_of
from tests.support.checker.check import check
from tests.support.checker.read import world as told
from tests.support.older import columns_of_0020, commits_of_0021, hosts_of_0019
from tests.support.world import World

LATER = {  # what later migrations add to the tables that 0003 left
    "commits": [
        "flaky",
        "reds",
        "lost",
        "took_s",
        "suspect_of",
        "pull",
        "merged_into",
        "mends",
        "tree",
        "same_as",
        "unbarred",
    ],
    "deliveries": ["ref", "settled_at"],
    "apps": [
        "looked_s",
        "told_s",
        "read_s",
        "answered_s",
        "red_told",
        "frozen_at",
        "frozen_until",
        "frozen_by",
        "frozen_reason",
        "members_read_at",
    ],
    "rollout_hosts": ["tries"],
    "fleet_hosts": ["left_at"],
}
OF_0003 = {
    "rollouts": ["passed_t", "accepted_at", "watch_due_at"],
    "rollout_hosts": ["touched_at", "switched_at", "owes", "owed", "busy_since"],
    "fleet_hosts": ["operation", "owes", "owed"],
}


@pytest.fixture
def world(tmp_path, monkeypatch, database):
    made = World(tmp_path, monkeypatch, hosts=6, fan_out="max_failed = 2", url=database)
    yield made
    made.store.close()


def migrated_again(world):
    """What 0003 and those after it added is taken away, and added again by the migration."""
    with world.store.transaction() as tx:
        commits_of_0021(tx.connection)
        columns_of_0020(tx.connection)
        hosts_of_0019(tx.connection)
        tx.connection.execute(text("DROP TABLE checks"))
        tx.connection.execute(text("DROP INDEX ix_deliveries_outcome_app_head"))
        tx.connection.execute(text("DROP INDEX ix_commits_app_merged_into"))
        tx.connection.execute(text("DROP INDEX ix_commits_app_position"))
        tx.connection.execute(text("DROP INDEX ix_commits_app_state"))
        tx.connection.execute(text("DROP INDEX ix_rollout_hosts_rollout_state_position"))
        tx.connection.execute(text("DROP INDEX ix_rollout_hosts_app_name_rollout"))
        tx.connection.execute(
            text("CREATE INDEX ix_rollout_hosts_rollout_state ON rollout_hosts (rollout, state)")
        )
        for table, columns in (*OF_0003.items(), *LATER.items()):
            for column in columns:
                tx.connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        tx.connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    world.store.prepare()


def test_debts_and_operations_of_before_are_known(world):
    """Whoever takes such a host over after the upgrade brings it to where the stopped rollout would have."""
    good, bad, old = owes_a_rollback(world)
    before = recorded(world)
    migrated_again(world)
    after = recorded(world)
    assert (after.owes, after.owed, after.operation) == (True, good, before.operation)
    host = world.fleet.hosts[SLOW]
    sha, new = fix(world, bad)
    host.unhealthy.add(sha)
    world.settle()
    world.run(seconds=50)
    assert (state_of(world, new), row_of(world, new).state) == (RolloutState.DONE, HostState.FAILED)
    assert host.current == good
    assert row_of(world, old).state is HostState.ROLLBACK_FAILED
    assert check(told(world)) == []


def test_migrations_are_whole(world):
    """After them the store is what the program expects, also when rows were there."""
    world.push()
    world.settle()
    migrated_again(world)
    assert migrate.present(world.store._writer)


def test_the_newest_revision_is_the_newest_file():
    """Whether a store is up to date is told by the files' names, which say the same as Alembic, and without it."""
    revisions = ScriptDirectory(str(migrate._SCRIPTS))
    files = sorted(path.name[:4] for path in (migrate._SCRIPTS / "versions").glob("[0-9]*.py"))
    assert [one.revision for one in revisions.walk_revisions()][::-1] == files
