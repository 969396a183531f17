"""What `rollout up` starts, and what it tells."""

import socket
import sys

import pytest

from rollout.config import deploy_file
from rollout.errors import Conflict
from rollout.supervisor import flower, up

TEXT = """
[server]
state_dir = "state"
listen = "127.0.0.1:{listen}"
flower = "{flower}"
broker = "{broker}"

[apps.shop]
repository = "shop.git"
release = {{path = "/srv/shop"}}
canary = {{log = "/srv/shop/log"}}
fleet = {{hosts = ["web1", "web2"]}}
"""


def _config(folder, *, listen=8300, flower="127.0.0.1:5555", broker="embedded"):
    (folder / "rollout.toml").write_text(TEXT.format(listen=listen, flower=flower, broker=broker))
    return deploy_file.load(folder / "rollout.toml", {})


def test_every_part_is_there_and_the_broker_goes_first(tmp_path) -> None:
    """Broker, web, three workers, beat and Flower, and only the broker is waited for."""
    parts = up.parts(_config(tmp_path))
    assert [part.name for part in parts] == [
        "broker",
        "web",
        "worker control",
        "worker tests",
        "worker hosts",
        "beat",
        "flower",
    ]
    assert [part.name for part in parts if part.first] == ["broker"]


def test_a_broker_elsewhere_and_flower_off_start_neither(tmp_path) -> None:
    """With broker = redis://… and flower = "" there is neither of them, and no word of Flower."""
    config = _config(tmp_path, flower="", broker="redis://:hush@redis/0")
    names = [part.name for part in up.parts(config)]
    assert (names[0], names[-1]) == ("web", "beat")
    assert not [line for line in up.summary(config) if "Flower" in line]


def test_no_secret_is_in_a_command_line(tmp_path) -> None:
    """Command lines name the program, the part and the file; no password of broker or Flower."""
    config = _config(tmp_path, broker="redis://:hush@redis/0")
    secret = flower.password(tmp_path / "state")
    for part in up.parts(config):
        assert part.command[:4] == (sys.executable, "-u", "-m", "rollout")
        assert part.command[-2:] == ("--config", str(tmp_path / "rollout.toml"))
        assert "hush" not in " ".join(part.command)
        assert secret not in " ".join(part.command)


def test_the_summary_tells_how_to_get_in(tmp_path) -> None:
    """It names the dashboard, Flower with user and password, and the logs."""
    text = "\n".join(up.summary(_config(tmp_path)))
    assert "http://127.0.0.1:8300/" in text
    assert f"user {flower.USER}, password {flower.password(tmp_path / 'state')}" in text
    assert str(tmp_path / "state" / "log") in text


def test_an_address_in_use_is_refused_before_anything_starts(tmp_path) -> None:
    """`up` on an address that another program listens on is a Conflict that names it and its key."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=rf"server\.listen: 127\.0\.0\.1:{port}"):
            up.up(_config(tmp_path, listen=port, broker="redis://redis/0"), print)


def test_the_api_s_token_is_written_once_for_its_owner(tmp_path) -> None:
    """A missing api_token_file is made, for its owner only; one that is there stays."""
    path = tmp_path / "api.token"
    up._write_token(path)
    first = path.read_text()
    assert len(first) > 30
    assert path.stat().st_mode & 0o777 == 0o600
    up._write_token(path)
    assert path.read_text() == first
