"""Fetching over HTTP from a small real server: logins, redirects, servers that hang."""

import base64
import os
import subprocess
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rollout.errors import ServiceUnavailable
from rollout.releases import git, mirror
from rollout.releases.mirror import Mirror
from rollout.releases.repository import Repository
from tests.support.sources import Source

pytestmark = pytest.mark.needs("git")


class Handler(SimpleHTTPRequestHandler):
    """A folder of repositories for `ada` with the password `s3cret`; odd paths behave oddly."""

    seen: list[str]

    def do_GET(self):
        self.server.seen.append(_git_arguments())
        if self.path.startswith("/redirect"):
            self.send_response(302)
            self.send_header("Location", f"file://{self.directory}/shop.git/info/refs")
            self.end_headers()
        elif self.path.startswith("/hang"):
            self.server.released.wait(30)
        elif self.headers.get("Authorization") != "Basic " + base64.b64encode(b"ada:s3cret").decode():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_):
        """Tests are quiet."""


def _git_arguments():
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
    return "\n".join(line for line in found if "git" in line)


@pytest.fixture
def source(tmp_path):
    source = Source(tmp_path / "source")
    source.head = source.commit({"a": "1"})
    subprocess.run(["git", "clone", "-q", "--bare", source.path, tmp_path / "www/shop.git"], check=True)
    subprocess.run(["git", "-C", tmp_path / "www/shop.git", "update-server-info"], check=True)
    return source


@pytest.fixture
def server(source, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "www")))
    server.seen, server.released = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetch(server, tmp_path):
    """Fetch from a path of the server, as a user with this home."""
    home = tmp_path / "home"
    home.mkdir()

    def run(path, login="", limit_s=None):
        address = f"http://{login}127.0.0.1:{server.server_port}{path}"
        environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
        its = Mirror(tmp_path / "mirrors/shop.git", environment)
        return its.fetch(Repository.parse(address), "main", limit_s)

    run.home = home
    return run


def test_login_in_the_address_works_and_stands_in_no_process_list(fetch, source, server):
    """The password reaches the server, and no argument of any process."""
    assert fetch("/shop.git", "ada:s3cret@") == source.head
    assert any("127.0.0.1" in seen for seen in server.seen)
    assert not any("s3cret" in seen for seen in server.seen)


def test_credential_helper_of_the_user_is_asked(fetch, source):
    """What `git credential` knows for the user of the workers is used."""
    (fetch.home / ".gitconfig").write_text(
        '[credential]\n\thelper = "!echo username=ada; echo password=s3cret; :"\n'
    )
    assert fetch("/shop.git") == source.head


def test_netrc_of_the_user_is_used(fetch, source):
    """A login in ~/.netrc works as it does with git itself."""
    netrc = fetch.home / ".netrc"
    netrc.write_text("machine 127.0.0.1 login ada password s3cret\n")
    netrc.chmod(0o600)
    assert fetch("/shop.git") == source.head


def test_refused_login_is_said_without_the_password(fetch):
    """A wrong password gives an error that names the repository and not the password."""
    with pytest.raises(ServiceUnavailable, match=r"Authentication failed|could not read") as caught:
        fetch("/shop.git", "ada:wr0ng@")
    assert "wr0ng" not in str(caught.value) + caught.value.remedy


def test_redirect_to_a_file_is_not_followed(fetch):
    """A server cannot send git to this machine's disk."""
    with pytest.raises(ServiceUnavailable):
        fetch("/redirect/shop.git")


@pytest.mark.parametrize("limit_s", [None, 60.0])
def test_server_that_hangs_costs_its_limit_and_no_process(fetch, monkeypatch, tmp_path, limit_s):
    """Git and its helpers are killed at the limit; whoever would give them longer than a first fetch may take does not."""
    monkeypatch.setattr(mirror, "FETCH_LIMIT_S", 1.0)
    with pytest.raises(ServiceUnavailable, match="git fetch did not end within 1 s"):
        fetch("/hang/shop.git", limit_s=limit_s)
    until = time.monotonic() + 10
    while "/hang/shop.git" in _git_arguments():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_missing_git_is_said(tmp_path, monkeypatch):
    """Without git the error says what to install."""
    monkeypatch.setattr(git, "_SETTINGS", {})
    (tmp_path / "m").mkdir()
    with pytest.raises(ServiceUnavailable, match="git could not be started"):
        git.Git(tmp_path / "m/x.git", {"PATH": str(tmp_path)}).run("version")
