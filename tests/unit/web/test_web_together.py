"""What comes together is done together; and webhooks that are stored together stay each its own."""

import asyncio
import json
import random
from collections import Counter
from dataclasses import replace
from threading import Event

import pytest

from rollout.domain.pipeline import RUN_TESTS
from rollout.errors import Conflict, NotFound, ServiceUnavailable, SignatureInvalid, Unreadable
from rollout.services import intake
from rollout.services.intake import Received
from rollout.store import checks as store_checks
from rollout.web import arrivals
from rollout.web.arrivals import Arrival
from rollout.web.errors import Busy
from rollout.web.service import Limits
from rollout.web.together import Together
from tests.support.processes import until
from tests.support.web import github, push_body, settings
from tests.support.world import World


class Work:
    """Says what it was given, once it may; "bad" is refused, "broken" breaks all."""

    def __init__(self):
        self.may, self.batches = Event(), []

    def __call__(self, some):
        self.batches.append(list(some))
        self.may.wait(20)
        if "broken" in some:
            raise ZeroDivisionError
        return [NotFound("bad") if one == "bad" else one for one in some]


@pytest.fixture
def work():
    work = Work()
    yield work
    work.may.set()


@pytest.fixture
def together(work):
    """One thread, four at a time, room for six."""
    made = Together("test", work, gather_s=0.001, most=4, waiting=6, within_s=20)
    yield made
    made.close()


async def crowd(together, work, some, *, at_work=True):
    """Answers to all of them; the first is at work alone when the others come."""
    first, *others = some
    asked = [asyncio.create_task(together.run(first))]
    await asyncio.to_thread(until, lambda: work.batches, what="the first one is at work")
    for one in others:
        asked.append(asyncio.create_task(together.run(one)))
        await asyncio.sleep(0)
    if at_work:
        work.may.set()
    return await asyncio.gather(*asked, return_exceptions=True)


def test_a_service_that_ends_tells_who_is_at_work_and_turns_the_others_away(together, work):
    """What was stored is said to be; who waits, or comes later, is told at once, and nothing breaks behind them."""
    broke = []

    async def close_in_the_middle():
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: broke.append(context))
        first = asyncio.create_task(together.run("a"))
        await asyncio.to_thread(until, lambda: work.batches, what="the first one is at work")
        waits = asyncio.create_task(together.run("b"))
        await asyncio.sleep(0)
        together.close()
        late = asyncio.create_task(together.run("c"))
        await asyncio.wait([waits, late], timeout=10)
        work.may.set()
        return await asyncio.gather(first, waits, late, return_exceptions=True)

    answer, *turned_away = asyncio.run(close_in_the_middle())
    assert (answer, work.batches, broke) == ("a", [["a"]], [])
    assert [type(one) for one in turned_away] == [ServiceUnavailable] * 2


def test_what_comes_within_a_moment_goes_together(work):
    """Nobody goes alone who comes just before others, though nothing is at work."""
    work.may.set()
    together = Together("test", work, gather_s=0.3, most=4, waiting=6, within_s=20)

    async def one_after_the_other():
        asked = []
        for one in "abc":
            asked.append(asyncio.create_task(together.run(one)))
            for _ in range(3):
                await asyncio.sleep(0)
        return await asyncio.gather(*asked)

    assert asyncio.run(one_after_the_other()) == list("abc")
    assert work.batches == [["a", "b", "c"]]
    together.close()


def test_a_service_that_ends_within_the_moment_begins_nothing(together, work):
    """Who came just before the end is told of it, and nothing is done for him afterwards."""

    async def close_at_once():
        asked = asyncio.create_task(together.run("a"))
        await asyncio.sleep(0)
        together.close()
        told = await asyncio.gather(asked, return_exceptions=True)
        await asyncio.sleep(0.01)  # the moment is over
        return told

    assert [type(one) for one in asyncio.run(close_at_once())] == [ServiceUnavailable]
    assert work.batches == []


def test_what_waits_goes_together_in_its_order_and_in_bounds(together, work):
    """One that comes alone goes alone; those that come meanwhile share a round, so many at most."""
    assert asyncio.run(crowd(together, work, "abcdefg")) == list("abcdefg")
    assert work.batches == [["a"], ["b", "c", "d", "e"], ["f", "g"]]


def test_what_one_is_refused_is_no_other_ones(together, work):
    """Each gets its own answer."""
    a, bad, c = asyncio.run(crowd(together, work, ["a", "bad", "c"]))
    assert (a, type(bad), c) == ("a", NotFound, "c")


def test_work_that_breaks_is_told_to_its_own_and_goes_on(together, work):
    """The round that broke is told so, the next one is done."""
    told = asyncio.run(crowd(together, work, ["a", "broken", "b", "c", "d", "e"]))
    assert [type(one) for one in told[1:5]] == [ZeroDivisionError] * 4
    assert (told[0], told[5]) == ("a", "e")


def test_a_crowd_beyond_the_room_is_told_to_come_again(together, work):
    """Busy, at once."""
    told = asyncio.run(crowd(together, work, "abcdefghi"))
    assert [type(one) for one in told].count(Busy) == 2


def test_what_nobody_waits_for_any_more_is_not_done(work):
    """It was answered that it is not done, so it is not."""
    together = Together("test", work, gather_s=0.001, most=4, waiting=6, within_s=0.2)

    async def late():
        told = await crowd(together, work, "abc", at_work=False)
        work.may.set()
        return told, await together.run("d")

    told, after = asyncio.run(late())
    assert {type(one) for one in told} == {ServiceUnavailable}
    assert after == "d"
    assert work.batches == [["a"], ["d"]]
    together.close()


def deliveries(world):
    with world.store.reading() as tx:
        return tx.deliveries.counts()


def asked(number, **more):
    body = push_body(f"{number + 1:040x}", **more)
    return ("POST", "/webhooks/github", github(body, delivery=f"d-{number}"), body)


def test_a_crowd_of_webhooks_costs_few_transactions(world, client, monkeypatch):
    """A hundred and fifty at once: each is stored with its commit, in a few transactions, and one message is sent for all of them."""
    transactions, receive_all = [], intake.receive_all

    def counted(told, deps):
        transactions.append(len(told))
        return receive_all(told, deps)

    monkeypatch.setattr(intake, "receive_all", counted)
    answers = client.together(*(asked(number) for number in range(150)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["delivery"] for answer in answers}) == 150
    assert deliveries(world) == {"accepted": 150}
    assert sum(transactions) == 150
    assert max(transactions) <= 50
    assert len(transactions) < 30
    until(lambda: world.bell.queue, what="the ring")
    client.app.state.service.bells.webhooks.close()  # it has rung out
    assert len(world.bell.queue) == 1
    with world.store.reading() as tx:
        assert len(tx.commits.known("shop", [f"{number + 1:040x}" for number in range(150)])) == 150
    assert {entry[1] for entry in world.bell.queue} == {(RUN_TESTS,)}


def test_one_webhook_that_breaks_the_transaction_breaks_no_other(world, client, monkeypatch):
    """The others are stored all the same, each once."""
    why_ignored, bad = intake._why_ignored, f"{8:040x}"

    def refuse(push, app):
        if push.head == bad:
            raise Conflict("this one is bad")
        return why_ignored(push, app)

    monkeypatch.setattr(intake, "_why_ignored", refuse)
    answers = client.together(*(asked(number) for number in range(40)))
    assert [answer.status for answer in answers].count(202) == 39
    assert answers[7].status == 503
    assert deliveries(world) == {"accepted": 39}


def test_unsigned_and_unreadable_ones_among_many_are_refused_by_themselves(world, client):
    """401 and 400 are theirs alone."""
    unsigned = ("POST", "/webhooks/github", (), push_body("9" * 40))
    unreadable = ("POST", "/webhooks/github", github(b"{"), b"{")
    answers = client.together(*(asked(number) for number in range(20)), unsigned, unreadable)
    assert [answer.status for answer in answers] == [202] * 20 + [401, 400]
    assert deliveries(world) == {"accepted": 20, "rejected": 1}


def report(number, name="unit"):
    run = {"name": name, "head_sha": f"{number + 1:040x}", "status": "completed", "conclusion": "success"}
    body = json.dumps({"check_run": run, "repository": {"full_name": "acme/shop"}}).encode()
    return ("POST", "/webhooks/github", github(body, event="check_run", delivery=f"r-{number}-{name}"), body)


def pull(number):
    body = json.dumps(
        {"action": "opened", "number": number, "repository": {"full_name": "acme/shop"}}
    ).encode()
    return ("POST", "/webhooks/github", github(body, event="pull_request", delivery=f"p-{number}"), body)


@pytest.mark.parametrize("source", ["command", "external"])
def test_a_crowd_of_reports_and_pull_requests_costs_few_transactions_and_no_pushs_time(
    world, serve, monkeypatch, source
):
    """Each is stored with its own end, many in a transaction; the pushes among them are stored first."""
    shop = world.deps.config.app("shop")
    more = {"source": "external", "required": ("unit",)} if source == "external" else {}
    tests = shop.tests.model_copy(update=more | {"pull_requests": True})
    config = replace(world.deps.config, apps={"shop": shop.model_copy(update={"tests": tests})})
    order, transaction = [], world.store.transaction
    monkeypatch.setattr(world.store, "transaction", lambda: (order.append("…"), transaction())[1])
    receive_all = intake.receive_all
    monkeypatch.setattr(intake, "receive_all", lambda *its: (order.append("push"), receive_all(*its))[1])
    client = serve(replace(world.deps, config=config), Limits(gather_s=0.5, answer_s=60))
    unreadable = ("POST", "/webhooks/github", github(b"{"), b"{")
    asked_for = [
        *(report(number) for number in range(12)),
        *map(pull, range(12)),
        unreadable,
        asked(50),
        asked(51),
    ]
    answers = client.together(*asked_for)
    assert [answer.status for answer in answers] == [202] * 24 + [400] + [202] * 2
    ignored = 0 if source == "external" else 12
    assert deliveries(world) == {
        one: many
        for one, many in (("reported", 24 - ignored), ("ignored", ignored), ("rejected", 1), ("accepted", 2))
        if many
    }
    assert order == ["push", "…", "…", "…", "…"]
    with world.store.reading() as tx:
        kept = [tx.checks.of("shop", f"{number + 1:040x}") for number in range(12)]
        assert tx.apps.poll_is_due("shop", 0.0)
        named = {one.delivery: (one.head, one.id) for one in tx.deliveries.newest("shop", 100)}
    assert [len(one) for one in kept] == [1 if source == "external" else 0] * 12
    for number, answer in enumerate(answers[:12]):
        assert named[f"r-{number}-unit"] == (f"{number + 1:040x}", answer.json["delivery"])


def test_a_report_too_many_is_rejected_and_breaks_no_other(world, serve, monkeypatch):
    """A commit has so many checks at most: what is beyond is recorded as rejected, with the reason."""
    monkeypatch.setattr(store_checks, "MOST_NAMES", 3)
    shop = world.deps.config.app("shop")
    tests = shop.tests.model_copy(update={"source": "external", "required": ("unit",)})
    config = replace(world.deps.config, apps={"shop": shop.model_copy(update={"tests": tests})})
    client = serve(replace(world.deps, config=config))
    answers = client.together(*(report(0, f"check {number}") for number in range(5)), report(1))
    assert [answer.json["outcome"] for answer in answers] == ["reported"] * 3 + ["rejected"] * 2 + [
        "reported"
    ]
    assert "reports of" in answers[3].json["reason"]
    with world.store.reading() as tx:
        assert [one.name for one in tx.checks.of("shop", f"{1:040x}")] == [f"check {one}" for one in range(3)]


def with_apps(world):
    """Three apps of one repository: one tests by itself, one lets CI servers decide, one ships another branch and tests pull requests."""
    shop = world.config.app("shop").model_copy(update={"webhook_repository": "acme/shop"})
    external = shop.tests.model_copy(update={"source": "external", "required": ("unit",)})
    pulls = shop.tests.model_copy(update={"pull_requests": True})
    apps = {
        "shop": shop,
        "checked": shop.model_copy(update={"name": "checked", "tests": external}),
        "next": shop.model_copy(update={"name": "next", "branch": "next", "tests": pulls}),
    }
    return replace(world.deps, config=replace(world.config, apps=apps), settings=settings())


def anything(chance):
    """A webhook that a git server, or somebody else, may send."""
    number = chance.randrange(6)
    sha = f"{number + 1:040x}"
    match chance.randrange(8):
        case 0:
            _, _, headers, body = report(number, chance.choice(["unit", "lint"]))
        case 1:
            _, _, headers, body = pull(number)
        case 2:
            body = chance.choice([b"{", b"[]", push_body("none")])
            headers = github(body)
        case 3:
            body = push_body(sha)
            headers = github(body, secret="another")
        case 4:
            body = push_body(sha, branch=chance.choice(["other", "next"]))
            headers = github(body, delivery=f"b-{number}")
        case 5:
            body = chance.choice([push_body("0" * 40), b'{"zen": "it is"}'])
            headers = github(body, event="ping" if b"zen" in body else "push")
        case _:
            body = push_body(sha)
            headers = github(body, delivery=f"d-{chance.randrange(3)}")
    return Arrival("github", list(headers), body)


def outcomes(deps):
    """Of every stored delivery, by what it is of: never mind its number, nor those that reasons name."""
    with deps.store.reading() as tx:
        told = tx.deliveries.newest(None, 1000)
    return Counter((one.delivery, one.app, one.branch, one.head, one.outcome) for one in told)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_comes_together_ends_as_one_after_the_other(tmp_path, monkeypatch, seed):
    """Pushes, reports, pull requests, pings, nonsense and forgeries, of several apps, sent again or not: each has an answer, and each that is 2xx its own row."""
    chance, answered = random.Random(seed), []
    crowds = [[anything(chance) for _ in range(chance.randrange(1, 50))] for _ in range(4)]
    made = [World(tmp_path / name, monkeypatch, hosts=2) for name in ("together", "apart")]
    together, apart = map(with_apps, made)
    for crowd in crowds:
        answered += arrivals.store(crowd, together)
        for one in crowd:
            arrivals.store([one], apart)
    assert len(answered) == sum(map(len, crowds))
    stored = [one for one in answered if isinstance(one, Received)]
    refused = Counter(type(one) for one in answered if not isinstance(one, Received))
    assert set(refused) <= {Unreadable, SignatureInvalid}
    assert len({one.delivery for one in stored}) == len(stored)
    with together.store.reading() as tx:
        rows = {one.id: one for one in tx.deliveries.newest(None, 1000)}
    for sent, answer in zip((one for crowd in crowds for one in crowd), answered, strict=True):
        if isinstance(answer, Received):
            row = rows[answer.delivery]
            assert (row.outcome, row.delivery) == (answer.outcome, dict(sent.headers)["X-GitHub-Delivery"])
    assert {row.app for row in rows.values() if row.outcome == "reported"} == {"checked", "next"}
    rejected = [row for row in rows.values() if row.outcome == "rejected"]
    assert len(rejected) == refused[Unreadable]
    assert outcomes(together) == outcomes(apart)
    for world in made:
        world.store.close()
