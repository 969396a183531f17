"""A store of before 0013, with a commit that a person has unbarred, and one that is barred again."""

from sqlalchemy import text

from rollout.services import bars, intake
from tests.support.older import checks_of_0018, columns_of_0020, commits_of_0021, hosts_of_0019
from tests.support.world import World


def test_what_a_person_had_unbarred_stays_so(tmp_path, monkeypatch, database):
    """The journal tells of it; who was barred again since, or never, is not marked."""
    world = World(tmp_path, monkeypatch, hosts=1, url=database)
    for tree in "abcd":
        world.workshop.push(tree=tree * 40)
        intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
        world.run(seconds=100)
    let_go, barred, never = [one.sha for one in world.workshop.commits[1:]]
    for sha in (let_go, barred):
        bars.bar("shop", sha, world.deps, who="ann", why="slow")
        bars.unbar("shop", sha, world.deps, who="ann", why="it was the network")
    bars.bar("shop", barred, world.deps, who="ann", why="slow after all")
    with world.store.transaction() as tx:
        commits_of_0021(tx.connection)
        for index in ("ix_commits_app_position", "ix_commits_app_state"):  # of 0014 and 0015
            tx.connection.execute(text(f"DROP INDEX {index}"))
        tx.connection.execute(text("DROP INDEX ix_rollout_hosts_rollout_state_position"))  # of 0016
        tx.connection.execute(text("DROP INDEX ix_rollout_hosts_app_name_rollout"))
        tx.connection.execute(
            text("CREATE INDEX ix_rollout_hosts_rollout_state ON rollout_hosts (rollout, state)")
        )
        columns_of_0020(tx.connection)
        hosts_of_0019(tx.connection)
        checks_of_0018(tx.connection)
        later = {
            "checks": ["stamp", "began_at", "took_s"],
            "commits": ["unbarred"],
            "apps": ["told_s", "read_s", "answered_s"],
            "fleet_hosts": ["left_at"],
        }
        for table, columns in later.items():
            for column in columns:
                tx.connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        tx.connection.execute(text("UPDATE alembic_version SET version_num = '0012'"))
    world.store.prepare()
    with world.store.reading() as tx:
        marked = {sha: tx.commits.get("shop", sha).unbarred for sha in (let_go, barred, never)}
    world.store.close()
    assert marked == {let_go: True, barred: False, never: False}
