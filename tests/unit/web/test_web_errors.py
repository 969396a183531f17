"""One table from our errors to HTTP."""

import json

import pytest

from rollout import errors
from rollout.web import errors as web_errors
from rollout.web.errors import STATUS, answer, status_of
from tests.support.web import BEARER


def below(cls):
    """The class and everything that is derived from it."""
    return {cls}.union(*(below(child) for child in cls.__subclasses__()))


WANTED = {
    errors.ConfigError: 500,
    errors.UnknownName: 404,
    errors.NotFound: 404,
    errors.StaleWrite: 409,
    errors.IllegalTransition: 409,
    errors.LeaseLost: 409,
    errors.ServiceUnavailable: 503,
    errors.Unreachable: 502,
    errors.MetricUnavailable: 502,
    errors.SignatureInvalid: 401,
    errors.Unreadable: 400,
    web_errors.Unauthorized: 401,
    web_errors.TooLarge: 413,
    web_errors.TooSlow: 408,
    web_errors.Busy: 503,
}


@pytest.mark.parametrize("error", WANTED)
def test_an_error_has_the_status_that_says_the_same(error):
    """The nearest class of the table counts."""
    given = error("app", "x", ["y"]) if error is errors.UnknownName else error("what")
    assert status_of(given) == WANTED[error]


def test_no_direct_child_of_the_tree_is_left_to_the_default():
    """Only RolloutError itself is a plain 500: every branch of the tree was thought of."""
    assert {
        cls
        for cls in errors.RolloutError.__subclasses__()
        if cls.__module__ == "rollout.errors" or cls.__module__.startswith("rollout.web")
    } <= set(STATUS)


def test_the_answer_has_one_shape():
    """{error, message, remedy}; 503 says when to come back; a body that is not wanted ends the connection."""
    told = answer(errors.ServiceUnavailable("gone", remedy="start it"))
    assert json.loads(told.body) == {"error": "ServiceUnavailable", "message": "gone", "remedy": "start it"}
    assert told.headers["retry-after"] == "10"
    assert answer(web_errors.TooLarge("x")).headers["connection"] == "close"


def test_control_characters_are_in_no_error():
    """A message may carry what a host said."""
    assert b"u001b" not in answer(errors.NotFound("\x1b[31mred")).body


def test_what_nobody_expected_is_told_without_its_words(client, monkeypatch):
    """500 in the same shape; the exception's text stays in the log."""

    def broken(*_):
        raise ValueError("a password")

    monkeypatch.setattr("rollout.services.views.fleet", broken)
    told = client.get("/api/hosts", BEARER)
    assert told.status == 500
    assert told.json["error"] == "RolloutError"
    assert "password" not in told.text
