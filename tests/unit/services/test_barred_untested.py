"""A bar on a commit that has not passed: it holds whatever its tests say, for the commit alone and inside of a later one."""

import pytest

from rollout.domain.states import CommitState, RolloutState
from rollout.errors import Conflict
from rollout.services import bars, foreseeing, intake, planning, stopping, views
from tests.support.branch import coming, commit_of, read, tested, why
from tests.support.world import World

WHY = "it deletes customers"


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Nothing has been released."""
    return World(tmp_path, monkeypatch, hosts=2)


def bar(world, sha):
    bars.bar("shop", sha, world.deps, who="ann", why=WHY)


def unbar(world, *hashes):
    for sha in hashes:
        bars.unbar("shop", sha, world.deps, who="ann", why="looked at it")


def old(world, *hashes):
    """They have waited for so long that they go out together, and nobody waits for their tests."""
    with world.store.transaction() as tx:
        for sha in hashes:
            tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 1900)


def barred_in_test(world):
    """And then it fails."""
    bad = world.workshop.push(fails=True)
    read(world)
    bar(world, bad)
    tested(world, bad, bad)
    return bad


def barred_when_red(world):
    bad = world.workshop.push(fails=True)
    read(world)
    tested(world, bad, bad)
    bar(world, bad)
    return bad


def barred_untested(world):
    bad = world.workshop.push()
    read(world)
    bar(world, bad)
    old(world, bad)
    return bad


SAYS = {
    barred_in_test: "its tests failed: exit status 1; what they printed: rollout log {}; it is barred: ",
    barred_when_red: "its tests failed: exit status 1; what they printed: rollout log {}; it is barred: ",
    barred_untested: "waits for its tests, and is barred: ",
}


@pytest.mark.parametrize("barred", SAYS)
def test_what_has_not_passed_and_is_barred_goes_out_with_no_later_commit(world, barred):
    """All who tell of the queue say what planning does, until a person lets it go; then the later one takes it along."""
    bad = barred(world)
    good = world.workshop.push()
    read(world)
    promised = why(world, good)
    tested(world, good)
    assert planning.start_next("shop", world.deps) is None
    stuck = f"{bad[:12]} is barred, and so is all that comes after it"
    for told in (promised, why(world, good), coming(world)):
        assert stuck in told.because
        assert told.expected_at is None
    says = SAYS[barred].format(bad[:12])
    assert why(world, bad).because == (
        f"{says}{WHY}; a later commit that says so may mend it, or: rollout unbar {bad[:12]}"
    )
    with world.store.reading() as tx:
        assert foreseeing.forecast(tx, world.config.app(None)).stuck.startswith(stuck)
    unbar(world, bad)
    assert planning.start_next("shop", world.deps).commits == (bad, good)


@pytest.mark.parametrize("barred", [True, False])
def test_who_made_the_branch_red_is_told_of_with_what_lets_newer_commits_ship(world, barred):
    """A commit that passes takes a red one along, but none that is barred as well."""
    bad = world.workshop.push(fails=True)
    read(world)
    if barred:
        bar(world, bad)
    tested(world, bad, bad)
    world.run(seconds=10)
    (body,) = [body for title, body in world.notifier.sent if "is red since" in title]
    passes = "Nothing newer ships until a commit passes.\n" in body
    mends = (
        f"It is barred as well: {WHY}. Nothing newer ships until a commit that mends it passes, or" in body
    )
    assert (passes, mends, f"`rollout unbar {bad[:12]} --reason …`" in body) == (not barred, barred, barred)


@pytest.mark.parametrize("barred", [barred_in_test, barred_when_red])
@pytest.mark.parametrize("word", ["This reverts commit", "Rollout-Fixes:"])
def test_a_red_commit_that_is_barred_goes_out_with_what_mends_it(world, barred, word):
    """As any barred one does."""
    bad = barred(world)
    fix = world.workshop.push(f"Mend it\n\n{word} {bad}")
    read(world)
    assert f"it is taken along by {fix[:12]}, which came later" in why(world, bad).because
    tested(world, fix)
    assert world.settle().commits == (bad, fix)


@pytest.mark.parametrize("barred", [barred_in_test, barred_when_red])
def test_a_red_commit_that_is_barred_and_passes_after_all_is_barred(world, barred):
    """Its tests may be run again, and are no word on its bar; `deploy --now` is refused."""
    bad, app = barred(world), world.config.app(None)
    wish = intake.Wish("now", "bob")
    with pytest.raises(Conflict, match=f"is barred: {WHY}"):
        intake.enqueue(app, bad, world.deps, who="bob", now=wish)
    world.workshop.failing.clear()
    intake.enqueue(app, bad, world.deps, who="bob")
    tested(world, bad)
    assert (commit_of(world, bad).state, commit_of(world, bad).reason) == (CommitState.BARRED, WHY)
    assert world.newest().id == 1


def batch_with_a_red_one(world):
    """Three that go out together, the second one red."""
    hashes = [world.workshop.push(), world.workshop.push(fails=True), world.workshop.push()]
    read(world)
    old(world, *hashes)
    first, red, last = hashes
    tested(world, red, red, last, first)
    assert world.newest().commits == tuple(hashes)
    return hashes


@pytest.mark.parametrize("back", ["stop", "rollback"])
def test_what_a_person_takes_back_is_barred_with_the_red_ones_in_it(world, back):
    """Who lets the innocent ones go ships no red one with them."""
    hashes = batch_with_a_red_one(world)
    if back == "stop":
        world.run(seconds=200, until=lambda: world.newest().state is RolloutState.FANNING_OUT)
        stopping.stop(world.newest().id, world.deps, who="ann", why=WHY)
    else:
        world.settle()
        stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="ann", why=WHY)
    taken = world.settle()
    with world.store.reading() as tx:
        assert [one.sha for one in bars.blamed(tx, taken)[0]] == hashes
    unbar(world, hashes[0], hashes[2])
    world.run(seconds=300)
    assert world.newest().commits == (hashes[0],)
    assert f"{hashes[1][:12]} is barred" in why(world, hashes[2]).because
    unbar(world, hashes[1])
    world.run(seconds=300)
    assert world.newest().commits == tuple(hashes[1:])


def test_a_bar_on_a_red_commit_that_is_on_its_way_is_told(world):
    """By its rollout, and by `why` of all of it; when it is out, what comes after waits."""
    _, red, last = batch_with_a_red_one(world)
    world.run(seconds=200, until=lambda: world.newest().state is RolloutState.FANNING_OUT)
    bar(world, red)
    number = world.newest().id
    although = f"although {red[:12]} is barred: {WHY} (to take it back: rollout stop {number})"
    with world.store.reading() as tx:
        assert f"although {views.rollouts(tx, [tx.rollouts.get(number)])[0]['barred']}" == although
    assert although in why(world, red).because
    assert although in why(world, last).because
    world.settle()
    later = world.workshop.push()
    read(world)
    tested(world, later)
    assert planning.start_next("shop", world.deps) is None
    assert f"{red[:12]}, which is out already or on its way, is barred" in why(world, later).because


def test_before_the_first_release_a_red_barred_commit_keeps_the_head_back(fresh):
    """All that is older goes out with the head."""
    bad = barred_when_red(fresh)
    head = fresh.workshop.push()
    read(fresh)
    tested(fresh, head)
    assert planning.start_next("shop", fresh.deps) is None
    assert f"{bad[:12]}, which came in with {head[:12]}, is barred" in coming(fresh).because
    unbar(fresh, bad)
    assert planning.start_next("shop", fresh.deps).commit == head


def test_who_takes_the_revert_of_a_red_barred_commit_back_is_barred(world):
    """It brings the barred change again."""
    bad = barred_when_red(world)
    fix = world.workshop.push(f"Mend it\n\nThis reverts commit {bad}.")
    read(world)
    tested(world, fix)
    world.settle()
    again = world.workshop.push(f"Once more\n\nThis reverts commit {fix}.")
    read(world)
    tested(world, again)
    assert (commit_of(world, again).state, commit_of(world, again).same_as) == (CommitState.BARRED, bad)


def test_behind_three_reds_everybody_tells_of_the_bar_on_one_of_them(world):
    """`why`, `status` and `plan` name no way past the reds that ships it."""
    bad, *others = [world.workshop.push(fails=True) for _ in range(3)]
    good = world.workshop.push()
    read(world)
    tested(world, *(one for one in (bad, *others) for _ in range(2)), good)
    bar(world, bad)
    with world.store.reading() as tx:
        stuck = foreseeing.forecast(tx, world.config.app(None)).stuck
    for told in (why(world, good).because, coming(world).because, stuck):
        assert "3 commits in a row failed their tests" in told
        assert f"{bad[:12]} is barred" in told
        assert f"rollout unbar {bad[:12]}" in told
