"""Health for those who restart us, numbers for those who watch us."""

import re
from dataclasses import replace
from threading import Event

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rollout.domain.deliveries import Outcome
from rollout.domain.states import CommitState, HostState, RolloutState
from rollout.services import freezes
from rollout.store.store import Store
from rollout.web.service import Limits
from tests.support.web import github, push_body


def numbers(client):
    """{name: {labels' values: number}} as Prometheus reads it."""
    page = client.get("/metrics")
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(page.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_alive_asks_nobody(world, serve):
    """200 with store and broker gone: restarting us would not help."""
    world.bell.deaf = True
    client = serve(replace(world.deps, store=Store("sqlite:////nowhere/at/all/rollout.db")))
    assert client.get("/healthz").json == {"status": "alive"}


def test_ready_when_both_answer(client):
    """200 and both named."""
    answer = client.get("/readyz")
    assert answer.status == 200
    assert answer.json == {"status": "ready", "store": "answers", "broker": "answers"}


def test_not_ready_without_a_broker(world, client):
    """503 that says which one; webhooks are stored all the same; ready again when it is back."""
    world.bell.deaf = True
    answer = client.get("/readyz")
    assert answer.status == 503
    assert answer.json["broker"] == "does not answer"
    assert answer.json["store"] == "answers"
    assert "retry-after" in answer.headers
    body = push_body()
    assert client.post("/webhooks/github", *github(body), body=body).status == 202
    world.bell.deaf = False
    assert client.get("/readyz").status == 200


def test_not_ready_without_a_store(world, serve):
    """503 that says which one, and nothing of where it is."""
    client = serve(replace(world.deps, store=Store("sqlite:////nowhere/at/all/rollout.db")))
    answer = client.get("/readyz")
    assert answer.status == 503
    assert answer.json["store"] == "does not answer"
    assert "nowhere" not in answer.text


def test_not_ready_when_one_hangs(world, serve):
    """Each has a time limit: a broker that accepts and never answers is one that does not answer."""
    end = Event()
    world.bell.alive = lambda: end.wait(60)
    client = serve(world.deps, Limits(probe_s=3))
    try:
        answer = client.get("/readyz")
    finally:
        end.set()
    assert answer.status == 503
    assert answer.json == {"status": "not ready", "store": "answers", "broker": "does not answer"}


def test_whoever_asks_often_asks_the_store_once(world, serve):
    """Health is public, so it is looked up at most once a second."""
    asked = []
    world.bell.alive = lambda: bool(asked.append(1)) or True
    client = serve(world.deps, Limits(fresh_s=60))
    assert {client.get("/readyz").status for _ in range(20)} == {200}
    assert len(asked) == 1


def test_numbers_of_an_empty_store(client):
    """Every state of every app is there from the start, as zero, so that alerts can be written."""
    found = numbers(client)
    assert found["rollout_rollouts"] == {("shop", str(state)): 0.0 for state in RolloutState}
    assert found["rollout_commits"] == {("shop", str(state)): 0.0 for state in CommitState}
    assert found["rollout_hosts"] == {("shop", str(state)): 0.0 for state in HostState}
    assert found["rollout_deliveries"] == {(outcome,): 0.0 for outcome in Outcome}
    assert found["rollout_oldest_unfinished_seconds"] == {("commit",): 0.0, ("rollout",): 0.0}
    assert found["rollout_frozen"] == {("shop",): 0.0}
    assert found["rollout_store_answers"] == {(): 1.0}
    assert "rollout_build_info" in found


def test_a_frozen_app_is_counted_as_one(world, client):
    """So that an alert can tell a freeze that somebody forgot from a quiet day."""
    freezes.freeze(world.config.app("shop"), world.deps, who="ann", why="the sale", until=None)
    assert numbers(client)["rollout_frozen"] == {("shop",): 1.0}


def test_numbers_of_a_halted_rollout(client, halted):
    """They are counted in the store at the moment of asking."""
    body = push_body()
    client.post("/webhooks/github", *github(body), body=body)
    found = numbers(client)
    assert found["rollout_rollouts"]["shop", "done"] == 1
    assert found["rollout_rollouts"]["shop", "halted"] == 1
    assert found["rollout_hosts"]["shop", "failed"] == 2
    assert sum(found["rollout_hosts"].values()) == 6  # of the unfinished rollout only
    assert found["rollout_deliveries"]["accepted",] == 1
    assert found["rollout_oldest_unfinished_seconds"]["rollout",] > 0


def test_numbers_without_a_store(world, serve):
    """The page still answers, says that the store does not, and what runs."""
    client = serve(replace(world.deps, store=Store("sqlite:////nowhere/at/all/rollout.db")))
    found = numbers(client)
    assert found["rollout_store_answers"] == {(): 0.0}
    assert "rollout_rollouts" not in found
    assert "rollout_build_info" in found


def test_two_applications_do_not_share_numbers(world, serve):
    """Each has a registry of its own."""
    one, two = serve(world.deps), serve(world.deps)
    one.post("/webhooks/github", body=b"{}")
    assert "rollout_webhook_answers_total" in numbers(one)
    assert "rollout_webhook_answers_total" not in numbers(two)


@pytest.mark.parametrize("name", ["python_gc", "process_", "shop.git", "web01"])
def test_the_public_page_tells_counts_and_nothing_else(client, name):
    """No host, no repository, nothing of the process: anybody may read it."""
    assert not re.search(name, client.get("/metrics").text)
