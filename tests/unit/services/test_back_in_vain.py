"""A way back to what is not to be had any more."""

from rollout.services import reconcile, stopping
from tests.support.branch import why
from tests.support.world import World


def test_a_rollback_to_what_does_not_build_again_says_so(tmp_path, monkeypatch):
    """Nobody is back, and that is said of all hosts; and no host is said to run what none has."""
    world = World(tmp_path, monkeypatch, hosts=3, release="keep = 2")
    pushed = []
    for _ in range(4):
        pushed.append(world.push())
        world.settle()
    goal = pushed[0]
    world.workshop.gone |= {goal}
    world.workshop.failing_build |= {goal}
    stopping.roll_back_done(world.config.app(None), world.deps, to=goal, who="me", why="slow")
    world.run(seconds=120)
    reconcile.tell(world.deps)
    assert any("not back: all hosts: web01, web02, web03" in body for _, body in world.notifier.sent)
    assert [title for title, _ in world.notifier.sent if "cannot be brought to" in title] == [
        f"shop: hosts cannot be brought to commit {goal[:12]}"
    ]
    told = why(world, goal).because
    assert "and runs" not in told
    assert f"`rollout deploy {goal[:12]}` has it built again" in told
