"""Settings of a process and its secrets."""

import stat

import pytest

from rollout.config import secret_files
from rollout.config.environment import for_programs
from rollout.config.settings import Settings
from rollout.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("WEBHOOK_SECRET", "API_TOKEN", "LEASE_S", "SLOTS"):
        monkeypatch.delenv(f"ROLLOUT_{name}", raising=False)


def test_defaults(loaded):
    """Without variables and files the defaults hold and there is no secret."""
    settings = Settings.load(loaded())
    assert (settings.lease_s, settings.reconcile_s, settings.gate_s, settings.slots) == (15.0, 5.0, 0.25, 40)
    assert (settings.webhook_secrets, settings.api_token) == ((), None)


def test_the_environment_wins_over_files(loaded, tmp_path, monkeypatch):
    """Secrets of the environment replace those of the files; several lines are several secrets."""
    (tmp_path / "webhook.secret").write_text("from-file\n")
    (tmp_path / "api.token").write_text("token-from-file\n")
    config = loaded()
    assert Settings.load(config).secret_texts() == ("from-file",)
    assert Settings.load(config).api_token.get_secret_value() == "token-from-file"
    monkeypatch.setenv("ROLLOUT_WEBHOOK_SECRET", "new\n\n old \n")
    monkeypatch.setenv("ROLLOUT_API_TOKEN", "token")
    assert Settings.load(config).secret_texts() == ("new", "old")
    assert Settings.load(config).api_token.get_secret_value() == "token"


def test_no_secret_is_in_the_representation(loaded, monkeypatch):
    """Neither repr nor str of the settings holds a secret."""
    monkeypatch.setenv("ROLLOUT_WEBHOOK_SECRET", "hunter2")
    monkeypatch.setenv("ROLLOUT_API_TOKEN", "hunter2")
    settings = Settings.load(loaded())
    assert "hunter2" not in f"{settings!r} {settings}"


@pytest.mark.parametrize("name", ["LEASE_S", "SLOTS", "LOG_LEVEL"])
def test_a_bad_variable_is_named(loaded, monkeypatch, name):
    """A variable that is no good is refused by name, without its value."""
    monkeypatch.setenv(f"ROLLOUT_{name}", "hunter2")
    with pytest.raises(ConfigError, match=f"ROLLOUT_{name}") as caught:
        Settings.load(loaded())
    assert "hunter2" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_secret(loaded, tmp_path):
    """Some editors begin a file with it."""
    (tmp_path / "webhook.secret").write_bytes(b"\xef\xbb\xbfhunter2hunter2hunter2\n")
    assert Settings.load(loaded()).secret_texts() == ("hunter2hunter2hunter2",)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xff"])
def test_a_secret_file_without_a_secret_refuses_to_start(loaded, tmp_path, content):
    """An empty secret file is an error: an empty secret would let everybody in."""
    (tmp_path / "webhook.secret").write_bytes(content)
    with pytest.raises(ConfigError, match=r"webhook\.secret"):
        Settings.load(loaded())


def test_a_folder_is_no_secret(loaded, tmp_path):
    """A secret file that cannot be read is an error that says so."""
    (tmp_path / "webhook.secret").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        Settings.load(loaded())


def test_a_created_secret_is_private_and_kept(tmp_path):
    """A new secret can be read by its owner only, and one that is there is never replaced."""
    path = tmp_path / "new" / "api.token"
    assert secret_files.create(path) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (first,) = secret_files.read(path)
    assert len(first) == 64
    assert secret_files.create(path) is None
    assert secret_files.read(path) == [first]


def test_programs_do_not_see_our_variables():
    """What we start for others gets the environment without ROLLOUT_ variables."""
    assert for_programs({"PATH": "/bin", "ROLLOUT_API_TOKEN": "x"}) == {"PATH": "/bin"}


@pytest.fixture
def time_passes(monkeypatch):
    """Moves the clock of whoever watches a file."""
    now = [1000.0]
    monkeypatch.setattr(secret_files.time, "monotonic", lambda: now[0])

    def pass_time():
        now[0] += secret_files.READ_AGAIN_S

    return pass_time


def test_secrets_of_a_file_are_exchanged_without_a_restart(loaded, tmp_path, time_passes):
    """A line more is taken, a line less is refused, within a second; a copy of the settings follows too."""
    file = tmp_path / "webhook.secret"
    file.write_text("old\n")
    settings = Settings.load(loaded()).model_copy(update={"slots": 3})
    for text, taken in (("old\nnew\n", ("old", "new")), ("new\n", ("new",))):
        file.write_text(text)
        time_passes()
        assert settings.secret_texts() == taken


@pytest.mark.parametrize("spoil", ["empty", "gone", "no text"])
def test_a_file_of_secrets_in_trouble_changes_nothing(loaded, tmp_path, capfd, time_passes, spoil):
    """Those that were read last are taken, the log says so once, and the next good file counts."""
    file = tmp_path / "webhook.secret"
    file.write_text("old\n")
    settings = Settings.load(loaded())
    match spoil:
        case "gone":
            file.unlink()
        case "empty":
            file.write_text("\n")
        case _:
            file.write_bytes(b"\xff")
    for _ in range(3):
        time_passes()
        assert settings.secret_texts() == ("old",)
    printed = "".join(capfd.readouterr())
    assert printed.count("webhook_secrets_kept") == 1
    file.write_text("new\n")
    time_passes()
    assert settings.secret_texts() == ("new",)


def test_secrets_of_the_environment_are_not_watched(loaded, tmp_path, monkeypatch, time_passes):
    """The file does not count beside them, whatever is written to it."""
    monkeypatch.setenv("ROLLOUT_WEBHOOK_SECRET", "of the environment")
    settings = Settings.load(loaded())
    (tmp_path / "webhook.secret").write_text("of the file\n")
    time_passes()
    assert settings.secret_texts() == ("of the environment",)
