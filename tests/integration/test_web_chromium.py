"""The page in a real browser: hostile text is shown and does not run."""

import socket
import threading

import pytest
import uvicorn
from playwright.sync_api import sync_playwright

from rollout.services import intake
from rollout.web import server
from tests.support.processes import until
from tests.support.web import TOKEN, an_application
from tests.support.world import World

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> end"
CHROMIUM = "/usr/bin/chromium"


@pytest.fixture
def port(tmp_path, monkeypatch):
    """A service with a halted rollout whose commit has a hostile subject, and one more such commit behind it."""
    world = World(tmp_path, monkeypatch, hosts=6, fan_out="max_failed = 1")
    world.bell.alive = lambda: True
    world.push()
    world.settle()
    bad = world.push(HOSTILE)
    for name in ("web02", "web03"):
        world.fleet.hosts[name].unhealthy.add(bad)
    world.settle()
    world.workshop.push("next " + HOSTILE)
    intake.read_branch(world.config.app("shop"), world.deps, who="test", why="pushed")
    listening = socket.create_server(("127.0.0.1", 0))
    serving = uvicorn.Server(server.configured(an_application(world.deps)))
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]})
    thread.start()
    until(lambda: serving.started, what="uvicorn listens")
    yield listening.getsockname()[1]
    serving.should_exit = True
    thread.join(30)
    listening.close()
    world.store.close()


@pytest.mark.needs("chromium")
def test_a_hostile_commit_is_shown_and_does_not_run(port):
    """With the token as password the page shows the subject as text; no script runs, the style sheet applies."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            context = browser.new_context(http_credentials={"username": "rollout", "password": TOKEN})
            page = context.new_page()
            complaints, asked = [], []
            page.on("console", lambda message: complaints.append(message.text))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(f"http://127.0.0.1:{port}/")
            assert page.title() == "rollout"
            words = page.locator("body").inner_text()
            assert words.count("<script>document.title='owned'</script>") == 2
            assert "halted" in words
            assert page.locator("script, img").count() == 0
            assert page.locator("rect.failed").count() == 1
            width = page.locator("svg.bar").bounding_box()["width"]
            assert page.locator("rect.failed").bounding_box()["width"] == pytest.approx(
                width * 2 / 6, rel=0.05
            )
            assert not [text for text in complaints if "Content Security Policy" in text]
            assert {url for url in asked if "favicon" not in url} == {f"http://127.0.0.1:{port}/"}
        finally:
            browser.close()


@pytest.mark.needs("chromium")
def test_a_browser_without_the_password_sees_nothing(port):
    """401, and none of the page."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            context = browser.new_context(http_credentials={"username": "rollout", "password": "wrong"})
            answer = context.request.get(f"http://127.0.0.1:{port}/")
            assert answer.status == 401
            assert "shop" not in answer.text()
        finally:
            browser.close()
