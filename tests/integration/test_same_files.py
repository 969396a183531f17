"""A real git and real builds, none of which gives the same bytes twice: what was barred does not ship again."""

from dataclasses import replace

import pytest

from rollout.domain.states import CommitState
from rollout.releases.workshop import GitWorkshop
from rollout.services import bars, intake
from tests.support.sources import Source
from tests.support.world import World

pytestmark = pytest.mark.needs("git")


def test_a_revert_of_a_revert_is_barred_by_its_tree(tmp_path, monkeypatch):
    """The builds differ, the trees do not; an unbar of the first lets it go."""
    world = World(tmp_path / "state", monkeypatch, hosts=2, release='build = "date +%s%N > stamp"')
    world.deps = replace(world.deps, workshop=GitWorkshop(tmp_path / "state"))
    source = Source(tmp_path / "state" / "shop.git")
    app = world.config.app(None)

    def ships(sha):
        intake.read_branch(app, world.deps, who="test", why="pushed")
        world.run(seconds=90)
        with world.store.reading() as tx:
            return tx.commits.get("shop", sha)

    ships(source.commit({"page": "good"}))
    bad = source.commit({"page": "bad"})
    world.metrics.share = 0.0
    assert ships(bad).state is CommitState.BARRED
    world.metrics.share = 1.0
    revert = source.commit({"page": "good"}, f"Revert\n\nThis reverts commit {bad}.")
    ships(revert)
    assert set(world.runs().values()) == {revert}
    again = source.commit({"page": "bad"}, f"Again\n\nThis reverts commit {revert}.")
    found = ships(again)
    with world.store.reading() as tx:
        first = tx.commits.get("shop", bad)
    assert found.tree == first.tree == source.git("rev-parse", f"{bad}^{{tree}}")
    assert found.digest != first.digest
    assert (found.state, found.same_as) == (CommitState.BARRED, bad)
    assert set(world.runs().values()) == {revert}
    bars.unbar("shop", bad, world.deps, who="ann", why="it was the network")
    world.run(seconds=90)
    assert set(world.runs().values()) == {again}
