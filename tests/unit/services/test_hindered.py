"""While no rollout can be planned people are told why: by a notice once, and by whatever says what comes next."""

from rollout.errors import ConfigError
from rollout.services import explaining, freezes, halts, intake, planning, reconcile, testing

BROKEN = "no rollout can be planned: the inventory ended with status 1: token expired"


def breaks(world, monkeypatch, text="the inventory ended with status 1: token expired"):
    def broken(_config):
        raise ConfigError(text, remedy="try it: /srv/list --list")

    monkeypatch.setattr(world.fleet, "members", broken)


def app(world):
    return world.config.app(None)


def told_of(world, sha):
    """By `why`, and by what tells the next one."""
    with world.store.reading() as tx:
        why = explaining.why(tx, app(world), tx.commits.get("shop", sha))
        return why, explaining.coming(tx, app(world))


def notices(world):
    return [(title, body) for title, body in world.notifier.sent if "planned" in title]


def test_why_nothing_can_be_planned_is_said_without_a_time(world, monkeypatch):
    """Of what is to go out, of what comes behind it, and of what comes next; with a mended inventory a time is told again."""
    with monkeypatch.context() as patch:
        breaks(world, patch)
        sha = world.push()
        world.run(seconds=20)
        why, coming = told_of(world, sha)
        assert why == explaining.Why(f"tested; {BROKEN}")
        assert coming == explaining.Why(f"commit {sha[:12]}: tested; {BROKEN}")
        later = world.workshop.push()
        intake.read_branch(app(world), world.deps, who="test", why="pushed")
        assert told_of(world, later)[0] == explaining.Why(f"waits for its tests; {BROKEN}")
    reconcile.sweep(world.deps)
    why, _ = told_of(world, sha)
    assert why.because == "planned as rollout 2, which begins at once"
    assert why.expected_at is not None
    assert told_of(world, later)[0].expected_at is not None


def test_people_are_told_once_that_nothing_can_be_planned(world, monkeypatch):
    """However often it is tried, whatever the error says each time, and whatever else is waited for in between; after a success it is news again."""
    with monkeypatch.context() as patch:
        breaks(world, patch)
        world.push()
        world.run(seconds=60)
        ((title, body),) = notices(world)
        assert title == "shop: no rollout can be planned"
        assert BROKEN in body
        assert "Next: try it: /srv/list --list" in body
        breaks(world, patch, "the inventory did not end within 30 s")
        world.run(seconds=60)
        freezes.freeze(app(world), world.deps, who="ann", why="the sale", until=None)
        world.run(seconds=60)
        freezes.unfreeze(app(world), world.deps, who="ann", why="sold out")
        world.push()
        world.run(seconds=60)
        assert len(notices(world)) == 1
    world.run(seconds=300)
    assert world.newest().commit == world.workshop.commits[-1].sha
    breaks(world, monkeypatch)
    world.push()
    world.run(seconds=60)
    assert len(notices(world)) == 2


def test_with_every_host_excluded_it_is_said_which_command_takes_one_in(world):
    """The fleet can be read, and nothing is left of it."""
    halts.exclude("shop", list(world.fleet.hosts), world.deps, who="ann", why="being repaired")
    sha = world.push()
    world.run(seconds=20)
    assert told_of(world, sha)[0] == explaining.Why(
        "tested; no rollout can be planned: canary: the fleet has no host left"
    )
    assert "rollout include HOST" in notices(world)[0][1]


def test_a_try_that_began_before_the_inventory_was_mended_is_no_news(world, monkeypatch):
    """It ends when another worker's has planned: then it says nothing any more, neither in a notice nor in what is told."""
    members = world.fleet.members
    sha = world.workshop.push()
    intake.read_branch(app(world), world.deps, who="test", why="pushed")
    with world.store.transaction() as tx:
        number = tx.commits.get("shop", sha).id

    def hangs(_config):
        monkeypatch.setattr(world.fleet, "members", members)
        assert planning.start_next("shop", world.deps, may_wait=True) is not None, "another worker's"
        raise ConfigError("the inventory did not end within 30 s", remedy="try it: /srv/list --list")

    with monkeypatch.context() as patch:
        patch.setattr(planning, "start_next", lambda *_a, **_k: None)
        testing.run_tests(number, world.deps)
    monkeypatch.setattr(world.fleet, "members", hangs)
    planning.start_next("shop", world.deps, may_wait=True)
    assert world.settle().commit == sha, "it is out"
    freezes.freeze(app(world), world.deps, who="ann", why="the sale", until=None)
    later = world.push()
    world.run(seconds=60)
    assert (told_of(world, later)[0].because, notices(world)) == ("tested, frozen by ann: the sale", [])
