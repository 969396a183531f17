"""A store of before 0020, in which only rollouts' rows say at which port a host is."""

from dataclasses import replace

from sqlalchemy import text

from rollout.domain.model import Member
from tests.support.older import columns_of_0020, commits_of_0021, hosts_of_0019
from tests.support.world import World


def test_a_hosts_port_is_what_its_last_rollout_there_had(tmp_path, monkeypatch, database):
    """One that was planned with another address since says nothing of where the host is now; who was in no rollout is not known."""
    world = World(tmp_path, monkeypatch, hosts=2, url=database)
    members = world.fleet.members

    def inventory(address, port):
        def there(app):
            return [
                replace(one, address=address or one.address, port=port, user=f"at{port}")
                for one in members(app)
            ]

        monkeypatch.setattr(world.fleet, "members", there)

    for address, port in ((None, 22), (None, 2222), ("127.9.9.9", 24)):
        inventory(address, port)
        world.push()
        world.settle()
    old = next(one.address for one in members(world.config.app(None)) if one.name == "web02")
    with world.store.transaction() as tx:
        tx.fleet.know("shop", [Member("new", "127.1.1.1", 22, "deploy", {}, "/srv/shop")])
        tx.connection.execute(text(f"UPDATE fleet_hosts SET address = '{old}' WHERE name = 'web02'"))
        commits_of_0021(tx.connection)
        columns_of_0020(tx.connection)
        hosts_of_0019(tx.connection)
        tx.connection.execute(text("UPDATE alembic_version SET version_num = '0019'"))
    world.store.prepare()
    with world.store.reading() as tx:
        rows = tx.connection.execute(
            text('SELECT name, port, "user", variables FROM fleet_hosts ORDER BY name')
        )
        found = {row.name: (row.port, row.user, row.variables in ("{}", {})) for row in rows}
    world.store.close()
    assert found == {"new": (None, None, False), "web01": (24, "at24", True), "web02": (2222, "at2222", True)}
