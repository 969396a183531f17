"""What tests over a `World` say and ask of the commits on its app's branch."""

from rollout.services import explaining, intake, testing


def read(world):
    """The poller sees the branch as it is now."""
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")


def tested(world, *hashes):
    """The tests of these are over."""
    for sha in hashes:
        testing.run_tests(commit_of(world, sha).id, world.deps)


def commit_of(world, sha):
    """The commit's row."""
    with world.store.reading() as tx:
        return tx.commits.get("shop", sha)


def coming(world):
    """What `rollout status` and the page say of the next rollout."""
    with world.store.reading() as tx:
        return explaining.coming(tx, world.config.app(None))


def why(world, sha):
    """What `rollout why` tells of it."""
    with world.store.reading() as tx:
        return explaining.why(tx, world.config.app(None), tx.commits.get("shop", sha))
