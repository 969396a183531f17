"""Webhooks that are stored in one transaction come to the ends that they would come to one after the other."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from rollout.domain import model
from rollout.domain.model import AppName, Push
from rollout.domain.pipeline import RUN_TESTS
from rollout.services import intake, reconcile, testing
from tests.support import stores
from tests.support.world import World

SHAS = [f"{number:040x}" for number in range(1, 5)]


@pytest.fixture
def two_worlds(tmp_path, monkeypatch):
    worlds = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        worlds.append(World(folder, monkeypatch, hosts=3))
    yield worlds
    for world in worlds:
        world.store.close()


@pytest.fixture
def world(tmp_path, monkeypatch):
    made = World(tmp_path, monkeypatch, hosts=3)
    yield made
    made.store.close()


def push(sha, delivery, *, branch="main", provider="github", kind="push"):
    return Push(provider, delivery, kind, full_name="shop", branch=branch, head=sha)


def receive(world, *pushes, app=True):
    shop = world.config.app("shop") if app else None
    return intake.receive_all([(one, shop) for one in pushes], world.deps)


def rows(world):
    """Every delivery, by the server's id of it: outcome, reason, and which delivery it names."""
    with world.store.reading() as tx:
        told = tx.deliveries.newest(None, 100)
    names = {one.id: one.delivery for one in told}

    def named(text):
        return text and re.sub(r"delivery (\d+)", lambda found: f"delivery {names[int(found[1])]}", text)

    return Counter((one.delivery, one.app, one.outcome, named(one.reason), named(one.ref)) for one in told)


def known(world, *shas):
    with world.store.reading() as tx:
        return tx.commits.known(AppName("shop"), shas)


MIXED = [
    push(SHAS[0], "other-branch", branch="feature"),
    push(SHAS[0], "first"),
    push(SHAS[1], "second"),
    push(SHAS[0], "first"),
    push(SHAS[0], "again"),
    push(SHAS[0], "again-feature", branch="feature"),
    push("", "gone"),
    push(SHAS[2], "tag", branch="", kind="other"),
    push(SHAS[1], "second-again", provider="gitea"),
    push(SHAS[2], "third"),
]


def test_together_they_end_as_one_after_the_other(two_worlds):
    """Outcomes, reasons and what they name are the same, whichever of a commit's webhooks share a transaction."""
    together, apart = two_worlds
    receive(together, *MIXED)
    for one in MIXED:
        receive(apart, one)
    assert rows(together) == rows(apart)
    assert known(together, *SHAS) == known(apart, *SHAS) == set(SHAS[:3])
    again = [replace(one, delivery=f"{one.delivery}-2") for one in reversed(MIXED)]
    receive(together, *again)
    for one in again:
        receive(apart, one)
    assert rows(together) == rows(apart)


def test_each_is_told_its_own_number(world):
    """What is answered to each is the row of that very webhook, in whatever order they are stored."""
    told = receive(world, *MIXED)
    with world.store.reading() as tx:
        stored = {one.id: one for one in tx.deliveries.newest(None, 100)}
    assert len({one.delivery for one in told}) == len(MIXED) == len(stored)
    first_ones = [answer.delivery for answer in told if answer.outcome != "duplicate"]
    assert first_ones == sorted(first_ones)  # in the order in which they came
    for sent, answer in zip(MIXED, told, strict=True):
        row = stored[answer.delivery]
        assert (row.delivery, row.outcome, row.reason) == (sent.delivery, answer.outcome, answer.reason)
    first, again = told[1].delivery, told[4]
    assert again.reason.startswith(f"commit {SHAS[0]} was told of by delivery {first}")


def test_what_is_nobodys_is_stored_too(world):
    """A repository that is none of ours is ignored among others that are taken."""
    shop = world.config.app("shop")
    both = [(push(SHAS[0], "theirs"), None), (push(SHAS[0], "ours"), shop)]
    told = intake.receive_all(both, world.deps)
    assert [one.outcome for one in told] == ["ignored", "accepted"]
    assert told[0].reason == "not a repository of ours"


def test_a_crowd_of_commits_sends_as_many_messages_as_tests_run_at_a_time(world):
    """One of four is rung for; when its test has ended, the next one is, until all are tested."""
    shas = [world.workshop.push(f"change {number}") for number in range(4)]
    receive(world, *(push(sha, sha) for sha in shas))

    def rung():
        return [arguments for _, tasks, arguments in world.bell.queue if tasks == (RUN_TESTS,)]

    with world.store.reading() as tx:
        ids = [tx.commits.get("shop", sha).id for sha in shas]
    assert rung() == [(ids[0],)]
    for number in range(3):
        testing.run_tests(ids[number], world.deps)
        assert rung() == [(one,) for one in ids[: number + 2]]


def test_of_a_crowd_whose_checks_ci_servers_run_each_is_looked_at(world):
    """One that waits for its checks ends nothing, so it rings for no other: all of them have a message of their own."""
    app = world.config.app("shop")
    tests = app.tests.model_copy(update={"source": "external", "required": ("unit",)})
    config = replace(world.config, apps={"shop": app.model_copy(update={"tests": tests})})
    world.config, world.deps = config, replace(world.deps, config=config)
    receive(world, *(push(sha, sha[-4:]) for sha in SHAS))
    assert len([1 for _, tasks, _ in world.bell.queue if tasks == (RUN_TESTS,)]) == len(SHAS)


def test_without_its_message_a_crowd_is_found_by_the_reconciler(world):
    """The one message is lost with its worker: its commit is rung for again, before the others."""
    receive(world, *(push(sha, sha[-4:]) for sha in SHAS))
    world.bell.queue.clear()
    world.seconds += world.deps.settings.ring_again_s + 1
    (ring,) = reconcile._due_tests(world.deps)
    with world.store.reading() as tx:
        assert ring.arguments == (tx.commits.get("shop", SHAS[0]).id,)


def statements(world, pushes):
    with stores.asked(world.store) as told:
        receive(world, *pushes)
    return len(told)


@pytest.mark.needs("postgresql")
def test_a_crowd_costs_as_many_questions_as_a_few(tmp_path, monkeypatch, postgres):
    """A server is asked as often by three webhooks as by sixty, of new and of known commits."""
    world = World(tmp_path, monkeypatch, hosts=3, url=postgres.prepared())
    receive(world, push("f" * 40, "the app's first"))
    hashes = [f"{number:040x}" for number in range(100)]
    for word in ("new", "again"):
        few = statements(world, [push(sha, f"{word} {sha}") for sha in hashes[:3]])
        many = statements(world, [push(sha, f"{word} {sha}") for sha in hashes[3:63]])
        assert many == few < 12
    world.store.close()


def test_crowds_one_after_the_other_send_no_more_messages_than_tests_run_at_a_time(world):
    """A flood comes in many transactions: another app's message stands behind one of this app, and not behind one of each."""
    for number in range(20):
        receive(world, *(push(f"{number:038x}{one:02x}", f"{number}-{one}") for one in range(3)))
    assert [tasks for _, tasks, _ in world.bell.queue] == [(RUN_TESTS,)]


def test_what_is_in_test_counts_as_a_message(world, monkeypatch):
    """While as many are tested as may be, a webhook rings for none: their ends do."""
    shas = [world.workshop.push(f"change {number}") for number in range(2)]
    receive(world, push(shas[0], "first"))
    with world.store.reading() as tx:
        first = tx.commits.get("shop", shas[0])
    world.bell.queue.clear()

    def run(*_args, **_more):
        world.seconds += (
            world.deps.settings.ring_again_s + 1
        )  # its own message is long gone; its lease is not
        receive(world, push(shas[1], "second"))
        assert [tasks for _, tasks, _ in world.bell.queue] == []
        return model.TestResult(True, "ok", "")

    monkeypatch.setattr(world.workshop, "run_tests", run)
    testing.run_tests(first.id, world.deps)
    assert [tasks for _, tasks, _ in world.bell.queue][-1] == (RUN_TESTS,)
