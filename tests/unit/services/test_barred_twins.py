"""What has the files of a barred commit, of a suspect, or of what was taken back is kept in as that is, whatever its own tests say."""

from dataclasses import replace

import pytest

from rollout.domain.states import CommitState, RolloutState
from rollout.services import bars, foreseeing, freezes, intake, planning, stopping
from tests.support.branch import coming, commit_of, read, tested, why
from tests.support.released import released
from tests.support.world import World
from tests.unit.services.test_culprits import batch_of_three

R = RolloutState
WHY = "it deletes customers"
FILES = "b" * 40
AMENDED = "f" * 40


@pytest.fixture
def many(tmp_path, monkeypatch):
    """Ten hosts, so that something may be said while a rollout is on its way."""
    return released(tmp_path, monkeypatch, hosts=10)


def bar(world, sha):
    return bars.bar("shop", sha, world.deps, who="ann", why=WHY)


def pushed(world, *, fails=False, tree=FILES):
    """And its tests are over."""
    sha = world.workshop.push(fails=fails, tree=tree)
    read(world)
    tested(world, sha, *[sha] * fails)
    return sha


def amended(world, *, fails=False, test=True):
    """The branch's last commit has another hash, and the same files."""
    world.workshop.commits[-1] = replace(world.workshop.commits[-1], sha=AMENDED)
    if fails:
        world.workshop.failing.add(AMENDED)
    read(world)
    if test:
        tested(world, AMENDED, *[AMENDED] * fails)
    return AMENDED


def frozen(world, *, end=False):
    act = freezes.unfreeze if end else freezes.freeze
    values = {} if end else {"until": None}
    act(world.config.app(None), world.deps, who="ann", why="lunch", **values)


def barred_when_red(world):
    bar(world, pushed(world, fails=True))


def rolled_back(world):
    """By a person, when it was out."""
    pushed(world)
    assert world.settle().state is R.DONE
    stopping.roll_back_done(world.config.app(None), world.deps, to=None, who="ann", why=WHY)
    assert world.settle().state is R.ROLLED_BACK


def failed_its_canary(world):
    world.metrics.share_of = lambda _name, role, _at: 0.0 if role == "canary" else 1.0
    pushed(world)
    assert world.settle().state is R.ROLLED_BACK
    world.metrics.share_of = lambda *_: 1.0


@pytest.mark.parametrize("bad", [barred_when_red, rolled_back, failed_its_canary])
@pytest.mark.parametrize("way", ["red", "untested"])
def test_a_twin_that_has_not_passed_goes_out_with_no_later_commit(world, bad, way):
    """Nor is it promised anything: it is barred as soon as it is seen, until the other one is let go; then the later one takes it along."""
    bad(world)
    before, first = world.newest().id, world.workshop.commits[-1].sha
    twin = amended(world, fails=way == "red", test=way == "red")
    with world.store.transaction() as tx:  # nobody waits for its tests any more
        tx.commits.update(tx.commits.get("shop", twin), received_s=tx.now() - 1900)
    assert f"barred: the same files as {first[:12]}, which is barred: " in why(world, twin).because
    assert why(world, twin).expected_at is None
    later = pushed(world, tree="c" * 40)
    assert planning.start_next("shop", world.deps) is None
    assert f"{twin[:12]} is barred" in why(world, later).because
    assert world.newest().id == before
    bars.unbar("shop", first, world.deps, who="ann", why="it was the network")
    assert not commit_of(world, twin).is_barred
    assert planning.start_next("shop", world.deps).commits == (twin, later)


def test_a_twin_in_test_is_promised_nothing_and_is_barred_as_a_twin_when_it_passes(world):
    """Its bar is that of the other one before and after, and ends with it."""
    barred_when_red(world)
    first = world.workshop.commits[-1].sha
    world.workshop.failing.clear()
    twin = amended(world, test=False)
    assert why(world, twin).because.startswith("waits for its tests, and is barred: the same files as")
    assert why(world, twin).expected_at is None
    tested(world, twin)
    assert (commit_of(world, twin).state, commit_of(world, twin).same_as) == (CommitState.BARRED, first)
    bars.unbar("shop", first, world.deps, who="ann", why="it was the network")
    assert commit_of(world, twin).state is CommitState.PASSED


def test_the_running_test_of_a_twin_that_is_barred_keeps_its_claim(world):
    """Its bar is said while its tests run: they come to their end."""
    first = pushed(world, fails=True)
    twin = amended(world, test=False)
    its = commit_of(world, twin).id
    with world.store.transaction() as tx:
        claimed = tx.commits.claim_tests(its, "worker", 60.0)
    bar(world, first)
    with world.store.reading() as tx:
        assert tx.commits.still_leased(claimed)
    assert commit_of(world, twin).is_barred


def test_a_red_twin_that_somebody_bars_by_name_stays_barred(world):
    """When the one that it is the same as is let go."""
    barred_when_red(world)
    first = world.workshop.commits[-1].sha
    twin = amended(world, fails=True)
    bars.bar("shop", twin, world.deps, who="bob", why="this one too")
    bars.unbar("shop", first, world.deps, who="ann", why="it was the network")
    assert commit_of(world, twin).barred_for == "this one too"


def test_who_lets_a_red_twin_go_by_name_lets_it_go_for_good(world):
    """No later look at the same files bars it again."""
    barred_when_red(world)
    twin = amended(world, fails=True)
    bars.unbar("shop", twin, world.deps, who="ann", why="looked at it")
    read(world)
    later = pushed(world, tree="c" * 40)
    assert world.newest().commits == (twin, later)


@pytest.mark.parametrize("fails", [True, False])
def test_a_bar_reaches_the_twin_that_waits_at_once(world, fails):
    """In a freeze, when nothing is planned: nobody promises it anything from then on."""
    frozen(world)
    first = pushed(world, fails=fails)
    twin = amended(world)
    bar(world, first)
    assert (commit_of(world, twin).state, commit_of(world, twin).same_as) == (CommitState.BARRED, first)
    for told in (why(world, twin), coming(world)):
        assert told.expected_at is None
        assert "then goes out" not in told.because
    with world.store.reading() as tx:
        assert foreseeing.forecast(tx, world.config.app(None)).commits == ()


@pytest.mark.parametrize("fails", [True, False])
def test_what_is_planned_ahead_with_a_twin_is_set_aside_when_its_files_are_barred(many, fails):
    """It is on no host then, and `why` says at once that nothing comes of it."""
    frozen(many)
    other = pushed(many, tree="a" * 40)
    first = pushed(many, fails=fails)
    twin = amended(many)
    frozen(many, end=True)

    def ahead():
        with many.store.reading() as tx:
            return tx.rollouts.pending("shop")

    many.run(seconds=300, until=lambda: (found := ahead()) is not None and found.commit == twin)
    assert ahead().commit == twin
    bar(many, first)
    assert "of which nothing comes" in why(many, twin).because
    many.run(seconds=300)
    assert set(many.runs().values()) == {other}


@pytest.mark.parametrize("fails", [True, False])
def test_a_bar_on_what_has_the_files_of_what_is_on_its_way_is_told_of_that(many, fails):
    """It goes on, as with any bar; what comes after it waits."""
    frozen(many)
    first = pushed(many, fails=fails)
    twin = amended(many)
    frozen(many, end=True)
    many.run(seconds=100, until=lambda: many.newest().state is R.EVALUATING_CANARY)
    assert many.newest().commit == twin
    bar(many, first)
    number = many.newest().id
    assert f"although {twin[:12]} is barred: the same files as {first[:12]}" in why(many, twin).because
    assert f"rollout stop {number}" in why(many, twin).because
    assert many.settle().state is R.DONE
    later = pushed(many, tree="d" * 40)
    many.run(seconds=100)
    assert set(many.runs().values()) == {twin}
    assert f"{twin[:12]}, which is out already or on its way, is barred" in why(many, later).because


def test_before_the_first_release_a_red_twin_keeps_the_head_back(tmp_path, monkeypatch):
    """All that is older goes out with the head."""
    fresh = World(tmp_path, monkeypatch, hosts=2)
    barred_when_red(fresh)
    twin = amended(fresh, fails=True)
    pushed(fresh, tree="c" * 40)
    assert planning.start_next("shop", fresh.deps) is None
    assert f"{twin[:12]}, which came in with" in coming(fresh).because


def suspects(world, monkeypatch):
    """Three commits that went wrong together; from now on all is well."""
    hashes = batch_of_three(world, monkeypatch, "789", [digit * 40 for digit in "bcd"])
    world.metrics.share_of = lambda _name, role, _at: 0.0 if role == "canary" else 1.0
    with monkeypatch.context() as patch:
        patch.setattr(planning, "start_next", lambda *_, **__: None)
        world.run(seconds=300, until=lambda: world.newest().state is R.ROLLED_BACK)
    assert all(commit_of(world, sha).suspect for sha in hashes)
    world.metrics.share_of = lambda *_: 1.0
    return hashes


@pytest.mark.parametrize("is_bad", [True, False])
def test_a_red_twin_of_a_suspect_goes_out_with_as_little_as_can_be_and_is_to_blame(
    world, monkeypatch, is_bad
):
    """It is a suspect as that one was, though no canary can have it alone: when what brings it fails, that one is not the culprit."""
    first, second, _ = suspects(world, monkeypatch)
    frozen(world)
    del world.workshop.commits[-2:]
    world.workshop.push(tree="c" * 40)
    twin = amended(world, fails=True)
    assert (commit_of(world, twin).suspect, commit_of(world, second).suspect) == (True, False)
    later = pushed(world, tree="1" * 40)
    last = pushed(world, tree="2" * 40)
    with world.store.transaction() as tx:
        for sha in (first, twin, later, last):
            tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 1500.0)

    def share(_name, role, _at):
        return 0.0 if is_bad and role == "canary" and twin in world.newest().commits else 1.0

    world.metrics.share_of = share
    frozen(world, end=True)
    world.run(seconds=900)
    with world.store.reading() as tx:
        went = [tx.rollouts.get(number).commits for number in range(3, world.newest().id + 1)]
    if is_bad:
        assert went == [(first,), (twin, later)]
        assert commit_of(world, twin).is_barred
        assert commit_of(world, later).state is CommitState.PASSED
        assert set(world.runs().values()) == {first}
    else:
        assert went == [(first,), (twin, later), (last,)]


@pytest.mark.parametrize("fails", [True, False])
def test_the_files_of_a_batch_that_was_taken_back_ride_with_no_later_commit(world, monkeypatch, fails):
    """Its culprit was found, so that its last commit is no suspect; squashed, with a commit behind it, all of it comes again."""
    hashes = batch_of_three(world, monkeypatch, "789", [digit * 40 for digit in "bcd"])
    world.metrics.share_of = lambda _name, role, _at: 0.0 if role == "canary" else 1.0
    world.run(seconds=900, until=lambda: commit_of(world, hashes[0]).state is CommitState.BARRED)
    world.metrics.share_of = lambda *_: 1.0
    assert not commit_of(world, hashes[2]).suspect
    before = world.newest().id
    frozen(world)
    del world.workshop.commits[-3:]
    world.workshop.push(tree="d" * 40)
    squashed = amended(world, fails=fails)
    later = pushed(world, tree="e" * 40)
    with world.store.transaction() as tx:
        for sha in (squashed, later):
            tx.commits.update(tx.commits.get("shop", sha), received_s=tx.now() - 1500.0)
    frozen(world, end=True)
    assert f"{squashed[:12]} is barred" in why(world, later).because
    world.run(seconds=300)
    assert world.newest().id == before
    assert commit_of(world, squashed).is_barred
    assert not commit_of(world, later).is_barred


@pytest.mark.parametrize("fix", [False, True])
def test_a_bar_withdraws_what_would_take_its_twin_along(world, fix):
    """`deploy --now` of before, of what follows the amended commit, goes past no bar that is said of the first one; its fix does."""
    frozen(world)
    first = pushed(world, fails=True)
    amended(world, fails=True)
    message = f"the hotfix\n\nRollout-Fixes: {first}" if fix else "the hotfix"
    wanted = world.workshop.push(message)
    read(world)
    wish = intake.Wish("we need it", "ben")
    intake.enqueue(world.config.app(None), wanted, world.deps, who="ben", now=wish)
    bar(world, first)
    world.run(seconds=200)
    told = [title for title, _ in world.notifier.sent if "withdrawn" in title]
    assert told == [f"shop: `deploy --now` of {wanted[:12]} is withdrawn"] * (not fix)
    assert (set(world.runs().values()) == {wanted}) is fix


def test_the_fix_of_what_rode_along_lets_go_the_twin_of_what_was_barred_for_it(world):
    """[red, head] fails, and head is amended: the revert of the red one takes both along."""
    red = pushed(world, fails=True, tree="a" * 40)
    good = []
    world.metrics.share_of = lambda _name, role, _at: float(role != "canary" or world.newest().commit in good)
    head = pushed(world)
    world.run(seconds=300, until=lambda: commit_of(world, head).state is CommitState.BARRED)
    amended(world)
    assert commit_of(world, AMENDED).same_as == head
    good.append(world.workshop.push(f"This reverts commit {red}."))
    read(world)
    world.run(seconds=300, until=lambda: set(world.runs().values()) == set(good))
    assert set(world.runs().values()) == set(good)
