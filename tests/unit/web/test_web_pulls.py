"""Webhooks of pull requests over HTTP: every app of the repository looks, and nothing else of the body is used."""

import json
from dataclasses import replace

import pytest

from tests.support.web import signature


def hook(body):
    return (
        ("X-GitHub-Event", "pull_request"),
        ("X-GitHub-Delivery", "d-1"),
        ("X-Hub-Signature-256", f"sha256={signature(body)}"),
        ("content-type", "application/json"),
    )


@pytest.mark.parametrize(("name", "outcome"), [("acme/shop", "reported"), ("acme/blog", "ignored")])
def test_a_pull_request_is_stored_and_makes_its_apps_look(world, serve, name, outcome):
    """202 with its outcome; the next poll of an app that tests pull requests is due."""
    app = world.deps.config.app("shop")
    tests = app.tests.model_copy(update={"pull_requests": True})
    config = replace(world.deps.config, apps={"shop": app.model_copy(update={"tests": tests, "poll": 0.0})})
    world.config, world.deps = config, replace(world.deps, config=config)
    body = json.dumps({"action": "opened", "number": 7, "repository": {"full_name": name}}).encode()
    answer = serve(world.deps).post("/webhooks/github", *hook(body), body=body)
    assert (answer.status, answer.json["outcome"]) == (202, outcome)
    with world.store.reading() as tx:
        assert tx.apps.poll_is_due("shop", 0.0) == (outcome == "reported")
        assert tx.commits.newest("shop") is None
