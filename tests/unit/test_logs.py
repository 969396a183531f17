"""What is logged, and above all what is not."""

import logging

import pytest
import structlog

from rollout import logs
from rollout.config.settings import Settings

PASSWORD = "hunter" + "2"  # a traceback shows the lines of this file


@pytest.fixture
def configure():
    """Configures logging; the tests' own comes back."""
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield lambda log_format: logs.configure(Settings(log_format=log_format))
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def fail(address):
    """With a secret in a local variable, and in its message."""
    raise OSError(f"cannot connect to {address}")


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize(
    "log", [logging.getLogger("celery"), structlog.get_logger()], ids=["foreign", "ours"]
)
def test_a_traceback_shows_no_secret(configure, capsys, log, log_format):
    """I13: neither a local variable nor the error's own message brings a password into the log."""
    configure(log_format)
    try:
        fail(f"redis://:{PASSWORD}@127.0.0.1:1/0")
    except OSError:
        log.exception("it broke")
    told = capsys.readouterr().err
    assert "cannot connect to redis://:***@127.0.0.1:1/0" in told
    assert PASSWORD not in told
