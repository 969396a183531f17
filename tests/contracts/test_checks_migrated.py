"""A store of before 0019, with one word on each check."""

import pytest
from sqlalchemy import text

from rollout.domain import checks
from rollout.domain.model import Check, CheckState
from tests.support.older import checks_of_0018, columns_of_0020, commits_of_0021, hosts_of_0019
from tests.support.world import World

SHA = "a" * 40


@pytest.fixture
def world(tmp_path, monkeypatch, database):
    made = World(tmp_path, monkeypatch, hosts=1, url=database)
    yield made
    made.store.close()


def test_what_was_heard_before_counts_until_its_server_speaks_again(world):
    """Nobody knows which of a server's things said it: the next one has its place. What came over the API is the API's."""
    red, green = CheckState.FAILURE, CheckState.SUCCESS
    with world.store.transaction() as tx:
        tx.checks.put(SHA, {"shop": Check("unit", red, source="github", thing="check_run 4", run=7)})
        tx.checks.put(SHA, {"shop": Check("lint", red, source="api")})
        commits_of_0021(tx.connection)
        columns_of_0020(tx.connection)
        hosts_of_0019(tx.connection)
        checks_of_0018(tx.connection)
        tx.connection.execute(text("UPDATE alembic_version SET version_num = '0018'"))
    world.store.prepare()

    def said():
        with world.store.reading() as tx:
            return [(one.name, one.state) for one in checks.by_name(tx.checks.of("shop", SHA))]

    assert said() == [("lint", red), ("unit", red)]
    with world.store.transaction() as tx:
        tx.checks.put(SHA, {"shop": Check("unit", green, source="gitlab", thing="pipeline push main")})
    assert said() == [("lint", red), ("unit", red)]
    with world.store.transaction() as tx:
        tx.checks.put(SHA, {"shop": Check("unit", green, source="github", thing="check_run 4", run=8)})
        tx.checks.put(SHA, {"shop": Check("lint", green, source="api")})
    assert said() == [("lint", green), ("unit", green)]
