"""What a process remembers of rollouts."""

from rollout.domain.model import RolloutId
from rollout.services.policies import Plans
from tests.support.world import World


def test_a_number_that_is_given_a_second_time_is_another_rollout(tmp_path, monkeypatch):
    """A worker that outlives its database ships what the new one says, not what it remembers of the old one's rollout."""
    old = World(tmp_path / "old", monkeypatch, hosts=2)
    new = World(tmp_path / "new", monkeypatch, hosts=2)
    plans = Plans()
    new.push()
    for world in (old, new):
        a_commit = world.push()
        world.run(until=lambda world=world: world.newest() is not None)
        with world.store.reading() as tx:
            planned, _ = plans.of(tx, RolloutId(1))
            again, _ = plans.of(tx, RolloutId(1))
        assert planned is again
        assert planned.commit == a_commit == world.newest().commit
