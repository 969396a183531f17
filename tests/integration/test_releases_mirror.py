"""The mirror over a real git."""

import os
import subprocess
import threading
import time
from dataclasses import replace

import pytest

from rollout.domain.branches import above
from rollout.domain.selection import fixes
from rollout.errors import NotFound, ServiceUnavailable
from rollout.releases import filelock, mirror
from rollout.releases.git import Git
from rollout.releases.workshop import GitWorkshop
from tests.support.sources import Source, an_app

pytestmark = pytest.mark.needs("git")


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path / "source")


@pytest.fixture
def workshop(tmp_path):
    return GitWorkshop(tmp_path / "state")


def test_fetch_returns_the_head_of_the_configured_branch(source, workshop):
    """A fetch answers with the branch's head, which is also what one question to the server says."""
    head = source.commit({"a": "1"})
    config = an_app(source.path)
    assert workshop.remote_head("shop", config) == head
    assert workshop.fetch("shop", config) == head
    newer = source.commit({"a": "2"})
    assert workshop.remote_head("shop", config) == newer
    assert workshop.resolve("shop", "main") == head
    assert workshop.fetch("shop", config) == newer


def test_a_mirror_has_a_branch_once_it_was_fetched(source, workshop):
    """Not when the server was only asked for its head, nor under a new name."""
    source.commit({"a": "1"})
    config = an_app(source.path)
    assert not workshop.has_branch("shop", config)
    workshop.remote_head("shop", config)
    assert not workshop.has_branch("shop", config)
    workshop.fetch("shop", config)
    assert workshop.has_branch("shop", config)
    assert not workshop.has_branch("shop", config.model_copy(update={"branch": "trunk"}))


def test_fetch_brings_only_the_configured_branch(source, workshop):
    """Other branches and tags stay away."""
    source.commit({"a": "1"})
    source.git("checkout", "-q", "-b", "other")
    other = source.commit({"b": "1"})
    source.git("tag", "v1")
    workshop.fetch("shop", an_app(source.path))
    for name in (other, "other", "v1"):
        with pytest.raises(NotFound):
            workshop.resolve("shop", name)


def test_force_push_moves_the_branch_and_keeps_the_dropped_commits(source, workshop):
    """After a force-push the head is the new one, and what was shipped before can still be resolved."""
    config = an_app(source.path)
    source.commit({"a": "1"})
    dropped = source.commit({"a": "2"})
    workshop.fetch("shop", config)
    source.git("reset", "-q", "--hard", "HEAD~1")
    head = source.commit({"a": "3"})
    assert workshop.fetch("shop", config) == head
    assert [c.sha for c in workshop.branch("shop", config, 10)][-1] == head
    assert dropped not in [c.sha for c in workshop.branch("shop", config, 10)]
    subprocess.run(
        ["git", "-C", str(workshop.state_dir / "mirrors/shop.git"), "gc", "-q", "--prune=now"], check=True
    )
    assert workshop.resolve("shop", dropped[:10]) == dropped


def test_a_branch_may_be_replaced_by_one_that_is_below_its_name(source, workshop):
    """`main` may become `main/2`, although git cannot keep both."""
    source.commit({"a": "1"})
    workshop.fetch("shop", an_app(source.path))
    source.git("branch", "-m", "main", "main/2")
    head = source.commit({"a": "2"})
    assert workshop.fetch("shop", an_app(source.path, "main/2")) == head


@pytest.mark.parametrize("ask", ["fetch", "remote_head"])
def test_missing_branch_is_not_found(source, workshop, ask):
    """A branch that does not exist is said to be absent, with the repository's address."""
    source.commit()
    with pytest.raises(NotFound, match=r"branch 'gone' does not exist in .*source"):
        getattr(workshop, ask)("shop", an_app(source.path, "gone"))


@pytest.mark.parametrize("ask", ["fetch", "remote_head"])
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/nonexistent/shop.git", "does not"),
        ("http://127.0.0.1:9/shop.git", "127.0.0.1"),
        ("ssh://git@127.0.0.1:9/shop.git", "fatal: Could not read from remote repository"),
    ],
)
def test_unreachable_repository_is_named_with_what_git_said(workshop, address, ask, said):
    """What cannot be reached is a retryable error with the address and git's own words."""
    with pytest.raises(ServiceUnavailable, match=said) as caught:
        getattr(workshop, ask)("shop", an_app(address))
    assert address in str(caught.value)


def test_deleted_repository_leaves_the_mirror_as_it_was(source, workshop):
    """A server that is gone takes nothing from what was fetched."""
    config = an_app(source.path)
    head = source.commit()
    workshop.fetch("shop", config)
    source.path.rename(source.path.with_name("moved"))
    with pytest.raises(ServiceUnavailable):
        workshop.fetch("shop", config)
    assert workshop.resolve("shop", head) == head


def test_branch_lists_the_newest_first_parents_oldest_first(source, workshop):
    """Positions count from the root along first parents; merged commits are not in the list."""
    source.commit(message="one")
    source.git("checkout", "-q", "-b", "side")
    side = source.commit({"s": "1"}, message="side")
    source.git("checkout", "-q", "main")
    source.commit({"m": "1"}, message="two")
    source.git("merge", "-q", "--no-ff", "-m", "merge\n\nRollout-Fixes: abc", "side")
    source.commit(message="four")
    config = an_app(source.path)
    workshop.fetch("shop", config)
    listed = workshop.branch("shop", config, 3)
    assert [(c.position, c.subject) for c in listed] == [(2, "two"), (3, "merge"), (4, "four")]
    assert side not in [c.sha for c in listed]
    assert listed[1].message == "merge\n\nRollout-Fixes: abc"
    assert listed[0].author == "Ada"


def a_pull(source):
    """`git pull` into work of one's own while the branch had moved on; what was there before, own work, and the merge."""
    start = source.commit(message="start")
    pushed = [source.commit({"p": f"{n}"}, message=f"pushed {n}") for n in range(2)]
    source.git("checkout", "-q", "-b", "own", start)
    own = [source.commit({"o": f"{n}"}, message=f"own {n}") for n in range(2)]
    source.git("merge", "-q", "--no-ff", "-m", "Merge branch 'main'", "main")
    merge = source.git("rev-parse", "HEAD")
    source.git("branch", "-q", "-f", "main", merge)
    return start, pushed, own, merge


def test_the_line_after_a_pull_goes_through_where_the_head_was(source, workshop):
    """Own work is the merge's first parent, and came in with it all the same; each commit is told with its author."""
    start, pushed, own, merge = a_pull(source)
    assert workshop.fetch("shop", an_app(source.path)) == merge
    history = workshop.history("shop", merge, start, 100)
    found = above([start, pushed[0], pushed[1]], 1, history)
    assert [(one.sha, one.position, one.subject) for one in found.line] == [
        (pushed[0], 2, "pushed 0"),
        (pushed[1], 3, "pushed 1"),
        (merge, 4, "Merge branch 'main'"),
    ]
    assert {(one.sha, one.into, one.author) for one in found.inner} == {(sha, merge, "Ada") for sha in own}
    since_pushed = above([pushed[1]], 3, workshop.history("shop", merge, pushed[1], 100))
    assert [one.sha for one in since_pushed.line] == [merge]
    assert {one.sha for one in since_pushed.inner} == set(own)
    assert workshop.history("shop", merge, merge, 100) == []


def test_what_a_merged_branch_reverts_is_read_from_its_own_messages(source, workshop):
    """Though the merge's message says nothing; and not what the branch itself has taken back."""
    bad = source.commit({"a": "1"}, message="bad")
    also = source.commit({"b": "1"}, message="also bad")
    source.git("checkout", "-q", "-b", "side")
    source.commit({"a": "2"}, message=f'Revert "bad"\n\nThis reverts commit {bad}.\n')
    undone = source.commit({"b": "2"}, message=f"x\n\nThis reverts commit {also}.")
    source.commit({"b": "1"}, message=f"y\n\nThis reverts commit {undone}.")
    source.git("checkout", "-q", "main")
    source.git("merge", "-q", "--no-ff", "-m", "Merge branch 'side'", "side")
    head = workshop.fetch("shop", an_app(source.path))
    (merge,) = above([also], 2, workshop.history("shop", head, also, 100)).line
    assert merge.sha == head
    assert bad in merge.mends
    assert also not in merge.mends


def test_whether_the_head_has_a_commit(source, workshop):
    """Itself, what it was made of, through merges too; not what is elsewhere, was forced away, or was never seen."""
    start, pushed, own, merge = a_pull(source)
    workshop.fetch("shop", an_app(source.path))
    for sha in (start, *pushed, *own, merge):
        assert workshop.contains("shop", merge, sha)
    assert not workshop.contains("shop", pushed[1], own[0])
    assert not workshop.contains("shop", pushed[0], merge)
    assert not workshop.contains("shop", merge, "0" * 40)


def test_a_history_has_its_limit_and_what_came_in_is_cut_before_the_line_is(source, workshop):
    """More than that after a known commit is not read; an imported history of any size is merged all the same."""
    start, _, _, merge = a_pull(source)
    source.git("checkout", "-q", "main")
    after = source.commit(message="after")
    source.git("checkout", "-q", "--orphan", "import")
    for number in range(6):
        source.commit({"i": f"{number}"}, message=f"import {number}")
    source.git("checkout", "-q", "main")
    source.git("merge", "-q", "--no-ff", "--allow-unrelated-histories", "-m", "import", "import")
    head = workshop.fetch("shop", an_app(source.path))
    assert workshop.history("shop", head, start, 6) is None  # 2 pushed, 2 own, the merge, after, import
    assert workshop.history("shop", head, after, 1) is not None
    found = above([merge], 4, workshop.history("shop", head, merge, 3))
    assert [one.sha for one in found.line] == [after, head]
    assert 0 < len(found.inner) < 6
    assert len(above([merge], 4, workshop.history("shop", head, merge, 100)).inner) == 6


MANY = "* one more ä\n" * 2000


def test_the_trailers_of_a_long_message_are_kept(source, workshop):
    """A squashed commit lists many others: what it mends stands at the end, and counts."""
    bad = source.commit({"a": "1"})
    source.commit({"a": "2"}, f"Many\n\n{MANY}\nRollout-Fixes: {bad}")
    config = an_app(source.path)
    workshop.fetch("shop", config)
    told = workshop.branch("shop", config, 10)[-1]
    assert fixes(told.message) == {bad}
    assert told.message.startswith("Many\n\n* one more")
    assert len(told.message.encode()) <= 4096


def test_what_a_long_message_undoes_is_kept_though_it_stands_in_its_middle(source, workshop):
    """Between two thousand lines of a squash, before and behind."""
    bad = source.commit({"a": "1"})
    source.commit({"a": "2"}, f"Many\n\n{MANY}\n* Undo\n\nThis reverts commit {bad}.\n\n{MANY}")
    config = an_app(source.path)
    workshop.fetch("shop", config)
    assert fixes(workshop.branch("shop", config, 10)[-1].message) == {bad}


def test_hostile_messages_are_capped_and_printable(source, workshop):
    """A message of megabytes, with escapes and broken UTF-8, costs four KiB and stays one line of subject."""
    head = source.commit()
    source.git(
        "commit",
        "--allow-empty",
        "-q",
        "--cleanup=verbatim",
        "-F",
        "-",
        given=b"\x1b[31mred\xff " + b"x" * 3_000_000,
    )
    config = an_app(source.path)
    workshop.fetch("shop", config)
    first, second = workshop.branch("shop", config, 5)
    assert first.sha == head
    assert len(second.message.encode()) <= 4096
    assert second.subject.isprintable()


@pytest.mark.parametrize(
    "name", ["--upload-pack=x", "-x", "a..b", "main~1", ":/x", "$(id)", "main\nx", "", "@{-1}"]
)
def test_names_that_are_no_names_are_not_found(source, workshop, name):
    """Only hashes and refs are names of commits; nothing else reaches git."""
    source.commit()
    workshop.fetch("shop", an_app(source.path))
    with pytest.raises(NotFound):
        workshop.resolve("shop", name)


def test_short_hash_resolves_and_unknown_ones_do_not(source, workshop):
    """A unique short hash is enough; a wrong one, or one before any fetch, is not found."""
    head = source.commit()
    with pytest.raises(NotFound, match="nothing was fetched"):
        workshop.resolve("shop", head)
    workshop.fetch("shop", an_app(source.path))
    assert workshop.resolve("shop", head[:8]) == head
    with pytest.raises(NotFound):
        workshop.resolve("shop", "0" * 40)


def test_concurrent_fetches_all_end_with_the_same_head(source, workshop):
    """Several workers may fetch at once; the lock makes them take turns."""
    config = an_app(source.path)
    head = source.commit({f"f{n}": str(n) for n in range(20)})
    heads = []
    threads = [
        threading.Thread(target=lambda: heads.append(workshop.fetch("shop", config))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heads == [head] * 4


def test_repository_with_hooks_and_config_runs_nothing(source, workshop, tmp_path):
    """Hooks and programs that a repository or the user's configuration names are not run by a fetch."""
    witness = tmp_path / "witness"
    for hook in ("post-checkout", "reference-transaction", "post-update", "pre-receive"):
        path = source.path / ".git/hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {witness}\n")
        path.chmod(0o755)
    head = source.commit()
    witness.unlink(missing_ok=True)  # the commit itself runs the source's hooks
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {source.path}/.git/hooks\n[init]\n\ttemplateDir = {source.path}/.git\n"
    )
    own = GitWorkshop(workshop.state_dir, {**workshop.environment, "HOME": str(home)})
    assert own.fetch("shop", an_app(source.path)) == head
    assert not witness.exists()


@pytest.mark.parametrize("age_s", [86_400, -86_400], ids=["old", "from before the clock was set back"])
def test_lock_left_by_a_killed_git_is_swept(age_s, source, workshop):
    """An old lock file in the mirror does not stop fetching for ever."""
    import time

    config = an_app(source.path)
    source.commit()
    workshop.fetch("shop", config)
    lock = workshop.state_dir / "mirrors/shop.git/refs/heads/main.lock"
    lock.touch()
    os.utime(lock, (time.time() - age_s, time.time() - age_s))
    head = source.commit()
    assert workshop.fetch("shop", config) == head


def test_what_a_fetch_had_brought_that_was_cut_is_swept(source, workshop):
    """Half of a big repository each time would fill the disk: what a killed git left is gone with the next fetch, the rest stays."""
    config, head = an_app(source.path), source.commit()
    workshop.fetch("shop", config)
    objects = workshop.state_dir / "mirrors/shop.git/objects"
    (objects / "ab").mkdir(exist_ok=True)
    halves = [objects / name for name in ("pack/tmp_pack_a1B2c3", "pack/.tmp-77-pack-9e", "ab/tmp_obj_Xy")]
    for half in halves:
        half.write_bytes(b"half")
    with filelock.held(objects.parent / "rollout-pulls", wait_s=0.0, what="another process"):
        workshop.fetch("shop", config)  # somebody is at it: one of them may be his
        assert all(half.exists() for half in halves)
    assert workshop.fetch("shop", config) == head
    assert not any(half.exists() for half in halves)


def test_heads_of_pull_requests_are_found_and_fetched(source, workshop):
    """GitHub's and GitLab's names of them, by one question with the branch's head; each has its subject and its author."""
    head = source.commit({"a": "1"})
    source.git("checkout", "-q", "-b", "feature")
    seven, eight = source.commit({"a": "2"}, "Seven\n\nMore."), source.commit({"a": "3"}, "Eight")
    for ref, sha in (
        ("pull/7/head", seven), ("merge-requests/8/head", eight), ("pull/7/merge", eight), ("pull/x/head", eight),
    ):  # fmt: skip
        source.git("update-ref", f"refs/{ref}", sha)
    source.git("checkout", "-q", "main")
    source.git("branch", "-q", "-D", "feature")
    config = an_app(source.path)
    told, pulls = workshop.remote_heads("shop", config)
    assert told == head
    assert {(pull.number, pull.ref, pull.sha) for pull in pulls} == {
        (7, "refs/pull/7/head", seven),
        (8, "refs/merge-requests/8/head", eight),
    }
    fetched = {pull.number: pull for pull in workshop.fetch_pulls("shop", config, pulls)}
    assert (fetched[7].sha, fetched[7].subject, fetched[7].author) == (seven, "Seven", "Ada")
    assert fetched[7].tree == source.git("rev-parse", f"{seven}^{{tree}}")
    assert workshop.resolve("shop", eight) == eight
    assert workshop.fetch("shop", config) == head
    assert [commit.sha for commit in workshop.branch("shop", config, 10)] == [head]


def test_a_pull_request_that_is_gone_is_let_go_and_no_other_is_lost_for_it(source, workshop):
    """One that cannot be fetched any more is left out; a newer head takes the old one's place."""
    source.commit({"a": "1"})
    config = an_app(source.path)
    for number in (7, 8):
        source.git("update-ref", f"refs/pull/{number}/head", source.commit({"a": f"{number}"}))
    _, pulls = workshop.remote_heads("shop", config)
    workshop.fetch_pulls("shop", config, pulls)
    newer = source.commit({"a": "9"})
    source.git("update-ref", "refs/pull/8/head", newer)
    source.git("update-ref", "-d", "refs/pull/7/head")
    nine = replace(pulls[0], number=9, ref="refs/pull/9/head", sha="9" * 40)
    _, now = workshop.remote_heads("shop", config)
    assert [pull.sha for pull in workshop.fetch_pulls("shop", config, [*now, nine])] == [newer]
    with pytest.raises(NotFound):
        workshop.resolve("shop", "refs/rollout/pulls/7")


def two_pulls(source, workshop):
    """The heads of two pull requests, told of by the server."""
    source.commit({"a": "1"})
    for number in (7, 8):
        source.git("checkout", "-q", "-b", f"f{number}")
        source.git("update-ref", f"refs/pull/{number}/head", source.commit({"a": f"{number}"}))
    source.git("checkout", "-q", "main")
    _, pulls = workshop.remote_heads("shop", an_app(source.path))
    return sorted(pulls, key=lambda pull: pull.number)


def test_the_branch_does_not_wait_for_pull_requests(source, workshop, monkeypatch):
    """However long the head of one takes to fetch, the branch's is fetched beside it."""
    config, pulls = an_app(source.path), two_pulls(source, workshop)
    head = source.commit({"b": "1"})
    monkeypatch.setattr(
        mirror.Mirror, "_fetch_pull", lambda *_: heads.append(workshop.fetch("shop", config, limit_s=5.0))
    )
    heads = []
    workshop.fetch_pulls("shop", config, pulls)
    assert heads == [head, head]


def test_who_finds_pull_requests_being_fetched_leaves_them_to_that_process(source, workshop, monkeypatch):
    """It does not wait: the branch would not be asked for meanwhile."""
    config, pulls = an_app(source.path), two_pulls(source, workshop)

    def another(*_):
        with pytest.raises(ServiceUnavailable):
            workshop.fetch_pulls("shop", config, pulls)
        refused.append(True)

    def waits(_seconds):
        raise AssertionError("it waits")

    refused = []
    monkeypatch.setattr(mirror.Mirror, "_fetch_pull", another)
    monkeypatch.setattr(mirror.filelock.time, "sleep", waits)
    workshop.fetch_pulls("shop", config, pulls)
    assert refused == [True, True]


def test_a_pull_request_that_takes_too_long_is_left_out_for_a_while(source, workshop, monkeypatch):
    """It costs the others nothing, and is not begun again at each poll; later it is."""
    config, (seven, eight) = an_app(source.path), two_pulls(source, workshop)
    asked, run = [], Git.run

    def slow(git, *words, **more):
        if any(seven.ref in word for word in words):
            asked.append(seven)
            raise ServiceUnavailable("git fetch did not end in time")
        return run(git, *words, **more)

    monkeypatch.setattr(Git, "run", slow)
    for _ in range(2):
        assert [pull.sha for pull in workshop.fetch_pulls("shop", config, [seven, eight])] == [eight.sha]
    assert asked == [seven]
    (mark,) = (workshop.state_dir / "mirrors/shop.git/rollout-late").iterdir()

    def tries_after(seconds):
        asked.clear()
        then = time.time() - seconds
        os.utime(mark, (then, then))
        workshop.fetch_pulls("shop", config, [seven, eight])
        return bool(asked)

    assert [tries_after(60 * minutes) for minutes in (4, 6, 6, 11, 21, 41, 59, 61, 59)] == [
        *(False, True),  # it may have been the server
        *(False, True, True, True),
        *(False, True, False),
    ]


def test_none_is_begun_when_others_took_the_time(source, workshop, monkeypatch):
    """The poll finds the branch's head as well, and goes on with the rest the next time."""
    config, (seven, eight) = an_app(source.path), two_pulls(source, workshop)
    clock, fetch = [0.0], mirror.Mirror._fetch_pull
    monkeypatch.setattr(mirror.time, "monotonic", lambda: clock[0])

    def slow(one, repository, pull):
        clock[0] += 0.0 if pull.sha in brought else mirror.PULL_LIMIT_S + 1
        return fetch(one, repository, pull)

    brought = set()
    monkeypatch.setattr(mirror.Mirror, "_fetch_pull", slow)
    assert [pull.number for pull in workshop.fetch_pulls("shop", config, [seven, eight])] == [7]
    brought.add(seven.sha)
    assert [pull.number for pull in workshop.fetch_pulls("shop", config, [seven, eight])] == [7, 8]


def test_the_head_of_a_pull_request_is_tested_like_any_commit(source, workshop):
    """In a clean checkout of that very commit."""
    source.commit({"a": "1"})
    source.git("checkout", "-q", "-b", "feature")
    seven = source.commit({"a": "2"})
    source.git("update-ref", "refs/pull/7/head", seven)
    source.git("checkout", "-q", "main")
    config = an_app(source.path, tests="cat a")
    _, pulls = workshop.remote_heads("shop", config)
    workshop.fetch_pulls("shop", config, pulls)
    result = workshop.run_tests("shop", config, seven, go_on=lambda: True)
    assert (result.passed, result.output) == (True, "2")
