"""The API: the command line's JSON, and its orders."""

import asyncio
import json
from dataclasses import replace
from threading import Event

import pytest

from rollout.domain.model import Push
from rollout.domain.states import HostState, RolloutState
from rollout.services import intake
from rollout.services.evidence import MOST_BINS
from rollout.store.store import Store
from rollout.web.orders import MOST_BYTES
from tests.support.traces import on_canary, story
from tests.support.web import BEARER

ESCAPE = "\x1b]0;owned\x07\x1b[31m"


def order(client, number, verb, **body):
    """A POST with a JSON body."""
    sent = json.dumps(body).encode() if body else b""
    return client.post(f"/api/rollouts/{number}/{verb}", BEARER, body=sent)


def test_rollouts_are_the_unfinished_ones(client, halted):
    """GET /api/rollouts is what `status` shows, with the contract's keys."""
    (found,) = client.get("/api/rollouts", BEARER).json
    assert found["id"] == halted.id
    assert found["state"] == "halted"
    assert found["outcome"] == "running"
    assert sum(found["counts"][str(state)] for state in HostState) == found["counts"]["total"] == 6
    assert found["budget"].keys() == {"max_failed", "worst_case"}
    assert found["canary"].keys() == {"status", "reason", "hosts"}
    assert "hosts" not in found


def test_finished_ones_are_there_when_asked_for(client, halted):
    """With finished=1 the past ones follow, newest first, as many as `limit` says."""
    every = client.get("/api/rollouts?finished=1", BEARER).json
    assert [one["state"] for one in every] == ["halted", "done"]
    assert len(client.get("/api/rollouts?finished=1&limit=1", BEARER).json) == 2
    assert len(client.get("/api/rollouts?finished=0", BEARER).json) == 1
    assert len(client.get("/api/rollouts?app=shop", BEARER).json) == 1


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "limit=1000", "limit=%D9%A1"])
def test_a_limit_that_is_none_is_400(client, query):
    """A limit is a number from 1 to 200."""
    assert client.get(f"/api/rollouts?finished=1&{query}", BEARER).status == 400
    assert client.get("/api/rollouts?finished=perhaps", BEARER).status == 400


def test_one_rollout_has_its_hosts_and_its_events(client, halted):
    """GET /api/rollouts/ID is what `show` shows; /events is its timeline."""
    found = client.get(f"/api/rollouts/{halted.id}", BEARER).json
    assert [host["name"] for host in found["hosts"] if host["state"] == "failed"] == ["web02", "web03"]
    events = client.get(f"/api/rollouts/{halted.id}/events", BEARER).json
    assert events[0]["what"] == "plan"
    assert any(event["after"] == "halted" for event in events)


@pytest.mark.parametrize("number", ["999", "9223372036854775807", "9223372036854775808", "9" * 60])
def test_a_rollout_that_is_not_there_is_404(client, number):
    """Numbers that no store could hold are 404 as well."""
    for verb in ("", "/events", "/canary"):
        assert client.get(f"/api/rollouts/{number}{verb}", BEARER).status == 404
    for verb in ("stop", "resume", "retry"):
        assert order(client, number, verb).status == 404


@pytest.mark.parametrize("name", ["x", "-1", "1.0", "0x1", "1e3"])
def test_a_rollout_that_is_no_number_is_404(client, name):
    """An id is digits."""
    assert client.get(f"/api/rollouts/{name}", BEARER).status == 404


def test_an_app_that_is_not_there_is_404(client):
    """The known names are told."""
    for path in ("/api/rollouts", "/api/deliveries", "/api/hosts", "/api/commits/abcd"):
        answer = client.get(f"{path}?app=nothing", BEARER)
        assert answer.status == 404
        assert "shop" in answer.json["remedy"]


def test_hosts_are_what_each_runs(client, halted):
    """GET /api/hosts names every host of the fleet with its recorded release."""
    found = client.get("/api/hosts", BEARER).json
    assert [host["name"] for host in found] == [f"web0{number}" for number in range(1, 7)]
    assert {"app", "name", "address", "release", "verified_at", "drift"} <= found[0].keys()


def test_deliveries_are_the_last_webhooks_and_their_ends(client, world, halted):
    """GET /api/deliveries, newest first, at most `limit`; one that is on its way is not settled."""
    for number, head in enumerate((halted.commit, "f" * 40)):
        push = Push("github", f"d{number}", "push", full_name="shop", branch="main", head=head)
        intake.receive_all([(push, world.config.app("shop"))], world.deps)
    newest, older = client.get("/api/deliveries?app=shop", BEARER).json
    assert (newest["commit"], newest["outcome"], newest["settled_at"]) == ("f" * 40, "accepted", None)
    assert (older["outcome"], older["ref"], older["delivery"]) == ("duplicate", f"rollout {halted.id}", "d0")
    assert older["settled_at"] is not None
    assert client.get("/api/deliveries?limit=1", BEARER).json == [newest]
    assert client.get("/api/deliveries?limit=0", BEARER).status == 400


def test_a_commit_is_found_by_its_hash_and_its_beginning(client, halted):
    """GET /api/commits/<sha>, in either case; with what `rollout why` says of it."""
    found = client.get(f"/api/commits/{halted.commit}", BEARER).json
    assert found["commit"] == halted.commit
    assert found["rollout"] == halted.id
    assert found["because"].startswith(f"in rollout {halted.id}, which is halted: ")
    assert found["expected_at"] is None
    assert client.get(f"/api/commits/{halted.commit.upper()}", BEARER).json == found
    assert client.get("/api/commits/0000", BEARER).status == 409  # both commits of this test start so


def test_a_commit_that_is_not_there_is_404(client, halted):
    """Too short, unknown, no hash at all: 404, and nothing in it is a pattern."""
    for sha in ("000", "ffff", "%25", "____", "zzzz", "0" * 41, "'or'1'='1", "000%25"):
        assert client.get(f"/api/commits/{sha}", BEARER).status == 404, sha


def test_a_stop_is_accepted_and_says_how_long_it_can_take(client, world, halted):
    """202: the state is in the store before the answer; who and why are in the events; the workers do the rest."""
    answer = order(client, halted.id, "stop", reason="a bad day")
    assert answer.status == 202
    assert answer.json["accepted"] is True
    assert answer.json["state"] == "stopping"
    assert answer.json["longest_s"] > 0
    assert world.newest().state is RolloutState.STOPPING
    events = client.get(f"/api/rollouts/{halted.id}/events", BEARER).json
    stop = next(event for event in events if event["what"] == "stop")
    assert (stop["who"], stop["why"]) == ("api", "a bad day")
    assert world.settle().state is RolloutState.ROLLED_BACK


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (rb"slow\u0000 since \u001b[31m14:00", "slow since [31m14:00"),
        (rb"slow \udce4 since \ud83d 14:00", "slow  since  14:00"),
        (b"slow\x00 since\n\x1b14:00", "slow since\n14:00"),
        (b"zu gef\xe4hrlich", "zu gef\ufffdhrlich"),
        (rb"\u0000", "stopped over the API"),
    ],
)
def test_a_stop_is_not_refused_for_the_characters_of_its_reason(client, world, halted, typed, kept):
    """NUL, control characters, half characters, no UTF-8, in the reason and in who: it stops, and the audit has what can be read."""
    body = b'{"reason": "%s", "who": "a\\u0000nn\\ud800"}' % typed
    assert client.post(f"/api/rollouts/{halted.id}/stop", BEARER, body=body).status == 202
    with world.store.reading() as tx:
        stops = [one for one in tx.events.of_subject("shop", f"rollout {halted.id}") if one.what == "stop"]
    assert [(one.who, one.why) for one in stops] == [("api for ann", kept)]


def test_a_stop_is_not_refused_for_the_length_of_its_reason(client, world, halted):
    """An alert's whole text: it stops, and the audit has what a reason has room for, with a mark where it was cut."""
    answer = order(client, halted.id, "stop", reason="slow! " * 1000, who="n" * 500)
    assert answer.status == 202
    with world.store.reading() as tx:
        stops = [one for one in tx.events.of_subject("shop", f"rollout {halted.id}") if one.what == "stop"]
    assert [(one.who, len(one.why), one.why[-1]) for one in stops] == [(f"api for {'n' * 99}…", 2000, "…")]


def test_resume_keeps_the_reasons_plain_text(client, world, halted):
    """The other orders are read by the same door."""
    answer = order(client, halted.id, "resume", accept_failed=True, reason="known\0 broken\ud800")
    assert answer.status == 200
    with world.store.reading() as tx:
        events = tx.events.of_subject("shop", "host web02")
    assert "known broken" in {one.why for one in events}


def test_a_stop_that_keeps_leaves_hosts_as_they_are(client, world, halted):
    """`keep` ends it without a way back."""
    before = world.runs()
    assert order(client, halted.id, "stop", keep=True).status == 202
    assert world.settle().state is RolloutState.STOPPED
    assert world.runs() == before


def test_stopping_again_changes_nothing(client, world, halted):
    """What is stopped stays so; what is done cannot be stopped, and the way back is named."""
    order(client, halted.id, "stop")
    world.settle()
    again = order(client, halted.id, "stop")
    assert again.status == 202
    assert again.json["state"] == "rolled_back"
    assert again.json["acknowledged_at"]
    done = order(client, 1, "stop")
    assert done.status == 409
    assert "rollback" in done.json["remedy"]


def test_resume_wants_the_failures_accepted_with_a_reason(client, world, halted):
    """409 while too many have failed, naming them; with a person's word it goes on."""
    refused = order(client, halted.id, "resume")
    assert refused.status == 409
    assert "web02, web03" in refused.json["message"]
    assert order(client, halted.id, "resume", accept_failed=True).status == 409
    answer = order(client, halted.id, "resume", accept_failed=True, reason="known broken")
    assert answer.status == 200
    assert answer.json["state"] == "fanning_out"
    assert world.settle().state is RolloutState.DONE


def test_a_canary_is_accepted_only_where_it_was_judged(client, halted):
    """accept_canary of a rollout that halted elsewhere is 409."""
    accepted = order(client, halted.id, "resume", accept_canary=True, accept_failed=True, reason="sure")
    assert accepted.status == 409


def test_retry_tries_the_failed_ones_again(client, world, halted):
    """The rollout goes on, and ends well when the hosts are mended."""
    for host in world.fleet.hosts.values():
        host.unhealthy.clear()
    answer = order(client, halted.id, "retry")
    assert answer.status == 200
    assert answer.json["outcome"] == "running"
    assert world.settle().state is RolloutState.DONE
    assert order(client, halted.id, "retry").status == 409


def test_an_order_that_makes_no_sense_is_400_and_changes_nothing(client, world, halted):
    """Broken JSON, unknown keys, wrong types: a clear 400 that does not repeat what was sent."""
    for body in (
        b"{",
        b"[]",
        b"1",
        b"null",
        b'{"kep": true}',
        b'{"keep": "yes"}',
        b'{"reason": 7}',
        b'{"reason": ["' + b"x" * 3000 + b'"]}',
        b'{"reason": ' + b"[" * 20_000,
        b'{"keep": ' + b"1" * 20_000 + b"}",
    ):
        answer = client.post(f"/api/rollouts/{halted.id}/stop", BEARER, body=body)
        assert answer.status == 400, body
        assert "xxx" not in answer.text
    assert world.newest().state is RolloutState.HALTED


def test_an_order_that_is_too_large_is_413(client, halted):
    """Orders are small."""
    answer = client.post(f"/api/rollouts/{halted.id}/stop", BEARER, body=[b" " * MOST_BYTES, b" "])
    assert answer.status == 413


def test_a_check_report_is_refused_while_no_app_waits_for_one(client):
    """409 with what to set: a report that nobody reads must not look taken."""
    body = b'{"name": "unit", "state": "success"}'
    answer = client.post(f"/api/commits/{'a' * 40}/checks", BEARER, body=body)
    assert answer.status == 409
    assert "tests.source" in answer.json["remedy"] or "external" in answer.json["remedy"]


@pytest.mark.parametrize(
    "path", ["/api/rollouts", "/api/rollouts/1", "/api/deliveries", "/api/hosts", "/api/commits/abcd", "/"]
)
def test_a_store_that_does_not_answer_is_503(world, serve, path):
    """Reads say so, with Retry-After."""
    client = serve(replace(world.deps, store=Store("sqlite:////nowhere/at/all/rollout.db")))
    answer = client.get(path, BEARER)
    assert answer.status == 503
    assert "retry-after" in answer.headers


def test_a_stop_gets_through_while_webhooks_and_reads_wait(world, serve, halted):
    """Orders have threads of their own: with every other lane full of work that hangs, a stop is accepted."""
    client, end = serve(world.deps), Event()
    lanes = client.app.state.service.lanes

    async def crowd_and_stop():
        crowd = [
            asyncio.create_task(lane.run(lambda: end.wait(20)))
            for lane in (lanes.reads, lanes.metrics)
            for _ in range(5)
        ]
        lanes.webhooks._work = lambda some: [end.wait(20) for _ in some]
        crowd += [asyncio.create_task(lanes.webhooks.run(None)) for _ in range(5)]
        await asyncio.sleep(0)
        answer = await client.asking("POST", f"/api/rollouts/{halted.id}/stop", (BEARER,), b"")
        end.set()
        await asyncio.gather(*crowd, return_exceptions=True)
        return answer

    assert client.runner.run(crowd_and_stop()).status == 202


def test_what_acts_on_a_terminal_is_not_in_the_json(world, client, halted):
    """Control characters of commits, reasons and hosts are gone; the words stay."""
    sha = world.workshop.push(f"bad{ESCAPE}subject\nmore")
    intake.read_branch(world.deps.config.app("shop"), world.deps, who="test", why="pushed")
    answer = client.get(f"/api/commits/{sha}", BEARER)
    assert answer.json["subject"] == "bad]0;owned[31msubject"
    assert "\\u001b" not in answer.text
    assert answer.body.isascii()


def test_a_canary_has_its_evidence(client, world, halted):
    """GET /api/rollouts/ID/canary: the word, its reason, numbers and policy, and bins of canary and baseline."""
    with world.store.transaction() as tx:
        tx.samples.forget(halted.id)
        tx.samples.add(halted.id, story(rate=on_canary(0.5), until=20, history=700))
        tx.rollouts.update(tx.rollouts.get(halted.id), canary_status="fail", canary_reason=f"{ESCAPE}bad")
    found = client.get(f"/api/rollouts/{halted.id}/canary", BEARER).json
    assert set(found) == {"status", "reason", "explanation", "t", "evidence", "policy", "bins"}
    assert (found["status"], found["reason"]) == ("fail", "outage")
    assert found["explanation"] == "]0;owned[31mbad"
    assert found["evidence"]["requests"] > 0
    assert found["policy"]["on_inconclusive"] == "halt"
    assert len(found["bins"]) <= MOST_BINS
    assert {"requests", "bad", "observed"} <= found["bins"][-1]["baseline"].keys()


def test_a_canary_without_samples_has_no_evidence(client, world, halted):
    """Null and empty, not an error; the token is wanted as everywhere."""
    with world.store.transaction() as tx:
        tx.samples.forget(halted.id)
    found = client.get(f"/api/rollouts/{halted.id}/canary", BEARER).json
    assert (found["reason"], found["t"], found["evidence"], found["bins"]) == (None, None, {}, [])
    assert client.get(f"/api/rollouts/{halted.id}/canary").status == 401
