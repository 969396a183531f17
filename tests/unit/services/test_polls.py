"""How often the git server is asked."""

from dataclasses import replace
from itertools import pairwise

import pytest

from rollout.domain.model import Push
from rollout.domain.retry import spread
from rollout.errors import NotFound, ServiceUnavailable
from rollout.services import explaining, intake, outages, testing
from rollout.store.apps import HOLD_S, LOOK_S
from tests.support.branch import coming
from tests.support.world import World


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch, hosts=3)


def asked(world, seconds, callers=4):
    """When the server was asked, while several workers and beat look every second."""
    moments, ask = [], world.workshop.remote_head

    def counted(app, config):
        moments.append(world.seconds)
        return ask(app, config)

    world.workshop.remote_head = counted
    for _ in range(seconds):
        for _ in range(callers):
            intake.poll("shop", world.deps)
        world.seconds += 1
    return moments


def test_one_question_an_interval_however_many_ask(world):
    """Three workers and beat cost the git server one `ls-remote` in 30 s, or a little less."""
    world.push()
    moments = asked(world, 300)
    waits = [later - before for before, later in pairwise(moments)]
    assert all(30 <= wait <= 37 for wait in waits), waits
    assert len(waits) >= 7


def test_a_server_that_is_down_is_asked_more_and_more_rarely(world):
    """The waits double up to ten minutes, a fifth more at most; the first answer makes them short again."""
    world.push()

    def down(_app, _config):
        raise ServiceUnavailable("no answer")

    answers, world.workshop.remote_head = world.workshop.remote_head, down
    moments = asked(world, 4000, callers=1)
    waits = [later - before for before, later in pairwise(moments)]
    for least, wait in zip([30, 60, 120, 240, 480, 600], waits, strict=False):
        assert least <= wait <= 1.2 * least + 1, waits
    world.workshop.remote_head = answers
    world.seconds += 800
    assert len(asked(world, 80, callers=1)) == 3


@pytest.mark.parametrize("error", [NotFound("no such branch"), ServiceUnavailable("no answer")])
def test_what_was_asked_in_vain_is_asked_on_also_when_it_is_not_polled(world, error):
    """Whatever git said: more and more rarely, until it says what the branch is, and then no more."""
    world.push()
    shop = world.config.app("shop").model_copy(update={"poll": 0.0})
    world.deps = replace(world.deps, config=replace(world.config, apps={"shop": shop}))

    def fails(_app, _config):
        raise error

    answers, world.workshop.remote_head = world.workshop.remote_head, fails
    with world.store.transaction() as tx:
        tx.apps.look(["shop"])
    moments = asked(world, 1300, callers=1)
    waits = [later - before for before, later in pairwise(moments)]
    assert len(waits) == 5
    for least, wait in zip([30, 60, 120, 240, 480], waits, strict=True):
        assert least <= wait <= 1.2 * least + 1, waits
    world.workshop.remote_head = answers
    assert len(asked(world, 1300, callers=1)) == 1


def test_a_branch_that_is_not_there_yet_is_looked_for_as_ever(world):
    """The server answers, so it is not spared: the branch's first push is found within the interval though its webhook is lost."""

    def empty(_app, _config):
        raise NotFound("no such branch")

    world.workshop.remote_head = empty
    moments = asked(world, 300, callers=1)
    waits = [later - before for before, later in pairwise(moments)]
    assert len(waits) >= 7
    assert all(30 <= wait <= 37 for wait in waits), waits


def test_a_git_server_that_does_not_answer_takes_no_place_for_tests(world, monkeypatch):
    """Once a poll has found that, no test waits for it; when it is back, the poll has the webhook's commit tested at once."""
    world.push()
    world.settle()
    sha, head = world.workshop.push(), world.workshop.remote_head

    def silent(_app, _config):
        raise ServiceUnavailable("no answer")

    monkeypatch.setattr(world.workshop, "remote_head", silent)
    monkeypatch.setattr(
        world.workshop, "fetch", lambda *_, **__: pytest.fail("a test waits for the git server")
    )
    push = Push("github", "delivery", "push", full_name="ann/shop", branch="main", head=sha)
    intake.receive_all([(push, world.config.app(None))], world.deps)
    intake.poll("shop", world.deps)
    world.run(seconds=120)
    monkeypatch.setattr(world.workshop, "remote_head", head)
    monkeypatch.setattr(world.workshop, "fetch", lambda *its, **_: head(*its))
    intake.poll("shop", world.deps, force=True)
    world.run(seconds=5)
    with world.store.reading() as tx:
        assert tx.commits.get("shop", sha).state == "passed"


def test_what_takes_long_to_fetch_takes_no_place_for_tests(world, monkeypatch):
    """The test gives it up before the server is known for silent; the polls that it asks for give it longer and longer."""
    world.push()
    world.settle()
    sha, fetch, limits, app = world.workshop.push(), world.workshop.fetch, [], world.config.app(None)

    def slow(app, config, *, limit_s=None):
        limits.append(limit_s)
        if limit_s < 2 * intake.POLL_FETCH_S:
            world.seconds += LOOK_S + 1
            raise ServiceUnavailable("git fetch did not end in time")
        return fetch(app, config)

    monkeypatch.setattr(world.workshop, "fetch", slow)
    push = Push("github", "delivery", "push", full_name="ann/shop", branch="main", head=sha)
    intake.receive_all([(push, app)], world.deps)
    with world.store.transaction() as tx:  # somebody has just looked
        assert tx.apps.claim_poll("shop", app.poll)
        tx.apps.polled("shop", tx.now(), next_s=app.poll, failures=0)
    world.run(seconds=1)
    assert limits == [testing.FETCH_S]
    intake.poll("shop", world.deps)
    intake.poll("shop", world.deps, force=True)
    world.run(seconds=2)
    assert limits == [testing.FETCH_S, intake.POLL_FETCH_S, 2 * intake.POLL_FETCH_S]
    with world.store.reading() as tx:
        assert tx.commits.get("shop", sha).state == "passed"


def test_a_fetch_that_hangs_is_cut_by_the_poll_and_told(world, monkeypatch):
    """The branch is read again within a minute or two, not a quarter of an hour later, and meanwhile it is said why it is not."""
    limits = []

    def hangs(_app, _config, *, limit_s=None):
        limits.append(limit_s)
        raise ServiceUnavailable(f"git fetch did not end within {limit_s} s")

    world.push()
    monkeypatch.setattr(world.workshop, "fetch", hangs)
    world.workshop.push()
    for _ in range(4):
        intake.poll("shop", world.deps, force=True)
    assert limits == [60.0, 120.0, 240.0, 480.0]
    assert "git fetch did not end within 480.0 s (asked in vain, 4 times in a row)" in coming(world).beside


@pytest.mark.parametrize("known", [False, True])
def test_a_machine_without_a_mirror_has_the_time_of_a_first_fetch(world, monkeypatch, known):
    """The whole history comes, be it that the branch is new, or that a worker machine is, or that its mirror was deleted."""
    if known:
        world.push()
        world.settle()
    fetch, limits = world.workshop.fetch, []

    def counted(app, config, *, limit_s=None):
        limits.append(limit_s)
        return fetch(app, config)

    monkeypatch.setattr(world.workshop, "fetch", counted)
    world.workshop.mirrored = False
    world.workshop.push()
    intake.poll("shop", world.deps, force=True)
    assert limits == [None]


def test_apps_do_not_ask_together():
    """Fifty apps that failed at once come back at many different moments, the same each time it is worked out."""
    moments = {spread(600.0, f"app-{number}", 5) for number in range(50)}
    assert len(moments) == 50
    assert all(600.0 <= moment <= 720.0 for moment in moments)
    assert spread(600.0, "shop", 1) == spread(600.0, "shop", 1) != spread(600.0, "shop", 2)


def test_a_first_clone_is_one_fetch_however_long_it_takes_and_said_to_be_under_way(world):
    """Ten minutes long nobody else finds the poll due, and `status` neither misses `rollout up` nor advises to push."""
    app, fetch, told = world.config.app("shop"), world.workshop.fetch, []
    world.workshop.push()

    def slow(*words, **more):
        for _ in range(120):
            world.seconds += 5
            world.deps.leases.renew()
            with world.store.reading() as tx:
                told.append((tx.apps.poll_is_due("shop", app.poll), outages.unasked(tx, app)))
        assert "it is being read for the first time" in coming(world).because
        return fetch(*words, **more)

    world.workshop.fetch = slow
    intake.poll("shop", world.deps)
    assert set(told) == {(False, None)}
    with world.store.reading() as tx:
        assert tx.commits.newest("shop") is not None


@pytest.mark.parametrize("polled", [True, False])
def test_what_is_asked_for_during_a_first_clone_is_done_when_that_is_over(world, polled):
    """A webhook has no other worker begin a second fetch, `status` says what it said before, and then the branch is read again."""
    app = world.config.app("shop")
    if not polled:
        app = app.model_copy(update={"poll": 0.0})
        world.deps = replace(world.deps, config=replace(world.config, apps={"shop": app}))
    fetch, told, sha = world.workshop.fetch, [], world.workshop.push()
    push = Push("github", "delivery", "push", full_name="ann/shop", branch="main", head=sha)

    def slow(*words, **more):
        for turn in range(150):
            if turn == 3:
                intake.receive_all([(push, app)], world.deps)
            world.seconds += 5
            world.deps.leases.renew()
            with world.store.reading() as tx:
                told.append((tx.apps.poll_is_due("shop", app.poll), outages.unasked(tx, app)))
                assert "it is being read for the first time" in explaining.coming(tx, app).because
        return fetch(*words, **more)

    world.workshop.fetch = slow
    with world.store.transaction() as tx:
        tx.apps.ensure("shop")
        tx.apps.look(["shop"])
    intake.poll("shop", world.deps)
    assert set(told) == {(False, None)}
    world.workshop.fetch = fetch
    world.seconds += LOOK_S
    assert intake.due(world.deps) == ["shop"]
    intake.poll("shop", world.deps)
    with world.store.reading() as tx:
        assert not tx.apps.unread("shop")
        assert not tx.apps.poll_is_due("shop", app.poll)


def test_a_process_whose_clock_is_a_little_behind_sees_that_somebody_reads(world):
    """Each knows PostgreSQL's clock as its answer came: what another has just claimed may lie further ahead than a claim lasts."""
    app = world.config.app("shop")
    with world.store.transaction() as tx:
        assert tx.apps.claim_poll("shop", app.poll)
        tx.apps.look(["shop"])
    world.seconds -= 0.05
    with world.store.reading() as tx:
        assert not tx.apps.poll_is_due("shop", app.poll)
        assert tx.apps.first_read("shop")
        assert outages.unasked(tx, app) is None


def test_what_was_asked_for_of_whoever_died_is_asked_of_another_one(world):
    """It waits for him as long as his claim."""
    app = world.config.app("shop")
    with world.store.transaction() as tx:
        assert tx.apps.claim_poll("shop", app.poll)
    with world.store.transaction() as tx:
        tx.apps.look(["shop"])
    for seconds, due in ((HOLD_S - 1, False), (LOOK_S + 1, True)):
        world.seconds += seconds
        with world.store.reading() as tx:
            assert tx.apps.poll_is_due("shop", app.poll) is due


def test_whoever_dies_while_it_reads_a_branch_is_followed_by_another_one(world):
    """What nobody holds any more is due a minute later, and said to be."""
    app = world.config.app("shop")

    def killed(*_words, **_more):
        world.deps.leases.renew()
        raise SystemExit

    world.workshop.fetch = killed
    world.workshop.push()
    with pytest.raises(SystemExit):
        intake.poll("shop", world.deps)
    world.seconds += HOLD_S
    world.deps.leases.renew()
    with world.store.reading() as tx:
        assert tx.apps.poll_is_due("shop", app.poll)
        assert "it is being read" not in explaining.coming(tx, app).because
    world.seconds += HOLD_S + 1
    with world.store.reading() as tx:
        assert "is `rollout up` running?" in outages.unasked(tx, app)


@pytest.mark.parametrize("ends", ["silent", "gone", "well"])
def test_who_was_overtaken_in_a_look_at_the_branch_says_nothing_of_it(world, ends):
    """He stood still for longer than his claim, and another worker has read the branch meanwhile, or is at it: that is newer, whatever the first one comes back with."""
    app, ask, told = world.config.app("shop"), world.workshop.remote_head, []
    old = world.workshop.push()

    def stood_still(name, config):
        world.workshop.remote_head = ask
        world.seconds += HOLD_S + 1
        told.append(world.workshop.push())
        intake.poll("shop", world.deps)
        world.seconds += HOLD_S + 1
        with world.store.transaction() as tx:  # and a third one has begun
            assert tx.apps.claim_poll("shop", app.poll)
        if ends == "well":
            return old
        raise ServiceUnavailable("no answer") if ends == "silent" else NotFound("no such branch")

    world.workshop.remote_head = stood_still
    intake.poll("shop", world.deps)
    world.seconds += HOLD_S - 1
    with world.store.reading() as tx:
        assert tx.commits.newest("shop").sha == told[0]
        assert outages.unread(tx, app) is None
        assert not tx.apps.poll_is_due("shop", app.poll)
    assert intake.due(world.deps) == []
    world.seconds += 2
    assert intake.due(world.deps) == ["shop"]
