"""Flower behind its door: a real HTTP client knocks on every route with every method (FAULTS S21)."""

import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from flower.urls import handlers

from rollout.supervisor import flower
from tests.support.processes import until

SECRET = "not-in-any-command-line"
METHODS = ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD")
SERVE = "import sys; from rollout.supervisor.flower import serve; serve('127.0.0.1', int(sys.argv[1]), sys.stdin.read(), 'celery_app_of_this_test:app')"
APP = "import celery\napp = celery.Celery(broker='memory://')\n"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _routes() -> list[str]:
    """Every route that Flower has, with something where a name is wanted."""
    patterns = [handler.regex.pattern if hasattr(handler, "regex") else handler[0] for handler in handlers]
    return [
        re.sub(r"\(\.[+*]\)|\.\*", "x", pattern).rstrip("$").replace("/?", "")
        for pattern in patterns
        if pattern != ".*"
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of a running Flower, as `rollout flower` serves it."""
    folder = tmp_path_factory.mktemp("flower")
    (folder / "celery_app_of_this_test.py").write_text(APP)
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(port)],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{folder}:{Path.cwd()}"},
        text=True,
    )
    process.stdin.write(SECRET)
    process.stdin.close()

    def answers() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    until(answers, what="Flower listens")
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    assert process.wait(20) == 0


@pytest.fixture
def known(site):
    """A client that knows the password."""
    with httpx.Client(base_url=site, auth=(flower.USER, SECRET)) as client:
        yield client


@pytest.mark.parametrize("page", ["/", "/workers", "/tasks", "/static/css/flower.css"])
def test_pages_are_shown_to_who_knows_the_password(known, page) -> None:
    """With user and password the pages are there."""
    assert known.get(page).status_code == 200


@pytest.mark.parametrize("route", _routes())
def test_nothing_is_shown_without_the_password(site, route) -> None:
    """No route, health and static files included, answers a stranger or a wrong password with anything but 401."""
    assert httpx.get(site + route).status_code == 401
    assert httpx.get(site + route, auth=(flower.USER, "wrong")).status_code == 401
    assert httpx.get(site + route, headers={"Authorization": "Basic !!"}).status_code == 401


@pytest.mark.parametrize("route", _routes())
def test_every_method_but_get_is_refused(known, route) -> None:
    """On every route every other method is answered 403, whoever asks."""
    assert {method: known.request(method, route).status_code for method in METHODS} == dict.fromkeys(
        METHODS, 403
    )


@pytest.mark.parametrize("route", [*(route for route in _routes() if route.startswith("/api")), "/metrics", "/healthcheck", "/login", "//api/workers", "/x/../api/workers", "/static/../app.py", "/API/workers"])  # fmt: skip
def test_api_and_metrics_do_not_exist(known, route) -> None:
    """API, metrics and health are not there, however their path is spelled."""
    answer = known.send(
        httpx.Request("GET", str(known.base_url).rstrip("/") + route), auth=(flower.USER, SECRET)
    )
    assert answer.status_code == 404


def test_the_table_of_tasks_asks_with_get(known) -> None:
    """The script that is sent makes the table ask with GET, and the table answers GET."""
    assert "options.type = 'GET'" in known.get("/static/js/flower.js").text
    question = {"draw": 1, "start": 0, "length": 10, "order[0][column]": 0, "columns[0][data]": "name"}
    assert known.get("/tasks/datatable", params=question).json()["data"] == []


def test_the_tasks_page_has_a_column_for_arguments(known) -> None:
    """Arguments, where the hosts' names are, have a column on the page of tasks."""
    assert 'data-column="args"' in known.get("/tasks").text or ">args<" in known.get("/tasks").text


def test_the_password_is_made_once_for_its_owner_only(tmp_path) -> None:
    """The first call makes the password, later ones read it; the file is its owner's."""
    first = flower.password(tmp_path)
    assert len(first) >= 24
    assert flower.password(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "flower.password").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["flower.password"]
