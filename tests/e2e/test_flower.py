"""Flower shows a rollout to people, and nothing secret."""

import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.support.system import SECRET, TOKEN, System, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.needs("sshd", "git", "chromium"), pytest.mark.timeout(300)]


def test_flower_lists_the_tasks_of_a_rollout_by_name_with_hosts_and_no_secret():
    """While a rollout runs, the task page in a real browser has the tasks' names and the hosts' names in their arguments."""
    with System(hosts=4, flower=True) as system:
        password = (system.folder / "state" / "flower.password").read_text().strip()
        sha = system.push("seen in flower")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = browser.new_context(
                http_credentials={"username": "rollout", "password": password}
            ).new_page()
            wait_for(lambda: system.rollout_of(sha), seconds=60, why="a rollout in progress")

            def shown():
                page.goto(f"http://127.0.0.1:{system.flower}/tasks")
                page.fill("input[type=search]", "web002")
                page.wait_for_timeout(500)  # the table asks the server as one types
                return page.inner_text("#tasks-table")

            text = wait_for(
                lambda: (seen := shown()) and "rollout.prepare_host" in seen and "web002" in seen and seen,
                seconds=60,
                every=0.5,
                why="Flower to list rollout.prepare_host with its host",
            )
            browser.close()
        system.reaches(sha, "done")
        secrets = [SECRET, TOKEN, password, (Path(system.sshd.identity_file)).read_text().splitlines()[1]]
        exposed = text + _logs(system) + _process_list() + _events(system) + _broker(system)
        assert [secret for secret in secrets if secret in exposed] == []


def _logs(system):
    return "".join(file.read_text(errors="replace") for file in (system.folder / "state" / "log").glob("*"))


def _process_list():
    return subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout


def _events(system):
    newest = system.newest()
    return str(system.rollout("show", newest["id"])) + str(system.rollout("log", newest["id"]))


def _broker(system):
    """Everything that the broker wrote down."""
    files = (system.folder / "state").rglob("*.aof")
    return "".join(file.read_bytes().decode(errors="replace") for file in files)
