"""Heads of pull requests: tested and reported, never shipped; merged, they are commits like any other."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.domain.model import BranchCommit, Pull, Push
from rollout.domain.states import CommitState
from rollout.errors import Conflict, ServiceUnavailable
from rollout.services import bars, explaining, intake, pulls, reconcile, telling, testing, views
from rollout.store.apps import LOOK_S
from rollout.store.census import Census
from rollout.store.commits import Commits
from tests.support.released import released
from tests.support.world import World

HEAD = "a" * 40


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A host with a first release, of an app whose pull requests are tested."""
    world = released(tmp_path, monkeypatch, hosts=1)
    tests = world.config.app(None).tests
    monkeypatch.setitem(tests.__dict__, "pull_requests", True)
    monkeypatch.setitem(tests.__dict__, "retries", 0)
    return world


def opened(world, number=7, sha=HEAD):
    """A pull request, or a newer head of it; seen by the poller."""
    heads = [pull for pull in world.workshop.pulls if pull.number != number]
    world.workshop.pulls = [*heads, a_pull(number, sha)]
    intake.poll("shop", world.deps, force=True)


def a_pull(number, sha):
    return Pull(number, f"refs/pull/{number}/head", sha, "feature", "Eve", "feature")


def commit_of(world, sha=HEAD):
    with world.store.reading() as tx:
        return tx.commits.get("shop", sha)


def why(world, sha=HEAD):
    with world.store.reading() as tx:
        return explaining.why(tx, world.config.app(None), tx.commits.get("shop", sha)).because


def until_tested(world, state=CommitState.PASSED, sha=HEAD):
    world.run(seconds=60, until=lambda: commit_of(world, sha).state is state)
    assert commit_of(world, sha).state is state


def merged(world, sha=HEAD):
    """Its head is the branch's, as a fast-forward or a merge that keeps hashes does it."""
    position = len(world.workshop.commits) + 1
    world.workshop.commits.append(BranchCommit(sha, position, "feature", "Eve", "feature"))
    intake.poll("shop", world.deps, force=True)


def ships(world, sha):
    """This, and nothing else, is where the fleet gets to."""
    world.run(seconds=60, until=lambda: set(world.runs().values()) == {sha})
    world.run(seconds=20)
    assert set(world.runs().values()) == {sha}


def test_a_suite_that_is_slow_on_a_pull_request_is_warned_of_once(world, monkeypatch):
    """Where it is seen first: not at the next head of it, nor when the same suite is as slow on the branch."""
    clock = [0.0]
    monkeypatch.setattr(testing.time, "monotonic", lambda: clock.__setitem__(0, clock[0] + 301.0) or clock[0])
    opened(world)
    until_tested(world)
    opened(world, sha="b" * 40)
    until_tested(world, sha="b" * 40)
    sha = world.push()
    until_tested(world, sha=sha)
    world.run(seconds=20)
    told = [(title, body) for title, body in world.notifier.sent if "the tests took" in title]
    assert [title for title, _ in told] == ["shop: the tests took 5.0 min"]
    assert HEAD[:12] in told[0][1]


def counted(world, monkeypatch):
    """The commits whose tests ran, in order."""
    ran, run = [], world.workshop.run_tests

    def run_tests(app, config, commit, *, go_on):
        ran.append(commit)
        return run(app, config, commit, go_on=go_on)

    monkeypatch.setattr(world.workshop, "run_tests", run_tests)
    return ran


def test_its_head_is_tested_and_never_ships(world, monkeypatch):
    """Found by the poller, tested, nothing of it built; and nothing goes out, whoever asks."""
    monkeypatch.setattr(world.workshop, "build", lambda *_: pytest.fail("built"))
    opened(world)
    assert why(world).startswith(
        "head of pull request 7: waits for its tests; it ships only when it is merged"
    )
    until_tested(world)
    world.run(seconds=60)
    assert world.newest().id == 1
    assert why(world) == "head of pull request 7: tested; it ships only when it is merged into main"
    with world.store.reading() as tx:
        assert views.commit(tx, commit_of(world))["pull_request"] == 7
    assert telling.told_of_tests(commit_of(world))[0] == "head of pull request 7: never shipped as such"


@pytest.mark.parametrize("now", [False, True])
def test_a_deploy_of_it_is_refused(world, now):
    """Also before the queue: the sentence says what it is, and what to do."""
    opened(world)
    until_tested(world)
    world.workshop.resolve = lambda _app, _name: HEAD
    wish = intake.Wish("hurry", "ann") if now else None
    with pytest.raises(Conflict, match="head of pull request 7, which is tested and never shipped") as caught:
        intake.enqueue(world.config.app(None), HEAD, world.deps, who="ann", now=wish)
    assert caught.value.remedy == "merge it into main"


def test_a_red_one_is_told(world):
    """With its number, its author, and where its output is; the branch is not red for that."""
    world.workshop.failing.add(HEAD)
    opened(world)
    until_tested(world, CommitState.FAILED)
    reconcile.tell(world.deps)
    ((title, body),) = [told for told in world.notifier.sent if "pull request" in told[0]]
    assert title == f"shop: pull request 7 is red at {HEAD[:12]} by Eve"
    assert f"rollout log {HEAD[:12]}" in body
    assert not any("is red since" in title for title, _ in world.notifier.sent)


@pytest.mark.parametrize("back", [False, True], ids=["", "and it comes back"])
def test_an_older_head_that_is_red_is_not_told(world, monkeypatch, back):
    """A newer one was pushed while its tests ran: people hear of that one, or of the older one when the request has come back to that."""
    newer, run = "b" * 40, world.workshop.run_tests
    world.workshop.failing.add(HEAD)

    def run_tests(app, config, commit, *, go_on):
        opened(world, sha=newer)
        if back:
            opened(world)
        return run(app, config, commit, go_on=go_on)

    opened(world)
    monkeypatch.setattr(world.workshop, "run_tests", run_tests)
    until_tested(world, CommitState.FAILED)
    reconcile.tell(world.deps)
    told = [title for title, _ in world.notifier.sent if "pull request" in title]
    assert told == [f"shop: pull request 7 is red at {HEAD[:12]} by Eve"] * back


def merged_long_ago(tmp_path, monkeypatch):
    """A world whose branch was at its third commit when it was seen first; the heads of two requests are the second one, and came in with it."""
    world = World(tmp_path, monkeypatch, hosts=1)
    monkeypatch.setitem(world.config.app(None).tests.__dict__, "pull_requests", True)
    world.workshop.push()
    merge, (inner,) = world.workshop.merge("feature")
    world.workshop.push()
    heads = (merge, inner)
    world.workshop.failing.update(heads)
    world.workshop.pulls = [a_pull(number, sha) for number, sha in enumerate(heads, 2)]
    return world, heads


@pytest.mark.parametrize("moment", ["first seen", "by an older version"])
def test_one_that_was_merged_before_the_branch_was_known_is_out(tmp_path, monkeypatch, moment):
    """Servers keep the heads of merged requests for ever: none is tested, nor told of, and `why` says that it is in what runs."""
    world, heads = merged_long_ago(tmp_path, monkeypatch)
    ran = counted(world, monkeypatch)
    if moment == "by an older version":
        with monkeypatch.context() as patch:
            patch.setattr(world.workshop, "contains", lambda *_: False)
            intake.poll("shop", world.deps, force=True)
        assert all(why(world, sha).startswith("head of pull request") for sha in heads)
    opened(world)
    ships(world, f"{3:040x}")
    assert sorted(ran) == [f"{3:040x}", HEAD]
    assert not any("pull request" in title for title, _ in world.notifier.sent)
    for sha in heads:
        assert why(world, sha).startswith(f"came in with {'0' * 12}: went out with rollout 1 ")


def test_one_that_was_merged_before_is_so_when_the_oldest_known_commit_is_amended(tmp_path, monkeypatch):
    """A force-push of what was seen first takes back no merge of before: its head is not tested for that, nor told of."""
    world, (_, head) = merged_long_ago(tmp_path, monkeypatch)
    world.workshop.pulls = [replace(a_pull(7, head), tree="e" * 40)]
    ran = counted(world, monkeypatch)
    intake.poll("shop", world.deps, force=True)
    amended = replace(world.workshop.commits[-1], sha="c" * 40)
    world.workshop.commits[-1] = amended
    intake.poll("shop", world.deps, force=True)
    ships(world, amended.sha)
    assert ran == [amended.sha]
    assert not any("pull request" in title for title, _ in world.notifier.sent)


def test_a_merged_one_that_lacks_its_release_is_counted_as_untested(world, monkeypatch):
    """Who watches for a commit that has waited for long sees it too, as it is on the branch."""
    opened(world)
    until_tested(world)
    merged(world)
    with world.store.reading() as tx:
        later = tx.today() + timedelta(hours=1)
        monkeypatch.setattr(type(tx), "today", lambda _self: later)
        assert Census(tx).oldest_unfinished_s()["commit"] > 3000


def test_of_the_branch_only_the_oldest_commit_is_read_for_them(world, monkeypatch):
    """It tells which of them were merged before the branch was known; a line may have a hundred thousand."""
    monkeypatch.setattr(Commits, "line", lambda *_: pytest.fail("all of the line is read"))
    pulls.look(world.config.app(None), [a_pull(7, HEAD)], world.deps)
    assert commit_of(world).is_pull


def test_without_a_mirror_of_the_branch_none_is_taken_for_merged(tmp_path, monkeypatch):
    """Another machine has read it: what cannot be compared here is tested, as an open one is."""
    world, heads = merged_long_ago(tmp_path, monkeypatch)

    def contains(*_):
        raise ServiceUnavailable("no such commit")

    with monkeypatch.context() as patch:
        patch.setattr(world.workshop, "contains", contains)
        intake.poll("shop", world.deps, force=True)
    until_tested(world, CommitState.FAILED, heads[0])


@pytest.mark.parametrize("good", [True, False])
def test_a_merged_one_keeps_what_its_tests_said(world, monkeypatch, good):
    """The same hash on the branch: it is not tested again; a good one is built and goes out."""
    ran = counted(world, monkeypatch)
    if not good:
        world.workshop.failing.add(HEAD)
    opened(world)
    until_tested(world, CommitState.PASSED if good else CommitState.FAILED)
    merged(world)
    ships(world, HEAD if good else f"{1:040x}")
    assert ran == [HEAD]
    assert commit_of(world).state is (CommitState.PASSED if good else CommitState.FAILED)
    assert commit_of(world).output == "out"


@pytest.mark.parametrize("tested", [True, False])
def test_a_merged_one_is_as_old_as_it_is_on_the_branch(world, tested):
    """However long its review took: else `queue.goal` were over at the merge, and what is merged after it went out together with it."""
    opened(world)
    if tested:
        until_tested(world)
    world.seconds += 2400
    merged(world)
    with world.store.reading() as tx:
        assert bars.age_s(tx.commits.get("shop", HEAD), tx) < 60


@pytest.mark.parametrize("moment", ["waits", "tests run", "tests end", "superseded"])
def test_one_that_is_merged_before_its_tests_are_over_goes_out(world, monkeypatch, moment):
    """Whatever it was doing when it was merged: it has a result and a release of its own, and ships."""
    run = world.workshop.run_tests
    opened(world)
    match moment:
        case "superseded":
            opened(world, sha="b" * 40)
        case "tests run":

            def run_tests(app, config, commit, *, go_on):
                if commit_of(world).position is None:
                    merged(world)
                return run(app, config, commit, go_on=go_on)

            monkeypatch.setattr(world.workshop, "run_tests", run_tests)
        case "tests end":
            seen = testing._merged

            def late(commit, deps):
                answer = seen(commit, deps)
                if not answer:
                    merged(world)
                return answer

            monkeypatch.setattr(testing, "_merged", late)
    if moment in {"waits", "superseded"}:
        merged(world)
    ships(world, HEAD)


def test_a_build_that_is_put_off_after_the_merge_tests_nothing_again(world, monkeypatch):
    """The disk was full for a moment: what is left to do is the release."""
    ran, build, full = counted(world, monkeypatch), world.workshop.build, [True]

    def built(app, config, commit, needed):
        if full.pop() if full else False:
            raise ServiceUnavailable("the disk is full")
        return build(app, config, commit)

    monkeypatch.setattr(world.workshop, "build", built)
    opened(world)
    until_tested(world)
    merged(world)
    ships(world, HEAD)
    assert ran == [HEAD]


def test_a_bar_waits_for_the_merge(world):
    """What a person says of it holds when it becomes a commit of the branch."""
    opened(world)
    until_tested(world)
    bars.bar("shop", HEAD, world.deps, who="ann", why="not before Monday")
    assert commit_of(world).state is CommitState.PASSED
    assert "barred then: not before Monday" in why(world)
    merged(world)
    until_tested(world, CommitState.BARRED)
    ships(world, f"{1:040x}")


def test_the_branch_comes_first(world, monkeypatch):
    """However many pull requests wait, a commit of the branch is tested next."""
    ran = counted(world, monkeypatch)
    world.workshop.pulls = [a_pull(number, f"{number:x}" * 40) for number in range(2, 8)]
    intake.poll("shop", world.deps, force=True)
    sha = world.push()
    world.run(seconds=120)
    assert sha in ran[:2]
    assert len(ran) == 7


def test_only_the_newest_heads_are_tested(world, monkeypatch):
    """Twenty pull requests at most, and of each its newest head; one that comes back to an older head is tested after all."""
    ran = counted(world, monkeypatch)
    world.workshop.pulls = [a_pull(number, f"{number:040d}") for number in range(100, 130)]
    intake.poll("shop", world.deps, force=True)
    opened(world, 129, HEAD)
    world.run(seconds=60)
    assert set(ran) == {HEAD, *(f"{number:040d}" for number in range(110, 129))}
    assert "has a newer head" in why(world, f"{129:040d}")
    opened(world, 129, f"{129:040d}")
    until_tested(world, sha=f"{129:040d}")


def test_a_head_that_an_older_version_knew_learns_what_is_in_it(world):
    """Else its squash merge would not be known for the same; the test that runs keeps its claim."""
    opened(world)
    before = commit_of(world)
    assert before.tree is None
    world.workshop.pulls = [replace(pull, tree="e" * 40) for pull in world.workshop.pulls]
    intake.poll("shop", world.deps, force=True)
    assert (commit_of(world).tree, commit_of(world).version) == ("e" * 40, before.version)


def test_what_cannot_be_fetched_keeps_nobody_from_the_branch(world, monkeypatch):
    """A pull request's trouble is not the branch's: that is read, and the poller does not back off."""

    def down(*_):
        raise ServiceUnavailable("no")

    monkeypatch.setattr(world.workshop, "fetch_pulls", down)
    sha = world.workshop.push()
    opened(world)
    assert commit_of(world, sha) is not None
    assert commit_of(world) is None
    with world.store.reading() as tx:
        assert tx.apps.poll_failures("shop") == 0


def test_the_poll_is_over_for_others_before_pull_requests_are_fetched(world, monkeypatch):
    """They may take minutes: that the branch was read, and when the next one may ask for it, is told before."""
    failures = []

    def fetch(*_):
        with world.store.reading() as tx:
            failures.append(tx.apps.poll_failures("shop"))
        return []

    with world.store.transaction() as tx:
        tx.apps.polled("shop", tx.now(), next_s=0.0, failures=3)
    monkeypatch.setattr(world.workshop, "fetch_pulls", fetch)
    opened(world)
    assert failures == [0]


def pushed_by_mistake(world, moment):
    """The commit stood on the branch, by itself or with a merge, and was forced off before its tests had begun, or before git was asked."""
    line = world.workshop.commits
    match moment:
        case "on the line":
            line.append(BranchCommit(HEAD, 2, "feature", "Eve", "feature", tree="e" * 40))
        case "in a merge":
            world.workshop.inner[HEAD] = BranchCommit(HEAD, 0, "feature", "Eve", "feature", (line[0].sha,))
            merge = BranchCommit("c" * 40, 2, "merge", "Eve", "merge", (line[0].sha, HEAD))
            line.append(merge)
        case "given up":
            push = Push("github", "delivery", "push", full_name="ann/shop", branch="main", head=HEAD)
            intake.receive_all([(push, world.config.app(None))], world.deps)
            world.run(seconds=60, until=lambda: commit_of(world).state is CommitState.FAILED)
            return
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    del line[1:]
    world.workshop.inner.clear()
    intake.read_branch(world.config.app(None), world.deps, who="test", why="forced off")


@pytest.mark.parametrize("moment", ["on the line", "in a merge", "given up"])
def test_one_that_was_pushed_to_the_branch_by_mistake_is_tested(world, monkeypatch, moment):
    """Forced off again and opened as a pull request, as everyone does: it is one like any other, and ships when it is merged."""
    ran = counted(world, monkeypatch)
    pushed_by_mistake(world, moment)
    asked, fetch = [], world.workshop.fetch_pulls
    monkeypatch.setattr(world.workshop, "fetch_pulls", lambda *its: asked.append(its) or fetch(*its))
    world.workshop.pulls = [replace(a_pull(7, HEAD), tree="e" * 40)]
    for _ in range(2):
        intake.poll("shop", world.deps, force=True)
        assert commit_of(world).is_pull
    assert len(asked) == 1
    until_tested(world)
    assert ran == [HEAD]
    merged(world)
    ships(world, HEAD)
    assert ran == [HEAD]


def test_one_that_was_tested_on_the_branch_keeps_its_result(world, monkeypatch):
    """Forced off and opened as a pull request: what its tests said is known."""
    ran = counted(world, monkeypatch)
    world.workshop.failing.add(HEAD)
    world.workshop.commits.append(BranchCommit(HEAD, 2, "feature", "Eve", "feature", tree="e" * 40))
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    until_tested(world, CommitState.FAILED)
    del world.workshop.commits[1:]
    intake.read_branch(world.config.app(None), world.deps, who="test", why="forced off")
    opened(world)
    world.run(seconds=60)
    assert (commit_of(world).state, commit_of(world).is_pull, ran) == (CommitState.FAILED, False, [HEAD])


def test_when_they_are_not_tested_any_more_none_waits(world, monkeypatch):
    """`tests.pull_requests` was taken back: what waits is not tested, and is in nobody's way."""
    ran = counted(world, monkeypatch)
    opened(world)
    monkeypatch.setitem(world.config.app(None).tests.__dict__, "pull_requests", False)
    sha = world.push()
    world.run(seconds=120)
    assert ran == [sha]
    assert commit_of(world).state is CommitState.RECEIVED
    assert commit_of(world).due_at is None


def test_without_the_setting_nothing_is_asked(world, monkeypatch):
    """Strangers' code runs only where somebody has said so."""
    monkeypatch.setitem(world.config.app(None).tests.__dict__, "pull_requests", False)
    monkeypatch.setattr(world.workshop, "remote_heads", lambda *_: pytest.fail("asked"))
    opened(world)
    assert commit_of(world) is None


@pytest.mark.parametrize(
    ("tested", "ours", "outcome"),
    [(True, True, "reported"), (False, True, "ignored"), (True, False, "ignored")],
)
def test_a_webhook_of_a_pull_request_makes_the_next_poll_due(world, monkeypatch, tested, ours, outcome):
    """Nothing in it is believed: the poller asks the configured repository, at once, if pull requests are tested."""
    app = world.config.app(None)
    monkeypatch.setitem(app.tests.__dict__, "pull_requests", tested)
    intake.poll("shop", world.deps, force=True)
    world.workshop.pulls = [a_pull(7, HEAD)]
    push = Push("github", "delivery", "pull", full_name="ann/shop")
    assert [one.outcome for one in intake.receive_pulls([(push, [app] if ours else [])] * 2, world.deps)] == [
        outcome
    ] * 2
    world.seconds += LOOK_S
    intake.poll("shop", world.deps)
    assert (commit_of(world) is not None) == (outcome == "reported")


def test_old_heads_are_forgotten(world, monkeypatch):
    """A stranger's pull requests do not fill the store: thirty days later they are gone, the branch's commits are not."""
    opened(world)
    until_tested(world)
    with world.store.transaction() as tx:
        later = tx.today() + timedelta(days=31)
        monkeypatch.setattr(type(tx), "today", lambda _self: later)
        tx.retention.tidy()
    assert commit_of(world) is None
    assert commit_of(world, f"{1:040x}") is not None
